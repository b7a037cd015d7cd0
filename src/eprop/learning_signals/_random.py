"""Random feedback."""

from typing import ClassVar

import jax
from jaxtyping import Array

from eprop.learning_signals._base import Feedback


class Random(Feedback):
    """`B` as it was drawn, fixed (Lillicrap et al. 2016, doi:10.1038/ncomms13276): its gradient is zero."""

    name: ClassVar[str] = "random"

    def weights(self, weight: Array, feedback_weights: Array) -> Array:
        return jax.lax.stop_gradient(feedback_weights)
