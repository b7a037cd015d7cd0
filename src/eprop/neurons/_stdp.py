"""LIF and ALIF neurons whose membrane forgets at a spike: their traces have both halves of STDP."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.errors import require_choice, require_positive
from eprop.neurons._base import Neuron, Outputs
from eprop.neurons._constants import NOT_NEGATIVE, THRESHOLD, TIME_CONSTANT, Constant, Range, constant
from eprop.neurons._lif import PseudoDerivativeScaling, refractory_period
from eprop.neurons._surrogate import Surrogate, Triangular


class STDPLIFState(NamedTuple):
    v: Float[Array, "batch neuron"]
    since: Float[Array, "batch neuron"]  # steps since the last spike; a float, for the decay of v depends on it


class STDPALIFState(NamedTuple):
    v: Float[Array, "batch neuron"]
    b: Float[Array, "batch neuron"]
    since: Float[Array, "batch neuron"]


class _WipedMembrane(Neuron):
    """The membrane, the wiping and the spike that STDPLIF and STDPALIF share."""

    num_currents: ClassVar[int] = 1
    spiking: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, Range]] = {"tau_m": TIME_CONSTANT, "v_th": THRESHOLD}

    tau_m: Constant = constant(20.0)
    v_th: Constant = constant(0.6)
    n_refractory: int = refractory_period(5)
    dt: float = eqx.field(default=1.0, static=True)
    surrogate: Surrogate = Triangular()
    pseudo_derivative_scaling: PseudoDerivativeScaling = eqx.field(default="threshold", static=True)

    def __check_init__(self) -> None:
        require_positive(dt=self.dt)
        require_choice("pseudo_derivative_scaling", self.pseudo_derivative_scaling, ("threshold", "none"))

    @property
    def _wiped_steps(self) -> int:
        """Steps from a spike (not counted) to the first one whose membrane remembers again (not counted)."""
        return max(self.n_refractory - 1, 1)

    def _long_ago(self, shape: tuple[int, ...], dtype: Any) -> Float[Array, "batch neuron"]:
        return jnp.full(shape, self._wiped_steps + 1, dtype)

    def _integrate(self, v, since, current):
        """`v_t = alpha v_{t-1} + I_t`, or `I_t` alone where the membrane is wiped."""
        kept = (since > self._wiped_steps).astype(v.dtype)
        return jnp.exp(-self.dt / self.tau_m) * kept * v + current

    def _fire(self, v_scaled, since):
        """The spike, and the steps since the last one at the end of this step."""
        refractory = (since < self.n_refractory).astype(v_scaled.dtype)
        scale = self.v_th if self.pseudo_derivative_scaling == "none" else 1.0
        z = _spike_of_both_signs(v_scaled, refractory, self.surrogate, scale)
        fired = jax.lax.stop_gradient(z) > 0.5
        return z, jnp.where(fired, 0.0, since).astype(since.dtype)

    def _advance(self, since):
        """Steps since the last spike, one step on; counted no further than it matters."""
        return jax.lax.stop_gradient(jnp.minimum(since + 1.0, self._wiped_steps + 1.0))


def _spike_of_both_signs(
    v_scaled: Float[Array, "*shape"],
    refractory: Float[Array, "*shape"],
    surrogate: Surrogate,
    scale: float | Float[Array, "..."],
) -> Float[Array, "*shape"]:
    """`H(v_scaled)`, 0 where refractory, with derivative `scale * surrogate(v_scaled)`, or `-scale * gamma` there."""

    @jax.custom_jvp
    def heaviside(v, refractory, scale):
        return (v > 0).astype(v.dtype) * (1.0 - refractory)

    @heaviside.defjvp
    def _(primals, tangents):
        v, refractory, scale = primals
        psi = jnp.where(refractory > 0, -surrogate.dampening_factor, surrogate(v))
        return heaviside(v, refractory, scale), scale * psi * tangents[0]

    return heaviside(v_scaled, refractory, scale)


class STDPLIF(_WipedMembrane):
    """LIF neuron whose membrane forgets at a spike, with a negative pseudo-derivative while refractory.

        v_t = alpha k_t v_{t-1} + I_t,                     alpha = exp(-dt / tau_m)
        k_t = 0 in the step after a spike and while refractory, else 1
        z_t = H((v_t - v_th) / v_th), and 0 while refractory
        psi_t = gamma/v_th max(0, 1 - |(v_t - v_th)/v_th|), and -gamma/v_th while refractory

    Refractory are the `n_refractory - 1` steps after a spike. The trace is `e_t = psi_t eps_t` with `eps_t = alpha
    k_t eps_{t-1} + x_t`: a presynaptic spike before the neuron's own strengthens the synapse as in LIF, one in the
    steps after it weakens it by `gamma/v_th`.

    State or recurrent signal: the neuron's own spike acts through `k_t`, which stands in the state (`since`). It is not
    read from `z_prev`. So e-prop keeps the wiping, of the membrane and of its trace, as BPTT does; there is no
    subtractive reset that e-prop would cut.

    Detached: `since`, and with it `k_t`: no derivative runs through the fact that a spike wipes the membrane.

    Args:
        tau_m: membrane time constant, ms, above 0; number or array `[]` or `[neuron]` (trainable).
        v_th: threshold, in the units of the currents, above 0; number or array (trainable).
        n_refractory: smallest interval between two spikes, in steps; 1 means none (and no negative branch).
        dt: length of a step, ms.
        surrogate: pseudo-derivative of the spike outside the refractory period; its `dampening_factor` is `gamma`.
        pseudo_derivative_scaling: `"threshold"`: `psi` as above; `"none"` (the source): without `1/v_th`.

    Departs from the source: `psi` is divided by `v_th`, as in `LIF`; the step compares `v_t` after its update; the
    membrane is wiped in every refractory step (versions of the authors' code do so in all of them, or in the last
    only).

    Raises:
        InvalidSetting: for a constant out of range or an unknown option.

    Example:
        >>> import jax.numpy as jnp
        >>> from eprop.neurons import STDPLIF
        >>> neuron, zeros = STDPLIF(v_th=1.0, n_refractory=3), jnp.zeros((1, 1))
        >>> state, z = neuron.step(neuron.init((1, 1)), (zeros + 1.5,), zeros)
        >>> state, z_next = neuron.step(state, (zeros + 0.2,), z)
        >>> float(z[0, 0]), float(z_next[0, 0]), round(float(state.v[0, 0]), 3)
        (1.0, 0.0, 0.2)

    Reference: Traub et al. 2020, arXiv 2006.09988; van der Veen 2022, arXiv 2201.07602, and his released code.
    """

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> STDPLIFState:
        return STDPLIFState(v=jnp.zeros(shape, dtype), since=self._long_ago(shape, dtype))

    def step(self, state: STDPLIFState, currents: tuple[Array, ...], z_prev: Array) -> tuple[STDPLIFState, Outputs]:
        (current,) = currents
        since = self._advance(state.since)
        v = self._integrate(state.v, since, current)
        z, since = self._fire((v - self.v_th) / self.v_th, since)
        return STDPLIFState(v, since), z

    def observe(self, before: STDPLIFState, state: STDPLIFState) -> dict[str, Array]:
        return {"v": state.v, "threshold": self.v_th * jnp.ones_like(state.v)}


class STDPALIF(_WipedMembrane):
    """STDPLIF with an adaptive threshold.

        v_t = alpha k_t v_{t-1} + I_t                      (k_t, psi_t as in `STDPLIF`, with A_t for v_th in v - v_th)
        A_t = v_th + beta b_t
        z_t = H((v_t - A_t) / v_th), and 0 while refractory
        b_{t+1} = rho b_t + z_t,                           rho = exp(-dt / tau_a)

    The traces that follow: `eps_v = alpha k eps_v + x`, `eps_a' = psi eps_v + (rho - psi beta) eps_a`,
    `e = psi (eps_v - beta eps_a)`, with the same `psi`, negative while refractory, in both.

    State or recurrent signal: the wiping as in `STDPLIF`. Adaptation is state, as in `ALIF`: the state carries
    `b_{t+1}`, and both e-prop and BPTT differentiate through the spike that feeds it.

    Args (beside those of `STDPLIF`):
        tau_a: adaptation time constant, ms, above 0; number or array (trainable).
        beta: threshold increase a unit of `b`, at least 0; number or array `[neuron]` (trainable).

    Detached, departs from the source, reference: as in `STDPLIF`.

    Example:
        >>> from eprop.neurons import STDPALIF
        >>> STDPALIF(tau_a=2000.0, beta=0.0174).init((1, 3)).b.shape
        (1, 3)
    """

    ranges: ClassVar[Mapping[str, Range]] = {**_WipedMembrane.ranges, "tau_a": TIME_CONSTANT, "beta": NOT_NEGATIVE}

    tau_a: Constant = constant(200.0)
    beta: Constant = constant(0.1)

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> STDPALIFState:
        zeros = jnp.zeros(shape, dtype)
        return STDPALIFState(v=zeros, b=zeros, since=self._long_ago(shape, dtype))

    def step(self, state: STDPALIFState, currents: tuple[Array, ...], z_prev: Array) -> tuple[STDPALIFState, Outputs]:
        (current,) = currents
        since = self._advance(state.since)
        v = self._integrate(state.v, since, current)
        z, since = self._fire((v - self.v_th - self.beta * state.b) / self.v_th, since)
        return STDPALIFState(v, jnp.exp(-self.dt / self.tau_a) * state.b + z, since), z

    def observe(self, before: STDPALIFState, state: STDPALIFState) -> dict[str, Array]:
        return {"v": state.v, "threshold": self.v_th + self.beta * before.b}
