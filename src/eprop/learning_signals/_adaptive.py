"""Adaptive feedback."""

from typing import ClassVar

from jaxtyping import Array

from eprop.learning_signals._base import Feedback


class Adaptive(Feedback):
    """`B` learns by the same gradient as `W_out`, and both decay: so they become equal (Kolen & Pollack 1994).

    See `kolen_pollack_decay` for the decay.
    """

    name: ClassVar[str] = "adaptive"
    adapts: ClassVar[bool] = True

    def weights(self, weight: Array, feedback_weights: Array) -> Array:
        return feedback_weights
