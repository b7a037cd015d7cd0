"""The Izhikevich neuron of 2003."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.errors import require_choice, require_positive
from eprop.neurons._base import Neuron, Outputs
from eprop.neurons._constants import FINITE, POSITIVE, Constant, Range, constant
from eprop.neurons._surrogate import Exponential, Surrogate, spike

Jump = Literal["detached", "kept"]


class IzhikevichState(NamedTuple):
    v: Float[Array, "batch neuron"]
    u: Float[Array, "batch neuron"]


class Izhikevich(Neuron):
    """Izhikevich neuron (2003), with the forward Euler step of its published script.

        where v_{t-1} > v_peak:  v <- c,  u <- u + d       (else v, u as they were)
        twice:  v <- v + dt/2 (0.04 v^2 + 5 v + 140 - u + input_scale I_t)
        u_t = u + dt a (b v_t - u)
        z_t = H(v_t - v_peak)
        psi_t = gamma exp(min(0, v_t - v_peak) / psi_width)

    `v` is in mV, time in ms; `u` and the scaled current in mV/ms. The presets are those of 2003: `regular_spiking`,
    `fast_spiking`, `bursting` (intrinsically bursting), `chattering`.

    State or recurrent signal: both parts of the reset are functions of the neuron's own `v_{t-1}`, so they are state
    and nothing is read from `z_prev`. The reset of `v` wipes the trace of the membrane, in e-prop as in BPTT; the
    trace of `u` lives on. (Were the reset a recurrent signal, e-prop's trace would go on through a membrane that no
    longer exists: it grows as the membrane does, fifty-fold in the step that starts at 29 mV.)

    Detached: the spike in the reset of `v`, and in the jump of `u` where `jump` is `"detached"`; the initial `u = b v`.

    Args:
        a: rate of recovery, 1/ms; number or array `[]` or `[neuron]` (trainable), as are all up to `input_scale`.
        b: sensitivity of `u` to `v`, 1/ms.
        c: membrane after a spike, mV.
        d: jump of `u` at a spike, mV/ms.
        v_peak: where a spike is cut, mV.
        input_scale: factor on the current, above 0. At 10, a current of 1 makes a neuron fire, as in the other models
            here; at 1, currents are the script's.
        psi_width: fall of the pseudo-derivative below the peak, mV, above 0.
        jump: `"detached"` (Traub et al.): no derivative through the spike that raises `u`. `"kept"`: as adaptation in
            `ALIF`; then `psi d` of the membrane's trace goes into that of `u`, which no reset wipes.
        dt: length of a step, ms; 1 in the script.
        surrogate: pseudo-derivative, of `(v - v_peak) / psi_width`.

    Gradients are large: in 20 neurons over 200 steps, that of e-prop had a norm of 1e4 to 1e8 (`"kept"`: 1e8 to 1e34),
    that of BPTT, which follows the upstroke from neuron to neuron, 1e58 to 1e110. Clip them, or use an optimiser that
    scales.

    Departs from the source: the script records a spike one step later, when it resets (spikes act on other neurons at
    the same time as here); it compares with `>=`; it has no `input_scale`. Traub et al. take one Euler step for `v`.

    Raises:
        InvalidSetting: for a constant out of range or an unknown option.

    Example:
        >>> import jax.numpy as jnp
        >>> from eprop.neurons import Izhikevich
        >>> neuron, z, spikes = Izhikevich.fast_spiking(), jnp.zeros((1, 1)), 0
        >>> state = neuron.init((1, 1))
        >>> for _ in range(100):
        ...     state, z = neuron.step(state, (jnp.ones((1, 1)),), z)
        ...     spikes += int(z[0, 0])
        >>> spikes
        7

    Reference: Izhikevich 2003, doi:10.1109/TNN.2003.820440; as an e-prop neuron: Traub et al. 2020, arXiv 2006.09988.
    """

    spiking: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, Range]] = {
        "a": POSITIVE, "b": FINITE, "c": FINITE, "d": FINITE, "v_peak": FINITE, "input_scale": POSITIVE,
        "psi_width": POSITIVE,
    }  # fmt: skip

    a: Constant = constant(0.02)
    b: Constant = constant(0.2)
    c: Constant = constant(-65.0)
    d: Constant = constant(8.0)
    v_peak: Constant = constant(30.0)
    input_scale: Constant = constant(10.0)
    psi_width: float = eqx.field(default=30.0, static=True)
    jump: Jump = eqx.field(default="detached", static=True)
    dt: float = eqx.field(default=1.0, static=True)
    surrogate: Surrogate = Exponential()

    def __check_init__(self) -> None:
        require_positive(dt=self.dt)
        require_choice("jump", self.jump, ("detached", "kept"))

    @classmethod
    def regular_spiking(cls, **fields: Any) -> "Izhikevich":
        """Excitatory cortical neurons, most of them: the rate falls after the first spikes."""
        return cls(**_preset(0.02, 0.2, -65.0, 8.0, fields))

    @classmethod
    def fast_spiking(cls, **fields: Any) -> "Izhikevich":
        """Inhibitory cortical neurons: fast, with little adaptation."""
        return cls(**_preset(0.1, 0.2, -65.0, 2.0, fields))

    @classmethod
    def bursting(cls, **fields: Any) -> "Izhikevich":
        """Intrinsically bursting: a burst at the onset of a current, single spikes then."""
        return cls(**_preset(0.02, 0.2, -55.0, 4.0, fields))

    @classmethod
    def chattering(cls, **fields: Any) -> "Izhikevich":
        """Bursts again and again."""
        return cls(**_preset(0.02, 0.2, -50.0, 2.0, fields))

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> IzhikevichState:
        v = jnp.full(shape, -65.0, dtype)
        return IzhikevichState(v=v, u=(jax.lax.stop_gradient(self.b) * v).astype(dtype))

    def step(
        self, state: IzhikevichState, currents: tuple[Array, ...], z_prev: Array
    ) -> tuple[IzhikevichState, Outputs]:
        (current,) = currents
        fired = self._spike(state.v)
        if self.jump == "detached":
            fired = jax.lax.stop_gradient(fired)
        v = jnp.where(state.v > self.v_peak, self.c, state.v)
        u = state.u + self.d * fired
        for _ in range(2):
            v = v + 0.5 * self.dt * (0.04 * v * v + 5.0 * v + 140.0 - u + self.input_scale * current)
        u = u + self.dt * self.a * (self.b * v - u)
        return IzhikevichState(v, u), self._spike(v)

    def _spike(self, v):
        return spike((v - self.v_peak) / self.psi_width, self.surrogate, self.psi_width)

    def observe(self, before: IzhikevichState, state: IzhikevichState) -> dict[str, Array]:
        """`v` is shown as far as 1 mV above the peak: in its last step it shoots far beyond."""
        v = jnp.minimum(state.v, self.v_peak + 1.0)
        return {"v": v, "threshold": self.v_peak * jnp.ones_like(v), "u": state.u}


def _preset(a: float, b: float, c: float, d: float, fields: dict[str, Any]) -> dict[str, Any]:
    return {"a": a, "b": b, "c": c, "d": d, **fields}
