"""The streaming learner: learns while the data comes, in memory that does not grow with time.

A stream is cut in windows of any length from 1. Between them the learner carries the neurons' state, the
eligibility vectors, the optimiser's state and running firing rates; with frozen weights its gradients,
summed over windows, are those of the whole sequence (Bellec et al. 2019, eq. 1).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from eprop.errors import require, require_positive
from eprop.networks import Bidirectional, Network, Recurrent, kolen_pollack_decay, trainable
from eprop.rules import Rule

Loss = Callable[[Array, Any, Array], Array]
"""`loss(outputs, targets, mask)`: summed, not averaged, over steps, so that windows add up."""


class Late(NamedTuple):
    """What waits for its targets: the learner runs `inputs.shape[0]` steps behind the predictions.

    `carry` is that of the predictions, which are at the newest step.
    """

    inputs: Float[Array, "behind batch n_in"]
    targets: PyTree  # [behind - delay, batch, ...]
    mask: Float[Array, "wait batch"]
    carry: tuple
    empty: Int[Array, ""]  # windows before the learner meets the first step


class OnlineState(NamedTuple):
    """All that the learner carries from window to window: a pytree, to be saved, restored and moved as one."""

    network: Network
    carry: tuple  # a layer each: neuron state, last output, eligibility vectors
    optimiser: PyTree
    gradient: PyTree  # summed since the last update
    rates: tuple[Float[Array, "neuron"], ...]  # noqa: F821  # running mean of z, a layer each
    windows: Int[Array, ""]
    late: Late | None = None


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
    currents = sum(layer.size * layer.neuron.num_currents for layer in network.layers if isinstance(layer, Recurrent))
    a_step = batch * (currents + 6 * sum(layer.size for layer in network.layers))
    return min(max(carried // a_step, 16), 128)


class OnlineMetrics(NamedTuple):
    loss: Float[Array, ""]
    """Loss summed over the window's steps."""
    rate: Float[Array, ""]
    """Running mean output (spikes a step) over all neurons."""


