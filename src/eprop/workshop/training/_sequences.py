"""Training on batches of whole sequences, with an update each, or several while they run."""

from functools import cached_property, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from eprop.errors import require
from eprop.learner import Learner, LearnerState
from eprop.networks import Network, NetworkOutput, hold, partition
from eprop.neurons import PyTree
from eprop.workshop.tasks import Batch, Task
from eprop.workshop.training._build import build_optimiser
from eprop.workshop.training._keys import DATA, EVALUATION, TEST, TRAINING, purpose_key
from eprop.workshop.training._trainer import Evaluation, NetworkTrainer, kept


class TrainState(NamedTuple):
    """The state that training changes; every leaf has a leading axis of seeds."""

    learner: PyTree  # the arrays of a LearnerState
    active: Bool[Array, "seed"]  # noqa: F821  # False once stop_below was reached: the seed rests


class SequenceTrainer(NetworkTrainer):
    """Trains on whole sequences; with `update_window`, the weights change while a sequence runs.

    Raises:
        InvalidSetting: for a rule or settings that do not fit the task.
    """

    task: Task

    def check(self) -> None:
        require(
            not self.rule.synthesises,
            f"rule = {self.rule.label!r}: is trained window by window, with its synthetic gradients, on copy-repeat "
            "and words, or with a Learner; this task takes whole sequences: use bptt, truncated_bptt, "
            "eligibility_only, rtrl, eprop1 or immediate",
        )
        require(
            self.experiment.run.update_window is None or self.rule.streams,
            f"update_window = {self.experiment.run.update_window}: rule {self.rule.label!r} takes whole sequences",
        )

    @cached_property
    def optimiser(self) -> Any:
        """Its schedule counts iterations, of as many updates as a sequence has windows."""
        return build_optimiser(self.experiment.optimiser, self.experiment.run.iterations, self.windows)

    @cached_property
    def data(self) -> Any:
        """The data that the task prepares, for each seed, or once where they are shared."""
        if self.task.shared_data:
            return self.task.prepare(jax.random.key(0))
        return jax.vmap(lambda key: self.task.prepare(purpose_key(key, DATA)))(self.keys)

    @property
    def data_axis(self) -> int | None:
        """The axis of seeds in `data`."""
        return None if self.task.shared_data else 0

    def _first_seeds_data(self) -> Any:
        return self.part(0) if self.task.shared_data else jax.tree.map(lambda x: x[0], self.part(0))

    @cached_property
    def windows(self) -> int:
        """Updates an iteration: one, or as many as a sequence has windows."""
        window, size = self.experiment.run.update_window, self.experiment.run.batch
        if window is None:
            return 1
        data = self._first_seeds_data()
        batch = jax.eval_shape(lambda: self.task.sample(data, jax.random.key(0), size))
        time = batch.mask.shape[0]
        require(time % window == 0, f"update_window = {window}: must divide the {time} steps of a sequence")
        y = jax.ShapeDtypeStruct((time, size, self.task.n_out), jnp.float32)
        jax.eval_shape(self.task.window_loss, y, batch, batch)  # refused here where the loss has no parts
        return time // window

    def _first(self, key: PRNGKeyArray) -> LearnerState:
        any_schedule = build_optimiser(self.experiment.optimiser, self.experiment.run.iterations)
        return self._whole_sequences(any_schedule).init(self._network(key), batch=None)

    def _whole_sequences(self, optimiser: Any) -> Learner:
        return self._learner(optimiser, lambda y, batch, mask: self.task.loss(y, batch), rate_window=None)

    def init(self) -> TrainState:
        """Initial weights and optimiser state: they need no data."""
        first = jax.jit(jax.vmap(lambda key: eqx.filter(self._first(key), eqx.is_array)))
        return TrainState(first(self.keys), jnp.ones(len(self.seeds), bool))

    def forward(self, network: Network, batch: Batch) -> NetworkOutput:
        """The network's outputs on a batch."""
        lengths = batch.lengths if self.experiment.network.bidirectional else None
        return network(batch.inputs, self.rule, lengths=lengths)

    def gradient(self, network: Network, batch: Batch) -> tuple[tuple[Array, NetworkOutput], Network]:
        """Loss, outputs, and the rule's gradient, with None for what is not trained."""
        return self._whole_sequences(self.optimiser).gradient(network, batch.inputs, batch, batch.mask, batch.valid)

    def check_reach(self) -> None:
        """Refuse to train what no path of the rule reaches.

        A NaN put into the loss's derivative comes out at every parameter that a path reaches, however quiet
        the network is; elsewhere the gradient is zero. All weights of a single layer are reached; constants
        and lower layers may not be, so only networks that train those are looked at.

        Raises:
            InvalidSetting: naming the parameters.
        """
        settings = self.experiment.network
        looked_at = (repr(self.experiment), self.rule.label)
        if settings.layers == 1 and not settings.trainable or looked_at in _reached:
            return
        chosen, rest = partition(self._network(self.keys[0]), self.rule)
        data = self._first_seeds_data()

        def spoilt(chosen: PyTree) -> Array:
            batch = self.task.sample(data, purpose_key(self.keys[0], TRAINING), self.experiment.run.batch)
            return jnp.nan * self.task.loss(self.forward(eqx.combine(chosen, rest), batch).y, batch)

        gradients = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(spoilt))(chosen))
        unreached = [jax.tree_util.keystr(path).lstrip(".") for path, g in gradients if not jnp.isnan(g).any()]
        require(
            not unreached,
            f"rule {self.rule.label!r}: no path of it reaches {', '.join(unreached)}, which would stay as drawn; "
            "do not train it, or use another rule or network",
        )
        _reached.add(looked_at)

    # Where loss or gradient is not finite, a seed's weights stay as they were, and its loss is given as nan.
    def _update(self, state: TrainState, data: Any, iteration: Array) -> tuple[TrainState, Float[Array, "seed"]]:  # noqa: F821
        @partial(jax.vmap, in_axes=(0, 0, 0, self.data_axis))
        def one(arrays: PyTree, active: Array, key: PRNGKeyArray, data: Any) -> tuple[PyTree, Array]:
            batch = self.task.sample(data, purpose_key(key, TRAINING, iteration), self.experiment.run.batch)
            learn = self._once if self.experiment.run.update_window is None else self._online
            new, loss = learn(self.whole(arrays), batch)
            return kept(active & jnp.isfinite(loss), eqx.filter(new, eqx.is_array), arrays), loss

        arrays, loss = one(state.learner, state.active, self.keys, data)
        return TrainState(arrays, state.active), loss

    def _once(self, state: LearnerState, batch: Batch) -> tuple[LearnerState, Array]:
        """One update, with the gradient of whole sequences."""
        learner = self._whole_sequences(self.optimiser)
        state, _, metrics = learner.step(state, batch.inputs, batch, batch.mask, valid=batch.valid)
        return state, metrics.loss

    def _online(self, state: LearnerState, batch: Batch) -> tuple[LearnerState, Array]:
        """An update each window, as the sequences come: a stream that is started anew for each batch."""
        window, (_, size) = self.experiment.run.update_window, batch.mask.shape
        assert window is not None
        part_of_loss = lambda y, part, mask: self.task.window_loss(y, part, batch)  # noqa: E731
        learner = self._learner(self.optimiser, part_of_loss, share=1.0 / self.windows)
        streamed = learner.init(state.network, size)._replace(optimiser=state.optimiser)
        streamed, _, metrics = learner.run(streamed, batch.inputs, batch, batch.mask, window=window, valid=batch.valid)
        new = state._replace(network=streamed.network, optimiser=streamed.optimiser)
        return new, metrics.loss

    def _evaluate(self, state: TrainState, data: Any, iteration: Array, test: bool = False) -> Evaluation:
        """Metric on held-out data, and mean output (rate, spikes a step). `test`: on the larger final set."""
        size = self.experiment.run.evaluation_batch or self.experiment.run.batch

        @partial(jax.vmap, in_axes=(0, 0, self.data_axis))
        def one(arrays: PyTree, key: PRNGKeyArray, data: Any) -> tuple[Array, Array]:
            network = self.whole(arrays).network

            def measure(batch: Batch) -> tuple[Array, ...]:
                result = self.forward(network, batch)
                z = result.z[-1]
                counted = batch.valid & batch.mask.any(0)[None]  # not the samples that only fill a batch up
                valid = hold(counted, z.shape[0] // batch.valid.shape[0]).astype(z.dtype)
                return *self.task.metric(result.y, batch), jnp.sum(z.mean(-1) * valid), valid.sum()

            def draw(i: Array) -> tuple[Array, ...]:
                """One draw of held-out batches; the final test takes many, so it is compiled once for all."""
                if test:
                    batches = self.task.final(data, purpose_key(key, TEST, i), size)
                else:
                    batches = self.task.held_out(data, purpose_key(key, EVALUATION, iteration), size)
                measured = [jax.lax.map(measure, same) for same in _stacked(batches)]
                return tuple(jnp.concatenate(parts).sum() for parts in zip(*measured, strict=True))

            draws = -(-self.task.test_samples // size) if test else 1
            wrong, counted, outputs, steps = [x.sum() for x in jax.lax.map(draw, jnp.arange(draws))]
            return wrong / counted, outputs / steps

        return Evaluation(*one(state.learner, self.keys, data))


_reached: set[tuple[str, str]] = set()
"""Experiments whose rule reaches all that is trained: looked at once a process."""


def _stacked(batches: list[Batch]) -> list[Batch]:
    """Batches of like shape, stacked."""
    alike: dict[Any, list[Batch]] = {}
    for batch in batches:
        alike.setdefault(tuple(x.shape for x in batch), []).append(batch)
    return [jax.tree.map(lambda *x: jnp.stack(x), *same) for same in alike.values()]
