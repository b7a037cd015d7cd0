"""Leaky integrate-and-fire neurons, without (LIF) and with (ALIF) an adaptive threshold."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eprop.errors import require, require_choice, require_positive, whole_number
from eprop.neurons._base import Neuron, Outputs
from eprop.neurons._constants import FINITE, NOT_NEGATIVE, THRESHOLD, TIME_CONSTANT, Constant, Range, constant
from eprop.neurons._surrogate import Surrogate, Triangular, spike

InputGain = Literal["one", "one-minus-alpha"]
AdaptationGain = Literal["one", "one-minus-rho"]
ThresholdScaling = Literal["baseline", "adaptive"]
PseudoDerivativeScaling = Literal["threshold", "none"]
Reset = Literal["subtract", "hard"]


class LIFState(NamedTuple):
    v: Float[Array, "batch neuron"]
    r: Int[Array, "batch neuron"] | None


class ALIFState(NamedTuple):
    v: Float[Array, "batch neuron"]
    b: Float[Array, "batch neuron"]
    r: Int[Array, "batch neuron"] | None


def refractory_period(default: int = 1) -> Any:
    """The field `n_refractory`: a whole number of steps, at least 1."""
    return eqx.field(default=default, converter=_whole_steps, static=True)


def _whole_steps(value: Any) -> int:
    return whole_number("n_refractory", value, 1, " (1 means none)")


class IntegrateAndFire(Neuron):
    """The membrane, the spike and the refractory period that LIF and ALIF share."""

    num_currents: ClassVar[int] = 1
    spiking: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, Range]] = {"tau_m": TIME_CONSTANT, "v_th": THRESHOLD}

    tau_m: Constant = constant(20.0)
    v_th: Constant = constant(0.6)
    n_refractory: int = refractory_period()
    dt: float = eqx.field(default=1.0, static=True)
    surrogate: Surrogate = Triangular()
    input_gain: InputGain = eqx.field(default="one", static=True)
    pseudo_derivative_scaling: PseudoDerivativeScaling = eqx.field(default="threshold", static=True)
    pseudo_derivative_in_refractory: bool = eqx.field(default=False, static=True)

    def __check_init__(self) -> None:
        require_positive(dt=self.dt)
        require_choice("input_gain", self.input_gain, ("one", "one-minus-alpha"))
        require_choice("pseudo_derivative_scaling", self.pseudo_derivative_scaling, ("threshold", "none"))

    def _quiet(self, shape: tuple[int, ...]) -> Int[Array, "batch neuron"] | None:
        return None if self.n_refractory == 1 else jnp.zeros(shape, jnp.int32)

    def _integrate(self, v, current, z_prev):
        """`v_t = alpha v_{t-1} + I_t - v_th z_{t-1}`."""
        alpha = jnp.exp(-self.dt / self.tau_m)
        gain = 1.0 - alpha if self.input_gain == "one-minus-alpha" else 1.0
        return alpha * v + gain * current - self.v_th * z_prev

    def _fire(self, v_scaled, r):
        """The threshold crossing, the spike that refractoriness lets through, and the next `r`.

        Both spikes are written as one heaviside each, whose derivative is masked where it must be: the
        engine then stores one number a neuron and step, the pseudo-derivative.
        """
        scale = self.v_th if self.pseudo_derivative_scaling == "none" else 1.0  # undoes the 1/v_th of v_scaled
        crossing = spike(v_scaled, self.surrogate, scale)
        if r is None:
            return crossing, crossing, None
        refractory = r > 0
        masked = scale if self.pseudo_derivative_in_refractory else jnp.where(refractory, 0.0, scale)
        z = spike(v_scaled, self.surrogate, masked) - jax.lax.stop_gradient(jnp.where(refractory, crossing, 0.0))
        fired = (jax.lax.stop_gradient(z) > 0.5).astype(r.dtype)
        return crossing, z, jnp.clip(r + self.n_refractory * fired - 1, 0, self.n_refractory)


class LIF(IntegrateAndFire):
    """Leaky integrate-and-fire neuron, in the discrete time of Bellec et al. 2020 (eqs 6-7).

        v_t = alpha v_{t-1} + I_t - v_th z_{t-1},          alpha = exp(-dt / tau_m)
        z_t = H((v_t - v_th) / v_th), and 0 while refractory
        r_t = clip(r_{t-1} + n_refractory z_t - 1, 0, n_refractory)

    With a hard reset, as in most simulators and in NIR, a spike sets the membrane instead of lowering it:

        v_t = alpha ((1 - z_{t-1}) v_{t-1} + z_{t-1} v_reset) + I_t

    Args:
        tau_m: membrane time constant, ms, above 0; number or array `[]` or `[neuron]` (trainable).
        v_th: threshold, in the units of the currents, above 0; number or array (trainable).
        n_refractory: smallest interval between two spikes, in steps; 1 means no refractory period.
        dt: length of a step, ms.
        surrogate: pseudo-derivative of the spike.
        input_gain: `"one"` (2020) or `"one-minus-alpha"` (2019): factor on `I_t`.
        pseudo_derivative_scaling: `"threshold"` (2020): `psi = gamma/v_th max(0, ...)`; `"none"`
            (the released e-prop 2 code): without `1/v_th`.
        pseudo_derivative_in_refractory: False (2020): `psi` = 0 while refractory; True (the
            released e-prop 2 code): kept.
        reset: `"subtract"` (2020): a spike takes `v_th` off the membrane; `"hard"`: it sets it to `v_reset`.
        v_reset: membrane after a hard reset; number or array (trainable).

    Raises:
        InvalidSetting: for a constant out of range, an unknown option, or a `v_reset` without a hard reset.

    Detached: the refractory count `r`. The reset comes from `z_prev`: e-prop cuts it, BPTT keeps it. A hard reset is a
    factor too: a spike wipes the membrane's trace, `dv_t/dv_{t-1} = alpha (1 - z_{t-1})`, in e-prop as in BPTT; what
    e-prop cuts is `dv_t/dz_{t-1} = alpha (v_reset - v_{t-1})`.

    Example:
        >>> import jax.numpy as jnp
        >>> from eprop.neurons import LIF
        >>> lif = LIF(tau_m=20.0, v_th=0.6, n_refractory=5)
        >>> state, z = lif.step(lif.init((1, 2)), (jnp.array([[0.5, 0.7]]),), jnp.zeros((1, 2)))
        >>> z.tolist()
        [[0.0, 1.0]]

    Reference: Bellec et al. 2020, doi:10.1038/s41467-020-17236-y.
    """

    ranges: ClassVar[Mapping[str, Range]] = {**IntegrateAndFire.ranges, "v_reset": FINITE}

    reset: Reset = eqx.field(default="subtract", static=True)
    v_reset: Constant = constant(0.0)

    def __check_init__(self) -> None:
        require_choice("reset", self.reset, ("subtract", "hard"))
        given = not isinstance(self.v_reset, (int, float)) or self.v_reset != 0
        require(self.reset == "hard" or not given, f"v_reset = {self.v_reset}: only with reset = 'hard'")

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> LIFState:
        return LIFState(v=jnp.zeros(shape, dtype), r=self._quiet(shape))

    def step(self, state: LIFState, currents: tuple[Array, ...], z_prev: Array) -> tuple[LIFState, Outputs]:
        (current,) = currents
        if self.reset == "hard":
            alpha = jnp.exp(-self.dt / self.tau_m)
            gain = 1.0 - alpha if self.input_gain == "one-minus-alpha" else 1.0
            v = alpha * ((1.0 - z_prev) * state.v + z_prev * self.v_reset) + gain * current
        else:
            v = self._integrate(state.v, current, z_prev)
        _, z, r = self._fire((v - self.v_th) / self.v_th, state.r)
        return LIFState(v, r), z

    def observe(self, before: LIFState, state: LIFState) -> dict[str, Array]:
        return {"v": state.v, "threshold": self.v_th * jnp.ones_like(state.v)}


class ALIF(IntegrateAndFire):
    """LIF neuron with an adaptive threshold (Bellec et al. 2020, eqs 8-10).

        v_t = alpha v_{t-1} + I_t - v_th z_{t-1}
        A_t = v_th + beta b_t
        z_t = H((v_t - A_t) / v_th), and 0 while refractory
        b_{t+1} = rho b_t + z_t,                           rho = exp(-dt / tau_a)

    The state carries `b_{t+1}`: adaptation is updated at the end of a step, from the spike as a
    function of the neuron's own state, so e-prop and BPTT both differentiate through it.
    With a per-neuron `beta` one population mixes LIF (`beta` = 0) and ALIF neurons: the LSNN.

    Args (beside those of `LIF`):
        tau_a: adaptation time constant, ms, above 0; number or array (trainable).
        beta: threshold increase a unit of `b`, at least 0; number or array `[neuron]` (trainable).
        adaptation_gain: `"one"` (2020) or `"one-minus-rho"` (2019): factor on `z_t` in `b`.
        threshold_scaling: `"baseline"` (2020): `v_scaled = (v - A) / v_th`; `"adaptive"` (2018,
            2019): `(v - A) / A`.
        adaptation_masked: True (`EligALIF`): `b` counts emitted spikes; False (`CustomALIF`, the
            TIMIT code): it counts threshold crossings, also while refractory.

    Example:
        >>> from eprop.neurons import ALIF
        >>> ALIF(tau_a=2000.0, beta=0.0174).init((1, 3)).b.shape
        (1, 3)

    Reference: Bellec et al. 2020, doi:10.1038/s41467-020-17236-y.
    """

    ranges: ClassVar[Mapping[str, Range]] = {**IntegrateAndFire.ranges, "tau_a": TIME_CONSTANT, "beta": NOT_NEGATIVE}

    tau_a: Constant = constant(200.0)
    beta: Constant = constant(0.1)
    adaptation_gain: AdaptationGain = eqx.field(default="one", static=True)
    threshold_scaling: ThresholdScaling = eqx.field(default="baseline", static=True)
    adaptation_masked: bool = eqx.field(default=True, static=True)

    def __check_init__(self) -> None:
        require_choice("adaptation_gain", self.adaptation_gain, ("one", "one-minus-rho"))
        require_choice("threshold_scaling", self.threshold_scaling, ("baseline", "adaptive"))

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> ALIFState:
        return ALIFState(v=jnp.zeros(shape, dtype), b=jnp.zeros(shape, dtype), r=self._quiet(shape))

    def step(self, state: ALIFState, currents: tuple[Array, ...], z_prev: Array) -> tuple[ALIFState, Outputs]:
        (current,) = currents
        rho = jnp.exp(-self.dt / self.tau_a)
        v = self._integrate(state.v, current, z_prev)
        threshold = self.v_th + self.beta * state.b
        scale = self.v_th if self.threshold_scaling == "baseline" else threshold
        crossing, z, r = self._fire((v - threshold) / scale, state.r)
        counted = z if self.adaptation_masked else crossing
        gain = 1.0 - rho if self.adaptation_gain == "one-minus-rho" else 1.0
        return ALIFState(v, rho * state.b + gain * counted, r), z

    def observe(self, before: ALIFState, state: ALIFState) -> dict[str, Array]:
        return {"v": state.v, "threshold": self.v_th + self.beta * before.b}
