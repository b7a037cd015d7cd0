"""Learning signals of e-prop 3 from beyond a window's end: the synthetic gradient."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eprop.eligibility import Carry
from eprop.errors import require
from eprop.neurons import State, traced


class SyntheticGradient(eqx.Module):
    """A small network that predicts, at a window's end, what the future will ask of the recurrent state.

        SG(s, z) ~ dE/d(s, z) of all losses after the window             (Jaderberg et al. 2016, eq. 2)

    Its inputs and outputs are all traced components of the neuron's state, and `z`: for an LSTM `c` and
    `h`. It predicts each sample's own gradient, so its size does not depend on the batch. The last
    layer starts at zero: before it has learnt anything, it says nothing.

    Args:
        components: traced components of the state (`len(jax.tree.leaves(traced(state)))`).
        n: neurons.
        hidden: units of its hidden layers (ReLU); `()` for a linear module.
        key: random key of the hidden layers: `N(0, 2)/sqrt(n)`.

    Any `eqx.Module` that maps `(state, z)` to gradients of the same shapes can stand in its place.

    Example:
        >>> import jax
        >>> from eprop import LSTM
        >>> from eprop.learning_signals import SyntheticGradient
        >>> predict = SyntheticGradient(1, 3, key=jax.random.key(0))
        >>> _, of_z = predict(LSTM().init((2, 3)), jax.numpy.ones((2, 3)))
        >>> of_z.shape
        (2, 3)

    Reference: Jaderberg et al. 2016, arXiv 1608.05343; Bellec et al. 2019, arXiv 1901.09049.
    Departs from the source: it sees the state as well as `z`, and predicts the gradient of both (an
    LSTM's output gate acts on the future through `h` alone, its memory through `c` alone).
    """

    hidden: tuple[tuple[Array, Array], ...]  # weights and biases
    weight: Float[Array, "features outputs"]
    bias: Float[Array, "outputs"]  # noqa: F821

    def __init__(
        self, components: int, n: int, *, hidden: tuple[int, ...] = (), key: PRNGKeyArray, dtype: Any = jnp.float32
    ) -> None:
        require(components >= 1 and n >= 1, f"components = {components}, n = {n}: must be at least 1")
        require(all(h >= 1 for h in hidden), f"hidden = {hidden}: a hidden layer needs at least one unit")
        outputs = (components + 1) * n
        sizes = (outputs, *hidden)
        layers = []
        for rows, columns, layer_key in zip(sizes, hidden, jax.random.split(key, len(sizes)), strict=False):
            weight = jax.random.normal(layer_key, (rows, columns), dtype) * (2.0 / rows) ** 0.5
            layers.append((weight, jnp.zeros((columns,), dtype)))
        self.hidden = tuple(layers)
        self.weight = jnp.zeros((sizes[-1], outputs), dtype)
        self.bias = jnp.zeros((outputs,), dtype)

    def __call__(self, state: State, z: Float[Array, "batch n"]) -> tuple[State, Float[Array, "batch n"]]:
        """Predicted gradients with respect to the state's traced components, and to `z`."""
        components, structure = jax.tree.flatten(traced(state))
        x = jnp.concatenate([*components, z], axis=-1)
        for weight, bias in self.hidden:
            x = jax.nn.relu(x @ weight + bias)
        *of_state, of_z = jnp.split(x @ self.weight + self.bias, len(components) + 1, axis=-1)
        return structure.unflatten(of_state), of_z


def boundary(carry: Carry) -> tuple[State, Float[Array, "batch n"]]:
    """What of a carry has a gradient: the traced state, and `z`; where connections have delays, outputs on their way
    stand beside the state."""
    state = traced(carry.state)
    return (state if carry.line is None else (state, tuple(carry.line.past))), carry.z


def with_boundary(carry: Carry, pair: tuple[State, Array]) -> Carry:
    """The carry with other values for its `boundary`."""
    (state, z), line = pair, carry.line
    if line is not None:
        state, past = state
        line = line._replace(past=jnp.stack(past))
    integer = eqx.partition(carry.state, eqx.is_inexact_array)[1]
    return carry._replace(state=eqx.combine(state, integer), z=z, line=line)


def boundary_loss(carry: Carry, seed: tuple[State, Array]) -> Float[Array, ""]:
    """`<seed, (s, z)>`: added to a window's loss it makes `seed` the gradient with respect to its last carry."""
    pairs = zip(jax.tree.leaves(boundary(carry)), jax.tree.leaves(seed), strict=True)
    return sum(jnp.sum(jax.lax.stop_gradient(s) * x) for x, s in pairs)  # pyright: ignore[reportReturnType]


@jax.custom_vjp
def _hand_over(pair: tuple[State, Array], seed: tuple[State, Array]) -> tuple[State, Array]:
    return pair


_hand_over.defvjp(lambda pair, seed: (pair, seed), lambda seed, _: (seed, None))


def seeded(carry: Carry, seed: tuple[State, Array]) -> Carry:
    """The carry, with `seed` for its gradient whatever stands after it.

    So one window hands over to the next where both lie in one loss.
    """
    return with_boundary(carry, _hand_over(boundary(carry), jax.lax.stop_gradient(seed)))


def prediction_error(
    predicted: tuple[State, Array],
    target: tuple[State, Array],
    counts: Float[Array, "batch"],  # noqa: F821
) -> Float[Array, ""]:
    """`E_SG = 1/2 mean ||SG(s, z) - dE/d(s, z)||^2` over the samples that count (weights of 0 and 1)."""
    pairs = zip(jax.tree.leaves(predicted), jax.tree.leaves(target), strict=True)
    squares = sum(jnp.sum((p - t) ** 2, axis=-1) for p, t in pairs)  # [batch]
    return 0.5 * jnp.sum(counts * squares) / jnp.maximum(counts.sum(), 1.0)
