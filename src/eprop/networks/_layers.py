"""Layers: weights around a neuron model, in one direction of time or in both."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Int8, PRNGKeyArray, Shaped, UInt32

from eprop.eligibility import Carry, DelayLine, Synapses, start, with_traces
from eprop.eligibility.tools import newest, shift
from eprop.errors import require
from eprop.networks._constants import as_arrays, fixed_detached
from eprop.networks._constraints import (
    SIGNS,
    Delays,
    Population,
    Rewiring,
    check_bounds,
    check_frozen,
    check_populations,
    delays_of,
    frozen_neurons,
    of_each_neuron,
    population_constants,
    rewired,
    signs_of,
    with_signs,
    within,
)
from eprop.networks._readout import Head, Readout, read
from eprop.neurons import Filtered, FilteredState, Neuron, readout_output, recurrent_output, require_size
from eprop.rules import Future, Rule, require_rule


class LayerOutput(NamedTuple):
    """The outputs of a layer: a frame is a step, unless the readout's filter says otherwise."""

    z: Float[Array, "time batch neuron"]
    z_bar: Float[Array, "frame batch neuron"]
    carry: Any
    y: Float[Array, "frame batch output"] | None = None  # without the head's bias, if a Readout reads the layer
    neurons: Float[Array, "time batch _"] | None = None  # the neurons' own outputs, where maps stand behind them


