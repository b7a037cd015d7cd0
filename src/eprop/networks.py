"""Networks: weights around a neuron model, stacked and bidirectional layers, the readout.

Axes are `[time, batch, neuron]` and weights `[presynaptic, current, postsynaptic]` throughout.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from eprop.eligibility import Carry, Synapses, start, unroll_and_read, with_traces
from eprop.errors import require
from eprop.learning_signals import Feedback, backward_weights, broadcast_readout
from eprop.neurons import Filtered, Neuron, readout_output, recurrent_output, require_size
from eprop.neurons._filtered import FilteredState
from eprop.rules import Rule


class LayerOutput(NamedTuple):
    z: Float[Array, "time batch neuron"]
    z_bar: Float[Array, "frame batch neuron"]  # a frame is a step, unless the readout's filter says otherwise
    carry: Any
    y: Float[Array, "frame batch output"] | None = None  # the layer's part of the output, if it is read


class Recurrent(eqx.Module):
    """A layer: input and recurrent weights around a neuron model.

        I_t^q = sum_i w_in[i,q,j] x_i^t + sum_i w_rec[i,q,j] z_i^{t-1} + bias[q,j]

    Args:
        neuron: the neuron model.
        n_in, n: numbers of inputs and neurons.
        key: random key. `w_in ~ N(0,1)/sqrt(n_in)`, `w_rec ~ N(0,1)/sqrt(n)` (Bellec et al. 2020, released code).
        bias: whether the currents have a trained bias (starts at zero).
        autapses: whether a neuron feeds itself; None: not for spiking models.
        mask_in, mask_rec: fixed connectivity, boolean `[n_in, n]` and `[n, n]`; None: all.
        trainable: names of neuron constants to train (`("tau_m",)`); they become arrays `[neuron]`.
        weight_scale: factor on the initial weights.
    """

    neuron: Neuron
    w_in: Float[Array, "n_in k_in neuron"]
    w_rec: Float[Array, "neuron k_rec neuron"]
    bias: Float[Array, "current neuron"] | None
    mask_in: Bool[Array, "n_in neuron"] | None
    mask_rec: Bool[Array, "neuron neuron"] | None
    autapses: bool = eqx.field(static=True)
    trainable: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        neuron: Neuron,
        n_in: int,
        n: int,
        *,
        key: PRNGKeyArray,
        bias: bool = False,
        autapses: bool | None = None,
        mask_in: Bool[Array, "_ _"] | None = None,
        mask_rec: Bool[Array, "_ _"] | None = None,
        trainable: tuple[str, ...] = (),
        weight_scale: float = 1.0,
        dtype: Any = jnp.float32,
    ) -> None:
        require(n_in >= 1 and n >= 1, f"n_in = {n_in}, n = {n}: a layer needs at least one input and one neuron")
        for name, mask, shape in (("mask_in", mask_in, (n_in, n)), ("mask_rec", mask_rec, (n, n))):
            require(
                mask is None or mask.shape == shape, f"{name}: expected shape {shape}, got {getattr(mask, 'shape', ())}"
            )
        require_size(neuron, n)
        k_in, k_rec = _fed(neuron, neuron.input_currents), _fed(neuron, neuron.recurrent_currents)
        key_in, key_rec = jax.random.split(key)
        self.neuron = as_arrays(neuron, trainable, n, dtype)
        self.w_in = weight_scale * jax.random.normal(key_in, (n_in, len(k_in), n), dtype) * n_in**-0.5
        self.w_rec = weight_scale * jax.random.normal(key_rec, (n, len(k_rec), n), dtype) * n**-0.5
        self.bias = jnp.zeros((neuron.num_currents, n), dtype) if bias else None
        self.mask_in, self.mask_rec = mask_in, mask_rec
        self.autapses = not neuron.spiking if autapses is None else autapses
        self.trainable = trainable

    @property
    def size(self) -> int:
        return self.w_rec.shape[-1]

    @property
    def frame(self) -> int:
        """Steps a frame of the readout."""
        return self.neuron.frame if isinstance(self.neuron, Filtered) else 1

    def synapses(self) -> Synapses:
        """The weights that act: masked, without autapses, and with a place for every current."""
        w_in, w_rec = self.w_in, self.w_rec
        if self.mask_in is not None:
            w_in = w_in * self.mask_in[:, None].astype(w_in.dtype)
        if self.mask_rec is not None:
            w_rec = w_rec * self.mask_rec[:, None].astype(w_rec.dtype)
        if not self.autapses:
            w_rec = w_rec * (1.0 - jnp.eye(self.size, dtype=w_rec.dtype))[:, None]
        neuron = self.neuron
        return Synapses(
            _place(w_in, neuron.input_currents, neuron.num_currents),
            _place(w_rec, neuron.recurrent_currents, neuron.num_currents),
            self.bias,
        )

    def connected(self) -> Synapses:
        """1 where a synapse acts, 0 where it does not: masked, an autapse, a current that is not fed."""
        ones = (jnp.ones_like(self.w_in), jnp.ones_like(self.w_rec))
        return eqx.tree_at(lambda m: (m.w_in, m.w_rec), self, ones).synapses()

    def start(self, batch: int, traces: bool = False) -> Carry:
        """The carry before the first step; with `traces`, zero eligibility vectors stand in it."""
        carry = start(self.neuron, batch, self.size, self.w_in.dtype)
        return with_traces(self.neuron, self.synapses(), carry) if traces else carry

    def __call__(
        self,
        inputs: Float[Array, "time batch n_in"],
        rule: Rule,
        carry: Carry | None = None,
        lengths: Int[Array, "batch"] | None = None,  # noqa: F821
        readout: "Readout | None" = None,
    ) -> LayerOutput:
        """Run the layer, and read it where a readout is given.

        `lengths` are not needed here: a causal layer cannot see what follows a sample's end.
        """
        n_in = self.w_in.shape[0]
        require(
            inputs.ndim == 3 and inputs.shape[-1] == n_in,
            f"inputs: expected [time, batch, {n_in}], got {inputs.shape}",
        )
        if readout is not None and rule.broadcasts:
            return self._run_and_read(inputs, rule, carry, readout)
        carry = self.start(inputs.shape[1]) if carry is None else carry
        outputs, carry = rule.unroll(self.neuron, self.synapses(), inputs, carry)
        z_bar = readout_output(outputs)[self.frame - 1 :: self.frame]
        y = None if readout is None else readout.product(z_bar, rule.feedback)
        return LayerOutput(recurrent_output(outputs), z_bar, carry, y)

    def _run_and_read(self, inputs: Array, rule: Rule, carry: Carry | None, readout: "Readout") -> LayerOutput:
        """Run the layer with its readout in the engine.

        From rest, a filter that is the same for all neurons stands behind `W_out`, where it filters few outputs, not
        many neurons; its adjoint filters their error.
        """
        weights = readout.weight, backward_weights(readout.weight, readout.feedback_weights, rule.feedback)
        neuron, from_rest = self.neuron, carry is None and inputs.shape[0] % self.frame == 0
        if from_rest and isinstance(neuron, Filtered) and not eqx.is_array(neuron.tau_out):
            begin = start(neuron.neuron, inputs.shape[1], self.size, self.w_in.dtype)
            z, y, last = unroll_and_read(neuron.neuron, self.synapses(), inputs, begin, *weights)
            z_bar = neuron.over_time(z)
            phase = self.start(inputs.shape[1]).state.phase
            last = last._replace(state=FilteredState(last.state, jax.lax.stop_gradient(z_bar[-1]), phase))
            return LayerOutput(z, z_bar, last, neuron.over_time(y))
        carry = self.start(inputs.shape[1]) if carry is None else carry
        outputs, y, carry = unroll_and_read(neuron, self.synapses(), inputs, carry, *weights)
        frames = slice(self.frame - 1, None, self.frame)
        return LayerOutput(recurrent_output(outputs), readout_output(outputs)[frames], carry, y[frames])


class Bidirectional(eqx.Module):
    """Two layers side by side, one reading time forwards and one backwards; outputs are concatenated.

    With `lengths` the backward layer starts at each sample's own last step. Not online: it needs the whole sequence.
    A readout's filter runs with its layer: the backward layer's, backwards in time.
    """

    forward: Recurrent
    backward: Recurrent

    @property
    def size(self) -> int:
        return self.forward.size + self.backward.size

    @property
    def frame(self) -> int:
        return self.forward.frame

    def start(self, batch: int, traces: bool = False) -> tuple[Carry, Carry]:
        return self.forward.start(batch, traces), self.backward.start(batch, traces)

    def __call__(self, inputs, rule, carry=None, lengths=None, readout=None) -> LayerOutput:
        ahead, behind = (None, None) if carry is None else carry
        rows = (None, None) if readout is None else readout.split(self.forward.size)
        first = self.forward(inputs, rule, ahead, None, rows[0])
        second = self.backward(reverse_time(inputs, lengths), rule, behind, None, rows[1])
        frames = None if lengths is None else lengths // self.frame
        join = lambda a, b, ends: jnp.concatenate([a, reverse_time(b, ends)], axis=-1)  # noqa: E731
        z_bar = join(first.z_bar, second.z_bar, frames)
        y = None if first.y is None or second.y is None else first.y + reverse_time(second.y, frames)
        return LayerOutput(join(first.z, second.z, lengths), z_bar, (first.carry, second.carry), y)


class Readout(eqx.Module):
    """`y_t = z_bar_t W_out + b`, with feedback weights `B` beside `W_out` for e-prop 1.

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
        key_out, key_feedback = jax.random.split(key)
        scale = n**-0.5 if weight_scale is None else weight_scale
        self.weight = scale * jax.random.normal(key_out, (n, n_out), dtype)
        scale = n**-0.5 if feedback_scale is None else feedback_scale
        self.feedback_weights = scale * jax.random.normal(key_feedback, (n, n_out), dtype)
        self.bias = jnp.zeros((n_out,), dtype)

    def __call__(self, z_bar: Float[Array, "time batch neuron"], feedback: Feedback) -> Array:
        return self.product(z_bar, feedback) + self.bias[None, None]

    def product(self, z_bar: Float[Array, "time batch neuron"], feedback: Feedback) -> Array:
        """`z_bar_t W_out`, without the bias."""
        return broadcast_readout(z_bar, self.weight, self.feedback_weights, feedback)

    def split(self, n: int) -> "tuple[Readout, Readout]":
        """The readout of the first `n` neurons, and of the others."""
        weights = lambda r: (r.weight, r.feedback_weights)  # noqa: E731
        first = eqx.tree_at(weights, self, (self.weight[:n], self.feedback_weights[:n]))
        return first, eqx.tree_at(weights, self, (self.weight[n:], self.feedback_weights[n:]))


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
        return self.weight[symbols]


