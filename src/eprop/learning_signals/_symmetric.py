"""Symmetric feedback."""

from typing import ClassVar

import jax
from jaxtyping import Array

from eprop.learning_signals._base import Feedback


class Symmetric(Feedback):
    """`B = W_out`: the chain rule through the head, nothing is replaced."""

    name: ClassVar[str] = "symmetric"
    is_chain_rule: ClassVar[bool] = True

    def weights(self, weight: Array, feedback_weights: Array) -> Array:
        return jax.lax.stop_gradient(weight)
