"""The leak of the readout, as one more state component of the neuron."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eprop.errors import require, require_choice, require_positive, whole_number
from eprop.neurons._base import Outputs, State, Wrapper
from eprop.neurons._constants import TIME_CONSTANT, Constant, Range, constant

ReadoutGain = Literal["one", "one-minus-kappa"]


class FilteredState(NamedTuple):
    neuron: State
    z_bar: Float[Array, "batch neuron"]
    phase: Int[Array, "batch neuron"] | None = None  # steps into the frame, where frames are longer than a step


def _whole_frame(value: Any) -> int:
    return whole_number("frame", value, 1, " step")


class Filtered(Wrapper):
    """A neuron whose output the readout sees through a leaky filter (Bellec et al. 2020, eq. 11).

        z_bar_t = kappa z_bar_{t-1} + c z_t,               kappa = exp(-dt / tau_out)

    `y_t = kappa y_{t-1} + W_out z_t` equals `W_out z_bar_t`: the leak stands in front of `W_out`, the
    readout has no memory, and the filtered trace `e_bar` is one more component of the eligibility
    vector. Outputs are two: `z` to the other neurons, `z_bar` to the readout.

    A readout that sees frames of several steps, as in the authors' speech network, filters the mean of a frame:

        z_bar_f = kappa z_bar_{f-1} + (c / frame) sum_{t in f} z_t,      kappa = exp(-frame dt / tau_out)

    Step by step that is `z_bar_t = k_t z_bar_{t-1} + (c / frame) z_t` with `k_t = kappa` at the first step of a
    frame and 1 elsewhere: at a frame's last step, the only one that is read, `z_bar_t` is `z_bar_f`.

    Args:
        neuron: the model to wrap.
        tau_out: time constant of the readout, ms, above 0; number or array (trainable).
        gain: `"one"` (c = 1: TIMIT, e-prop 2) or `"one-minus-kappa"` (the tutorials).
        frame: steps a frame, at least 1.
        dt: length of a step, ms; None for the neuron's.

    Raises:
        InvalidSetting: for a constant out of range, an unknown option, or a `dt` that is not the neuron's.

    Example:
        >>> from eprop.neurons import LIF, Filtered
        >>> Filtered(LIF(), tau_out=20.0).init((1, 3)).z_bar.shape
        (1, 3)
    """

    ranges: ClassVar[Mapping[str, Range]] = {"tau_out": TIME_CONSTANT}

    tau_out: Constant = constant(20.0)
    gain: ReadoutGain = eqx.field(default="one", static=True)
    frame: int = eqx.field(default=1, converter=_whole_frame, static=True)
    dt: float | None = eqx.field(default=None, static=True)

    def __check_init__(self) -> None:
        require_positive(dt=self.dt)
        require_choice("gain", self.gain, ("one", "one-minus-kappa"))
        own = getattr(self.neuron, "dt", None)
        require(
            self.dt is None or own is None or self.dt == own,
            f"dt = {self.dt}: {type(self.neuron).__name__} has steps of {own} ms, and the filter the same steps",
        )

    @property
    def time_step(self) -> float:
        """Length of a frame, ms: a step of the filter."""
        return self.frame * (self.neuron.time_step if self.dt is None else self.dt)

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> FilteredState:
        phase = None if self.frame == 1 else jnp.zeros(shape, jnp.int32)
        return FilteredState(self.neuron.init(shape, dtype), jnp.zeros(shape, dtype), phase)

    def step(self, state: FilteredState, currents: tuple[Array, ...], z_prev: Array) -> tuple[FilteredState, Outputs]:
        inner, z = self.neuron.step(state.neuron, currents, z_prev)
        z_bar = self.filter(state.z_bar, z, state.phase)
        phase = None if state.phase is None else (state.phase + 1) % self.frame
        return FilteredState(inner, z_bar, phase), (z, z_bar)

    def filter(
        self,
        z_bar: Float[Array, "batch neuron"],
        z: Float[Array, "batch neuron"],
        phase: Int[Array, "*shape"] | None = None,
    ) -> Array:
        """One step of the filter: the new `z_bar`."""
        kappa, c = self._factors()
        if phase is None:
            return kappa * z_bar + c * z
        return jnp.where(phase == 0, kappa, 1.0) * z_bar + c / self.frame * z

    def over_time(self, z: Float[Array, "time batch channel"]) -> Float[Array, "frame batch channel"]:
        """`z_bar` of all frames, from rest: log2(frames) doublings, `z_bar_f += kappa^h z_bar_{f-h}`, h = 1, 2, 4, ...

        Linear in `z` and the same for all neurons, so that it may as well be taken of `z W_out`.
        """
        kappa, c = self._factors()
        z_bar, held, decay = c * z.reshape(-1, self.frame, *z.shape[1:]).mean(1), 1, kappa
        while held < len(z_bar):
            earlier = jnp.concatenate([jnp.zeros_like(z_bar[:held]), z_bar[:-held]])
            z_bar, held, decay = z_bar + decay * earlier, 2 * held, decay * decay
        return z_bar

    def _factors(self) -> tuple[Array, Array | float]:
        """`kappa`, of a frame, and `c`."""
        kappa = jnp.exp(-self.time_step / self.tau_out)
        return kappa, 1.0 - kappa if self.gain == "one-minus-kappa" else 1.0

    def observe(self, before: FilteredState, state: FilteredState) -> dict[str, Array]:
        return self.neuron.observe(before.neuron, state.neuron)
