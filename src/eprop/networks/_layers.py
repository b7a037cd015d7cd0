"""Layers: weights around a neuron model, in one direction of time or in both."""

from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from eprop.eligibility import Carry, Synapses, start, with_traces
from eprop.errors import require
from eprop.networks._constants import as_arrays, fixed_detached
from eprop.networks._readout import Head, Readout, read
from eprop.neurons import Filtered, FilteredState, Neuron, readout_output, recurrent_output, require_size
from eprop.rules import Future, Rule, require_rule


class LayerOutput(NamedTuple):
    """The outputs of a layer: a frame is a step, unless the readout's filter says otherwise."""

    z: Float[Array, "time batch neuron"]
    z_bar: Float[Array, "frame batch neuron"]
    carry: Any
    y: Float[Array, "frame batch output"] | None = None  # without the head's bias, if a Readout reads the layer


class Recurrent(eqx.Module):
    """A layer: input and recurrent weights around a neuron model.

        I_t^q = sum_i w_in[i,q,j] x_i^t + sum_i w_rec[i,q,j] z_i^{t-1} + bias[q,j]

    Args:
        neuron: the neuron model. One that takes no recurrent currents gets no recurrent weights (`w_rec` is None).
        n_in, n: numbers of inputs and neurons.
        key: random key. `w_in ~ N(0,1)/sqrt(n_in)`, `w_rec ~ N(0,1)/sqrt(n)` (Bellec et al. 2020, released code).
        bias: whether the currents have a trained bias (starts at zero).
        autapses: whether a neuron feeds itself; None: not for spiking models.
        mask_in, mask_rec: fixed connectivity, boolean `[n_in, n]` and `[n, n]`; None: all.
        trainable: names of neuron constants to train (`("tau_m",)`); they become arrays `[neuron]`. All others stay as
            they are, arrays too.
        weight_scale: factor on the initial weights.

    Raises:
        InvalidSetting: for sizes, masks or constants that do not fit.
    """

    neuron: Neuron
    w_in: Float[Array, "n_in k_in neuron"]
    w_rec: Float[Array, "neuron k_rec neuron"] | None
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
        require(len(k_in) >= 1, f"neuron: {type(neuron).__name__} has no current that inputs feed")
        for name, value in (("mask_rec", mask_rec), ("autapses", autapses)):
            require(value is None or len(k_rec) > 0, f"{name}: {type(neuron).__name__} takes no recurrent currents")
        key_in, key_rec = jax.random.split(key)
        self.neuron = as_arrays(neuron, trainable, n, dtype)
        self.w_in = weight_scale * jax.random.normal(key_in, (n_in, len(k_in), n), dtype) * n_in**-0.5
        self.w_rec = None
        if k_rec:
            self.w_rec = weight_scale * jax.random.normal(key_rec, (n, len(k_rec), n), dtype) * n**-0.5
        self.bias = jnp.zeros((neuron.num_currents, n), dtype) if bias else None
        self.mask_in, self.mask_rec = mask_in, mask_rec
        self.autapses = not neuron.spiking if autapses is None else autapses
        self.trainable = trainable

    @classmethod
    def from_weights(
        cls,
        neuron: Neuron,
        w_in: Float[Array, "..."],
        w_rec: Float[Array, "..."] | None = None,
        bias: Float[Array, "..."] | None = None,
        **options: Any,
    ) -> "Recurrent":
        """A layer of given weights.

        Args:
            w_in: `[n_in, current, neuron]`; `[n_in, neuron]` will do where inputs feed one current.
            w_rec: `[neuron, current, neuron]` or `[neuron, neuron]`, likewise; None where there are none.
            bias: `[current, neuron]`, or None.
            options: `autapses`, `mask_in`, `mask_rec`, `trainable`, as in the constructor.

        Example:
            >>> import jax.numpy as jnp
            >>> from eprop import LIF, Recurrent
            >>> Recurrent.from_weights(LIF(), jnp.ones((3, 5)), jnp.zeros((5, 5))).size
            5

        Raises:
            InvalidSetting: for shapes that do not fit the neuron or each other.
        """
        dtype = jnp.result_type(w_in)
        w_in = w_in[:, None] if w_in.ndim == 2 else w_in
        w_rec = w_rec[:, None] if w_rec is not None and w_rec.ndim == 2 else w_rec
        require(w_in.ndim == 3, f"w_in: expected [n_in, current, neuron], got {w_in.shape}")
        n_in, _, n = w_in.shape
        layer = cls(neuron, n_in, n, key=jax.random.key(0), bias=bias is not None, dtype=dtype, **options)
        for name, given in (("w_in", w_in), ("w_rec", w_rec), ("bias", bias)):
            expected = getattr(layer, name)
            shapes = [None if a is None else a.shape for a in (expected, given)]
            require(shapes[0] == shapes[1], f"{name}: expected shape {shapes[0]}, got {shapes[1]}")
        parts = tuple(None if a is None else jnp.asarray(a, dtype) for a in (w_in, w_rec, bias))
        return eqx.tree_at(lambda m: (m.w_in, m.w_rec, m.bias), layer, parts, is_leaf=lambda x: x is None)

    @property
    def n_in(self) -> int:
        """Number of inputs."""
        return self.w_in.shape[0]

    @property
    def size(self) -> int:
        """Number of neurons."""
        return self.w_in.shape[-1]

    @property
    def frame(self) -> int:
        """Steps a frame of the readout."""
        return self.neuron.frame if isinstance(self.neuron, Filtered) else 1

    def synapses(self) -> Synapses:
        """The weights that act: masked, without autapses, and with a place for every current."""
        w_in, w_rec, neuron = self.w_in, self.w_rec, self.neuron
        if self.mask_in is not None:
            w_in = w_in * self.mask_in[:, None].astype(w_in.dtype)
        if w_rec is not None and self.mask_rec is not None:
            w_rec = w_rec * self.mask_rec[:, None].astype(w_rec.dtype)
        if w_rec is not None and not self.autapses:
            w_rec = w_rec * (1.0 - jnp.eye(self.size, dtype=w_rec.dtype))[:, None]
        if w_rec is not None:
            w_rec = _place(w_rec, neuron.recurrent_currents, neuron.num_currents)
        return Synapses(_place(w_in, neuron.input_currents, neuron.num_currents), w_rec, self.bias)

    def connected(self) -> Synapses:
        """1 where a synapse acts, 0 where it does not: masked, an autapse, a current that is not fed."""
        ones = jax.tree.map(jnp.ones_like, (self.w_in, self.w_rec))
        none = lambda x: x is None  # noqa: E731
        return eqx.tree_at(lambda m: (m.w_in, m.w_rec), self, ones, is_leaf=none).synapses()

    def start(self, batch: int, traces: bool = False) -> Carry:
        """The carry before the first step; with `traces`, zero eligibility vectors stand in it."""
        require(batch >= 1, f"batch = {batch}: must be at least 1")
        carry = start(self.neuron, batch, self.size, self.w_in.dtype)
        return with_traces(self.neuron, self.synapses(), carry) if traces else carry

    def __call__(
        self,
        inputs: Shaped[Array, "time batch *n_in"] | Shaped[np.ndarray, "time batch *n_in"],
        rule: Rule,
        carry: Carry | None = None,
        lengths: Int[Array, "batch"] | None = None,  # noqa: F821
        head: Head | None = None,
        future: Future | None = None,
    ) -> LayerOutput:
        """Run the layer, and read it where a head is given.

        Args:
            inputs: `[time, batch, n_in]`; taken in the type of the weights.
            rule: whose gradient the result has.
            carry: from `start`, or from the run before; None: from rest, and nothing needs to be carried on.
            lengths: not needed here: a causal layer cannot see what follows a sample's end.
            head: what reads the layer. Feedback weights belong to it: without one the feedback must be symmetric.
            future: the synthetic gradient of a rule that has one.

        Raises:
            InvalidSetting: for inputs or a carry that do not fit, and for a head that cannot carry the rule's feedback.
        """
        x = self._checked(inputs, rule, carry)
        require(
            head is not None or rule.feedback.is_chain_rule,
            f"rule {rule.label!r}: its feedback weights belong to a head, and this layer is run without one; hand one "
            "in (head=Readout(...), or head=Broadcast(your head, ...)), or use symmetric feedback",
        )
        linear = head if isinstance(head, Readout) else None
        weights = None if linear is None else rule.feedback.read(linear.weight, linear.feedback_weights)
        neuron = fixed_detached(self.neuron, self.trainable)
        synapses = self.synapses()
        one_window = rule.window is None or x.shape[0] <= rule.window
        if carry is None and linear is not None and one_window and self._filter_may_follow(x.shape[0]):
            return self._run_behind_head(cast(Filtered, neuron), synapses, x, rule, weights)
        carry = self.start(x.shape[1]) if carry is None else carry
        outputs, y, carry = rule.run(neuron, synapses, x, carry, weights, future)
        frames = slice(self.frame - 1, None, self.frame)
        z_bar = readout_output(outputs)[frames]
        if linear is None and head is not None:
            y = read(head, z_bar, rule.feedback)
        return LayerOutput(recurrent_output(outputs), z_bar, carry, y if linear is None or y is None else y[frames])

    def _checked(self, inputs: Any, rule: Rule, carry: Carry | None) -> Array:
        require_rule(rule)
        require(
            inputs.ndim == 3 and inputs.shape[-1] == self.n_in,
            f"inputs: expected [time, batch, {self.n_in}], got {inputs.shape}",
        )
        require(min(inputs.shape[:2]) >= 1, f"inputs: expected at least one step and one sample, got {inputs.shape}")
        if carry is not None:
            expected = (inputs.shape[1], self.size)
            require(carry.z.shape == expected, f"carry: expected [batch, neuron] = {expected}, got {carry.z.shape}")
            require(
                carry.traces is not None or not rule.carries_traces,
                f"carry: has no eligibility vectors, and without them rule {rule.label!r} would not count what lies "
                "before; begin with start(batch, traces=True)",
            )
        return jnp.asarray(inputs).astype(self.w_in.dtype)

    def _filter_may_follow(self, time: int) -> bool:
        """Whether the readout's filter, from rest and the same for all neurons, may stand behind `W_out`."""
        neuron = self.neuron
        return isinstance(neuron, Filtered) and not eqx.is_array(neuron.tau_out) and time % self.frame == 0

    def _run_behind_head(
        self, neuron: Filtered, synapses: Synapses, inputs: Array, rule: Rule, weights: Any
    ) -> LayerOutput:
        """From rest, with the filter behind `W_out`: there it filters few outputs, and its adjoint few errors."""
        begin = start(neuron.neuron, inputs.shape[1], self.size, self.w_in.dtype)
        z, y, last = rule.run(neuron.neuron, synapses, inputs, begin, weights)
        z_bar = neuron.over_time(z)
        phase = self.start(inputs.shape[1]).state.phase
        z_bar_last = jax.lax.stop_gradient(z_bar[-1]) if rule.recurrence == "cut" else z_bar[-1]
        last = last._replace(state=FilteredState(last.state, z_bar_last, phase))
        return LayerOutput(z, z_bar, last, neuron.over_time(cast(Array, y)))


