"""The adaptive exponential integrate-and-fire neuron."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.errors import require_choice, require_positive
from eprop.neurons._base import Neuron, Outputs
from eprop.neurons._constants import FINITE, POSITIVE, TIME_CONSTANT, Constant, Range, constant
from eprop.neurons._izhikevich import Jump
from eprop.neurons._surrogate import Exponential, Surrogate, spike


class AdExState(NamedTuple):
    v: Float[Array, "batch neuron"]
    w: Float[Array, "batch neuron"]


class AdEx(Neuron):
    """Adaptive exponential integrate-and-fire neuron (Brette & Gerstner 2005), in forward Euler steps.

        where v_{t-1} > v_peak:  v <- v_reset,  w <- w + b    (else v, w as they were)
        v_t = v + dt/c_m (-g_l (v - e_l) + g_l delta_t exp((v - v_th)/delta_t) - w + input_scale I_t)
        w_t = w + dt/tau_w (a (v - e_l) - w)
        z_t = H(v_t - v_peak)
        psi_t = gamma/psi_width exp(min(0, v_t - v_peak) / psi_width)

    Voltages are in mV, `w` and the scaled current in pA, `c_m` in pF, conductances in nS, times in ms. The constants
    are those of 2005, a regular spiking neuron.

    State or recurrent signal: both parts of the reset are functions of the neuron's own `v_{t-1}`, so they are state
    and nothing is read from `z_prev`. The reset of `v` wipes the trace of the membrane, in e-prop as in BPTT; the
    trace of `w` lives on, with `tau_w`.

    Detached: the spike in the reset of `v`, and in the jump of `w` where `jump` is `"detached"`; the initial `v = e_l`.

    Args:
        c_m: capacitance, pF, above 0; number or array `[]` or `[neuron]` (trainable), as are all up to `input_scale`.
        g_l, e_l: conductance (nS, above 0) and reversal potential (mV) of the leak.
        v_th, delta_t: threshold and slope factor of the exponential, mV (the paper's V_T, Delta_T).
        a: adaptation below the threshold, nS.
        b: jump of `w` at a spike, pA.
        tau_w: time constant of `w`, ms, above 0.
        v_reset: membrane after a spike, mV.
        v_peak: where a spike is cut, mV.
        input_scale: factor on the current, above 0: 1000 takes it in nA, so that a current of 1 makes a neuron fire.
        psi_width: fall of the pseudo-derivative below the peak, mV, above 0 (20: from rest to threshold).
        jump: `"kept"`: as adaptation in `ALIF`, e-prop and BPTT differentiate through the spike that raises `w`;
            `"detached"`: neither does.
        dt: length of a step, ms.
        surrogate: pseudo-derivative, of `(v - v_peak) / psi_width`.

    Departs from the source: the paper lets the spike rise to 20 mV; here it is cut at `v_th + 5 delta_t`, from where
    the exponential carries it there within a step of 1 ms. So the exponential stays finite, and so does the membrane's
    trace, which grows with its slope (17-fold in that step). Euler steps, in place of an exact solver.

    Raises:
        InvalidSetting: for a constant out of range or an unknown option.

    Example:
        >>> import jax.numpy as jnp
        >>> from eprop.neurons import AdEx
        >>> neuron, z, spikes = AdEx(), jnp.zeros((1, 1)), 0
        >>> state = neuron.init((1, 1))
        >>> for _ in range(100):
        ...     state, z = neuron.step(state, (jnp.ones((1, 1)),), z)
        ...     spikes += int(z[0, 0])
        >>> spikes
        5

    Reference: Brette & Gerstner 2005, doi:10.1152/jn.00686.2005.
    """

    spiking: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, Range]] = {
        "c_m": POSITIVE, "g_l": POSITIVE, "e_l": FINITE, "v_th": FINITE, "delta_t": POSITIVE, "a": FINITE, "b": FINITE,
        "tau_w": TIME_CONSTANT, "v_reset": FINITE, "v_peak": FINITE, "input_scale": POSITIVE, "psi_width": POSITIVE,
    }  # fmt: skip

    c_m: Constant = constant(281.0)
    g_l: Constant = constant(30.0)
    e_l: Constant = constant(-70.6)
    v_th: Constant = constant(-50.4)
    delta_t: Constant = constant(2.0)
    a: Constant = constant(4.0)
    b: Constant = constant(80.5)
    tau_w: Constant = constant(144.0)
    v_reset: Constant = constant(-70.6)
    v_peak: Constant = constant(-40.4)
    input_scale: Constant = constant(1000.0)
    psi_width: float = eqx.field(default=20.0, static=True)
    jump: Jump = eqx.field(default="kept", static=True)
    dt: float = eqx.field(default=1.0, static=True)
    surrogate: Surrogate = Exponential()

    def __check_init__(self) -> None:
        require_positive(dt=self.dt)
        require_choice("jump", self.jump, ("detached", "kept"))

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> AdExState:
        return AdExState(
            v=jnp.broadcast_to(jax.lax.stop_gradient(jnp.asarray(self.e_l, dtype)), shape), w=jnp.zeros(shape, dtype)
        )

    def step(self, state: AdExState, currents: tuple[Array, ...], z_prev: Array) -> tuple[AdExState, Outputs]:
        (current,) = currents
        fired = self._spike(state.v)
        if self.jump == "detached":
            fired = jax.lax.stop_gradient(fired)
        v = jnp.where(state.v > self.v_peak, self.v_reset, state.v)
        w = state.w + self.b * fired
        rise = self.g_l * self.delta_t * jnp.exp((v - self.v_th) / self.delta_t)
        slope = -self.g_l * (v - self.e_l) + rise - w + self.input_scale * current
        w = w + self.dt / self.tau_w * (self.a * (v - self.e_l) - w)
        v = v + self.dt / self.c_m * slope
        return AdExState(v, w), self._spike(v)

    def _spike(self, v):
        return spike((v - self.v_peak) / self.psi_width, self.surrogate)

    def observe(self, before: AdExState, state: AdExState) -> dict[str, Array]:
        """`v` is shown as far as 1 mV above the peak: in its last step it shoots beyond."""
        v = jnp.minimum(state.v, self.v_peak + 1.0)
        return {"v": v, "threshold": self.v_peak * jnp.ones_like(v), "w": state.w}
