"""One update and one evaluation, for several seeds side by side."""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from eprop.learning_signals import firing_rate_loss
from eprop.networks import Network, NetworkOutput, hold, kolen_pollack_decay, trainable
from eprop.rules import Rule
from eprop.settings import Experiment
from eprop.tasks import Batch, Task
from eprop.training._build import build_network, build_neuron, build_optimiser

WEIGHTS, DATA, TRAINING, EVALUATION, TEST = range(5)
"""Streams of random numbers of a seed."""


class TrainState(NamedTuple):
    """What training changes; every leaf has a leading axis of seeds."""

    arrays: PyTree  # the network's arrays
    optimiser: PyTree
    active: Bool[Array, "seed"]  # noqa: F821  # False once stop_below was reached: the seed rests


def stream(seed_key: PRNGKeyArray, which: int, iteration: int | Array = 0) -> PRNGKeyArray:
    """The key of one purpose at one iteration: no key is carried, so a resumed run draws the same numbers."""
    return jax.random.fold_in(jax.random.fold_in(seed_key, which), iteration)


class Learner:
    """An experiment's functions, jitted: `init`, `update`, `evaluate`. Seeds run side by side under vmap."""

    def __init__(self, experiment: Experiment, seeds: Sequence[int], rule: Rule | None = None) -> None:
        self.experiment = experiment
        self.task: Task = experiment.task
        self.seeds = tuple(seeds)
        self.rule = experiment.rule.make() if rule is None else rule
        self.optimiser = build_optimiser(experiment.optimiser)
        self.keys = jax.vmap(jax.random.key)(jnp.array(self.seeds))
        self.update = jax.jit(self._update, donate_argnums=0)
        self.evaluate = jax.jit(self._evaluate, static_argnames="test")
        self.spiking = build_neuron(experiment.network).spiking

    @cached_property
    def static(self) -> PyTree:
        """The network without its arrays."""
        abstract = eqx.filter_eval_shape(self._network, jax.random.key(0))
        return eqx.partition(abstract, lambda x: isinstance(x, jax.ShapeDtypeStruct))[1]

    @cached_property
    def data(self) -> Any:
        """What the task prepares, for each seed, or once where it is shared."""
        if self.task.shared_data:
            return self.task.prepare(jax.random.key(0))
        return jax.vmap(lambda key: self.task.prepare(stream(key, DATA)))(self.keys)

    def part(self, iteration: int) -> Any:
        """The data that an iteration's batch is drawn from."""
        return self.task.part(self.data, iteration)

    @property
    def data_axis(self) -> int | None:
        return None if self.task.shared_data else 0

    def _network(self, key: PRNGKeyArray) -> Network:
        return build_network(self.experiment.network, self.task.n_in, self.task.n_out, stream(key, WEIGHTS))

    def network(self, state: TrainState, seed: int = 0) -> Network:
        """The network of one seed (its place in `seeds`)."""
        return eqx.combine(jax.tree.map(lambda x: x[seed], state.arrays), self.static)

    def init(self) -> TrainState:
        """Initial weights and optimiser state."""

        def one(key):
            network = self._network(key)
            arrays = eqx.filter(network, eqx.is_array)
            return arrays, self.optimiser.init(eqx.filter(network, trainable(network, self.rule)))

        arrays, optimiser = jax.jit(jax.vmap(one))(self.keys)
        return TrainState(arrays, optimiser, jnp.ones(len(self.seeds), bool))

    def forward(self, network: Network, batch: Batch) -> NetworkOutput:
        """The network's outputs on a batch."""
        inputs = batch.inputs.astype(self.experiment.network.precision)
        return network(inputs, self.rule, lengths=batch.lengths if self.experiment.network.bidirectional else None)

    def loss(self, network: Network, batch: Batch) -> tuple[Float[Array, ""], NetworkOutput]:
        """The task's loss, plus regularisation."""
        settings = self.experiment.optimiser
        result = self.forward(network, batch)
        loss = self.task.loss(result.y, batch)
        if self.spiking and settings.rate_strength > 0:
            for z in result.z:
                target = settings.rate_target / 1000.0
                valid = hold(batch.valid, z.shape[0] // batch.valid.shape[0])
                loss = loss + firing_rate_loss(z, target, settings.rate_strength, valid)
        if settings.weight_penalty > 0:
            weights = eqx.filter(network, trainable(network, self.rule))
            loss = loss + settings.weight_penalty * sum(jnp.sum(w**2) for w in jax.tree.leaves(weights))
        return loss, result

    def gradient(self, network: Network, batch: Batch) -> tuple[tuple[Array, NetworkOutput], Network]:
        """Loss, outputs, and the rule's gradient, with None for what is not trained."""
        chosen, rest = eqx.partition(network, trainable(network, self.rule))
        return jax.value_and_grad(lambda c: self.loss(eqx.combine(c, rest), batch), has_aux=True)(chosen)

    # Where loss or gradient is not finite, a seed's weights stay as they were, and its loss is given as nan.
    def _update(self, state: TrainState, data: Any, iteration: Array) -> tuple[TrainState, Float[Array, "seed"]]:  # noqa: F821
        @partial(jax.vmap, in_axes=(0, 0, 0, 0, self.data_axis))
        def one(arrays, optimiser, active, key, data):
            network = eqx.combine(arrays, self.static)
            batch = self.task.sample(data, stream(key, TRAINING, iteration), self.experiment.run.batch)
            (loss, _), gradient = self.gradient(network, batch)
            parameters = eqx.filter(network, trainable(network, self.rule))
            updates, new_optimiser = self.optimiser.update(gradient, optimiser, parameters)  # pyright: ignore[reportArgumentType]
            new: Network = eqx.apply_updates(network, updates)
            if self.rule.feedback == "adaptive":
                new = kolen_pollack_decay(new, self.experiment.optimiser.kolen_pollack_decay)
            finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))
            keep = lambda new, old: jnp.where(active & finite, new, old)  # noqa: E731
            new_arrays = jax.tree.map(keep, eqx.filter(new, eqx.is_array), arrays)
            return new_arrays, jax.tree.map(keep, new_optimiser, optimiser), jnp.where(finite, loss, jnp.nan)

        arrays, optimiser, loss = one(state.arrays, state.optimiser, state.active, self.keys, data)
        return TrainState(arrays, optimiser, state.active), loss

    def _evaluate(
        self, state: TrainState, data: Any, iteration: Array, test: bool = False
    ) -> tuple[Float[Array, "seed"], Float[Array, "seed"]]:  # noqa: F821
        """Metric on held-out data, and mean output (rate, spikes a step). `test`: on the larger final set."""
        size = self.experiment.run.evaluation_batch or self.experiment.run.batch

        @partial(jax.vmap, in_axes=(0, 0, self.data_axis))
        def one(arrays, key, data):
            network = eqx.combine(arrays, self.static)
            if test:
                repeats = -(-self.task.test_samples // size)
                batches = [b for i in range(repeats) for b in self.task.final(data, stream(key, TEST, i), size)]
            else:
                batches = self.task.held_out(data, stream(key, EVALUATION, iteration), size)

            def measure(batch):
                result = self.forward(network, batch)
                return *self.task.metric(result.y, batch), jnp.mean(result.z[-1])

            measured = [jax.lax.map(measure, same) for same in _stacked(batches)]
            wrong, counted, rate = (jnp.concatenate(parts) for parts in zip(*measured, strict=True))
            return wrong.sum() / counted.sum(), rate.mean()

        return one(state.arrays, self.keys, data)


def _stacked(batches: list[Batch]) -> list[Batch]:
    """Batches of like shape, stacked."""
    alike: dict[Any, list[Batch]] = {}
    for batch in batches:
        alike.setdefault(tuple(x.shape for x in batch), []).append(batch)
    return [jax.tree.map(lambda *x: jnp.stack(x), *same) for same in alike.values()]
