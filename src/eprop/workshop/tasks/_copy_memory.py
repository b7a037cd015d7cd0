"""Copy memory: say, after a long silence, what was heard before it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from eprop.errors import require, require_positive
from eprop.workshop.settings import Experiment, NetworkSettings, OptimiserSettings, RuleSettings, RunSettings
from eprop.workshop.tasks._base import Batch, Task, cross_entropy


@dataclass(frozen=True)
class CopyMemory(Task):
    """Hear a few random letters; after a delay, at a mark, say them again in order.

    A sequence has `delay + 2 symbols` steps: the letters, `delay` steps of silence with the mark in the last, and
    `symbols` steps in which to answer, silent too. Channels: one a letter, one for silence, one for the mark. From a
    letter to its answer it is `delay + symbols` steps. Loss: cross-entropy, mean over the answers.

    Metric: recall error, the share of wrong letters (by chance 1 - 1/alphabet).

    Departs from the source (Hochreiter & Schmidhuber 1997, in the form of Arjovsky et al. 2016, arXiv 1511.06464; the
    papers were not read, the form is the usual one): the loss counts the answers alone, not the silence before them.
    """

    metric_name: ClassVar[str] = "recall error"

    alphabet: int = 8
    """Letters there are."""
    symbols: int = 10
    """Letters to remember."""
    delay: int = 100
    """Steps from the last letter to the mark, the mark included."""

    def __post_init__(self) -> None:
        require_positive(symbols=self.symbols, delay=self.delay)
        require(self.alphabet >= 2, f"alphabet = {self.alphabet}: must be at least 2")

    @property
    def n_in(self) -> int:
        return self.alphabet + 2

    @property
    def n_out(self) -> int:
        return self.alphabet

    @property
    def steps(self) -> int:
        """Steps of a sequence."""
        return self.delay + 2 * self.symbols

    def sample(self, data: Any, key: PRNGKeyArray, size: int) -> Batch:
        letters = jax.random.randint(key, (self.symbols, size), 0, self.alphabet, jnp.int32)
        silence, mark = self.alphabet, self.alphabet + 1
        shown = jnp.full((self.steps, size), silence, jnp.int32).at[: self.symbols].set(letters)
        shown = shown.at[self.symbols + self.delay - 1].set(mark)
        targets = jnp.zeros((self.steps, size), jnp.int32).at[-self.symbols :].set(letters)
        mask = jnp.broadcast_to((jnp.arange(self.steps) >= self.steps - self.symbols)[:, None], shown.shape)
        return Batch(jax.nn.one_hot(shown, self.n_in, dtype=jnp.float32), targets, mask, jnp.ones_like(mask))

    def loss(self, y: Array, batch: Batch) -> Array:
        return cross_entropy(y, batch)

    def window_loss(self, y: Array, part: Batch, whole: Batch) -> Array:
        return cross_entropy(y, part, whole)

    def metric(self, y: Array, batch: Batch) -> tuple[Array, Array]:
        wrong = batch.mask & (y.argmax(-1) != batch.targets)
        return wrong.sum().astype(y.dtype), batch.mask.sum().astype(y.dtype)


def _preset(delay: int) -> Experiment:
    return Experiment(
        task=CopyMemory(delay=delay),
        network=NetworkSettings(neuron="lstm", neurons=100, tau_out=None, bias=True),
        optimiser=OptimiserSettings(learning_rate=0.001, clip=1.0),
        run=RunSettings(iterations=10_000, batch=32, evaluate_every=100, evaluation_batch=128),
        rule=RuleSettings(rule="eligibility_only:10"),
    )


PRESETS = {"delay-100": _preset(100), "delay-1000": _preset(1000)}
"""Ten letters out of eight over each of two delays; network and optimiser are ours."""
