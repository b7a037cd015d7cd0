"""The learner: it trains a network on whole sequences, or on a stream while it comes.

A stream is cut in windows of any length from 1. Between them the learner carries the neurons' state, the eligibility
vectors, the optimiser's state and running firing rates; with frozen weights its gradients, summed over windows, are
those of the whole sequence (Bellec et al. 2019, eq. 1). A whole sequence is one window that begins at rest.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from eprop.eligibility import Carry, restart, settle_if
from eprop.errors import require, require_positive
from eprop.learning_signals import (
    SyntheticGradient,
    boundary,
    boundary_loss,
    firing_rate_loss,
    firing_rates,
    prediction_error,
    with_boundary,
)
from eprop.networks import (
    Bidirectional,
    Block,
    Network,
    Recurrent,
    apply_updates,
    hold,
    kolen_pollack_decay,
    partition,
    trainable,
)
from eprop.neurons import PyTree, traced
from eprop.rules import BPTT, Rule, require_rule

Inputs = Shaped[Array, "time batch *channel"] | Shaped[np.ndarray, "time batch *channel"]
"""The input of a step: numbers of any type, or symbols."""

Loss = Callable[[Array, Any, Array], Array]
"""`loss(outputs, targets, mask)`: summed, not averaged, over steps, so that windows add up."""


class Late(NamedTuple):
    """Steps that wait for their targets: the learner runs `inputs.shape[0]` steps behind the predictions.

    `carry` is that of the predictions, which are at the newest step.
    """

    inputs: Float[Array, "behind batch n_in"]
    targets: PyTree  # [behind - delay, batch, ...]
    mask: Float[Array, "wait batch"]
    carry: tuple[Any, ...]
    empty: Int[Array, ""]  # windows before the learner meets the first step


class Synthesisers(NamedTuple):
    """The synthetic gradients of a rule that has them: a module a layer, and their optimiser's state."""

    modules: tuple[SyntheticGradient, ...]
    optimiser: PyTree
    fresh: Bool[Array, "batch"]  # noqa: F821  # a sequence begins with the next step: nothing was said before it


class LearnerState(NamedTuple):
    """All that the learner carries from step to step: a pytree, to be saved, restored and moved as one."""

    network: Network
    carry: tuple[Any, ...] | None  # a layer each: neuron state, last output, eligibility vectors; None: whole sequences
    optimiser: PyTree
    gradient: PyTree  # summed since the last update; None where every window is followed by one
    rates: tuple[Float[Array, "neuron"], ...] | None  # noqa: F821  # running mean of z, a layer each
    windows: Int[Array, ""]
    skipped: Int[Array, ""]  # windows that were left out, since something in them was not finite
    synthesisers: Synthesisers | None = None
    late: Late | None = None


class LearnerMetrics(NamedTuple):
    """The results of a step beside the outputs."""

    loss: Float[Array, ""]
    """Loss summed over the window's steps; NaN if the window was left out."""
    rate: Float[Array, ""]
    """Mean output (spikes a step) over all neurons: the running one, or that of the window's valid steps."""
    skipped: Int[Array, ""]
    """Windows left out so far, since loss, gradient, inputs or state were not finite in them."""


class Data(NamedTuple):
    """The arrays that one step sees, `[time, batch, ...]` each; `ended` is `[batch]`."""

    inputs: Any
    targets: Any = None
    mask: Any = None
    valid: Any = None
    ended: Any = None


