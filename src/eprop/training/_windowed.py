"""Training on streams: an update a window, with neuron state, traces and the place in the data carried on."""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from eprop.eligibility import Carry, reset_carry, with_late_traces
from eprop.errors import require
from eprop.learning_signals import SyntheticGradient, boundary_loss, firing_rate_loss, prediction_error
from eprop.networks import Network, Recurrent, trainable
from eprop.neurons import traced
from eprop.rules import WINDOWED, Rule, TruncatedBPTT, WindowedRule
from eprop.settings import Experiment
from eprop.tasks import StreamTask, Window
from eprop.training._build import build_network, build_neuron, build_optimiser
from eprop.training._learner import DATA, TEST, TRAINING, WEIGHTS, Described, Evaluation, stream

SYNTHESISER = 17
"""A stream of random numbers apart from those of other learners."""


class WindowedState(NamedTuple):
    """What training changes; every leaf has a leading axis of seeds."""

    arrays: PyTree  # the network's arrays
    optimiser: PyTree
    active: Bool[Array, "seed"]  # noqa: F821  # False once stop_below was reached: the seed rests
    activity: Float[Array, "seed"]  # noqa: F821  # mean output of the last layer, in the last window
    place: PyTree  # where in the task the next window begins
    carry: tuple[Carry, ...]  # one a layer
    gradient: PyTree | None  # summed since the last update, where that is not every window
    synthesiser: PyTree | None  # a synthetic-gradient module a layer, where the rule has them
    synthesiser_optimiser: PyTree | None


