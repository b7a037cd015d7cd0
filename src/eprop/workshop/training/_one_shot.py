"""Learning to learn from one trial: an inner update of each task's weights, an outer one through both trials."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray

from eprop.eligibility import Synapses, start, unroll
from eprop.errors import require
from eprop.learning_signals import ErrorModule
from eprop.networks import Network, Recurrent, trainable
from eprop.neurons import Neuron, Outputs, PyTree, readout_output, recurrent_output
from eprop.rules import BPTT, inner_gradient, inner_update
from eprop.workshop.settings import NetworkSettings, OneShotSettings, OptimiserSettings, RunSettings
from eprop.workshop.tasks import TaskFamily, clock, population_code
from eprop.workshop.training._build import build_network, build_optimiser
from eprop.workshop.training._keys import EVALUATION, TEST, TRAINING, WEIGHTS, purpose_key
from eprop.workshop.training._trainer import Trainer, kept

Keys = Key[Array, "task"]  # noqa: F821

TEST_TASKS = 512
"""At least so many held-out tasks for the final metric."""


@dataclasses.dataclass(frozen=True)
class OneShotExperiment:
    """All settings of learning to learn."""

    task: TaskFamily
    network: NetworkSettings
    one_shot: OneShotSettings
    optimiser: OptimiserSettings
    run: RunSettings


class Learnt(eqx.Module):
    """The parameters of the outer loop: initial weights, error module, the logarithm of the inner learning rate."""

    network: Network
    module: ErrorModule | None
    log_learning_rate: Float[Array, ""]

    @property
    def layer(self) -> Recurrent:
        """The network's recurrent layer."""
        (layer,) = self.network.layers
        assert isinstance(layer, Recurrent)
        return layer


class OneShotState(NamedTuple):
    """The state that training changes."""

    arrays: PyTree  # of Learnt
    optimiser: PyTree
    active: Bool[Array, "1"]


class Lesson(NamedTuple):
    """The record of the trials: tuples have an entry a trial, of which the last is the test trial.

    The first trial is the same for all tasks (same weights, same clock), so its batch is 1.
    """

    tasks: Any  # leading axis of tasks
    y: tuple[Float[Array, "time batch output"], ...]
    z: tuple[Float[Array, "time batch neuron"], ...]
    module_z: tuple[Float[Array, "time batch module"], ...]  # of the training trials
    learning_signals: tuple[Float[Array, "time batch neuron"], ...]  # of the training trials


class _Taught(NamedTuple):
    """The results of one training trial."""

    gradient: Synapses  # leaves [task, ...]
    learning_signals: Float[Array, "time batch neuron"] | None = None
    module_z: Float[Array, "time batch module"] | None = None


class OneShotEvaluation(NamedTuple):
    """On held-out tasks: the error after the inner update (`metric`) and before it, spikes a step, and eta."""

    metric: Float[Array, "1"]
    before: Float[Array, "1"]
    activity: Float[Array, "1"]
    module_activity: Float[Array, "1"]
    inner_learning_rate: Float[Array, "1"]


