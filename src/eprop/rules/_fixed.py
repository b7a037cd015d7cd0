"""Controls: networks whose recurrent weights stay as they were drawn."""

from typing import ClassVar, Literal, cast, get_args

import equinox as eqx
import jax

from eprop.eligibility import unroll
from eprop.errors import require_choice
from eprop.learning_signals import Feedback
from eprop.rules._base import Rule

Fixes = Literal["layers", "recurrent", "recurrent_random"]


class Fixed(Rule):
    """A control: what a network reaches whose recurrent weights are not trained.

    Approximation: with `"layers"` no gradient at all goes into the recurrent layers; with `"recurrent"`
    input weights, biases and marked constants learn with e-prop 1, symmetric feedback, and with
    `"recurrent_random"` with random feedback.

    Args:
        fixes: `"layers"`: everything but the readout stays as it was drawn. `"recurrent"` and
            `"recurrent_random"`: the recurrent weights stay.
    """

    name: ClassVar[str] = "fixed"
    fixes: Fixes = eqx.field(static=True)

    def __init__(self, fixes: str = "layers") -> None:
        require_choice("fixed", fixes, get_args(Fixes))
        self.fixes = cast(Fixes, fixes)

    @property
    def broadcasts(self) -> bool:
        return self.fixes != "layers"

    @property
    def trains(self) -> Literal["inputs", "readout"]:
        return "readout" if self.fixes == "layers" else "inputs"

    @property
    def feedback(self) -> Feedback:
        return "random" if self.fixes == "recurrent_random" else "symmetric"

    @property
    def label(self) -> str:
        return f"{self.name}:{self.fixes}"

    def unroll(self, neuron, synapses, inputs, carry):
        result = unroll(neuron, synapses, inputs, carry)
        return jax.lax.stop_gradient(result) if self.fixes == "layers" else result