class NetworkOutput(NamedTuple):
    y: Float[Array, "frame batch output"]
    z: tuple[Float[Array, "time batch neuron"], ...]  # one entry a layer
    carry: tuple


class Network(eqx.Module):
    """Recurrent layers, one on the other, and a readout.

    The readout reads the last layer's `z_bar`, or every layer's where `read_all` (as the authors' CTC network).
    A layer above another is fed with its unfiltered `z`. Where the layers' readout sees frames of several
    steps (see `Filtered`), inputs, outputs and lengths count frames, and each input is held for a frame.
    Inputs are taken in the type of the weights; with an `embedding` they are symbols (integers).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from eprop import ALIF, EProp1, Filtered, Network, Readout, Recurrent
        >>> key = jax.random.key(0)
        >>> layer = Recurrent(Filtered(ALIF(), tau_out=20.0), n_in=3, n=5, key=key)
        >>> network = Network((layer,), Readout(5, 2, key=key))
        >>> network(jnp.ones((7, 1, 3)), EProp1("random")).y.shape
        (7, 1, 2)
    """

    layers: tuple[Recurrent | Bidirectional, ...]
    readout: Readout
    read_all: bool = eqx.field(default=False, static=True)
    embedding: Embedding | None = None

    def __check_init__(self) -> None:
        read = sum(layer.size for layer in self.layers) if self.read_all else self.layers[-1].size
        rows = self.readout.weight.shape[0]
        require(rows == read, f"readout: expected {read} rows (neurons read), got {rows}")
        frames = {layer.frame for layer in self.layers}
        require(len(frames) == 1, f"layers: expected one length of a frame, got {sorted(frames)} steps")

    def start(self, batch: int, traces: bool = False) -> tuple:
        """Carries before the first step, one a layer; with `traces`, eligibility vectors are carried over windows."""
        return tuple(layer.start(batch, traces) for layer in self.layers)

    def __call__(
        self,
        inputs: Float[Array, "frame batch n_in"] | Int[Array, "frame batch"],
        rule: Rule,
        carry: tuple | None = None,
        lengths: Int[Array, "batch"] | None = None,  # noqa: F821
    ) -> NetworkOutput:
        """Run over `inputs`; differentiating the result gives `rule`'s gradient."""
        require(
            rule.stackable or len(self.layers) == 1,
            f"rule {rule.label!r} trains one recurrent layer, and this network has {len(self.layers)}",
        )
        carry = (None,) * len(self.layers) if carry is None else carry
        frame = self.layers[0].frame
        lengths = None if lengths is None else lengths * frame
        below = inputs.astype(self.readout.weight.dtype) if self.embedding is None else self.embedding(inputs)
        results, below = [], hold(below, frame)
        for layer, layer_carry, rows in zip(self.layers, carry, self._rows(), strict=True):
            results.append(layer(below, rule, layer_carry, lengths, rows))
            below = results[-1].z
        y = self.readout.bias[None, None] + sum(r.y for r in results if r.y is not None)
        return NetworkOutput(y, tuple(r.z for r in results), tuple(r.carry for r in results))

    def _rows(self) -> list[Readout | None]:
        """The rows of the readout that read each layer; None for a layer that isn't read."""
        if not self.read_all:
            return [None] * (len(self.layers) - 1) + [self.readout]
        rows, rest = [], self.readout
        for layer in self.layers:
            of_layer, rest = rest.split(layer.size)
            rows.append(of_layer)
        return rows


