"""Training on tasks that come window by window: neuron state, traces and the place in the data are carried on."""

from functools import cached_property, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from eprop.errors import require
from eprop.learner import Learner, LearnerState
from eprop.networks import Network
from eprop.neurons import PyTree
from eprop.rules import BPTT, WINDOWED
from eprop.workshop.tasks import StreamTask
from eprop.workshop.training._build import build_optimiser
from eprop.workshop.training._keys import DATA, SYNTHESISER, TEST, TRAINING, purpose_key
from eprop.workshop.training._trainer import Evaluation, NetworkTrainer, kept


class StreamState(NamedTuple):
    """The state that training changes; every leaf has a leading axis of seeds."""

    learner: PyTree  # the arrays of a LearnerState
    active: Bool[Array, "seed"]  # noqa: F821  # False once stop_below was reached: the seed rests
    activity: Float[Array, "seed"]  # noqa: F821  # mean output in the last window
    place: PyTree  # where in the task the next window begins


class StreamTrainer(NetworkTrainer):
    """Trains on a stream: an update a window, or once a sequence.

    Raises:
        InvalidSetting: for a rule that has no window, a bidirectional network, or settings that do not fit the task.
    """

    task: StreamTask

    def check(self) -> None:
        window, run = self.rule.window, self.experiment.run
        require(
            window is not None,
            f"rule = {self.rule.label!r}: this task is trained window by window, with one of {', '.join(WINDOWED)}, "
            "as in eprop3:4",
        )
        require(
            run.update_window is None,
            f"update_window = {run.update_window}: this task has the rule's own windows, {self.rule.label}",
        )
        network = self.experiment.network
        require(not network.bidirectional, "bidirectional: a stream has no end to read backwards from")
        self.steps: int = window  # pyright: ignore[reportAttributeAccessIssue]
        self.task.check_window(self.steps, run.batch)
        s = self.experiment.optimiser
        once_a_sequence = s.update_every == "sequence"
        self.learner: Learner = self._learner(
            build_optimiser(s, None if once_a_sequence else run.iterations),
            lambda y, batch, mask: self.task.loss(y, batch),
            update_every="sequence" if once_a_sequence else 1,
            rate_window=None,
            synthesiser_optimiser=optax.adam(s.synthesiser_learning_rate) if self.rule.synthesises else None,
            synthesiser_hidden=network.synthesiser_hidden if self.rule.synthesises else (),
            synthesiser_discount=s.synthesiser_discount,
        )

    @cached_property
    def data(self) -> Any:
        """The data that the task prepares: once for all seeds."""
        return self.task.prepare(purpose_key(jax.random.key(0), DATA))

    def _first(self, key: PRNGKeyArray) -> LearnerState:
        own = purpose_key(key, SYNTHESISER)
        return self.learner.init(self._network(key), self.experiment.run.batch, key=own)

    def init(self) -> StreamState:
        """Initial weights, optimiser state, and the start of the stream."""

        def one(key: PRNGKeyArray) -> StreamState:
            nothing = jnp.zeros((), self.experiment.network.precision)
            arrays = eqx.filter(self._first(key), eqx.is_array)
            return StreamState(arrays, jnp.array(True), nothing, self.task.place())

        return jax.jit(jax.vmap(one))(self.keys)

    # Where loss or gradient is not finite, a seed's weights stay as they were, and its loss is given as nan.
    def _update(self, state: StreamState, data: Any, iteration: Array) -> tuple[StreamState, Float[Array, "seed"]]:  # noqa: F821
        size = self.experiment.run.batch

        def one(state: StreamState, key: PRNGKeyArray) -> tuple[StreamState, Array]:
            before = self.whole(state.learner)
            window = self.task.window(data, purpose_key(key, TRAINING), state.place, size, self.steps)
            batch = window.batch
            after, y, metrics = self.learner.step(
                before, batch.inputs, batch, batch.mask, valid=batch.valid, ended=window.ended
            )
            place = self.task.move(state.place, y, window)
            # What a resting seed's neurons do does not matter: their state and traces are not chosen between.
            small = lambda s, p, a: (eqx.filter(s._replace(carry=None), eqx.is_array), p, a)  # noqa: E731
            new, old = small(after, place, metrics.rate), small(before, state.place, state.activity)
            arrays, place, activity = kept(state.active & jnp.isfinite(metrics.loss), new, old)
            arrays = arrays._replace(carry=eqx.filter(after.carry, eqx.is_array))
            return StreamState(arrays, state.active, activity, place), metrics.loss

        return jax.vmap(one)(state, self.keys)

    def _evaluate(self, state: StreamState, data: Any, iteration: Array, test: bool = False) -> Evaluation:
        """The task's metric, and mean output (rate, spikes a step) in the last window."""

        def one(state: StreamState, key: PRNGKeyArray) -> Evaluation:
            network = self.whole(state.learner).network
            run = partial(self._run, network)
            metric = self.task.measure(data, purpose_key(key, TEST), state.place, run, network.start, test)
            return Evaluation(metric, state.activity)

        return jax.vmap(one)(state, self.keys)

    def _run(self, network: Network, inputs: Array, carry: tuple) -> tuple[Array, tuple]:
        """Outputs and the last carry, nothing learnt."""
        result = network(inputs, BPTT(), carry)
        return result.y, result.carry

    def details(self, state: StreamState) -> dict[str, Any]:
        """Where training stands, by name, a list over seeds: for the line of metrics and the progress bar."""
        return {name: jax.device_get(value).tolist() for name, value in self.task.details(state.place).items()}
