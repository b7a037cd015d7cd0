"""Heads: what reads the neurons, and carries the feedback weights of e-prop 1."""

from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eprop.errors import InvalidSetting, require
from eprop.learning_signals import Feedback, broadcast_readout


class Readout(eqx.Module):
    """The linear head: `y_t = z_bar_t W_out + b`, with feedback weights `B` beside `W_out` for e-prop 1.

    Args:
        n, n_out: neurons read, outputs.
        feedback_scale: standard deviation of the initial `B`; None for `1/sqrt(n)`.
        weight_scale: standard deviation of the initial `W_out`; None for `1/sqrt(n)`.
    """

    weight: Float[Array, "neuron output"]
    bias: Float[Array, "output"]  # noqa: F821
    feedback_weights: Float[Array, "neuron output"]

    def __init__(
        self,
        n: int,
        n_out: int,
        *,
        key: PRNGKeyArray,
        feedback_scale: float | None = None,
        weight_scale: float | None = None,
        dtype: Any = jnp.float32,
    ) -> None:
        require(n >= 1 and n_out >= 1, f"n = {n}, n_out = {n_out}: a readout needs at least one neuron and one output")
        key_out, key_feedback = jax.random.split(key)
        scale = n**-0.5 if weight_scale is None else weight_scale
        self.weight = scale * jax.random.normal(key_out, (n, n_out), dtype)
        scale = n**-0.5 if feedback_scale is None else feedback_scale
        self.feedback_weights = scale * jax.random.normal(key_feedback, (n, n_out), dtype)
        self.bias = jnp.zeros((n_out,), dtype)

    @classmethod
    def from_weights(
        cls,
        weight: Float[Array, "neuron output"],
        *,
        bias: Float[Array, "output"] | None = None,  # noqa: F821
        feedback_weights: Float[Array, "neuron output"] | None = None,
    ) -> "Readout":
        """A readout of given weights, `[neuron, output]`; without a bias it is zero, without `B` it is `W_out`.

        Raises:
            InvalidSetting: for shapes that do not fit each other.
        """
        shape, dtype = weight.shape, weight.dtype
        require(weight.ndim == 2, f"weight: expected [neuron, output], got {shape}")
        bias = jnp.zeros(shape[1:], dtype) if bias is None else jnp.asarray(bias, dtype)
        back = jnp.asarray(weight if feedback_weights is None else feedback_weights, dtype)
        require(bias.shape == shape[1:], f"bias: expected shape {shape[1:]}, got {bias.shape}")
        require(back.shape == shape, f"feedback_weights: expected shape {shape}, got {back.shape}")
        readout = cls(*shape, key=jax.random.key(0), dtype=dtype)
        parts = (jnp.asarray(weight), bias, back)
        return eqx.tree_at(lambda r: (r.weight, r.bias, r.feedback_weights), readout, parts)

    @property
    def n(self) -> int:
        """Neurons that are read."""
        return self.weight.shape[0]

    def __call__(self, z_bar: Float[Array, "*lead neuron"], feedback: Feedback) -> Float[Array, "*lead output"]:
        return broadcast_readout(z_bar, self.weight, self.feedback_weights, feedback) + self.bias[None, None]

    def split(self, n: int) -> "tuple[Readout, Readout]":
        """The readout of the first `n` neurons, and of the others."""
        weights = lambda r: (r.weight, r.feedback_weights)  # noqa: E731
        first = eqx.tree_at(weights, self, (self.weight[:n], self.feedback_weights[:n]))
        return first, eqx.tree_at(weights, self, (self.weight[n:], self.feedback_weights[n:]))


class Broadcast(eqx.Module):
    """Feedback weights around any head: its error goes back through `B`, not through the head.

        y_t = head(z_bar_t),     L_j^t = sum_k B_jk dE/dy_k^t

    The head itself learns by its own gradient. For a head of several layers this is direct feedback alignment
    (Nokland 2016, arXiv 1609.01596).

    Args:
        head: a function of one vector `[neuron]` to one `[output]`: `equinox.nn.Linear`, an MLP, your own.
        n, n_out: neurons read, outputs.
        key: random key of `B`.
        feedback_scale: standard deviation of `B`; None for `1/sqrt(n)`.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from eprop import Broadcast, EProp1, LSTM, Network, Recurrent
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> head = Broadcast(eqx.nn.MLP(5, 2, 8, 1, key=keys[0]), 5, 2, key=keys[1])
        >>> network = Network((Recurrent(LSTM(), 3, 5, key=keys[2]),), head)
        >>> network(jnp.ones((7, 1, 3)), EProp1("random")).y.shape
        (7, 1, 2)

    Raises:
        InvalidSetting: when it is called with adaptive feedback (which needs a linear head's own gradient: `Readout`),
            or where the head's outputs are not `n_out`.
    """

    head: Callable[[Array], Array]
    feedback_weights: Float[Array, "neuron output"]

    def __init__(
        self,
        head: Callable[[Array], Array],
        n: int,
        n_out: int,
        *,
        key: PRNGKeyArray,
        feedback_scale: float | None = None,
        dtype: Any = jnp.float32,
    ) -> None:
        self.head = head
        scale = n**-0.5 if feedback_scale is None else feedback_scale
        self.feedback_weights = scale * jax.random.normal(key, (n, n_out), dtype)

    @property
    def n(self) -> int:
        """Neurons that are read."""
        return self.feedback_weights.shape[0]

    def __call__(self, z_bar: Float[Array, "time batch neuron"], feedback: Feedback) -> Array:
        apply = jax.vmap(jax.vmap(self.head))
        if feedback.is_chain_rule:
            return apply(z_bar)
        require(
            not feedback.adapts,
            f"feedback = {feedback.name!r}: learns from W_out's own gradient, so it needs the linear head, Readout",
        )
        y = apply(jax.lax.stop_gradient(z_bar))
        b = feedback.weights(self.feedback_weights, self.feedback_weights)
        require(y.shape[-1] == b.shape[1], f"head: gives {y.shape[-1]} outputs, its feedback weights have {b.shape[1]}")
        return y + _error_only(z_bar, jax.lax.stop_gradient(b))


@jax.custom_vjp
def _error_only(z_bar: Array, feedback_weights: Array) -> Array:
    """Zero, with the gradient `error B^T` into `z_bar`."""
    return jnp.zeros((*z_bar.shape[:-1], feedback_weights.shape[1]), z_bar.dtype)


_error_only.defvjp(lambda z_bar, b: (_error_only(z_bar, b), b), lambda b, error: (error @ b.T, None))

Head = Readout | Broadcast | Callable[[Array], Array]
"""A head reads the neurons. A plain function of `z_bar`, `[time, batch, neuron]`, serves symmetric feedback alone."""


def read(head: Any, z_bar: Float[Array, "time batch neuron"], feedback: Feedback) -> Array:
    """`y` of any head.

    Raises:
        InvalidSetting: for a head that cannot carry the feedback.
    """
    if isinstance(head, Readout | Broadcast):
        return head(z_bar, feedback)
    if not callable(head):
        raise InvalidSetting(f"head = {head!r}: must be a Readout, a Broadcast, or a function of z_bar")
    require(
        feedback.is_chain_rule,
        f"head: {type(head).__name__} has no feedback weights, which {feedback.name!r} feedback needs; wrap it: "
        "Broadcast(head, n, n_out, key=key)",
    )
    return cast(Array, head(z_bar))