def trainable(network: Network, rule: Rule) -> PyTree:
    """A tree of booleans: which leaves of the network `rule` trains.

    All weights, or those that a control trains; the neuron constants that were marked; the feedback weights
    where they adapt.
    """
    leaf_is_weight = jax.tree.map(eqx.is_inexact_array, network)

    def of_layer(layer: Recurrent, mask: Recurrent) -> Recurrent:
        if rule.trains == "readout":
            return jax.tree.map(lambda _: False, mask)
        if rule.trains == "inputs":
            mask = eqx.tree_at(lambda m: m.w_rec, mask, False)
        constants = jax.tree.map(lambda _: False, mask.neuron)
        for name in layer.trainable:
            constants = eqx.tree_at(lambda n, name=name: getattr(_owner(n, name), name), constants, True)
        return eqx.tree_at(lambda m: m.neuron, mask, constants)

    layers = []
    for layer, mask in zip(network.layers, leaf_is_weight.layers, strict=True):
        if isinstance(layer, Bidirectional):
            mask = Bidirectional(of_layer(layer.forward, mask.forward), of_layer(layer.backward, mask.backward))
        else:
            mask = of_layer(layer, mask)
        layers.append(mask)
    adapts = rule.feedback == "adaptive"
    return eqx.tree_at(lambda n: (n.layers, n.readout.feedback_weights), leaf_is_weight, (tuple(layers), adapts))


