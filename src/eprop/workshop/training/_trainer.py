"""The face that the training loop drives: an experiment's functions, for several seeds side by side."""

import abc
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from eprop.learner import Learner, LearnerState, Loss
from eprop.networks import Network
from eprop.neurons import PyTree
from eprop.rules import EProp1, Rule
from eprop.workshop.settings import Experiment
from eprop.workshop.training._build import build_network, build_neuron, check_network
from eprop.workshop.training._keys import WEIGHTS, purpose_key


class Evaluation(NamedTuple):
    """The measures of an evaluation on held-out data, for each seed."""

    metric: Float[Array, "seed"]  # noqa: F821
    activity: Float[Array, "seed"]  # noqa: F821  # mean output: spikes a step


class Trainer(abc.ABC):
    """The questions of the loop: `init`, `update`, `evaluate`, and how to speak of them."""

    experiment: Any
    task: Any
    seeds: tuple[int, ...]
    data: Any
    """The data that the task prepares."""
    update: Any
    """`(state, data, iteration) -> (state, loss)`, jitted; arrays have a leading axis of seeds."""
    evaluate: Any
    """`(state, data, iteration, test=False)` -> named arrays `[seed]`, `metric` and `activity` among them."""

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """Its name in the progress bar."""

    @property
    @abc.abstractmethod
    def description(self) -> dict[str, Any]:
        """The lines about it in a summary."""

    @abc.abstractmethod
    def init(self) -> Any:
        """The state before the first update: a named tuple with an entry `active` `[seed]`."""

    @property
    def remedy(self) -> str:
        """Advice for a loss that stops being finite."""
        return f"a learning_rate below {self.experiment.optimiser.learning_rate}, or a clip,"

    def facts(self) -> dict[str, Any] | None:
        """The facts about the data that the run folder keeps."""
        return self.task.facts()

    def part(self, iteration: int) -> Any:
        """The data that an iteration's batch is drawn from."""
        return self.task.part(self.data, iteration)

    def details(self, state: Any) -> dict[str, Any]:
        """Named numbers beside loss and metric, a list over seeds each."""
        return {}


class NetworkTrainer(Trainer):
    """Trains a network on a task with a `Learner`: what sequences and streams share."""

    def __init__(self, experiment: Experiment[Any], seeds: Sequence[int], rule: Rule | None = None) -> None:
        self.experiment: Any = experiment
        self.task: Any = experiment.task
        self.seeds: tuple[int, ...] = tuple(seeds)
        self.rule: Rule = experiment.rule.make() if rule is None else rule
        self.keys: Array = jax.vmap(jax.random.key)(jnp.array(self.seeds))
        self.update: Any = jax.jit(self._update, donate_argnums=0)
        self.evaluate: Any = jax.jit(self._evaluate, static_argnames="test")
        self.spiking: bool = build_neuron(experiment.network).spiking
        check_network(experiment.network)
        self.check()

    @abc.abstractmethod
    def check(self) -> None:
        """Refuse what does not fit the task, before a folder is made."""

    @abc.abstractmethod
    def _first(self, key: PRNGKeyArray) -> LearnerState:
        """The learner's state before the first update, of one seed."""

    @abc.abstractmethod
    def _update(self, state: Any, data: Any, iteration: Array) -> tuple[Any, Float[Array, "seed"]]:  # noqa: F821
        """One update of all seeds."""

    @abc.abstractmethod
    def _evaluate(self, state: Any, data: Any, iteration: Array, test: bool = False) -> Evaluation:
        """Metric on held-out data, and mean output."""

    def rehearse(self) -> None:
        """Trace all that training does and compute nothing, so that what is refused is so before a folder is made.

        Raises:
            InvalidSetting: for settings that do not fit the task, the rule or each other.
        """
        self.check_reach()
        state, now = jax.eval_shape(self.init), jnp.asarray(0)
        jax.eval_shape(self._update, state, self.part(0), now)
        jax.eval_shape(self._evaluate, state, self.data, now)

    def check_reach(self) -> None:
        """Refuse to train what no path of the rule reaches."""

    @property
    def label(self) -> str:
        return self.rule.label

    @property
    def description(self) -> dict[str, Any]:
        feedback = self.rule.feedback.name if isinstance(self.rule, EProp1) else None
        return {"rule": self.rule.name, "feedback": feedback, "neuron": self.experiment.network.neuron}

    @cached_property
    def static(self) -> PyTree:
        """The learner's state without its arrays."""
        abstract = eqx.filter_eval_shape(self._first, jax.random.key(0))
        return eqx.partition(abstract, lambda x: isinstance(x, jax.ShapeDtypeStruct))[1]

    def whole(self, arrays: PyTree) -> LearnerState:
        """The learner's state of one seed, from its arrays."""
        return eqx.combine(arrays, self.static)

    def network(self, state: Any, seed: int = 0) -> Network:
        """The network of one seed (its place in `seeds`)."""
        return self.whole(jax.tree.map(lambda x: x[seed], state.learner)).network

    def _network(self, key: PRNGKeyArray) -> Network:
        settings, key = self.experiment.network, purpose_key(key, WEIGHTS)
        return build_network(settings, self.task.n_in, self.task.n_out, key, feedback=self.rule.feedback)

    def _learner(self, optimiser: Any, loss: Loss, share: float = 1.0, **settings: Any) -> Learner:
        """A learner with the experiment's regularisation; `share`: of it that falls on one window."""
        s = self.experiment.optimiser
        return Learner(
            self.rule,
            optimiser,
            loss,
            rate_target=s.rate_target / 1000.0,
            rate_strength=share * s.rate_strength if self.spiking else 0.0,
            weight_penalty=share * s.weight_penalty,
            kolen_pollack=s.kolen_pollack_decay,
            **settings,
        )


def kept(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    """`new` where the condition holds, else `old`."""
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)
