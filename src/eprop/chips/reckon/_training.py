"""Learning a task in the chip's integers, one sample at a time."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from eprop.chips.reckon._learn import TOP
from eprop.chips.reckon._run import Events, _run, constants
from eprop.chips.reckon._settings import ReckOn
from eprop.chips.reckon._state import ReckOnState, start
from eprop.errors import require, require_positive


class Samples(Protocol):
    """A source of samples with one class each, as the tasks of `eprop.workshop.tasks` do."""

    @property
    def n_in(self) -> int: ...

    @property
    def n_out(self) -> int: ...

    def sample(self, data: Any, key: PRNGKeyArray, size: int) -> Any:
        """Arrays `inputs`, `targets` and `mask`, with axes `[time, batch, ...]`."""
        ...


@dataclass(frozen=True)
class Initial:
    """Initial weights: normal, rounded, 8 bits; no neuron feeds itself. Units are those of the weights.

    Defaults are about the spread of the weights that come with the chip's own bench.
    """

    w_in: float = 14.0
    """Standard deviation of input weights."""
    w_rec: float = 1.8
    """Standard deviation of recurrent weights."""
    w_out: float = 9.4
    """Standard deviation of output weights."""


class Learnt(NamedTuple):
    """A core after learning.

    correct: of each training sample, whether it was decided rightly while the core learnt from it. tested: the samples
    learnt so far and the share of test samples decided rightly, for each test. events: summed over training.
    """

    state: ReckOnState
    correct: Bool[Array, "sample"]  # noqa: F821
    tested: list[tuple[int, float]]
    events: Events


def initial(chip: ReckOn, seed: int, spread: Initial | None = None) -> ReckOnState:
    """A core with random weights."""
    spread = Initial() if spread is None else spread
    rng = np.random.default_rng(seed)
    draw = lambda scale, *shape: np.clip(np.rint(scale * rng.standard_normal(shape)), -128, 127).astype(int)  # noqa: E731
    w_in, w_rec = draw(spread.w_in, chip.n_in, chip.n_rec), draw(spread.w_rec, chip.n_rec, chip.n_rec)
    return start(chip, w_in, w_rec * (1 - np.eye(chip.n_rec, dtype=int)), draw(spread.w_out, chip.n_rec, chip.n_out))


def learn(
    chip: ReckOn,
    task: Samples,
    *,
    samples: int = 500,
    test: int = 100,
    test_every: int = 100,
    seed: int = 0,
    spread: Initial | None = None,
    state: ReckOnState | None = None,
) -> Learnt:
    """Learn a task of classes in integers: new samples one by one, weights changing within each.

    Args:
        chip: the configuration; its sizes must be the task's.
        task: draws samples of spikes with a class each; only its ticks in `mask` have a target.
        samples: training samples.
        test: samples of each test, the same ones each time, none of them trained on; then the core does not learn.
        test_every: training samples between tests; the last test stands at the end.
        seed: of weights and samples. The same seed gives the same bits.
        spread: of the initial weights.
        state: where to go on instead of new weights.

    Example:
        >>> from eprop.chips.reckon import ReckOn, learn
        >>> from eprop.workshop.tasks import EvidenceAccumulation
        >>> task = EvidenceAccumulation(cues=1, slot=40, cue_duration=20, delay=60, recall_duration=20, group=2)
        >>> learnt = learn(ReckOn(n_in=8, n_rec=16), task, samples=2, test=2)
        >>> learnt.tested[0][0]
        2
    """
    require_positive(samples=samples, test=test, test_every=test_every)
    require(chip.n_in == task.n_in, f"n_in = {chip.n_in}: the task has {task.n_in} inputs")
    require(chip.n_out == task.n_out, f"n_out = {chip.n_out}: the task has {task.n_out} classes")
    require(not chip.regression, "regression = 1: this function learns classes")
    core = initial(chip, seed, spread) if state is None else state
    key_train, key_test = jax.random.split(jax.random.key(seed))
    correct, tested, done = [], [], 0
    events = Events(*(np.zeros((), np.int64) for _ in Events._fields))  # pyright: ignore[reportArgumentType]
    while done < samples:
        count = min(test_every, samples - done)
        keys = jax.vmap(partial(jax.random.fold_in, key_train))(jnp.arange(done, done + count))
        core, (right, counted) = _many(chip, task, constants(chip), core, keys)
        counted = jax.tree.map(lambda a: np.asarray(a, np.int64).sum(0), counted)
        events = jax.tree.map(np.add, events, counted)
        correct, done = [*correct, right], done + count
        tested.append((done, accuracy(chip, task, core, key_test, test)))
    return Learnt(core, jnp.concatenate(correct), tested, events)


def accuracy(chip: ReckOn, task: Samples, state: ReckOnState, key: PRNGKeyArray, samples: int) -> float:
    """Share of new samples that the core decides rightly while it does not learn."""
    silent = chip.inference()
    keys = jax.random.split(key, samples)
    _, (right, _) = _many(silent, task, constants(silent), state, keys)
    return float(np.mean(right))


@partial(jax.jit, static_argnames=("chip", "task"))
def _many(chip, task, tables, state, keys):
    """Samples one after the other: whether each was right, and what it cost."""

    def one(state, key):
        batch = task.sample(None, key, 1)
        label = batch.targets[-1, 0].astype(jnp.int32)
        ticks = batch.inputs.shape[0]
        target = TOP * (jnp.arange(chip.n_out, dtype=jnp.int32) == label).astype(jnp.int32)
        target = jnp.broadcast_to(target, (ticks, chip.n_out))
        state, result, _ = _run(chip, *tables, state, batch.inputs[:, 0] > 0.5, target, batch.mask[:, 0], False)
        return state, (result.decision == label, result.events)

    return jax.lax.scan(one, state, keys)
