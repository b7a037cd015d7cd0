"""Learning signals of e-prop 1: the readout's error, broadcast to the neurons."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Feedback = Literal["symmetric", "random", "adaptive", "uniform"]
FEEDBACKS: tuple[str, ...] = get_args(Feedback)


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

    Args:
        feedback: where `B` comes from.
            `"symmetric"`: `B = W_out` (index order `[neuron, output]`), so nothing is replaced.
            `"random"`: `feedback_weights`, fixed: their gradient is zero.
            `"adaptive"`: `feedback_weights` with the same gradient as `W_out` (Kolen & Pollack 1994;
                see `kolen_pollack_decay`).
            `"uniform"`: every entry `1/sqrt(outputs)`: a control that tells a neuron nothing about itself.

    Approximation: but for `"symmetric"`, `B` stands where the chain rule has `W_out`.
    """
    if feedback == "symmetric":
        return z_bar @ weight
    return _broadcast(z_bar, weight, backward_weights(weight, feedback_weights, feedback))


def backward_weights(
    weight: Float[Array, "neuron output"], feedback_weights: Float[Array, "neuron output"], feedback: Feedback
) -> Float[Array, "neuron output"]:
    """`B` of a kind of feedback (see `broadcast_readout`); a gradient goes into it where it adapts."""
    if feedback == "adaptive":
        return feedback_weights
    if feedback == "uniform":
        return jnp.full_like(weight, weight.shape[1] ** -0.5)
    return jax.lax.stop_gradient(weight if feedback == "symmetric" else feedback_weights)
