"""Back-propagation through time, whole and truncated."""

from typing import ClassVar

import equinox as eqx

from eprop.eligibility import unroll_exact
from eprop.errors import require
from eprop.rules._base import Rule


class BPTT(Rule):
    """Back-propagation through time: the exact gradient, at the price of storing the whole past.

    Approximation: none, but for the pseudo-derivative of spikes.
    """

    name: ClassVar[str] = "bptt"

    def unroll(self, neuron, synapses, inputs, carry):
        return unroll_exact(neuron, synapses, inputs, carry)


class TruncatedBPTT(Rule):
    """BPTT whose gradient does not cross multiples of `window` steps (Williams & Peng 1990).

    Approximation: at the start of each window the state (the readout's filter included) and `z_prev` are detached.

    Args:
        window: steps a window, at least 1.
    """

    name: ClassVar[str] = "truncated_bptt"
    window: int = eqx.field(default=50, static=True)

    @property
    def label(self) -> str:
        return f"{self.name}:{self.window}"

    def __check_init__(self) -> None:
        require(self.window >= 1, f"window = {self.window}: must be at least 1 step")

    def unroll(self, neuron, synapses, inputs, carry):
        return unroll_exact(neuron, synapses, inputs, carry, self.window)
