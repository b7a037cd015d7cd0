"""The leak of the readout, as one more state component of the neuron (contract C2)."""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.errors import require_choice, require_positive
from eprop.neurons._base import Neuron, State
from eprop.neurons._lif import Constant

ReadoutGain = Literal["one", "one-minus-kappa"]


class FilteredState(NamedTuple):
    neuron: State
    z_bar: Float[Array, "batch neuron"]


class Filtered(Neuron):
    """A neuron whose output the readout sees through a leaky filter (Bellec et al. 2020, eq. 11).

        z_bar_t = kappa z_bar_{t-1} + c z_t,               kappa = exp(-dt / tau_out)

    `y_t = kappa y_{t-1} + W_out z_t` equals `W_out z_bar_t`: the leak stands in front of `W_out`, the
    readout has no memory, and the filtered trace `e_bar` is one more component of the eligibility
    vector. Outputs are two: `z` to the other neurons, `z_bar` to the readout.

    Args:
        neuron: the model to wrap.
        tau_out: time constant of the readout, ms, above 0; number or array (trainable).
        gain: `"one"` (c = 1: TIMIT, e-prop 2) or `"one-minus-kappa"` (the tutorials).
        dt: length of a step, ms.

    Example:
        >>> from eprop.neurons import LIF, Filtered
        >>> Filtered(LIF(), tau_out=20.0).init((1, 3)).z_bar.shape
        (1, 3)
    """

    neuron: Neuron
    tau_out: Constant = 20.0
    gain: ReadoutGain = eqx.field(default="one", static=True)
    dt: float = eqx.field(default=1.0, static=True)

    def __check_init__(self) -> None:
        require_positive(tau_out=self.tau_out, dt=self.dt)
        require_choice("gain", self.gain, ("one", "one-minus-kappa"))

    @property
    def num_currents(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.neuron.num_currents

    @property
    def input_currents(self) -> tuple[int, ...] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.neuron.input_currents

    @property
    def recurrent_currents(self) -> tuple[int, ...] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.neuron.recurrent_currents

    @property
    def spiking(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.neuron.spiking

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> FilteredState:
        return FilteredState(self.neuron.init(shape, dtype), jnp.zeros(shape, dtype))

    def step(self, state, currents, z_prev):
        inner, z = self.neuron.step(state.neuron, currents, z_prev)
        z_bar = self.filter(state.z_bar, z)
        return FilteredState(inner, z_bar), (z, z_bar)

    def filter(self, z_bar: Float[Array, "batch neuron"], z: Float[Array, "batch neuron"]) -> Array:
        """One step of the filter: the new `z_bar`."""
        kappa = jnp.exp(-self.dt / self.tau_out)
        c = 1.0 - kappa if self.gain == "one-minus-kappa" else 1.0
        return kappa * z_bar + c * z

    def observe(self, state):
        return self.neuron.observe(state.neuron)