class WindowedLearner(Described):
    """An experiment on a stream, jitted: `init`, `update` (one window), `evaluate`. Seeds run side by side.

        E_window = E(y) + d <SG(s_K, z_K), (s_K, z_K)>, the second term 0 where the sequence has ended; d: the discount
        E_SG     = 1/2 ||SG(s_0, z_0) - dE_window/d(s_0, z_0)||^2

    One gradient of `E_window`, over weights and over the window's first state, gives the rule's gradient
    and the synthetic gradient's bootstrapped target. The rule's two properties say which of traces and
    synthetic gradients there are; everything else is the same for all rules.

    Raises:
        InvalidSetting: for a rule that has no window, a bidirectional network, or a window that does not fit the task.
    """

    def __init__(self, experiment: Experiment, seeds: Sequence[int], rule: Rule | None = None) -> None:
        self.experiment = experiment
        self.task: StreamTask = experiment.task
        self.seeds = tuple(seeds)
        rule = experiment.rule.make() if rule is None else rule
        require(
            isinstance(rule, WindowedRule | TruncatedBPTT),
            f"rule = {rule.label!r}: this task is trained window by window, with one of {', '.join(WINDOWED)}, "
            "as in eprop3:4",
        )
        assert isinstance(rule, WindowedRule | TruncatedBPTT)
        require(not experiment.network.bidirectional, "bidirectional: a stream has no end to read backwards from")
        self.rule = rule
        self.task.check_window(rule.window, experiment.run.batch)
        self.synthesiser_optimiser = optax.adam(experiment.optimiser.synthesiser_learning_rate)
        self.once_a_sequence = experiment.optimiser.update_every == "sequence"
        self.optimiser = build_optimiser(
            experiment.optimiser, None if self.once_a_sequence else experiment.run.iterations
        )
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
        """What the task prepares: once for all seeds."""
        return self.task.prepare(stream(jax.random.key(0), DATA))

    def _network(self, key) -> Network:
        return build_network(self.experiment.network, self.task.n_in, self.task.n_out, stream(key, WEIGHTS))

    def _synthesisers(self, network: Network, key) -> tuple[SyntheticGradient, ...] | None:
        if not self.rule.synthesises:
            return None
        settings, modules = self.experiment.network, []
        for i, layer in enumerate(_layers(network)):
            components = len(jax.tree.leaves(traced(layer.start(1).state)))
            modules.append(
                SyntheticGradient(
                    components,
                    layer.size,
                    hidden=settings.synthesiser_hidden,
                    key=stream(key, SYNTHESISER, i),
                    dtype=jnp.dtype(settings.precision),
                )
            )
        return tuple(modules)

    def network(self, state: WindowedState, seed: int = 0) -> Network:
        """The network of one seed (its place in `seeds`)."""
        return eqx.combine(jax.tree.map(lambda x: x[seed], state.arrays), self.static)

    def start(self, network: Network, size: int) -> tuple[Carry, ...]:
        """Carries before the first step, with eligibility vectors where the rule carries them."""
        carries = network.start(size)
        if not self.rule.carries_traces:
            return carries
        window = self.rule.window
        pairs = zip(_layers(network), carries, strict=True)
        return tuple(with_late_traces(layer.neuron, layer.synapses(), carry, window) for layer, carry in pairs)

    def init(self) -> WindowedState:
        """Initial weights, optimiser state, and the start of the stream."""
        size = self.experiment.run.batch

        def one(key):
            network = self._network(key)
            chosen = eqx.filter(network, trainable(network, self.rule))
            modules = self._synthesisers(network, key)
            return WindowedState(
                eqx.filter(network, eqx.is_array),
                self.optimiser.init(chosen),
                jnp.array(True),
                jnp.zeros((), self.experiment.network.precision),
                self.task.place(),
                self.start(network, size),
                jax.tree.map(jnp.zeros_like, chosen) if self.once_a_sequence else None,
                modules,
                None if modules is None else self.synthesiser_optimiser.init(modules),  # pyright: ignore[reportArgumentType]
            )

        return jax.jit(jax.vmap(one))(self.keys)

    def loss(self, network: Network, carry: tuple[Carry, ...], window: Window, modules):
        """A window's loss, seeded beyond its end; and its own part, the outputs, the last carry."""
        settings = self.experiment.optimiser
        result = network(window.batch.inputs, self.rule, carry)
        own = total = self.task.loss(result.y, window.batch)
        if modules is not None:
            for module, last in zip(modules, result.carry, strict=True):
                future = module(jax.lax.stop_gradient(last.state), jax.lax.stop_gradient(last.z))
                goes_on = (~window.ended[:, None]).astype(last.z.dtype) / last.z.shape[0]
                weight = settings.synthesiser_discount * goes_on
                total = total + boundary_loss(last, jax.tree.map(lambda g, w=weight: w * g, future))
        if self.spiking and settings.rate_strength > 0:
            for z in result.z:
                target = settings.rate_target / 1000.0
                total = total + firing_rate_loss(z, target, settings.rate_strength, window.batch.valid)
        return total, (own, result)

    def gradient(self, network: Network, carry: tuple[Carry, ...], window: Window, modules):
        """Gradients over weights and over each layer's first state and `z`; beside them the loss and the outputs."""
        chosen, rest = eqx.partition(network, trainable(network, self.rule))
        boundary = tuple((traced(c.state), c.z) for c in carry)

        def of(chosen, boundary):
            starts = tuple(
                c._replace(state=eqx.combine(state, c.state), z=z)
                for c, (state, z) in zip(carry, boundary, strict=True)
            )
            return self.loss(eqx.combine(chosen, rest), starts, window, modules)

        return jax.grad(of, argnums=(0, 1), has_aux=True)(chosen, boundary)

    # Where loss or gradient is not finite, a seed's weights stay as they were, and its loss is given as nan.
    def _update(self, state: WindowedState, data: Any, iteration: Array) -> tuple[WindowedState, Float[Array, "seed"]]:  # noqa: F821
        size, steps = self.experiment.run.batch, self.rule.window

        def one(state: WindowedState, key):
            network = eqx.combine(state.arrays, self.static)
            window = self.task.window(data, stream(key, TRAINING), state.place, size, steps)
            (gradient, at_start), (loss, result) = self.gradient(network, state.carry, window, state.synthesiser)
            finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))
            keep = lambda new, old: jnp.where(state.active & finite, new, old)  # noqa: E731
            new = self._descend(network, state, gradient, window.ended.all())
            new = self._train_synthesisers(new, state.carry, at_start, window)
            place = self.task.move(state.place, result.y, window)
            kept = jax.tree.map(
                keep, new._replace(carry=(), place=place, activity=result.z[-1].mean()), state._replace(carry=())
            )
            fresh = network.start(size)
            carry = tuple(reset_carry(c, f, window.ended) for c, f in zip(result.carry, fresh, strict=True))
            return kept._replace(carry=carry), jnp.where(finite, loss, jnp.nan)

        return jax.vmap(one)(state, self.keys)

    def _descend(self, network: Network, state: WindowedState, gradient: PyTree, ended: Array) -> WindowedState:
        """The weights' update: after every window, or with the sum of a sequence's gradients at its end."""
        if self.once_a_sequence:
            gradient = jax.tree.map(jnp.add, state.gradient, gradient)
        parameters = eqx.filter(network, trainable(network, self.rule))
        updates, optimiser = self.optimiser.update(gradient, state.optimiser, parameters)  # pyright: ignore[reportArgumentType]
        arrays = eqx.filter(eqx.apply_updates(network, updates), eqx.is_array)
        if not self.once_a_sequence:
            return state._replace(arrays=arrays, optimiser=optimiser)
        chosen = lambda new, old: jnp.where(ended, new, old)  # noqa: E731
        return state._replace(
            arrays=jax.tree.map(chosen, arrays, state.arrays),
            optimiser=jax.tree.map(chosen, optimiser, state.optimiser),
            gradient=jax.tree.map(lambda g: jnp.where(ended, 0.0, g), gradient),
        )

    def _train_synthesisers(self, state: WindowedState, carry: tuple[Carry, ...], at_start, window: Window):
        """Fit each module, at the window's start, to what is known now; where a sequence starts, nothing was said."""
        if state.synthesiser is None:
            return state
        size = self.experiment.run.batch
        counts = (~window.first).astype(carry[0].z.dtype)

        def error(modules):
            return sum(
                prediction_error(module(c.state, c.z), jax.tree.map(lambda g: size * g, target), counts)
                for module, c, target in zip(modules, carry, at_start, strict=True)
            )

        gradient = jax.grad(error)(state.synthesiser)
        updates, optimiser = self.synthesiser_optimiser.update(gradient, state.synthesiser_optimiser)  # pyright: ignore[reportArgumentType]
        return state._replace(
            synthesiser=eqx.apply_updates(state.synthesiser, updates), synthesiser_optimiser=optimiser
        )

    def _evaluate(self, state: WindowedState, data: Any, iteration: Array, test: bool = False) -> Evaluation:
        """The task's metric, and mean output (rate, spikes a step) in the last window."""

        def one(state: WindowedState, key):
            network = eqx.combine(state.arrays, self.static)
            run = partial(self._run, network)
            metric = self.task.measure(data, stream(key, TEST), state.place, run, network.start, test)
            return Evaluation(metric, state.activity)

        return jax.vmap(one)(state, self.keys)

    def _run(self, network: Network, inputs: Array, carry: tuple[Carry, ...]) -> tuple[Array, tuple[Carry, ...]]:
        """Outputs and the last carry, nothing learnt."""
        result = network(inputs, TruncatedBPTT(self.rule.window), carry)
        return result.y, result.carry

    def details(self, state: WindowedState) -> dict[str, Any]:
        """Where training stands, by name, a list over seeds: for the line of metrics and the progress bar."""
        return {name: jax.device_get(value).tolist() for name, value in self.task.details(state.place).items()}


def _layers(network: Network) -> tuple[Recurrent, ...]:
    """The layers, none of them bidirectional: that was refused."""
    return network.layers  # pyright: ignore[reportReturnType]
