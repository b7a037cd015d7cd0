"""One update and one evaluation, for several seeds side by side."""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from eprop.errors import require
from eprop.learning_signals import firing_rate_loss
from eprop.networks import Network, NetworkOutput, hold, kolen_pollack_decay, trainable
from eprop.online import OnlineLearner
from eprop.rules import Rule, WindowedRule
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


class Evaluation(NamedTuple):
    """What an evaluation measures on held-out data, for each seed."""

    metric: Float[Array, "seed"]  # noqa: F821
    activity: Float[Array, "seed"]  # noqa: F821  # mean output: spikes a step


def stream(seed_key: PRNGKeyArray, which: int, iteration: int | Array = 0) -> PRNGKeyArray:
    """The key of one purpose at one iteration: no key is carried, so a resumed run draws the same numbers."""
    return jax.random.fold_in(jax.random.fold_in(seed_key, which), iteration)


class Described:
    """What the training loop asks of a learner beside `init`, `update` and `evaluate`."""

    experiment: Any
    task: Any
    rule: Any
    data: Any

    @property
    def label(self) -> str:
        """What the progress bar calls it."""
        return self.rule.label

    @property
    def description(self) -> dict[str, Any]:
        """What a summary says of it."""
        feedback = self.rule.feedback if self.rule.name == "eprop1" else None
        return {"rule": self.rule.name, "feedback": feedback, "neuron": self.experiment.network.neuron}

    @property
    def remedy(self) -> str:
        """What may help where the loss stops being finite."""
        return f"a learning_rate below {self.experiment.optimiser.learning_rate}, or a clip,"

    def facts(self) -> dict[str, Any] | None:
        """What the run folder keeps about the data."""
        return self.task.facts()

    def part(self, iteration: int) -> Any:
        """The data that an iteration's batch is drawn from."""
        return self.task.part(self.data, iteration)

    def details(self, state: Any) -> dict[str, Any]:
        """Named numbers beside loss and metric, a list over seeds each."""
        return {}