def suggested_window(network: Network, batch: int = 1) -> int:
    """Steps a window at which a stream is learnt fast in little memory, from the sizes of the network.

    Each window reads and writes the eligibility vectors once, `[batch, pre, current, neuron]`: the longer it is, the
    less that weighs. At this length a window's own activity takes about as much memory as the vectors.

    Example:
        >>> import jax
        >>> from eprop import LSTM, Network, Readout, Recurrent, suggested_window
        >>> layer = Recurrent(LSTM(), 20, 100, key=jax.random.key(0))
        >>> suggested_window(Network((layer,), Readout(100, 1, key=jax.random.key(1))))
        36
    """
    carried = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda: network.start(batch, traces=True))))
    inner = [layer.layer if isinstance(layer, Block) else layer for layer in network.layers]
    currents = sum(layer.size * layer.neuron.num_currents for layer in inner if isinstance(layer, Recurrent))
    a_step = batch * (currents + 6 * sum(layer.size for layer in inner))
    return min(max(carried // a_step, 16), 128)


class Learner:
    """Trains a network: `init`, `step` window by window, `predict` without learning.

    Args:
        rule: any rule for whole sequences; for a stream one that can learn piece by piece (`Rule.streams`).
        optimiser: an optax gradient transformation.
        loss: `loss(outputs, targets, mask)`, summed over steps; targets and mask as they are handed to `step`.
        update_every: windows between two updates of the weights; `"sequence"`: when all samples' sequences have ended;
            None: only when `update` is called.
        delay: steps after which a step's target comes (`targets[t]` belongs to step `t - delay`). The
            learner then follows the predictions by `delay` steps, rounded up to whole windows, and all windows have
            one length.
        rate_target, rate_strength, rate_window: firing-rate regularisation towards `rate_target` (spikes a step)
            with `c_reg = rate_strength`. With a `rate_window`, from a running mean over so many steps that starts at
            the target; None: from the mean over the window's own valid steps.
        weight_penalty: strength of the L2 penalty on trained weights, added to each window's loss.
        kolen_pollack: decay of `W_out` and `B` at each update, with feedback that adapts.
        synthesiser_optimiser, synthesiser_hidden, synthesiser_discount: for a rule with synthetic gradients: an optax
            transformation for its modules, their hidden units, and a factor on their predictions (from 0 to 1).

    Each update is an `apply_updates`: weights and constants stay within their constraints. A window in which anything
    is not finite (inputs, loss, gradient, the neurons' state) is left out whole: weights and carry stay those before
    it, its loss is NaN, and `skipped` counts it. So is an update after which weights would not be finite.

    With synthetic gradients `SG` (e-prop 3), and `d` their discount:

        E_window = E(y) + d <SG(s_K, z_K), (s_K, z_K)>, the second term 0 where the sequence has ended
        E_SG     = 1/2 ||SG(s_0, z_0) - B dE_window/d(s_0, z_0)||^2,      B: samples in the batch

    One gradient of `E_window`, over weights and over the window's first state, gives the rule's gradient and the
    synthetic gradient's bootstrapped target.

    Approximation: that of the rule. In a stack a lower layer's learning signal, which passes through the neurons of
    the layer above, ends with the window: the whole-sequence gradient is met exactly by the last layer alone.

    Raises:
        InvalidSetting: for a setting out of range, or data that a rule or network cannot learn from.

    Departs from the source: the running regularisation's error is that of the rate at the window's start,
    `c_reg 2 (f_j - f_0)` times the mean of `z_j` over the window and batch.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from eprop import LSTM, EProp1, Learner, Network, Readout, Recurrent
        >>> key = jax.random.key(0)
        >>> network = Network((Recurrent(LSTM(), 2, 8, key=key),), Readout(8, 1, key=key))
        >>> squared = lambda y, target, mask: 0.5 * jnp.sum(mask[..., None] * (y - target) ** 2)
        >>> learner = Learner(EProp1(), optax.adam(1e-3), squared)
        >>> state = learner.init(network, batch=1)
        >>> for window in jnp.ones((3, 5, 1, 2)):  # [window, time, batch, channel]
        ...     state, y, metrics = learner.step(state, window, window[..., :1])
        >>> y.shape
        (5, 1, 1)
    """

    update_every: int | Literal["sequence"] | None
    delay: int
    kolen_pollack: float
    rate_target: float
    rate_strength: float
    rate_window: float | None
    weight_penalty: float
    synthesiser_optimiser: Any
    synthesiser_hidden: tuple[int, ...]
    synthesiser_discount: float

    def __init__(
        self,
        rule: Rule,
        optimiser: Any,
        loss: Loss,
        *,
        update_every: int | Literal["sequence"] | None = 1,
        delay: int = 0,
        rate_target: float = 0.01,
        rate_strength: float = 0.0,
        rate_window: float | None = 500.0,
        weight_penalty: float = 0.0,
        kolen_pollack: float = 0.001,
        synthesiser_optimiser: Any = None,
        synthesiser_hidden: tuple[int, ...] = (),
        synthesiser_discount: float = 1.0,
    ) -> None:
        require_rule(rule)
        require_positive(update_every=None if update_every == "sequence" else update_every, rate_window=rate_window)
        require(delay >= 0, f"delay = {delay}: must be 0 or above")
        require(rate_strength >= 0, f"rate_strength = {rate_strength}: must be 0 or above")
        require(weight_penalty >= 0, f"weight_penalty = {weight_penalty}: must be 0 or above")
        require(0 <= kolen_pollack < 1, f"kolen_pollack = {kolen_pollack}: must be from 0 to below 1")
        require(0 <= synthesiser_discount <= 1, f"synthesiser_discount = {synthesiser_discount}: must be from 0 to 1")
        require(
            rule.synthesises == (synthesiser_optimiser is not None),
            f"synthesiser_optimiser: rule {rule.label!r} "
            + ("needs one, for its synthetic gradients" if rule.synthesises else "has no synthetic gradients"),
        )
        require(
            not (rule.synthesises and delay),
            f"delay = {delay}: rule {rule.label!r} learns its synthetic gradients from targets that come at once",
        )
        self.rule: Rule = rule
        self.optimiser: Any = optimiser
        self.loss: Loss = loss
        self.update_every, self.delay, self.kolen_pollack = update_every, delay, kolen_pollack
        self.rate_target, self.rate_strength, self.rate_window = rate_target, rate_strength, rate_window
        self.weight_penalty = weight_penalty
        self.synthesiser_optimiser, self.synthesiser_hidden = synthesiser_optimiser, synthesiser_hidden
        self.synthesiser_discount = synthesiser_discount
        self._step = eqx.filter_jit(self._one_step, donate="all-except-first")
        self._run = eqx.filter_jit(self._many_steps, donate="all-except-first")
        self._predictions = eqx.filter_jit(lambda state, inputs: self._predict(state, inputs)[0])
        self._update = eqx.filter_jit(self._apply, donate="all")

    def init(
        self,
        network: Network,
        batch: int | None = 1,
        first: tuple[Array, Any] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> LearnerState:
        """The state before the first step, with a copy of the network that the learner owns.

        Args:
            network: the network to train.
            batch: streams side by side, with zero traces; None: each step is a batch of whole sequences from rest.
            first: inputs and targets of one window (their shapes and types count), where the state must have from the
                start the structure that late targets give it at the first `step`: to restore a saved one into.
            key: random key of synthetic gradients with hidden layers.
        """
        network = _own(network)
        chosen, _ = partition(network, self.rule)
        carry, rates = None, None
        if batch is not None:
            self._check_stream(network)
            carry = _own(network.start(batch, traces=self.rule.carries_traces))
        if self.rate_window is not None:
            rates = tuple(jnp.full((_neurons(layer),), self.rate_target, network.dtype) for layer in network.layers)
        none = jnp.zeros((), jnp.int32)
        state = LearnerState(
            network,
            carry,
            self.optimiser.init(chosen),
            None if self.update_every == 1 else jax.tree.map(jnp.zeros_like, chosen),
            rates,
            none,
            jnp.zeros_like(none),
            self._synthesisers(network, batch, key),
        )
        return state if first is None else self._with_late(state, *first)

    def _check_stream(self, network: Network) -> None:
        require(
            self.rule.streams,
            f"rule {self.rule.label!r}: does not learn from a stream, it takes whole sequences (batch=None)"
            + ("; truncated_bptt does" if self.rule.name == "bptt" else ""),
        )
        require(
            not any(isinstance(layer, Bidirectional) for layer in network.layers),
            "network: a bidirectional layer needs the whole sequence, it cannot learn from a stream",
        )

    def _synthesisers(self, network: Network, batch: int | None, key: PRNGKeyArray | None) -> Synthesisers | None:
        if not self.rule.synthesises:
            return None
        require(
            batch is not None,
            f"rule {self.rule.label!r}: trains its synthetic gradients window by window; give the learner a batch",
        )
        require(key is not None or not self.synthesiser_hidden, "key: hidden layers of synthetic gradients need one")
        modules = []
        for i, layer in enumerate(network.layers):
            assert not isinstance(layer, Bidirectional)
            components = len(jax.tree.leaves(boundary(layer.start(1))[0]))
            own = jax.random.fold_in(jax.random.key(0) if key is None else key, i)
            hidden = self.synthesiser_hidden
            modules.append(SyntheticGradient(components, _neurons(layer), hidden=hidden, key=own, dtype=network.dtype))
        optimiser = self.synthesiser_optimiser.init(tuple(modules))
        return Synthesisers(tuple(modules), optimiser, jnp.ones((batch,), bool))  # pyright: ignore[reportArgumentType]

    def step(
        self,
        state: LearnerState,
        inputs: Inputs,
        targets: Any = None,
        mask: Any = None,
        *,
        valid: Any = None,
        ended: Any = None,
    ) -> tuple[LearnerState, Float[Array, "time batch output"], LearnerMetrics]:
        """One window, or one batch of whole sequences.

        Args:
            state: from `init` or the last `step`; its buffers are used again, so the old one is gone.
            inputs: `[time, batch, n_in]`, numbers of any type; symbols `[time, batch]` for an embedding.
            targets: what `loss` takes, `[time, batch, ...]`; None: no learning in this window, but the traces go on.
            mask: `[time, batch]`, 0 where there is no target; None: a target at each step.
            valid: `[time, batch]`, False in the padding behind a sequence: it does not count in firing rates, and a
                layer that reads backwards begins at its edge; None: all steps.
            ended: `[batch]`, True where a sample's sequence ends with this window: what follows is another one, from
                rest. None: nothing ends.

        Returns:
            The new state, the outputs at `inputs` (made before this window's update), and metrics.

        Raises:
            InvalidSetting: for a window without steps, another batch than `init`'s, or arguments that do not apply.
        """
        data = self._checked(state, Data(inputs, targets, mask, valid, ended))
        state = self._with_late(state, data.inputs, data.targets)
        return self._step(data, state)

    def run(
        self,
        state: LearnerState,
        inputs: Inputs,
        targets: Any,
        mask: Any,
        *,
        window: int,
        count: int | None = None,
        valid: Any = None,
    ) -> tuple[LearnerState, Float[Array, "time batch output"], LearnerMetrics]:
        """Several windows in one compiled call, each as `step` takes it: for steps that have come in bulk.

        Args:
            state: as in `step`.
            inputs, targets, mask, valid: as in `step`, of all windows one after the other.
            window: steps a window; divides the time that the arrays are long.
            count: windows to take; None: all. What lies behind is padding: any count is served by the same
                compiled code, so that numbers do not depend on how a stream happened to arrive.

        Returns:
            The new state, the outputs (zero in the padding), and metrics: the loss of all windows, the rate after them.
        """
        time = inputs.shape[0]
        require(window >= 1 and time % window == 0, f"window = {window}: must divide the {time} steps of inputs")
        windows = time // window
        taken = windows if count is None else count
        require(0 <= taken <= windows, f"count = {taken}: must be from 0 to {windows} windows")
        data = self._checked(state, Data(inputs, targets, mask, valid))
        state = self._with_late(state, data.inputs[:window], jax.tree.map(lambda x: x[:window], targets))
        return self._run((data, jnp.asarray(taken)), state, window)

    def predict(self, state: LearnerState, inputs: Inputs) -> Float[Array, "time batch output"]:
        """The outputs at the next steps' inputs, without learning and without going on."""
        return self._predictions(state, self._checked(state, Data(inputs)).inputs)

    def update(self, state: LearnerState) -> LearnerState:
        """Apply the gradient summed since the last update: for `update_every=None`."""
        require(self.update_every != 1, "update: every window is followed by an update already")
        return self._update(state)

    def _checked(self, state: LearnerState, data: Data) -> Data:
        inputs, network = jnp.asarray(data.inputs), state.network
        require(inputs.ndim >= 2 and inputs.shape[0] >= 1, f"inputs: expected [time, batch, ...], got {inputs.shape}")
        if state.carry is not None:
            batch = state.carry[0].z.shape[0]
            require(inputs.shape[1] == batch, f"inputs: expected a batch of {batch}, as in init, got {inputs.shape[1]}")
        require(
            data.ended is None or state.carry is not None,
            "ended: each step is a batch of whole sequences here, all of them end with it",
        )
        require(not (self.delay and data.ended is not None), "ended: not with late targets, a stream has no end")
        require(not (self.delay and data.valid is not None), "valid: not with late targets, a stream has no padding")
        if network.embedding is None:
            inputs = inputs.astype(network.dtype)
        mask = data.mask
        if mask is None:
            mask = jnp.full(inputs.shape[:2], data.targets is not None)
        return data._replace(inputs=inputs, mask=jnp.asarray(mask, network.dtype))

    def _one_step(self, data: Data, state: LearnerState) -> tuple[LearnerState, Array, LearnerMetrics]:
        if state.late is None:
            return self._advance(state, data)
        y, newest = self._predict(state, data.inputs)
        due = state.late.empty == 0
        state, behind = self._wait(state, data, newest)
        arrays, static = eqx.partition(state, eqx.is_array)

        def learn(arrays: PyTree) -> tuple[PyTree, Array]:
            state, _, metrics = self._advance(eqx.combine(arrays, static), behind)
            return eqx.filter(state, eqx.is_array), metrics.loss

        arrays, loss = jax.lax.cond(due, learn, lambda arrays: (arrays, jnp.zeros((), y.dtype)), arrays)
        state = eqx.combine(arrays, static)
        rate = jnp.concatenate(state.rates).mean() if state.rates is not None else jnp.zeros((), y.dtype)
        return state, y, LearnerMetrics(loss, rate, state.skipped)

    def _many_steps(
        self, data_and_count: tuple[Data, Array], state: LearnerState, window: int
    ) -> tuple[LearnerState, Array, LearnerMetrics]:
        data, count = data_and_count
        arrays, static = eqx.partition(state, eqx.is_array)

        def one(i: Array, carried: tuple) -> tuple:
            arrays, y, loss, _ = carried
            part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i * window, window), data)
            state, y_window, metrics = self._one_step(part, eqx.combine(arrays, static))
            y = jax.lax.dynamic_update_slice_in_dim(y, y_window, i * window, axis=0)
            return eqx.filter(state, eqx.is_array), y, loss + metrics.loss, metrics.rate

        nothing = jnp.zeros((), state.network.dtype)
        shape = jax.eval_shape(lambda s, x: self._predict(s, x)[0], state, data.inputs).shape
        y = jnp.zeros(shape, state.network.dtype)
        arrays, y, loss, rate = jax.lax.fori_loop(0, count, one, (arrays, y, nothing, nothing))
        state = eqx.combine(arrays, static)
        return state, y, LearnerMetrics(loss, rate, state.skipped)

    # One window: its gradient, what it hands on, and the update

    def _advance(self, state: LearnerState, data: Data) -> tuple[LearnerState, Array, LearnerMetrics]:
        """Learn from one window, and update the weights if it is time."""
        (value, result), gradient, at_start = self._gradient(state, data)
        finite = _all_finite((value, gradient, data.inputs, _floating(result.carry)))
        gradient = jax.tree.map(lambda g: jnp.where(finite, g, jnp.zeros((), g.dtype)), gradient)
        gradient, moved = self._moved(state, data, result, gradient, finite)
        moved = self._train_synthesisers(moved, state, data, at_start, finite)
        moved = self._descend(moved, gradient, data, finite)
        value = jnp.where(moved.skipped == state.skipped, value, jnp.nan)
        rates = moved.rates or tuple(firing_rates(z, _held(data.valid, z)) for z in result.z)
        return moved, result.y, LearnerMetrics(value, jnp.concatenate(rates).mean(), moved.skipped)

    def gradient(
        self, network: Network, inputs: Array, targets: Any, mask: Any = None, valid: Any = None
    ) -> tuple[tuple[Array, Any], Network]:
        """Loss, outputs and the rule's gradient of whole sequences from rest; nothing is updated.

        Returns:
            (loss, `NetworkOutput`), and the gradient: None for what is not trained.
        """
        state = LearnerState(network, None, None, None, None, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))
        data = self._checked(state, Data(inputs, targets, mask, valid))
        found = self._gradient(state, data)
        return found[0], found[1]

    def _gradient(self, state: LearnerState, data: Data) -> tuple[tuple[Array, Any], PyTree, PyTree]:
        """A window's own loss and outputs; its gradient over weights, and over each layer's first state and `z`."""
        chosen, rest = partition(state.network, self.rule)
        first = None
        if state.synthesisers is not None and state.carry is not None:
            first = tuple(map(boundary, state.carry))

        def of(chosen: PyTree, first: PyTree) -> tuple[Array, tuple[Array, Any]]:
            network, carry = eqx.combine(chosen, rest), state.carry
            if first is not None and carry is not None:
                carry = tuple(map(with_boundary, carry, first))
            result = network(data.inputs, self.rule, carry, self._lengths(network, data))
            value = jnp.zeros((), result.y.dtype)
            if data.targets is not None:
                value = self.loss(result.y, data.targets, data.mask)
            total = value + self._regularisation(state, data, result.z, chosen) + self._seed(state, data, result.carry)
            return total, (value, result)

        if data.targets is None and self.rate_strength == 0 and self.weight_penalty == 0:
            _, (value, result) = of(chosen, first)  # nothing to learn from: the traces go on
            return (value, result), jax.tree.map(jnp.zeros_like, chosen), None
        (gradient, at_start), found = jax.grad(of, argnums=(0, 1), has_aux=True)(chosen, first)
        return found, gradient, at_start

    def _lengths(self, network: Network, data: Data) -> Array | None:
        backwards = any(isinstance(layer, Bidirectional) for layer in network.layers)
        return data.valid.sum(0) if backwards and data.valid is not None else None

    def _regularisation(self, state: LearnerState, data: Data, z: tuple[Array, ...], chosen: PyTree) -> Array | float:
        """Of the window's firing rates, if it has targets, and of the weights."""
        total = 0.0
        if self.weight_penalty > 0:
            total = self.weight_penalty * sum(jnp.sum(w**2) for w in jax.tree.leaves(chosen))
        if self.rate_strength == 0 or data.targets is None:
            return total
        for i, z_layer in enumerate(z):
            valid = _held(data.valid, z_layer)
            if state.rates is None:
                total = total + firing_rate_loss(z_layer, self.rate_target, self.rate_strength, valid)
            else:
                error = 2.0 * self.rate_strength * jax.lax.stop_gradient(state.rates[i] - self.rate_target)
                total = total + jnp.sum(error * firing_rates(z_layer, valid))
        return total

    def _seed(self, state: LearnerState, data: Data, carry: tuple) -> Array | float:
        """The synthetic gradients of the time after the window; zero where a sequence has ended."""
        if state.synthesisers is None:
            return 0.0
        total, batch = 0.0, carry[0].z.shape[0]
        goes_on = jnp.ones((batch, 1), bool) if data.ended is None else ~data.ended[:, None]
        for module, last in zip(state.synthesisers.modules, carry, strict=True):
            future = module(*jax.lax.stop_gradient(boundary(last)))
            weight = self.synthesiser_discount * goes_on.astype(last.z.dtype) / batch
            total = total + boundary_loss(last, jax.tree.map(lambda g, w=weight: w * g, future))
        return total

    def _moved(
        self, state: LearnerState, data: Data, result: Any, gradient: PyTree, finite: Array
    ) -> tuple[PyTree, LearnerState]:
        """The state with the window's end for its start, if the window is finite."""
        keep = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
        rates = state.rates
        if rates is not None and self.rate_window is not None:
            decay = jnp.exp(-jnp.asarray(data.inputs.shape[0] / self.rate_window, rates[0].dtype))
            means = [firing_rates(z, _held(data.valid, z)) for z in result.z]
            rates = tuple(keep(decay * f + (1.0 - decay) * mean, f) for f, mean in zip(rates, means, strict=True))
        state = state._replace(rates=rates, windows=state.windows + 1, skipped=state.skipped + (1 - finite))
        if state.carry is None:
            return gradient, state
        # The old eligibility vectors are read for the gradient; only then are they written over.
        gradient, carry = jax.lax.optimization_barrier((gradient, jax.lax.stop_gradient(result.carry)))
        fresh = state.network.start(carry[0].z.shape[0])
        carries = []
        for layer, new, old, begin in zip(state.network.layers, carry, state.carry, fresh, strict=True):
            new = new if data.ended is None else restart(new, begin, data.ended)
            assert not isinstance(layer, Bidirectional)
            kept = jax.tree.map(keep, new._replace(traces=None), old._replace(traces=None))
            carries.append(kept._replace(traces=settle_if(finite, layer.neuron, new.traces, old.traces)))
        return gradient, state._replace(carry=tuple(carries))

    def _descend(self, state: LearnerState, gradient: PyTree, data: Data, finite: Array) -> LearnerState:
        """The weights' update: after every window, every n windows, or at the end of the sequences."""
        if self.update_every == 1:
            if data.targets is None:
                return state
            new = self._apply(state._replace(gradient=gradient))
            arrays, static = eqx.partition((new.network, new.optimiser, new.skipped), eqx.is_array)
            old = eqx.filter((state.network, state.optimiser, state.skipped), eqx.is_array)
            network, optimiser, skipped = eqx.combine(jax.tree.map(partial(jnp.where, finite), arrays, old), static)
            return state._replace(network=network, optimiser=optimiser, skipped=skipped)
        state = state._replace(gradient=jax.tree.map(jnp.add, state.gradient, gradient))
        if self.update_every is None:
            return state
        if self.update_every == "sequence":
            require(data.ended is not None, "ended: with update_every='sequence' each step says which samples end")
            due = data.ended.all()
        else:
            due = state.windows % int(self.update_every) == 0
        small = state._replace(carry=None)  # what an update does not touch stays out of the branch
        arrays, static = eqx.partition(small, eqx.is_array)
        apply = lambda a: eqx.filter(self._apply(eqx.combine(a, static)), eqx.is_array)  # noqa: E731
        updated = eqx.combine(jax.lax.cond(due, apply, lambda a: a, arrays), static)
        return updated._replace(carry=state.carry)

    def _apply(self, state: LearnerState) -> LearnerState:
        parameters = eqx.filter(state.network, trainable(state.network, self.rule))
        updates, optimiser = self.optimiser.update(state.gradient, state.optimiser, parameters)
        network = apply_updates(state.network, updates)
        if self.rule.feedback.adapts and "readout" not in network.frozen:
            network = kolen_pollack_decay(network, self.kolen_pollack)
        finite = _all_finite(eqx.filter(network, trainable(network, self.rule)))
        arrays, static = eqx.partition((network, optimiser), eqx.is_array)
        old = eqx.filter((state.network, state.optimiser), eqx.is_array)
        network, optimiser = eqx.combine(jax.tree.map(partial(jnp.where, finite), arrays, old), static)
        nothing = None if self.update_every == 1 else jax.tree.map(jnp.zeros_like, state.gradient)
        skipped = state.skipped + (1 - finite)
        return state._replace(network=network, optimiser=optimiser, gradient=nothing, skipped=skipped)

    def _train_synthesisers(
        self, state: LearnerState, before: LearnerState, data: Data, at_start: PyTree, finite: Array
    ) -> LearnerState:
        """Fit each module, at the window's start, to what is known now; where a sequence starts, nothing was said."""
        held = state.synthesisers
        if held is None or before.carry is None:
            return state
        carry, batch = before.carry, before.carry[0].z.shape[0]
        fresh = jnp.zeros_like(held.fresh) if data.ended is None else data.ended
        if at_start is None:
            return state._replace(synthesisers=held._replace(fresh=fresh))

        def error(modules: tuple[SyntheticGradient, ...]) -> Array:
            counts = (~held.fresh).astype(carry[0].z.dtype)
            own = [jax.tree.map(lambda g: batch * g, target) for target in at_start]
            each = zip(modules, carry, own, strict=True)
            return sum(prediction_error(module(*boundary(c)), target, counts) for module, c, target in each)  # pyright: ignore[reportReturnType]

        gradient = jax.grad(error)(held.modules)
        updates, optimiser = self.synthesiser_optimiser.update(gradient, held.optimiser, held.modules)
        keep = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
        new = (eqx.apply_updates(held.modules, updates), optimiser, fresh)
        modules, optimiser, fresh = jax.tree.map(keep, new, tuple(held))
        return state._replace(synthesisers=Synthesisers(modules, optimiser, fresh))

    # Late targets: a second copy of the neurons' state makes the predictions, ahead of the learner.

    def _with_late(self, state: LearnerState, inputs: Array, targets: Any) -> LearnerState:
        if self.delay and state.late is None:
            return state._replace(late=self._none_yet(state, jnp.asarray(inputs), targets))
        return state

    def _none_yet(self, state: LearnerState, inputs: Array, targets: Any) -> Late:
        require(targets is not None, "targets: the first window of a stream with late targets needs a (masked) target")
        require(state.carry is not None, f"delay = {self.delay}: whole sequences have their targets beside them")
        window, batch = inputs.shape[:2]
        behind = -(-self.delay // window) * window
        dtype = state.network.dtype
        zeros = lambda x, length: jnp.zeros((length, *x.shape[1:]), x.dtype)  # noqa: E731
        waiting = jax.tree.map(lambda x: zeros(jnp.asarray(x), behind - self.delay), targets)
        seen = inputs if state.network.embedding is not None else inputs.astype(dtype)
        return Late(
            zeros(seen, behind),
            waiting,
            jnp.zeros((behind - self.delay, batch), dtype),
            _own(state.network.start(batch, traces=False)),
            jnp.asarray(behind // window, jnp.int32),
        )

    def _predict(self, state: LearnerState, inputs: Array) -> tuple[Array, tuple]:
        carry = state.carry if state.late is None else state.late.carry
        carry = None if carry is None else tuple(c._replace(traces=None) for c in carry)
        result = state.network(inputs, BPTT(), carry)  # forwards all rules are one
        return result.y, jax.lax.stop_gradient(result.carry)

    def _wait(self, state: LearnerState, data: Data, carry: tuple) -> tuple[LearnerState, Data]:
        """The window that the learner sees now: inputs of `behind` steps ago, with the targets that have come since."""
        late, window = state.late, data.inputs.shape[0]
        assert late is not None
        require(data.targets is not None, "targets: with late targets each window has some; what is unknown is masked")
        require(
            late.inputs.shape[0] % window == 0 and late.inputs.shape[0] - self.delay < window,
            f"inputs: a stream with late targets has windows of one length, got one of {window} steps",
        )
        join = lambda old, new: jnp.concatenate([old, new])  # noqa: E731
        all_inputs, all_mask = join(late.inputs, data.inputs), join(late.mask, data.mask)
        all_targets = jax.tree.map(lambda old, new: join(old, jnp.asarray(new)), late.targets, data.targets)
        head, tail = (lambda x: x[:window]), (lambda x: x[window:])
        late = Late(
            tail(all_inputs),
            jax.tree.map(tail, all_targets),
            tail(all_mask),
            carry,
            jnp.maximum(late.empty - 1, 0),
        )
        return state._replace(late=late), Data(head(all_inputs), jax.tree.map(head, all_targets), head(all_mask))


def _neurons(layer: Recurrent | Bidirectional | Block) -> int:
    return layer.layer.size if isinstance(layer, Block) else layer.size


def _own(tree: PyTree) -> PyTree:
    """A copy of each array: `step` uses buffers again, and a model may have one array for two parts of its state."""
    return jax.tree.map(lambda x: jnp.array(x) if eqx.is_array(x) else x, tree)


def _held(valid: Any, z: Array) -> Array | None:
    """The valid steps of `z`, whose frames may be longer than the data's steps."""
    return None if valid is None else hold(jnp.asarray(valid), z.shape[0] // valid.shape[0])


def _floating(carry: Any) -> Any:
    """The neurons' state and outputs in a carry, or in the two of a bidirectional layer; no traces."""
    is_carry = lambda c: isinstance(c, Carry)  # noqa: E731
    return [(traced(c.state), c.z) for c in jax.tree.leaves(carry, is_leaf=is_carry) if is_carry(c)]


def _all_finite(tree: PyTree) -> Bool[Array, ""]:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in leaves]))