class OneShotTrainer(Trainer):
    """Learning to learn: `init`, `update`, `evaluate`, as every `Trainer` has them.

        training trial:  W_b <- W - eta sum_t L_j^t e_ji^t       for each task b (`inner_update`)
        test trial:      E = mean_b loss(y(W_b), task b)
        outer update:    of W, W_out, error module (and eta) by dE, through both trials

    Nothing is detached anywhere (Bellec et al. 2019, e-prop 2, as released). Network and module start
    every trial from zero state; `W_out` is not changed by the inner update. Regularisation:
    `rate_strength (sum_j (f_j - network_rate)^2 + sum_k (f_k - module_rate)^2)`, f in spikes a ms, over
    all trials and the tasks of one micro-batch.

    Departs from the source: the readout has a trained bias, which starts at zero.

    Raises:
        InvalidSetting: for settings that do not fit each other, or a family whose shapes do not fit.
    """

    data = None  # tasks are drawn

    def __init__(self, experiment: OneShotExperiment) -> None:
        s, run = experiment.one_shot, experiment.run
        self.experiment: Any = experiment
        self.task: Any = experiment.task
        self.settings: OneShotSettings = s
        parts = run.batch % (s.micro_batch or 1) == 0
        require(parts, f"micro_batch = {s.micro_batch}: must divide the batch of {run.batch}")
        network = experiment.network
        require(network.layers == 1, f"layers = {network.layers}: learning to learn has one recurrent layer")
        for name in (*network.constraints, *(["maps"] if network.maps else [])):
            require(False, f"{name} = {getattr(network, name)!r}: learning to learn has no such constraint")
        require(not network.bidirectional, "bidirectional: learning to learn has a layer that runs forwards only")
        check_family(self.task)
        self.seeds: tuple[int, ...] = (run.seed,)
        self.key: Array = jax.random.key(run.seed)
        self.dtype: Any = jnp.dtype(network.precision)
        ticks = clock(self.task.steps, self.task.dt, s.clock_groups, s.clock_neurons, s.clock_period)
        self.clock: Array = ticks.astype(self.dtype)[:, None]  # [time, 1, channel]
        self.optimiser: Any = build_optimiser(experiment.optimiser, run.iterations)
        abstract = eqx.filter_eval_shape(self._initial, self.key)
        self.static: Any = eqx.partition(abstract, lambda x: isinstance(x, jax.ShapeDtypeStruct))[1]
        self.update: Any = jax.jit(self._update, donate_argnums=0)
        self.evaluate: Any = jax.jit(self._evaluate, static_argnames="test")
        self.compare: Any = eqx.filter_jit(self._compare)

    @property
    def label(self) -> str:
        """Its name in the progress bar."""
        signal = self.settings.learning_signal
        return {"error-module": "eprop2", "bptt": "bptt"}.get(signal, f"eprop1:{signal}")

    @property
    def description(self) -> dict[str, Any]:
        """The lines about it in a summary."""
        return {"rule": self.label, "neuron": self.experiment.network.neuron}

    @property
    def remedy(self) -> str:
        """Advice for a loss that stops being finite."""
        rates = self.experiment.optimiser.learning_rate, self.settings.inner_learning_rate
        return f"a learning_rate below {rates[0]}, a clip, or an inner_learning_rate below {rates[1]},"

    # What is learnt

    def _initial(self, key: PRNGKeyArray) -> Learnt:
        s, network, family = self.settings, self.experiment.network, self.task
        key_network, key_module, key_signals = jax.random.split(purpose_key(key, WEIGHTS), 3)
        n_clock = s.clock_groups * s.clock_neurons
        main = build_network(network, n_clock, family.n_out, key_network, family.dt)
        module = None
        if s.learning_signal == "error-module":
            own = dataclasses.replace(network, neuron=s.module_neuron, neurons=s.module_neurons, trainable=())
            n_in = family.n_coordinates * s.code_neurons + network.neurons + n_clock
            (layer,) = build_network(own, n_in, 1, key_module, family.dt).layers
            module = ErrorModule(layer, network.neurons, key=key_signals)
        return Learnt(main, module, jnp.log(jnp.asarray(s.inner_learning_rate, self.dtype)))

    def facts(self) -> None:
        """Tasks are drawn: there are no data to keep facts about."""
        return None

    def part(self, iteration: int) -> None:
        """Tasks are drawn from keys alone."""
        return None

    def init(self) -> OneShotState:
        """Initial weights and optimiser state."""
        learnt = jax.jit(lambda key: eqx.filter(self._initial(key), eqx.is_array))(self.key)
        chosen = eqx.filter(eqx.combine(learnt, self.static), self.trained)
        return OneShotState(learnt, self.optimiser.init(chosen), jnp.ones(1, bool))

    def learnt(self, state: OneShotState) -> Learnt:
        """Networks and rate as they stand."""
        return eqx.combine(state.arrays, self.static)

    @property
    def trained(self) -> PyTree:
        """A tree of booleans: which leaves of `Learnt` the outer loop trains."""
        like = eqx.filter_eval_shape(self._initial, self.key)
        as_shape = lambda network: jax.tree.map(  # noqa: E731
            lambda x: jnp.zeros((), x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x, network
        )
        mask = jax.tree.map(lambda _: False, like)
        network = as_shape(like.network)
        of_rate = self.settings.train_inner_learning_rate
        mask = eqx.tree_at(lambda m: (m.network, m.log_learning_rate), mask, (trainable(network, BPTT()), of_rate))
        if like.module is None:
            return mask
        as_network = eqx.tree_at(lambda n: n.layers, network, (as_shape(like.module.layer),))
        layer = trainable(as_network, BPTT()).layers[0]
        return eqx.tree_at(lambda m: (m.module.layer, m.module.weight), mask, (layer, True))

    # A lesson

    def lesson(self, learnt: Learnt, keys: Keys) -> Lesson:
        """Tasks drawn from `keys` `[task]`; training trials with an update after each; then the test trial."""
        layer = learnt.layer
        run = self._kept(lambda synapses: self._trial(layer.neuron, synapses))
        connected, synapses, tasks = layer.connected(), layer.synapses(), self.draw_tasks(keys)
        trials, taught = [run(synapses)], []
        for i in range(self.settings.inner_updates):
            teach = self._kept(partial(self._teach, tasks=tasks, keys=keys, update=i))
            taught.append(teach(learnt, trials[-1], synapses))
            synapses = inner_update(synapses, taught[-1].gradient, connected, jnp.exp(learnt.log_learning_rate))
            trials.append(run(synapses))
        return Lesson(
            tasks,
            tuple(self._read(learnt.network, shown) for shown in trials),
            tuple(recurrent_output(shown) for shown in trials),
            tuple(t.module_z for t in taught if t.module_z is not None),
            tuple(t.learning_signals for t in taught if t.learning_signals is not None),
        )

    def _trial(self, neuron: Neuron, synapses: Synapses) -> Outputs:
        """Outputs of a trial from rest, nothing cut: `[time, 1, neuron]` of shared weights, `[time, task, neuron]` of
        weights of each task, `[task, ...]`.
        """
        n = synapses.w_in.shape[-1]

        def one(synapses: Synapses) -> Outputs:
            return unroll(neuron, synapses, self.clock, start(neuron, 1, n, self.dtype), recurrence="kept")[0]

        if synapses.w_in.ndim == 3:
            return one(synapses)
        return jax.tree.map(lambda x: x[:, :, 0], jax.vmap(one, out_axes=1)(synapses))

    def first_gradient(self, learnt: Learnt, keys: Keys) -> Synapses:
        """The first inner gradient of each task, leaves `[task, ...]`."""
        layer = learnt.layer
        synapses = layer.synapses()
        shown = self._trial(layer.neuron, synapses)
        return self._teach(learnt, shown, synapses, self.draw_tasks(keys), keys, 0).gradient

    def draw_tasks(self, keys: Keys) -> Any:
        """A task from each key, in the network's precision."""
        tasks = jax.vmap(lambda key: self.task.sample_task(jax.random.fold_in(key, 0)))(keys)
        return jax.tree.map(lambda x: x.astype(self.dtype) if eqx.is_inexact_array(x) else x, tasks)

    def _kept(self, function: Callable) -> Callable:
        """The function, or the function computed again in the backward pass."""
        return eqx.filter_checkpoint(function) if self.settings.rematerialise else function

    def _read(self, network: Network, shown: Outputs) -> Float[Array, "time batch output"]:
        return readout_output(shown) @ network.readout.weight + network.readout.bias[None, None]

    def _teach(
        self, learnt: Learnt, shown: Outputs, synapses: Synapses, tasks: Any, keys: Keys, update: int
    ) -> _Taught:
        """The lesson of the trial `shown`: the inner gradient of each task, by the learning signal that is set."""
        signal, layer, readout = self.settings.learning_signal, learnt.layer, learnt.network.readout
        if signal == "bptt":
            return _Taught(self._exact_gradient(learnt, synapses, tasks))
        y = self._read(learnt.network, shown)
        if signal == "error-module":
            assert learnt.module is not None
            noise = jax.vmap(lambda key: jax.random.fold_in(key, 1 + update))(keys)
            seen = self._code(y, tasks, noise)
            z = recurrent_output(shown)
            signals, module_z = learnt.module(seen, z, self.clock)
            return _Taught(inner_gradient(layer.neuron, synapses, self.clock, z, signals), signals, module_z)
        error = jax.grad(lambda y: self.errors(y, tasks, self.task.loss).sum())(self._for_each(y, tasks))
        signals = error @ (readout.weight if signal == "symmetric" else readout.feedback_weights).T
        z = recurrent_output(shown)
        return _Taught(inner_gradient(layer.neuron, synapses, self.clock, z, signals, filtered=True), signals)

    def _code(self, y: Array, tasks: Any, keys: Keys) -> Float[Array, "time batch channel"]:
        """Spikes that tell the module the target, or the output's distance from it."""
        s, family = self.settings, self.task
        seen = jax.vmap(family.target)(tasks)  # [batch, time, coordinate]
        if s.module_input == "error":
            seen = jax.vmap(family.produced, in_axes=1)(self._for_each(y, tasks)) - seen
        code = lambda x, key: population_code(x, s.code_neurons, s.code_width, s.code_rate, family.dt, key)  # noqa: E731
        return jax.vmap(code, out_axes=1)(seen / family.extent, keys)

    def _exact_gradient(self, learnt: Learnt, synapses: Synapses, tasks: Any) -> Synapses:
        """`d loss / dW` of each task by BPTT through the training trial."""
        n = jax.tree.leaves(tasks)[0].shape[0]
        if synapses.w_in.ndim == 3:
            synapses = jax.tree.map(lambda w: jnp.broadcast_to(w, (n, *w.shape)), synapses)

        def loss(synapses):
            shown = self._trial(learnt.layer.neuron, synapses)
            return self.errors(self._read(learnt.network, shown), tasks, self.task.loss).sum()

        return jax.grad(loss)(synapses)

    def _for_each(self, y: Array, tasks: Any) -> Float[Array, "time batch output"]:
        """Outputs of batch 1 are the same for all tasks."""
        return jnp.broadcast_to(y, (y.shape[0], jax.tree.leaves(tasks)[0].shape[0], y.shape[2]))

    def errors(self, y: Array, tasks: Any, of: Callable) -> Float[Array, "batch"]:  # noqa: F821
        """`of(outputs, task)` of each task."""
        return jax.vmap(of, in_axes=(1, 0))(self._for_each(y, tasks), tasks)

    def _compare(self, learnt: Learnt, keys: Keys) -> tuple[Array, Array]:
        """Each task's error, `[task]`, before the update and after it."""
        lesson = self.lesson(learnt, keys)
        return self.errors(lesson.y[0], lesson.tasks, self.task.metric), self.errors(
            lesson.y[-1], lesson.tasks, self.task.metric
        )

    # The outer loop

    def loss(self, learnt: Learnt, keys: Keys) -> Float[Array, ""]:
        """The family's loss in the test trial, mean over tasks, plus regularisation."""
        lesson, s = self.lesson(learnt, keys), self.settings
        loss = jnp.mean(self.errors(lesson.y[-1], lesson.tasks, self.task.loss))
        strength = self.experiment.optimiser.rate_strength
        if strength > 0:
            for zs, target in ((lesson.z, s.network_rate), (lesson.module_z, s.module_rate)):
                rate = sum(z.mean((0, 1)) for z in zs) / (max(len(zs), 1) * self.task.dt)
                loss = loss + strength * jnp.sum((rate - target / 1000.0) ** 2)
        return loss

    def gradient(self, learnt: Learnt, keys: Keys) -> tuple[Float[Array, ""], PyTree]:
        """Loss and gradient, mean over micro-batches, one after the other; None for what is not trained."""
        chosen, rest = eqx.partition(learnt, self.trained)
        of = jax.value_and_grad(lambda chosen, keys: self.loss(eqx.combine(chosen, rest), keys))
        size = self.settings.micro_batch or keys.shape[0]
        parts = keys.shape[0] // size
        if parts == 1:
            return of(chosen, keys)

        def add(total, keys):
            return jax.tree.map(lambda a, b: a + b / parts, total, of(chosen, keys)), None

        zero = (jnp.zeros((), self.dtype), jax.tree.map(jnp.zeros_like, chosen))
        return jax.lax.scan(add, zero, keys.reshape(parts, size))[0]

    # Where loss or gradient is not finite, everything stays as it was, and the loss is given as nan.
    def _update(self, state: OneShotState, data: None, iteration: Array) -> tuple[OneShotState, Float[Array, "1"]]:
        learnt = self.learnt(state)
        keys = jax.random.split(purpose_key(self.key, TRAINING, iteration), self.experiment.run.batch)
        loss, gradient = self.gradient(learnt, keys)
        chosen = eqx.filter(learnt, self.trained)
        updates, optimiser = self.optimiser.update(gradient, state.optimiser, chosen)
        new = eqx.apply_updates(learnt, updates)
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))
        found, old = (eqx.filter(new, eqx.is_array), optimiser), (state.arrays, state.optimiser)
        arrays, optimiser = kept(finite & state.active[0], found, old)
        return OneShotState(arrays, optimiser, state.active), jnp.where(finite, loss, jnp.nan)[None]

    def _evaluate(self, state: OneShotState, data: None, iteration: Array, test: bool = False) -> OneShotEvaluation:
        """Means over held-out tasks. `test`: over the larger final set."""
        learnt = self.learnt(state)
        size = self.experiment.run.evaluation_batch or self.experiment.run.batch
        parts = -(-TEST_TASKS // size) if test else 1
        keys = jax.random.split(purpose_key(self.key, TEST if test else EVALUATION, iteration), (parts, size))

        def measure(keys):
            lesson = self.lesson(learnt, keys)
            after, before = (self.errors(y, lesson.tasks, self.task.metric).mean() for y in (lesson.y[-1], lesson.y[0]))
            module = lesson.module_z[-1].mean() if lesson.module_z else jnp.zeros((), self.dtype)
            return after, before, lesson.z[-1].mean(), module

        after, before, activity, module = [values.mean()[None] for values in jax.lax.map(measure, keys)]
        return OneShotEvaluation(after, before, activity, module, jnp.exp(learnt.log_learning_rate)[None])


def check_family(family: TaskFamily) -> None:
    """Raise `InvalidSetting` if what a family draws, produces and measures does not have the shapes it says."""

    def try_all(key):
        task = family.sample_task(key)
        y = jnp.zeros((family.steps, family.n_out))
        return family.target(task), family.produced(y), family.loss(y, task), family.metric(y, task)

    name = type(family).__name__
    try:
        shapes = [x.shape for x in jax.eval_shape(try_all, jax.random.key(0))]
    except (TypeError, ValueError) as error:
        require(False, f"family {name}: outputs of shape {(family.steps, family.n_out)} do not fit its tasks ({error})")
        raise
    movement = (family.steps, family.n_coordinates)
    expected = {"target": movement, "produced": movement, "loss": (), "metric": ()}
    for (what, shape), found in zip(expected.items(), shapes, strict=True):
        require(found == shape, f"family {name}: {what} has shape {found}, expected {shape}")
