"""Uniform feedback: a control."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from eprop.learning_signals._base import Feedback


class Uniform(Feedback):
    """Every entry of `B` is `1/sqrt(outputs)`: a control that tells a neuron nothing about itself."""

    name: ClassVar[str] = "uniform"

    def weights(self, weight: Array, feedback_weights: Array) -> Array:
        return jnp.full_like(weight, weight.shape[1] ** -0.5)