def kolen_pollack_decay(network: Network, decay: float) -> Network:
    """`W_out` and `B` both times `1 - decay`: with equal gradients they become equal (Kolen & Pollack 1994)."""
    return eqx.tree_at(
        lambda n: (n.readout.weight, n.readout.feedback_weights),
        network,
        ((1.0 - decay) * network.readout.weight, (1.0 - decay) * network.readout.feedback_weights),
    )


def as_arrays(neuron: Neuron, names: tuple[str, ...], n: int, dtype: Any) -> Neuron:
    """The neuron with the named constants as arrays `[neuron]`, and all its arrays in `dtype`."""
    for name in names:
        value = getattr(_owner(neuron, name), name)
        array = jnp.broadcast_to(jnp.asarray(value, dtype), (n,))
        neuron = eqx.tree_at(lambda m, name=name: getattr(_owner(m, name), name), neuron, array)
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, neuron)


def hold(x: Shaped[Array, "frame *rest"], steps: int) -> Array:  # noqa: F821
    """Each entry held for so many steps."""
    return x if steps == 1 else jnp.repeat(x, steps, axis=0)


def reverse_time(x: Float[Array, "time batch n"], lengths: Int[Array, "batch"] | None) -> Array:  # noqa: F821
    """Each sample's first `lengths` steps backwards; padding stays where it is."""
    if lengths is None:
        return x[::-1]
    t = jnp.arange(x.shape[0])[:, None]
    source = jnp.where(t < lengths[None], lengths[None] - 1 - t, t)
    return jnp.take_along_axis(x, source[..., None], axis=0)


def _owner(neuron: Any, name: str) -> Any:
    """The model that has the constant `name`: the neuron, or the one it wraps."""
    if isinstance(neuron, Filtered) and not hasattr(neuron, name):
        return _owner(neuron.neuron, name)
    require(hasattr(neuron, name), f"trainable constant {name!r}: {type(neuron).__name__} has none of that name")
    return neuron


def _fed(neuron: Neuron, currents: tuple[int, ...] | None) -> tuple[int, ...]:
    return tuple(range(neuron.num_currents)) if currents is None else currents


def _place(weights: Array, currents: tuple[int, ...] | None, num_currents: int) -> Array:
    """Weights with zeros for the currents they do not feed."""
    if currents is None:
        return weights
    full = jnp.zeros((weights.shape[0], num_currents, weights.shape[2]), weights.dtype)
    return full.at[:, jnp.array(currents, int)].set(weights)
