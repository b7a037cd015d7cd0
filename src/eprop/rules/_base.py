"""What a rule is: how the unroll differentiates, and what the readout sends back."""

import abc
from typing import ClassVar, Literal

import equinox as eqx
from jaxtyping import Array, Float

from eprop.eligibility import Carry, Synapses
from eprop.learning_signals import Feedback
from eprop.neurons import Neuron
from eprop.neurons._base import Outputs


class Rule(eqx.Module):
    """A learning rule. All its fields are static: a rule is a choice, not a state."""

    name: ClassVar[str]
    stackable: ClassVar[bool] = True
    """Whether the rule hands learning signals to a layer below."""
    streams: ClassVar[bool] = True
    """Whether the rule can learn a sequence window by window with an `OnlineLearner`."""
    carries_traces: ClassVar[bool] = False
    """Whether eligibility vectors hand the past from one window to the next."""
    synthesises: ClassVar[bool] = False
    """Whether a synthetic gradient stands for what follows a window's end."""

    @property
    def broadcasts(self) -> bool:
        """Whether all that a neuron learns from is the readout's error: the engine then forms the learning signals."""
        return False

    @property
    def trains(self) -> Literal["all", "inputs", "readout"]:
        """Which weights: all; all but the recurrent ones; the readout's alone."""
        return "all"

    @property
    def feedback(self) -> Feedback:
        """What the readout's backward pass multiplies the error with; `"symmetric"` is the chain rule."""
        return "symmetric"

    @property
    def label(self) -> str:
        """The rule as it is written on the command line."""
        return self.name

    @abc.abstractmethod
    def unroll(
        self, neuron: Neuron, synapses: Synapses, inputs: Float[Array, "time batch n_in"], carry: Carry
    ) -> tuple[Outputs, Carry]:
        """Run a layer over `inputs`; differentiating the result is the rule's gradient."""