class OnlineLearner:
    """Learns from an endless stream, window by window.

        dE/dW_ji = sum_windows sum_{t in window} L_j^t e_ji^t,   e carried from window to window

    Args:
        rule: `EProp1(...)`: exact over windows of any length. `BPTT()` and `TruncatedBPTT` are cut at each
            window's start. `RTRL` is not a streaming rule here.
        optimiser: an optax gradient transformation.
        loss: `loss(outputs, targets, mask)`, summed over steps; targets and mask as they are handed to `step`.
        update_every: windows between two updates of the weights; None: only when `update` is called.
        delay: steps after which a step's target comes (`targets[t]` belongs to step `t - delay`). The
            learner then follows the predictions by `delay` steps, rounded up to whole windows, and all windows have
            one length.
        rate_target, rate_strength, rate_window: firing-rate regularisation towards `rate_target` (spikes a step)
            with `c_reg = rate_strength`, from a running mean over `rate_window` steps that starts at the target.
        kolen_pollack: decay of `W_out` and `B` at each update, with adaptive feedback.

    Approximation: that of the rule. In a stack a lower layer's learning signal, which passes through the neurons of
    the layer above, ends with the window: the whole-sequence gradient is met exactly by the last layer alone.

    Raises:
        InvalidSetting: for a setting out of range, a rule that cannot stream or a bidirectional network.

    Departs from the source: the regularisation's error is that of the running rate at the window's start,
    `c_reg 2 (f_j - f_0)` times the mean of `z_j` over the window and batch.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from eprop import LSTM, EProp1, Network, OnlineLearner, Readout, Recurrent
        >>> key = jax.random.key(0)
        >>> network = Network((Recurrent(LSTM(), 2, 8, key=key),), Readout(8, 1, key=key))
        >>> squared = lambda y, target, mask: 0.5 * jnp.sum(mask[..., None] * (y - target) ** 2)
        >>> learner = OnlineLearner(EProp1(), optax.adam(1e-3), squared)
        >>> state = learner.init(network, batch=1)
        >>> for window in jnp.ones((3, 5, 1, 2)):  # [window, time, batch, channel]
        ...     state, y, metrics = learner.step(state, window, window[..., :1])
        >>> y.shape
        (5, 1, 1)
    """

    def __init__(
        self,
        rule: Rule,
        optimiser: Any,
        loss: Loss,
        *,
        update_every: int | None = 1,
        delay: int = 0,
        rate_target: float = 0.01,
        rate_strength: float = 0.0,
        rate_window: float = 500.0,
        kolen_pollack: float = 0.001,
    ) -> None:
        require_positive(update_every=update_every, rate_window=rate_window)
        require(delay >= 0, f"delay = {delay}: must be 0 or above")
        require(rate_strength >= 0, f"rate_strength = {rate_strength}: must be 0 or above")
        require(rule.streams, f"rule {rule.label!r}: does not learn from a stream")
        self.rule, self.optimiser, self.loss = rule, optimiser, loss
        self.update_every, self.delay, self.kolen_pollack = update_every, delay, kolen_pollack
        self.rate_target, self.rate_strength, self.rate_window = rate_target, rate_strength, rate_window
        self._step = eqx.filter_jit(self._one_step, donate="all-except-first")
        self._run = eqx.filter_jit(self._many_steps, donate="all-except-first")
        self._predictions = eqx.filter_jit(lambda state, inputs: self._predict(state, inputs)[0])
        self._update = eqx.filter_jit(self._apply, donate="all")

    def init(self, network: Network, batch: int = 1, first: tuple[Array, Any] | None = None) -> OnlineState:
        """The state before the first step: zero traces, and a copy of the network that the learner owns.

        Args:
            network: the network to train.
            batch: streams side by side.
            first: inputs and targets of one window (their shapes and types count), where the state must have from the
                start the structure that late targets give it at the first `step`: to restore a saved one into.
        """
        require(
            not any(isinstance(layer, Bidirectional) for layer in network.layers),
            "network: a bidirectional layer needs the whole sequence, it cannot learn from a stream",
        )
        network = jax.tree.map(lambda x: jnp.array(x) if eqx.is_array(x) else x, network)
        chosen = eqx.filter(network, trainable(network, self.rule))
        state = OnlineState(
            network,
            network.start(batch, traces=self.rule.carries_traces),
            self.optimiser.init(chosen),
            jax.tree.map(jnp.zeros_like, chosen),
            tuple(jnp.full((layer.size,), self.rate_target, network.readout.weight.dtype) for layer in network.layers),
            jnp.zeros((), jnp.int32),
        )
        return state if first is None else self._with_late(state, *first)

    def step(
        self,
        state: OnlineState,
        inputs: Float[Array, "time batch n_in"],
        targets: Any = None,
        mask: Any = None,
    ) -> tuple[OnlineState, Float[Array, "time batch output"], OnlineMetrics]:
        """One window.

        Args:
            state: from `init` or the last `step`; its buffers are used again, so the old one is gone.
            inputs: `[time, batch, n_in]`.
            targets: what `loss` takes, `[time, batch, ...]`; None: no learning in this window, but the traces go on.
            mask: `[time, batch]`, 0 where there is no target; None: a target at each step.

        Returns:
            The new state, the outputs at `inputs` (made before this window's update), and metrics.
        """
        if mask is None:
            mask = jnp.full(inputs.shape[:2], targets is not None, inputs.dtype)
        state = self._with_late(state, inputs, targets)
        return self._step((inputs, targets, jnp.asarray(mask, inputs.dtype)), state)

    def run(
        self,
        state: OnlineState,
        inputs: Float[Array, "time batch n_in"],
        targets: Any,
        mask: Float[Array, "time batch"],
        *,
        window: int,
        count: int | None = None,
    ) -> tuple[OnlineState, Float[Array, "time batch output"], OnlineMetrics]:
        """Several windows in one compiled call, each as `step` takes it: for steps that have come in bulk.

        Args:
            state: as in `step`.
            inputs, targets, mask: as in `step`, of all windows one after the other.
            window: steps a window; divides the time that the arrays are long.
            count: windows to take; None: all. What lies behind is padding: any count is served by the same
                compiled code, so that numbers do not depend on how a stream happened to arrive.

        Returns:
            The new state, the outputs (zero in the padding), and metrics: the loss of all windows, the rate after them.
        """
        time = inputs.shape[0]
        require(window >= 1 and time % window == 0, f"window = {window}: must divide the {time} steps of inputs")
        count = time // window if count is None else count
        require(0 <= count <= time // window, f"count = {count}: must be from 0 to {time // window} windows")
        state = self._with_late(state, inputs[:window], jax.tree.map(lambda x: x[:window], targets))
        return self._run((inputs, targets, mask, jnp.asarray(count)), state, window)

    def predict(self, state: OnlineState, inputs: Float[Array, "time batch n_in"]) -> Float[Array, "time batch output"]:
        """The outputs at the next steps' inputs, without learning and without going on."""
        return self._predictions(state, inputs)

    def update(self, state: OnlineState) -> OnlineState:
        """Apply the gradient summed since the last update: for `update_every=None`."""
        return self._update(state)

    def _one_step(self, data, state: OnlineState):
        inputs, targets, mask = data
        if state.late is None:
            state, y, loss = self._advance(state, inputs, targets, mask)
            return state, y, OnlineMetrics(loss, _mean_rate(state))
        y, newest = self._predict(state, inputs)
        due = state.late.empty == 0
        state, behind = self._wait(state, inputs, targets, mask, newest)
        arrays, static = eqx.partition(state, eqx.is_array)

        def learn(arrays):
            state, _, loss = self._advance(eqx.combine(arrays, static), *behind)
            return eqx.filter(state, eqx.is_array), loss

        arrays, loss = jax.lax.cond(due, learn, lambda arrays: (arrays, jnp.zeros((), y.dtype)), arrays)
        state = eqx.combine(arrays, static)
        return state, y, OnlineMetrics(loss, _mean_rate(state))

    def _advance(self, state: OnlineState, inputs, targets, mask):
        """Learn from one window, and update the weights if it is time."""
        state, y, loss = self._learn(state, inputs, targets, mask)
        state = state._replace(windows=state.windows + 1)
        if self.update_every == 1:
            state = self._apply(state)
        elif self.update_every is not None:
            due = state.windows % self.update_every == 0
            arrays, static = eqx.partition(state, eqx.is_array)
            apply = lambda a: eqx.filter(self._apply(eqx.combine(a, static)), eqx.is_array)  # noqa: E731
            state = eqx.combine(jax.lax.cond(due, apply, lambda a: a, arrays), static)
        return state, y, loss

    def _many_steps(self, data, state: OnlineState, window: int):
        *data, count = data
        inputs = data[0]
        arrays, static = eqx.partition(state, eqx.is_array)

        def one(i, carried):
            arrays, y, loss, _ = carried
            part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i * window, window), data)
            state, y_window, metrics = self._one_step(part, eqx.combine(arrays, static))
            y = jax.lax.dynamic_update_slice_in_dim(y, y_window, i * window, axis=0)
            return eqx.filter(state, eqx.is_array), y, loss + metrics.loss, metrics.rate

        weight = state.network.readout.weight
        nothing = jnp.zeros((), weight.dtype)
        y = jnp.zeros((*inputs.shape[:2], weight.shape[1]), weight.dtype)
        arrays, y, loss, rate = jax.lax.fori_loop(0, count, one, (arrays, y, nothing, nothing))
        return eqx.combine(arrays, static), y, OnlineMetrics(loss, rate)

    def _learn(self, state: OnlineState, inputs, targets, mask):
        """Run one window and add its gradient."""
        if targets is None:
            result = state.network(inputs, self.rule, state.carry)
            return self._moved(state, result, inputs), result.y, jnp.zeros((), result.y.dtype)
        chosen, rest = eqx.partition(state.network, trainable(state.network, self.rule))

        def loss(chosen):
            result = eqx.combine(chosen, rest)(inputs, self.rule, state.carry)
            value = self.loss(result.y, targets, mask)
            return value + self._regularisation(state.rates, result.z), (value, result)

        (_, (value, result)), gradient = jax.value_and_grad(loss, has_aux=True)(chosen)
        gradient = jax.tree.map(jnp.add, state.gradient, gradient)
        return self._moved(state, result, inputs)._replace(gradient=gradient), result.y, value

    def _regularisation(self, rates, z):
        if self.rate_strength == 0.0:
            return 0.0
        errors = [2.0 * self.rate_strength * jax.lax.stop_gradient(f - self.rate_target) for f in rates]
        return sum(jnp.sum(e * z_layer.mean((0, 1))) for e, z_layer in zip(errors, z, strict=True))

    def _moved(self, state: OnlineState, result, inputs) -> OnlineState:
        """The state with the window's end for its start."""
        keep = jnp.exp(-jnp.asarray(inputs.shape[0] / self.rate_window, inputs.dtype))
        rates = tuple(keep * f + (1.0 - keep) * z.mean((0, 1)) for f, z in zip(state.rates, result.z, strict=True))
        return state._replace(carry=jax.lax.stop_gradient(result.carry), rates=rates)

    def _apply(self, state: OnlineState) -> OnlineState:
        parameters = eqx.filter(state.network, trainable(state.network, self.rule))
        updates, optimiser = self.optimiser.update(state.gradient, state.optimiser, parameters)
        network: Network = eqx.apply_updates(state.network, updates)
        if self.rule.feedback == "adaptive":
            network = kolen_pollack_decay(network, self.kolen_pollack)
        nothing = jax.tree.map(jnp.zeros_like, state.gradient)
        return state._replace(network=network, optimiser=optimiser, gradient=nothing)

    # Late targets: a second copy of the neurons' state makes the predictions, ahead of the learner.

    def _with_late(self, state: OnlineState, inputs, targets) -> OnlineState:
        if self.delay and state.late is None:
            return state._replace(late=self._none_yet(state, inputs, targets))
        return state

    def _none_yet(self, state: OnlineState, inputs, targets) -> Late:
        require(targets is not None, "targets: the first window of a stream with late targets needs a (masked) target")
        window, batch = inputs.shape[:2]
        behind = -(-self.delay // window) * window
        zeros = lambda x, length: jnp.zeros((length, *x.shape[1:]), x.dtype)  # noqa: E731
        waiting = jax.tree.map(lambda x: zeros(jnp.asarray(x), behind - self.delay), targets)
        return Late(
            zeros(inputs, behind),
            waiting,
            jnp.zeros((behind - self.delay, batch), inputs.dtype),
            state.network.start(batch, traces=False),
            jnp.asarray(behind // window, jnp.int32),
        )

    def _predict(self, state: OnlineState, inputs):
        carry = state.carry if state.late is None else state.late.carry
        result = state.network(inputs, self.rule, carry)
        return result.y, jax.lax.stop_gradient(result.carry)

    def _wait(self, state: OnlineState, inputs, targets, mask, carry):
        """What the learner sees now: inputs of `behind` steps ago, with the targets that have come since."""
        late = state.late
        assert late is not None
        window = inputs.shape[0]
        require(
            late.inputs.shape[0] % window == 0 and late.inputs.shape[0] - self.delay < window,
            f"inputs: a stream with late targets has windows of one length, got one of {window} steps",
        )
        join = lambda old, new: jnp.concatenate([old, new])  # noqa: E731
        all_inputs, all_mask = join(late.inputs, inputs), join(late.mask, mask)
        all_targets = jax.tree.map(lambda old, new: join(old, jnp.asarray(new)), late.targets, targets)
        head, tail = (lambda x: x[:window]), (lambda x: x[window:])
        late = Late(
            tail(all_inputs),
            jax.tree.map(tail, all_targets),
            tail(all_mask),
            carry,
            jnp.maximum(late.empty - 1, 0),
        )
        return state._replace(late=late), (head(all_inputs), jax.tree.map(head, all_targets), head(all_mask))


def _mean_rate(state: OnlineState) -> Float[Array, ""]:
    return jnp.concatenate(state.rates).mean()
