"""Feedback: what a head's error is multiplied with on its way back to the neurons."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.eligibility import Read


class Feedback(eqx.Module):
    """Where the feedback weights `B` of `L_j^t = sum_k B_jk dE/dy_k^t` come from (Bellec et al. 2020, eq. 4).

    One file a kind: a subclass with a `name`, and a line in `FEEDBACKS`. It has no arrays of its own: `B`, where it is
    not a function of `W_out`, is an array of the head.
    """

    name: ClassVar[str]
    adapts: ClassVar[bool] = False
    """Whether `B` is trained: by `W_out`'s own gradient, decaying with it."""
    is_chain_rule: ClassVar[bool] = False
    """Whether nothing is replaced, so that any head will do."""

    @abc.abstractmethod
    def weights(
        self, weight: Float[Array, "neuron output"], feedback_weights: Float[Array, "neuron output"]
    ) -> Float[Array, "neuron output"]:
        """`B`, from `W_out` and from the head's feedback weights. What takes no gradient is detached."""

    def read(self, weight: Float[Array, "neuron output"], feedback_weights: Float[Array, "neuron output"]) -> Read:
        """The head's weights and its feedback weights, as `unroll` takes them."""
        return weight, self.weights(weight, feedback_weights)


@jax.custom_vjp
def _broadcast(z_bar, weight, feedback_weights):
    return z_bar @ weight


def _forward(z_bar, weight, feedback_weights):
    return z_bar @ weight, (z_bar, feedback_weights)


def _backward(residuals, error):
    z_bar, feedback_weights = residuals
    into_weight = jnp.einsum("...j,...k->jk", z_bar, error)
    return error @ feedback_weights.T, into_weight, into_weight


_broadcast.defvjp(_forward, _backward)


def broadcast_readout(
    z_bar: Float[Array, "*lead neuron"],
    weight: Float[Array, "neuron output"],
    feedback_weights: Float[Array, "neuron output"],
    feedback: Feedback,
) -> Float[Array, "*lead output"]:
    """`y = z_bar W_out`; backward, the learning signals `L_j^t = sum_k B_jk dE/dy_k^t` (Bellec et al. 2020, eq. 4).

    Approximation: but for symmetric feedback, `B` stands where the chain rule has `W_out`.
    """
    return z_bar @ weight if feedback.is_chain_rule else _broadcast(z_bar, *feedback.read(weight, feedback_weights))