class Bidirectional(eqx.Module):
    """Two layers side by side, one reading time forwards and one backwards; outputs are concatenated.

    With `lengths` the backward layer starts at each sample's own last step. Not online: it needs the whole sequence.
    A readout's filter runs with its layer: the backward layer's, backwards in time.
    """

    forward: Recurrent
    backward: Recurrent

    @property
    def size(self) -> int:
        """Number of neurons, of both directions."""
        return self.forward.size + self.backward.size

    @property
    def frame(self) -> int:
        """Steps a frame of the readout."""
        return self.forward.frame

    def start(self, batch: int, traces: bool = False) -> tuple[Carry, Carry]:
        """Carries before the first step, of both directions."""
        return self.forward.start(batch, traces), self.backward.start(batch, traces)

    def __call__(
        self,
        inputs: Float[Array, "time batch n_in"],
        rule: Rule,
        carry: tuple[Carry, Carry] | None = None,
        lengths: Int[Array, "batch"] | None = None,  # noqa: F821
        head: Readout | None = None,
        future: Future | None = None,
    ) -> LayerOutput:
        """Run both layers; arguments as in `Recurrent`, but the head is a `Readout`."""
        require(future is None, "future: a bidirectional layer sees the whole sequence, nothing follows")
        ahead, behind = (None, None) if carry is None else carry
        rows = (None, None) if head is None else head.split(self.forward.size)
        first = self.forward(inputs, rule, ahead, None, rows[0])
        second = self.backward(reverse_time(inputs, lengths), rule, behind, None, rows[1])
        frames = None if lengths is None else lengths // self.frame
        join = lambda a, b, ends: jnp.concatenate([a, reverse_time(b, ends)], axis=-1)  # noqa: E731
        z_bar = join(first.z_bar, second.z_bar, frames)
        y = None if first.y is None or second.y is None else first.y + reverse_time(second.y, frames)
        return LayerOutput(join(first.z, second.z, lengths), z_bar, (first.carry, second.carry), y)


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


def _fed(neuron: Neuron, currents: tuple[int, ...] | None) -> tuple[int, ...]:
    return tuple(range(neuron.num_currents)) if currents is None else currents


def _place(weights: Array, currents: tuple[int, ...] | None, num_currents: int) -> Array:
    """Weights with zeros for the currents they do not feed."""
    if currents is None:
        return weights
    full = jnp.zeros((weights.shape[0], num_currents, weights.shape[2]), weights.dtype)
    return full.at[:, jnp.array(currents, int)].set(weights)
