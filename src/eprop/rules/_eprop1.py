"""e-prop 1."""

from typing import ClassVar, cast

import equinox as eqx

from eprop.eligibility import unroll
from eprop.errors import require_choice
from eprop.learning_signals import FEEDBACKS, Feedback
from eprop.rules._base import Rule


class EProp1(Rule):
    """e-prop 1: eligibility traces times the instantaneous error, broadcast (Bellec et al. 2020, eqs 1 and 4).

        dE/dW_ji = sum_t L_j^t e_ji^t,     L_j^t = sum_k B_jk dE/dy_k^t

    Approximation: recurrent signals are cut (recurrent weights and reset): an error reaches a neuron
    only straight from the readout, at the step it arises; `feedback` says what stands for `W_out` there.

    Args:
        feedback: `"symmetric"`, `"random"`, `"adaptive"` or `"uniform"` (see `broadcast_readout`).
    """

    name: ClassVar[str] = "eprop1"
    carries_traces: ClassVar[bool] = True
    kind: Feedback = eqx.field(static=True)

    def __init__(self, feedback: str = "symmetric") -> None:
        require_choice("feedback", feedback, FEEDBACKS)
        self.kind = cast(Feedback, feedback)

    @property
    def broadcasts(self) -> bool:
        return True

    @property
    def feedback(self) -> Feedback:
        return self.kind

    @property
    def label(self) -> str:
        return f"{self.name}:{self.kind}"

    def unroll(self, neuron, synapses, inputs, carry):
        return unroll(neuron, synapses, inputs, carry)