class Recurrent(eqx.Module):
    """A layer: input and recurrent weights around a neuron model.

        I_t^q = sum_i w_in[i,q,j] x_i^t + sum_i w_rec[i,q,j] z_i^{t-1} + bias[q,j]

    Args:
        neuron: the neuron model. One that takes no recurrent currents gets no recurrent weights (`w_rec` is None).
        n_in: number of inputs.
        n: number of neurons; or populations, one beside the other, with constants and signs of their own.
        key: random key. `w_in ~ N(0,1)/sqrt(n_in)`, `w_rec ~ N(0,1)/sqrt(n)` (Bellec et al. 2020, released code); where
            neurons excite and inhibit, `|w|` times the sign, scaled so that both are in balance.
        bias: whether the currents have a trained bias (starts at zero).
        autapses: whether a neuron feeds itself; None: not for spiking models.
        mask_in, mask_rec: which synapses exist, boolean `[n_in, n]` and `[n, n]` (see `random_mask`); None: all.
        signs_in: of the weights from each input, `[n_in]`, or of each synapse, `[n_in, n]`: 1, -1, or 0 for any.
        signs_rec: the same of `w_rec`; None: as the populations say.
        bounds: smallest and largest weight, of `w_in` and `w_rec`.
        delays_in, delays_rec: steps that a presynaptic variable takes longer than without, 0 or above: of each
            presynaptic neuron, `[n_in]` and `[n]` (axonal), or of each synapse, `[n_in, n]` and `[n, n]`. None: 0, and
            of `w_rec` as the populations say. `I_t` has `x_i^{t-d}` and `z_i^{t-1-d}`; the reset is not delayed.
            Delays of each synapse are kept in groups of equal delay: each group costs as much as all without delays.
        rewiring: lets synapses vanish and grow (DEEP R), in the matrices that have a mask.
        frozen: what does not learn: `"w_in"`, `"w_rec"`, `"bias"`, or of one postsynaptic population, `"w_rec:NAME"`.
        trainable: names of neuron constants to train (`("tau_m",)`); they become arrays `[neuron]`. All others stay as
            they are, arrays too.
        weight_scale: factor on the initial weights.

    Signs, bounds and masks hold after every `apply_updates`, as a `Learner` makes them. The gradient is that of the
    synapses there are.

    Raises:
        InvalidSetting: for sizes, masks, constants or constraints that do not fit.
    """

    neuron: Neuron
    w_in: Float[Array, "n_in k_in neuron"]
    w_rec: Float[Array, "neuron k_rec neuron"] | None
    bias: Float[Array, "current neuron"] | None
    mask_in: Bool[Array, "n_in neuron"] | None
    mask_rec: Bool[Array, "neuron neuron"] | None
    signs_in: Int8[Array, "n_in _"] | None
    signs_rec: Int8[Array, "neuron _"] | None
    delays_in: Delays | None
    delays_rec: Delays | None
    rewiring_key: UInt32[Array, "word"] | None  # noqa: F821  # as integers, so that it is saved like a weight
    autapses: bool = eqx.field(static=True)
    trainable: tuple[str, ...] = eqx.field(static=True)
    populations: tuple[tuple[str, int], ...] = eqx.field(static=True)
    bounds: tuple[float, float] | None = eqx.field(static=True)
    rewiring: Rewiring | None = eqx.field(static=True)
    frozen: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        neuron: Neuron,
        n_in: int,
        n: int | Sequence[Population],
        *,
        key: PRNGKeyArray,
        bias: bool = False,
        autapses: bool | None = None,
        mask_in: Any = None,
        mask_rec: Any = None,
        signs_in: Any = None,
        signs_rec: Any = None,
        delays_in: Any = None,
        delays_rec: Any = None,
        bounds: tuple[float, float] | None = None,
        rewiring: Rewiring | None = None,
        frozen: tuple[str, ...] = (),
        trainable: tuple[str, ...] = (),
        weight_scale: float = 1.0,
        dtype: Any = jnp.float32,
    ) -> None:
        parts = check_populations(n)
        size: int = sum(p.size for p in parts) if parts else n  # pyright: ignore[reportAssignmentType]
        require(n_in >= 1 and size >= 1, f"n_in = {n_in}, n = {size}: a layer needs at least one input and one neuron")
        require_size(neuron, size)
        k_in, k_rec = (len(_fed(neuron, c)) for c in (neuron.input_currents, neuron.recurrent_currents))
        require(k_in >= 1, f"neuron: {type(neuron).__name__} has no current that inputs feed")
        if signs_rec is None and any(p.sign != "free" for p in parts):
            signs_rec = of_each_neuron(parts, lambda p: SIGNS[p.sign])
        if delays_rec is None and any(p.delay for p in parts):
            delays_rec = of_each_neuron(parts, lambda p: p.delay)
        of_recurrence = {"mask_rec": mask_rec, "signs_rec": signs_rec, "delays_rec": delays_rec, "autapses": autapses}
        for name, value in of_recurrence.items():
            require(value is None or k_rec > 0, f"{name}: {type(neuron).__name__} takes no recurrent currents")
        self.neuron = as_arrays(population_constants(neuron, parts), trainable, size, dtype)
        self.populations, self.trainable = tuple((p.name, p.size) for p in parts), trainable
        self.mask_in, self.mask_rec = _mask("mask_in", mask_in, n_in, size), _mask("mask_rec", mask_rec, size, size)
        self.signs_in = signs_of("signs_in", signs_in, n_in, size)
        self.signs_rec = signs_of("signs_rec", signs_rec, size, size)
        self.delays_in = delays_of("delays_in", delays_in, n_in, size)
        self.delays_rec = delays_of("delays_rec", delays_rec, size, size)
        self.bounds = check_bounds(bounds, self.signs_in is not None or self.signs_rec is not None)
        self.autapses = not neuron.spiking if autapses is None else autapses
        key_in, key_rec = jax.random.split(key)
        normal = lambda key, *shape: weight_scale * jax.random.normal(key, shape, dtype) * shape[0] ** -0.5  # noqa: E731
        self.w_in = with_signs(normal(key_in, n_in, k_in, size), self.signs_in)
        self.w_rec = with_signs(normal(key_rec, size, k_rec, size), self.signs_rec) if k_rec else None
        self.bias = jnp.zeros((neuron.num_currents, size), dtype) if bias else None
        self.rewiring, self.rewiring_key = rewiring, None
        if rewiring is not None:
            self.rewiring_key = jax.random.key_data(jax.random.fold_in(key, 1))
            self._prepare_rewiring()
        self.frozen = check_frozen(frozen, self.populations, self)
        self.w_in = within(self.w_in, self.mask_in, self.signs_in, self.bounds)
        self.w_rec = None if self.w_rec is None else within(self.w_rec, self.mask_rec, self.signs_rec, self.bounds)

    def _prepare_rewiring(self) -> None:
        """Each place for a synapse gets a sign, that of the weight drawn for it where there is none."""
        names = [name for name in ("in", "rec") if getattr(self, f"mask_{name}") is not None]
        require(bool(names), "rewiring: all synapses exist (no mask_in, no mask_rec), none can grow")
        for name in names:
            w, signs = getattr(self, f"w_{name}"), getattr(self, f"signs_{name}")
            require(
                w.shape[1] == 1,
                f"rewiring: a synapse onto this neuron has {w.shape[1]} weights, one a current; it takes one",
            )
            drawn = jnp.where(w[:, 0] < 0, -1, 1).astype(jnp.int8)
            setattr(self, f"signs_{name}", drawn if signs is None else jnp.where(signs == 0, drawn, signs))
        if self.mask_rec is not None and not self.autapses:
            self.mask_rec = self.mask_rec & ~jnp.eye(self.size, dtype=bool)

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
            options: as in the constructor; and `populations`, for its `n`.

        Example:
            >>> import jax.numpy as jnp
            >>> from eprop import LIF, Recurrent
            >>> Recurrent.from_weights(LIF(), jnp.ones((3, 5)), jnp.zeros((5, 5))).size
            5

        Raises:
            InvalidSetting: for shapes that do not fit the neuron or each other, or weights outside their constraints.
        """
        dtype = jnp.result_type(w_in)
        w_in = w_in[:, None] if w_in.ndim == 2 else w_in
        w_rec = w_rec[:, None] if w_rec is not None and w_rec.ndim == 2 else w_rec
        require(w_in.ndim == 3, f"w_in: expected [n_in, current, neuron], got {w_in.shape}")
        n_in, _, n = w_in.shape
        parts = options.pop("populations", n)
        layer = cls(neuron, n_in, parts, key=jax.random.key(0), bias=bias is not None, dtype=dtype, **options)
        for name, given in (("w_in", w_in), ("w_rec", w_rec), ("bias", bias)):
            expected = getattr(layer, name)
            shapes = [None if a is None else a.shape for a in (expected, given)]
            require(shapes[0] == shapes[1], f"{name}: expected shape {shapes[0]}, got {shapes[1]}")
        parts = tuple(None if a is None else jnp.asarray(a, dtype) for a in (w_in, w_rec, bias))
        layer = eqx.tree_at(lambda m: (m.w_in, m.w_rec, m.bias), layer, parts, is_leaf=lambda x: x is None)
        for name in ("in", "rec"):
            w, signs = getattr(layer, f"w_{name}"), getattr(layer, f"signs_{name}")
            fits = w is None or isinstance(w, Tracer) or bool((within(w, None, signs, layer.bounds) == w).all())
            require(fits, f"w_{name}: has weights outside their bounds, or of another sign than signs_{name} says")
        return layer

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
        """The weights that act: masked, without autapses, and with a place for every current; frozen ones detached."""
        w_in, w_rec, bias, neuron = self._plastic("w_in"), self._plastic("w_rec"), self._plastic("bias"), self.neuron
        if self.mask_in is not None:
            w_in = w_in * self.mask_in[:, None].astype(w_in.dtype)
        if w_rec is not None and self.mask_rec is not None:
            w_rec = w_rec * self.mask_rec[:, None].astype(w_rec.dtype)
        if w_rec is not None and not self.autapses:
            w_rec = w_rec * (1.0 - jnp.eye(self.size, dtype=w_rec.dtype))[:, None]
        w_in = w_in if self.delays_in is None else self.delays_in.in_groups(w_in)
        if w_rec is not None:
            w_rec = w_rec if self.delays_rec is None else self.delays_rec.in_groups(w_rec)
            w_rec = _place(w_rec, neuron.recurrent_currents, neuron.num_currents)
        return Synapses(_place(w_in, neuron.input_currents, neuron.num_currents), w_rec, bias)

    def _plastic(self, part: str) -> Any:
        """A weight array with no gradient into what is frozen of it."""
        weights, frozen = getattr(self, part), frozen_neurons(part, self.frozen, self.populations)
        if weights is None or frozen is None:
            return weights
        return jnp.where(frozen, jax.lax.stop_gradient(weights), weights)

    def constrained(self, before: "Recurrent") -> "Recurrent":
        """The layer after an update, within its constraints (see `apply_updates`); `before`: as it was."""
        layer, none = self, lambda x: x is None
        for part in ("w_in", "w_rec", "bias"):
            frozen = frozen_neurons(part, self.frozen, self.populations)
            if frozen is not None:
                kept = jnp.where(frozen, getattr(before, part), getattr(self, part))
                layer = eqx.tree_at(lambda m, part=part: getattr(m, part), layer, kept)
        for name in ("in", "rec"):
            w, mask, signs = (getattr(layer, f"{what}_{name}") for what in ("w", "mask", "signs"))
            if w is None or w is getattr(before, f"w_{name}"):  # no update: not trained
                continue
            if self.rewiring is not None and mask is not None:
                layer, w, mask = layer._rewired(name, w, mask, signs)
            kept = (within(w, mask, signs, self.bounds), mask)
            at = lambda m, name=name: (getattr(m, f"w_{name}"), getattr(m, f"mask_{name}"))  # noqa: E731
            layer = eqx.tree_at(at, layer, kept, is_leaf=none)
        return layer

    def _rewired(self, name: str, w: Array, mask: Array, signs: Array) -> tuple["Recurrent", Array, Array]:
        """The layer with its next random key, and new weights and mask."""
        assert self.rewiring is not None and self.rewiring_key is not None
        key, own = jax.random.split(jax.random.wrap_key_data(self.rewiring_key))
        possible = jnp.ones(mask.shape, bool)
        if name == "rec" and not self.autapses:
            possible = ~jnp.eye(self.size, dtype=bool)
        frozen = frozen_neurons(f"w_{name}", self.frozen, self.populations)
        possible = possible if frozen is None else possible & ~jnp.asarray(frozen)
        w, mask = rewired(own, self.rewiring, w, mask, signs, possible)
        return eqx.tree_at(lambda m: m.rewiring_key, self, jax.random.key_data(key)), w, mask

    def connected(self) -> Synapses:
        """1 where a synapse acts, 0 where it does not: masked, an autapse, a current that is not fed."""
        ones = jax.tree.map(jnp.ones_like, (self.w_in, self.w_rec))
        none = lambda x: x is None  # noqa: E731
        return eqx.tree_at(lambda m: (m.w_in, m.w_rec), self, ones, is_leaf=none).synapses()

    def start(self, batch: int, traces: bool = False) -> Carry:
        """The carry before the first step; with `traces`, zero eligibility vectors stand in it."""
        require(batch >= 1, f"batch = {batch}: must be at least 1")
        carry = self._begin(self.neuron, batch)
        return with_traces(self.neuron, self.synapses(), carry) if traces else carry

    def _begin(self, neuron: Neuron, batch: int) -> Carry:
        """The carry of the layer with another neuron model (its own without the filter), nothing on its way."""
        carry, dtype = start(neuron, batch, self.size, self.w_in.dtype), self.w_in.dtype
        line, waiting = self.delays_rec, self.delays_in
        if line is not None:
            past = jnp.zeros((line.longest, batch, self.size), dtype)
            carry = carry._replace(line=DelayLine(past, line.columns))
        if waiting is not None:
            carry = carry._replace(waiting=jnp.zeros((waiting.longest, batch, self.n_in), dtype))
        return carry

    def arriving(self, inputs: Float[Array, "time batch n_in"], carry: Carry | None = None) -> Array:
        """The inputs as they reach the synapses: delayed, behind those that `carry` has on their way (from rest: 0)."""
        if self.delays_in is None:
            return inputs
        waiting = self._begin(self.neuron, inputs.shape[1]).waiting if carry is None else carry.waiting
        assert waiting is not None
        return shift(waiting, inputs, self.delays_in.columns)

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
        arriving, waiting = self.arriving(x, carry), carry.waiting
        outputs, y, carry = rule.run(neuron, synapses, arriving, carry._replace(waiting=None), weights, future)
        carry = self._with_waiting(carry, waiting, x, rule)
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
            pairs = ((carry.line, self.delays_rec), (carry.waiting, self.delays_in))
            alike = all((held is None) == (delays is None) for held, delays in pairs)
            require(alike, "carry: is of a layer with other delays; begin with start(batch)")
        return jnp.asarray(inputs).astype(self.w_in.dtype)

    def _with_waiting(self, carry: Carry, waiting: Array | None, inputs: Array, rule: Rule) -> Carry:
        """The carry after a run, with the inputs that are still on their way."""
        if waiting is None:
            return carry
        after = newest(waiting, inputs)
        return carry._replace(waiting=jax.lax.stop_gradient(after) if rule.recurrence == "cut" else after)

    def _filter_may_follow(self, time: int) -> bool:
        """Whether the readout's filter, from rest and the same for all neurons, may stand behind `W_out`."""
        neuron = self.neuron
        return isinstance(neuron, Filtered) and not eqx.is_array(neuron.tau_out) and time % self.frame == 0

    def _run_behind_head(
        self, neuron: Filtered, synapses: Synapses, inputs: Array, rule: Rule, weights: Any
    ) -> LayerOutput:
        """From rest, with the filter behind `W_out`: there it filters few outputs, and its adjoint few errors."""
        begin = self._begin(neuron.neuron, inputs.shape[1])
        arriving, without = self.arriving(inputs), begin._replace(waiting=None)
        z, y, last = rule.run(neuron.neuron, synapses, arriving, without, weights)
        last = self._with_waiting(last, begin.waiting, inputs, rule)
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


def _mask(name: str, mask: Any, n_pre: int, n_post: int) -> Bool[Array, "n_pre n_post"] | None:
    if mask is None:
        return None
    mask, shape = jnp.asarray(mask), (n_pre, n_post)
    require(mask.shape == shape, f"{name}: expected shape {shape}, got {mask.shape}")
    require(mask.dtype == bool, f"{name}: expected True and False, got {mask.dtype}")
    return mask


def _fed(neuron: Neuron, currents: tuple[int, ...] | None) -> tuple[int, ...]:
    return tuple(range(neuron.num_currents)) if currents is None else currents


def _place(weights: Array, currents: tuple[int, ...] | None, num_currents: int) -> Array:
    """Weights with zeros for the currents they do not feed."""
    if currents is None:
        return weights
    full = jnp.zeros((weights.shape[0], num_currents, weights.shape[2]), weights.dtype)
    return full.at[:, jnp.array(currents, int)].set(weights)
