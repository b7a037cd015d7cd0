"""Leaky integrate-and-fire neuron with a synaptic current."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eprop.neurons._base import Outputs
from eprop.neurons._constants import TIME_CONSTANT, Constant, Range, constant
from eprop.neurons._lif import IntegrateAndFire


class CubaLIFState(NamedTuple):
    v: Float[Array, "batch neuron"]
    i: Float[Array, "batch neuron"]
    r: Int[Array, "batch neuron"] | None


class CubaLIF(IntegrateAndFire):
    """Current-based LIF neuron: what arrives at a synapse leaks into the membrane over `tau_syn`.

        i_t = a i_{t-1} + I_t,                             a = exp(-dt / tau_syn)
        v_t = alpha v_{t-1} + i_t - v_th z_{t-1},          alpha = exp(-dt / tau_m)
        z_t = H((v_t - v_th) / v_th), and 0 while refractory

    Args (beside those of `LIF`):
        tau_syn: time constant of the synaptic current, ms, above 0; number or array (trainable).

    State or recurrent signal: the synaptic current is state. The reset is read from `z_prev`: e-prop cuts it, BPTT
    keeps it, as in `LIF`.

    Detached: the refractory count `r`.

    Departs from the source: Neftci et al. let the membrane see the current of the step before; here a spike reaches
    it in the same step, as in `LIF`. (`tau_syn` far below `dt` is then `LIF`.)

    Example:
        >>> import jax.numpy as jnp
        >>> from eprop.neurons import CubaLIF
        >>> neuron, zeros = CubaLIF(tau_syn=10.0), jnp.zeros((1, 1))
        >>> state, _ = neuron.step(neuron.init((1, 1)), (zeros + 0.2,), zeros)
        >>> state, _ = neuron.step(state, (zeros,), zeros)  # no new input, and the membrane still rises
        >>> round(float(state.v[0, 0]), 3)
        0.371

    Reference: Neftci, Mostafa, Zenke 2019, doi:10.1109/MSP.2019.2931595.
    """

    ranges: ClassVar[Mapping[str, Range]] = {**IntegrateAndFire.ranges, "tau_syn": TIME_CONSTANT}

    tau_syn: Constant = constant(5.0)

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> CubaLIFState:
        zeros = jnp.zeros(shape, dtype)
        return CubaLIFState(v=zeros, i=zeros, r=self._quiet(shape))

    def step(self, state: CubaLIFState, currents: tuple[Array, ...], z_prev: Array) -> tuple[CubaLIFState, Outputs]:
        (current,) = currents
        i = jnp.exp(-self.dt / self.tau_syn) * state.i + current
        v = self._integrate(state.v, i, z_prev)
        _, z, r = self._fire((v - self.v_th) / self.v_th, state.r)
        return CubaLIFState(v, i, r), z

    def observe(self, before: CubaLIFState, state: CubaLIFState) -> dict[str, Array]:
        return {"v": state.v, "threshold": self.v_th * jnp.ones_like(state.v), "i": state.i}
