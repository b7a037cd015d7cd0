"""Controls: networks whose recurrent weights stay as they were drawn."""

from typing import ClassVar, Literal, cast, get_args

import equinox as eqx
import jax

from eprop.eligibility import Recurrence
from eprop.errors import require_choice
from eprop.learning_signals import Feedback, Random, Symmetric
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

    Example:
        >>> from eprop.rules import Fixed
        >>> Fixed("recurrent").label
        'fixed:recurrent'
    """

    name: ClassVar[str] = "fixed"
    recurrence: ClassVar[Recurrence] = "cut"
    fixes: Fixes = eqx.field(static=True)

    def __init__(self, fixes: str = "layers") -> None:
        require_choice("fixed", fixes, get_args(Fixes))
        self.fixes = cast(Fixes, fixes)

    @property
    def carries_traces(self) -> bool:
        return self.fixes != "layers"

    @property
    def trains(self) -> Literal["inputs", "readout"]:
        return "readout" if self.fixes == "layers" else "inputs"

    @property
    def feedback(self) -> Feedback:
        return Random() if self.fixes == "recurrent_random" else Symmetric()

    @property
    def unread(self) -> Rule:
        return Fixed("recurrent") if self.fixes == "recurrent_random" else self

    @property
    def label(self) -> str:
        return f"{self.name}:{self.fixes}"

    def _run_window(self, neuron, synapses, inputs, carry, read):
        if self.fixes == "layers":
            stop = lambda x: jax.lax.stop_gradient(x) if eqx.is_inexact_array(x) else x  # noqa: E731
            neuron, synapses, inputs, carry = jax.tree.map(stop, (neuron, synapses, inputs, carry))
        return super()._run_window(neuron, synapses, inputs, carry, read)
