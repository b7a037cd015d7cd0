"""e-prop 1."""

from typing import ClassVar

import equinox as eqx

from eprop.eligibility import Recurrence
from eprop.learning_signals import Feedback, as_feedback
from eprop.rules._base import Rule


class EProp1(Rule):
    """e-prop 1: eligibility traces times the instantaneous error, broadcast (Bellec et al. 2020, eqs 1 and 4).

        dE/dW_ji = sum_t L_j^t e_ji^t,     L_j^t = sum_k B_jk dE/dy_k^t

    Approximation: recurrent signals are cut (recurrent weights and reset): an error reaches a neuron only straight
    from the head, at the step it arises; `feedback` says what stands for `W_out` there. In a stack a layer below gets
    the part of that which passes through the neurons above it.

    Args:
        feedback: `"symmetric"`, `"random"`, `"adaptive"`, `"uniform"`, or a `Feedback` of your own.

    Example:
        >>> from eprop import EProp1
        >>> EProp1("random").label
        'eprop1:random'
    """

    name: ClassVar[str] = "eprop1"
    recurrence: ClassVar[Recurrence] = "cut"
    kind: Feedback = eqx.field(static=True)

    def __init__(self, feedback: str | Feedback = "symmetric") -> None:
        self.kind = as_feedback(feedback)

    @property
    def carries_traces(self) -> bool:
        return True

    @property
    def feedback(self) -> Feedback:
        return self.kind

    @property
    def unread(self) -> Rule:
        return EProp1()

    @property
    def label(self) -> str:
        return f"{self.name}:{self.kind.name}"