class Learner(Described):
    """An experiment's functions, jitted: `init`, `update`, `evaluate`. Seeds run side by side under vmap."""

    def __init__(self, experiment: Experiment, seeds: Sequence[int], rule: Rule | None = None) -> None:
        self.experiment = experiment
        self.task: Task = experiment.task
        self.seeds = tuple(seeds)
        self.rule = experiment.rule.make() if rule is None else rule
        require(
            not isinstance(self.rule, WindowedRule),
            f"rule = {self.rule.label!r}: is trained window by window, on copy-repeat and words; this task takes "
            "whole sequences: use bptt, truncated_bptt, rtrl or eprop1",
        )
        self.keys = jax.vmap(jax.random.key)(jnp.array(self.seeds))
        self.optimiser = build_optimiser(experiment.optimiser, experiment.run.iterations, self._windows())
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

    @property
    def data_axis(self) -> int | None:
        return None if self.task.shared_data else 0

    def _windows(self) -> int:
        """Updates an iteration: one, or as many as a sequence has windows."""
        window, size = self.experiment.run.update_window, self.experiment.run.batch
        if window is None:
            return 1
        data = self.part(0) if self.task.shared_data else jax.tree.map(lambda x: x[0], self.part(0))
        time = jax.eval_shape(lambda: self.task.sample(data, jax.random.key(0), size)).mask.shape[0]
        require(time % window == 0, f"update_window = {window}: must divide the {time} steps of a sequence")
        return time // window

    def _network(self, key: PRNGKeyArray) -> Network:
        settings, key = self.experiment.network, stream(key, WEIGHTS)
        return build_network(settings, self.task.n_in, self.task.n_out, key, feedback=self.rule.feedback)

    def network(self, state: TrainState, seed: int = 0) -> Network:
        """The network of one seed (its place in `seeds`)."""
        return eqx.combine(jax.tree.map(lambda x: x[seed], state.arrays), self.static)

    def init(self) -> TrainState:
        """Initial weights and optimiser state.

        Raises:
            InvalidSetting: if the rule does not reach what is to be trained.
        """
        self._check_reach()

        def one(key):
            network = self._network(key)
            arrays = eqx.filter(network, eqx.is_array)
            return arrays, self.optimiser.init(eqx.filter(network, trainable(network, self.rule)))

        arrays, optimiser = jax.jit(jax.vmap(one))(self.keys)
        return TrainState(arrays, optimiser, jnp.ones(len(self.seeds), bool))

    def forward(self, network: Network, batch: Batch) -> NetworkOutput:
        """The network's outputs on a batch."""
        lengths = batch.lengths if self.experiment.network.bidirectional else None
        return network(batch.inputs, self.rule, lengths=lengths)

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

    def _check_reach(self) -> None:
        """Refuse to train what no path of the rule reaches.

        A NaN put into the loss's derivative comes out at every parameter that a path reaches, however quiet
        the network is; elsewhere the gradient is zero. All weights of a single layer are reached; constants
        and lower layers may not be, so only networks that train those are looked at.

        Raises:
            InvalidSetting: naming the parameters.
        """
        settings = self.experiment.network
        if settings.layers == 1 and not settings.trainable:
            return
        network = self._network(self.keys[0])
        chosen, rest = eqx.partition(network, trainable(network, self.rule))
        data = self.part(0) if self.task.shared_data else jax.tree.map(lambda x: x[0], self.part(0))

        def spoilt(chosen):
            batch = self.task.sample(data, stream(self.keys[0], TRAINING), self.experiment.run.batch)
            return jnp.nan * self.loss(eqx.combine(chosen, rest), batch)[0]

        gradients = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(spoilt))(chosen))
        unreached = [jax.tree_util.keystr(path).lstrip(".") for path, g in gradients if not jnp.isnan(g).any()]
        require(
            not unreached,
            f"rule {self.rule.label!r}: no path of it reaches {', '.join(unreached)}, which would stay as drawn; "
            "do not train it, or use another rule or network",
        )

    # Where loss or gradient is not finite, a seed's weights stay as they were, and its loss is given as nan.
    def _update(self, state: TrainState, data: Any, iteration: Array) -> tuple[TrainState, Float[Array, "seed"]]:  # noqa: F821
        @partial(jax.vmap, in_axes=(0, 0, 0, 0, self.data_axis))
        def one(arrays, optimiser, active, key, data):
            network = eqx.combine(arrays, self.static)
            batch = self.task.sample(data, stream(key, TRAINING, iteration), self.experiment.run.batch)
            learn = self._once if self.experiment.run.update_window is None else self._online
            new, new_optimiser, loss, finite = learn(network, optimiser, batch)
            keep = lambda new, old: jnp.where(active & finite, new, old)  # noqa: E731
            new_arrays = jax.tree.map(keep, eqx.filter(new, eqx.is_array), arrays)
            return new_arrays, jax.tree.map(keep, new_optimiser, optimiser), jnp.where(finite, loss, jnp.nan)

        arrays, optimiser, loss = one(state.arrays, state.optimiser, state.active, self.keys, data)
        return TrainState(arrays, optimiser, state.active), loss

    def _once(self, network: Network, optimiser: PyTree, batch: Batch):
        """One update, with the gradient of whole sequences."""
        (loss, _), gradient = self.gradient(network, batch)
        parameters = eqx.filter(network, trainable(network, self.rule))
        updates, optimiser = self.optimiser.update(gradient, optimiser, parameters)  # pyright: ignore[reportArgumentType]
        new: Network = eqx.apply_updates(network, updates)
        if self.rule.feedback == "adaptive":
            new = kolen_pollack_decay(new, self.experiment.optimiser.kolen_pollack_decay)
        return new, optimiser, loss, jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))

    def _online(self, network: Network, optimiser: PyTree, batch: Batch):
        """An update each window, as the sequences come: the streaming learner, started anew for each batch."""
        settings, window = self.experiment.optimiser, self.experiment.run.update_window
        time, size = batch.mask.shape
        assert window is not None
        learner = OnlineLearner(
            self.rule,
            self.optimiser,
            lambda y, batch, mask: self.task.loss(y, batch),
            rate_target=settings.rate_target / 1000.0,
            rate_strength=settings.rate_strength * window / time if self.spiking else 0.0,
            kolen_pollack=settings.kolen_pollack_decay,
        )
        state = learner.init(network, size)._replace(optimiser=optimiser)
        inputs = batch.inputs.astype(self.experiment.network.precision)
        state, _, metrics = learner.run(state, inputs, batch, jnp.ones((time, size), inputs.dtype), window=window)
        finite = jnp.isfinite(metrics.loss) & jnp.isfinite(optax.tree.norm(eqx.filter(state.network, eqx.is_array)))
        return state.network, state.optimiser, metrics.loss, finite

    def _evaluate(self, state: TrainState, data: Any, iteration: Array, test: bool = False) -> Evaluation:
        """Metric on held-out data, and mean output (rate, spikes a step). `test`: on the larger final set."""
        size = self.experiment.run.evaluation_batch or self.experiment.run.batch

        @partial(jax.vmap, in_axes=(0, 0, self.data_axis))
        def one(arrays, key, data):
            network = eqx.combine(arrays, self.static)

            def measure(batch):
                result = self.forward(network, batch)
                return *self.task.metric(result.y, batch), jnp.mean(result.z[-1])

            def draw(i):
                """One draw of held-out batches; the final test takes many, so it is compiled once for all."""
                if test:
                    batches = self.task.final(data, stream(key, TEST, i), size)
                else:
                    batches = self.task.held_out(data, stream(key, EVALUATION, iteration), size)
                measured = [jax.lax.map(measure, same) for same in _stacked(batches)]
                wrong, counted, rate = (jnp.concatenate(parts) for parts in zip(*measured, strict=True))
                return wrong.sum(), counted.sum(), rate.mean()

            draws = -(-self.task.test_samples // size) if test else 1
            wrong, counted, rate = jax.lax.map(draw, jnp.arange(draws))
            return wrong.sum() / counted.sum(), rate.mean()

        return Evaluation(*one(state.arrays, self.keys, data))


def _stacked(batches: list[Batch]) -> list[Batch]:
    """Batches of like shape, stacked."""
    alike: dict[Any, list[Batch]] = {}
    for batch in batches:
        alike.setdefault(tuple(x.shape for x in batch), []).append(batch)
    return [jax.tree.map(lambda *x: jnp.stack(x), *same) for same in alike.values()]
