"""The network: layers, one on the other, and a head."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from eprop.errors import require, require_choice
from eprop.networks._block import Block
from eprop.networks._layers import Bidirectional, LayerOutput, Recurrent, hold
from eprop.networks._readout import Broadcast, Readout, read
from eprop.rules import Future, Rule, require_rule


class Embedding(eqx.Module):
    """A vector for each symbol, trained with everything else: `x_t = E[symbol_t]`.

    Args:
        symbols, width: numbers of symbols, and of channels they become.
        key: random key. `E ~ N(0, 1)`.
    """

    weight: Float[Array, "symbol width"]

    def __init__(self, symbols: int, width: int, *, key: PRNGKeyArray, dtype: Any = jnp.float32) -> None:
        require(symbols >= 1 and width >= 1, f"symbols = {symbols}, width = {width}: must be at least 1")
        self.weight = jax.random.normal(key, (symbols, width), dtype)

    def __call__(self, symbols: Int[Array, "time batch"]) -> Float[Array, "time batch width"]:
        require(
            jnp.issubdtype(symbols.dtype, jnp.integer),
            f"inputs: an embedding reads symbols (whole numbers), got {symbols.dtype}",
        )
        return self.weight[symbols]


class NetworkOutput(NamedTuple):
    """Outputs; what each layer's neurons did; and the carry, an entry a layer."""

    y: Float[Array, "frame batch output"]
    z: tuple[Float[Array, "time batch neuron"], ...]
    carry: tuple[Any, ...]


class Network(eqx.Module):
    """Recurrent layers, one on the other, and a head that reads them.

    The head reads the last layer's `z_bar`, or every layer's where `read_all` (as the authors' CTC network).
    A layer above another is fed with its unfiltered `z`. Where the layers' readout sees frames of several
    steps (see `Filtered`), inputs, outputs and lengths count frames, and each input is held for a frame.
    A layer may be a `Block`, between position-wise maps: then that is what is read.
    Inputs are taken in the type of the weights; with an `embedding` they are symbols (integers).

    What is `frozen`, `"readout"` or `"embedding"`, does not learn (a layer has a `frozen` of its own).

    The head is a `Readout`, a `Broadcast` around a head of your own, or, for symmetric feedback alone, any function of
    `z_bar` `[time, batch, neuron]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from eprop import ALIF, EProp1, Filtered, Network, Readout, Recurrent
        >>> key = jax.random.key(0)
        >>> layer = Recurrent(Filtered(ALIF(), tau_out=20.0), n_in=3, n=5, key=key)
        >>> network = Network((layer,), Readout(5, 2, key=key))
        >>> network(jnp.ones((7, 1, 3)), EProp1("random")).y.shape
        (7, 1, 2)

    Raises:
        InvalidSetting: for layers and a head that do not fit each other.
    """

    layers: tuple[Recurrent | Bidirectional | Block, ...]
    readout: Any
    read_all: bool = eqx.field(default=False, static=True)
    embedding: Embedding | None = None
    frozen: tuple[str, ...] = eqx.field(default=(), static=True)

    def __check_init__(self) -> None:
        for part in self.frozen:
            require_choice("frozen", part, ("readout", "embedding"))
            require(getattr(self, part) is not None, f"frozen = {part!r}: this network has none")
        require(len(self.layers) >= 1, "layers: a network needs at least one")
        for below, above in zip(self.layers, self.layers[1:], strict=False):
            n_in = above.forward.n_in if isinstance(above, Bidirectional) else above.n_in
            require(n_in == below.size, f"layers: a layer of {below.size} neurons lies below one with {n_in} inputs")
        if isinstance(self.readout, Readout | Broadcast):
            read_neurons = sum(layer.size for layer in self.layers) if self.read_all else self.layers[-1].size
            n = self.readout.n
            require(n == read_neurons, f"readout: expected {read_neurons} rows (neurons read), got {n}")
        frames = {layer.frame for layer in self.layers}
        require(len(frames) == 1, f"layers: expected one length of a frame, got {sorted(frames)} steps")

    @property
    def dtype(self) -> Any:
        """The type of the weights."""
        layer = self.layers[0]
        if isinstance(layer, Block):
            return layer.layer.w_in.dtype
        return (layer if isinstance(layer, Recurrent) else layer.forward).w_in.dtype

    def start(self, batch: int, traces: bool = False) -> tuple[Any, ...]:
        """Carries before the first step, one a layer; with `traces`, eligibility vectors are carried over windows."""
        return tuple(layer.start(batch, traces) for layer in self.layers)

    def __call__(
        self,
        inputs: Shaped[Array, "frame batch *n_in"] | Shaped[np.ndarray, "frame batch *n_in"],
        rule: Rule,
        carry: tuple[Any, ...] | None = None,
        lengths: Int[Array, "batch"] | None = None,  # noqa: F821
        future: tuple[Future, ...] | None = None,
    ) -> NetworkOutput:
        """Run over `inputs`; differentiating the result gives `rule`'s gradient.

        Args:
            carry: from `start`, or from the run before; None: from rest, and nothing needs to be carried on.
            lengths: each sample's own number of steps, for a layer that reads backwards.
            future: a synthetic gradient a layer, for a rule that has them.
        """
        require_rule(rule)
        stackable = rule.stackable or len(self.layers) == 1
        require(stackable, f"rule {rule.label!r} trains one recurrent layer, and this network has {len(self.layers)}")
        require(
            rule.stackable or self.embedding is None,
            f"rule {rule.label!r}: forms no gradient into its inputs, which an embedding learns from; use numbers, or "
            "another rule",
        )
        nothing = (None,) * len(self.layers)
        frame = self.layers[0].frame
        lengths = None if lengths is None else lengths * frame
        below = (
            jnp.asarray(inputs).astype(self.dtype) if self.embedding is None else self.embedding(jnp.asarray(inputs))
        )
        results, below = [], hold(below, frame)
        each = zip(self.layers, carry or nothing, self._rows(), future or nothing, strict=True)
        for layer, layer_carry, rows, after in each:
            its_rule = rule if rows is not None else rule.unread
            results.append(layer(below, its_rule, layer_carry, lengths, rows, after))
            below = results[-1].z
        z = tuple(r.z if r.neurons is None else r.neurons for r in results)
        return NetworkOutput(self._outputs(results, rule), z, tuple(r.carry for r in results))

    def _outputs(self, results: list[LayerOutput], rule: Rule) -> Array:
        if isinstance(self.readout, Readout):
            return self.readout.bias[None, None] + sum(r.y for r in results if r.y is not None)
        shown = [r.z_bar for r in (results if self.read_all else results[-1:])]
        return read(self.readout, jnp.concatenate(shown, axis=-1), rule.feedback)

    def _rows(self) -> list[Readout | None]:
        """The rows of the readout that read each layer; None for a layer that no `Readout` reads."""
        if not isinstance(self.readout, Readout):
            return [None] * len(self.layers)
        if not self.read_all:
            return [None] * (len(self.layers) - 1) + [self.readout]
        rows, rest = [], self.readout
        for layer in self.layers:
            of_layer, rest = rest.split(layer.size)
            rows.append(of_layer)
        return rows
