"""Blocks: a layer between position-wise maps, as deep stacks of today's kind are built of."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eprop.eligibility import Carry
from eprop.errors import require
from eprop.learning_signals import broadcast_readout
from eprop.networks._layers import LayerOutput, Recurrent
from eprop.networks._readout import Head, Readout, read
from eprop.neurons import Filtered, Neuron
from eprop.rules import Future, Rule


class Dense(eqx.Module):
    """A linear map at each step: `y = x W + b`.

    Args:
        n_in, size: channels it reads and shows.
        key: random key. `W ~ N(0,1)/sqrt(n_in)`, `b = 0`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from eprop import Dense
        >>> Dense(3, 5, key=jax.random.key(0))(jnp.ones((7, 1, 3))).shape
        (7, 1, 5)
    """

    weight: Float[Array, "n_in size"]
    bias: Float[Array, "size"]  # noqa: F821

    def __init__(self, n_in: int, size: int, *, key: PRNGKeyArray, dtype: Any = jnp.float32) -> None:
        require(n_in >= 1 and size >= 1, f"n_in = {n_in}, size = {size}: must be at least 1")
        self.weight = jax.random.normal(key, (n_in, size), dtype) * n_in**-0.5
        self.bias = jnp.zeros((size,), dtype)

    @property
    def n_in(self) -> int:
        """Channels it reads."""
        return self.weight.shape[0]

    @property
    def size(self) -> int:
        """Channels it shows."""
        return self.weight.shape[1]

    def __call__(self, x: Float[Array, "*lead n_in"]) -> Float[Array, "*lead size"]:
        return x @ self.weight + self.bias


class GatedLinearUnit(eqx.Module):
    """A gated linear unit at each step (Dauphin et al. 2017, arXiv 1612.08083): `y = (x V + c) s(x W + b)`.

    Args: as for `Dense`; `s` is the logistic function.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from eprop import GatedLinearUnit
        >>> GatedLinearUnit(3, 5, key=jax.random.key(0))(jnp.ones((7, 1, 3))).shape
        (7, 1, 5)
    """

    value: Dense
    gate: Dense

    def __init__(self, n_in: int, size: int, *, key: PRNGKeyArray, dtype: Any = jnp.float32) -> None:
        of_value, of_gate = jax.random.split(key)
        self.value = Dense(n_in, size, key=of_value, dtype=dtype)
        self.gate = Dense(n_in, size, key=of_gate, dtype=dtype)

    @property
    def n_in(self) -> int:
        """Channels it reads."""
        return self.value.n_in

    @property
    def size(self) -> int:
        """Channels it shows."""
        return self.value.size

    def __call__(self, x: Float[Array, "*lead n_in"]) -> Float[Array, "*lead size"]:
        return self.value(x) * jax.nn.sigmoid(self.gate(x))


class LayerNorm(eqx.Module):
    """Layer normalisation at each step (Ba et al. 2016, arXiv 1607.06450), over the channels of a sample.

        y = g (x - mean x) / sqrt(var x + eps) + b

    Args:
        n: channels.
        eps: added to the variance.

    Example:
        >>> import jax.numpy as jnp
        >>> from eprop import LayerNorm
        >>> print(LayerNorm(2)(jnp.array([[1.0, 3.0]])).round(3))
        [[-1.  1.]]
    """

    gain: Float[Array, "n"]  # noqa: F821
    bias: Float[Array, "n"]  # noqa: F821
    eps: float = eqx.field(static=True)

    def __init__(self, n: int, *, eps: float = 1e-5, dtype: Any = jnp.float32) -> None:
        require(n >= 1, f"n = {n}: must be at least 1")
        self.gain, self.bias, self.eps = jnp.ones((n,), dtype), jnp.zeros((n,), dtype), eps

    @property
    def n_in(self) -> int:
        """Channels it reads."""
        return self.gain.shape[0]

    @property
    def size(self) -> int:
        """Channels it shows."""
        return self.gain.shape[0]

    def __call__(self, x: Float[Array, "*lead n"]) -> Float[Array, "*lead n"]:
        centred = x - x.mean(-1, keepdims=True)
        return self.gain * centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + self.eps) + self.bias


Map = Dense | GatedLinearUnit | LayerNorm | Callable[[Array], Array]
"""A position-wise map. Another one of yours: a module with `n_in`, `size`, and `__call__` on the last axis."""


class Block(eqx.Module):
    """A layer between position-wise maps: `y_t = after(layer(before(x_1..t))) [+ x_t]`.

    Args:
        layer: a recurrent layer; its neuron has no readout filter (what stands behind it is a map).
        before, after: maps, the first one nearest to the inputs.
        residual: whether the block's inputs are added to what it shows.

    The learning signal passes through `after` by the chain rule, then through the layer by its rule, then through
    `before`. Feedback weights of a head replace what stands between head and block.

    Approximation: that of the rule, in the layer. Maps have no memory and no approximation of their own. In a stream
        the learning signals of maps before the layer end with the window, as those of a layer below do.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from eprop import LRU, Block, Dense, EProp1, GatedLinearUnit, LayerNorm, Network, Readout, Recurrent
        >>> keys = iter(jax.random.split(jax.random.key(0), 6))
        >>> first = Block(Recurrent(LRU(), 8, 8, key=next(keys)), (Dense(3, 8, key=next(keys)),))
        >>> glu = GatedLinearUnit(8, 8, key=next(keys))
        >>> second = Block(Recurrent(LRU(), 8, 8, key=next(keys)), (LayerNorm(8),), (glu,), residual=True)
        >>> network = Network((first, second), Readout(8, 2, key=next(keys)))
        >>> network(jnp.ones((7, 1, 3)), EProp1()).y.shape
        (7, 1, 2)

    Raises:
        InvalidSetting: for sizes that do not fit each other, or a neuron behind a filter; when it is called, for a rule
            without a gradient into its inputs (RTRL), where maps stand before the layer.
    """

    layer: Recurrent
    before: tuple[Any, ...] = ()
    after: tuple[Any, ...] = ()
    residual: bool = eqx.field(default=False, static=True)

    def __check_init__(self) -> None:
        require(
            not isinstance(self.layer.neuron, Filtered),
            "layer: its neuron is behind a readout filter (tau_out), and here maps stand between neuron and readout",
        )
        parts = (*self.before, self.layer, *self.after)
        for below, above in zip(parts, parts[1:], strict=False):
            names = [type(part).__name__ for part in (below, above)]
            fits = below.size == above.n_in
            require(fits, f"block: {names[0]} shows {below.size} channels, and {names[1]} reads {above.n_in}")
        fits = not self.residual or self.n_in == self.size
        require(fits, f"residual: the block reads {self.n_in} channels and shows {self.size}; they are added")

    @property
    def n_in(self) -> int:
        """Channels it reads."""
        return (*self.before, self.layer)[0].n_in

    @property
    def size(self) -> int:
        """Channels it shows."""
        return (self.layer, *self.after)[-1].size

    @property
    def neuron(self) -> Neuron:
        """The layer's neuron."""
        return self.layer.neuron

    @property
    def frame(self) -> int:
        """Steps a frame of the readout: one."""
        return 1

    def start(self, batch: int, traces: bool = False) -> Carry:
        """The carry before the first step, of the layer."""
        return self.layer.start(batch, traces)

    def __call__(
        self,
        inputs: Float[Array, "time batch n_in"],
        rule: Rule,
        carry: Carry | None = None,
        lengths: Int[Array, "batch"] | None = None,  # noqa: F821
        head: Head | None = None,
        future: Future | None = None,
    ) -> LayerOutput:
        """Run the block; arguments as in `Recurrent`."""
        require(
            rule.stackable or not self.before,
            f"rule {rule.label!r}: gives no gradient into a layer's inputs, so that maps before it would not learn",
        )
        inputs = jnp.asarray(inputs).astype(self.layer.w_in.dtype)
        x = inputs
        for each in self.before:
            x = each(x)
        own = rule if rule.feedback.is_chain_rule else rule.unread
        found = self.layer(x, own, carry, future=future)
        shown = found.z
        for each in self.after:
            shown = each(shown)
        shown = shown + inputs if self.residual else shown
        y = None
        if isinstance(head, Readout):
            y = broadcast_readout(shown, head.weight, head.feedback_weights, rule.feedback)
        elif head is not None:
            y = read(head, shown, rule.feedback)
        return LayerOutput(shown, shown, found.carry, y, found.z)
