"""A sample: ticks, decision, and the registers of every tick where asked for."""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int8, Int32

from eprop.chips._checks import integers, require_range
from eprop.chips.reckon._learn import TOP, LearnConstants, Signals, learn_constants, signals, touches, update
from eprop.chips.reckon._settings import ReckOn
from eprop.chips.reckon._state import Neurons, ReckOnState, rest
from eprop.chips.reckon._step import StepConstants, decay, deliver, step_constants
from eprop.errors import require


class Result(NamedTuple):
    """The core's answer at the end of a sample, and the cost of the run.

    decision: the output that was largest most often; `counts`: how often each was. `o`: outputs at the end.
    """

    decision: Int32[Array, ""]
    counts: Int32[Array, "n_out"]  # noqa: F821
    o: Int32[Array, "n_out"]  # noqa: F821
    events: "Events"


class Events(NamedTuple):
    """Counted over a sample.

    inputs, spikes: events delivered, of each input and each neuron. pairs: indices that had one of them.
    learning_ticks: ticks with phase E. touched_in, touched_rec, touched_out: synapses read and written by it;
    moved_in, ...: weights that changed.
    """

    inputs: Int32[Array, "n_in"]  # noqa: F821
    spikes: Int32[Array, "n_rec"]  # noqa: F821
    pairs: Int32[Array, ""]
    learning_ticks: Int32[Array, ""]
    touched_in: Int32[Array, ""]
    touched_rec: Int32[Array, ""]
    touched_out: Int32[Array, ""]
    moved_in: Int32[Array, ""]
    moved_rec: Int32[Array, ""]
    moved_out: Int32[Array, ""]


class Registers(NamedTuple):
    """Registers of ticks 1 to T-1, a row each.

    S: after phase S of the tick. P: before it, so after phase P of the tick before. signals: of phase E, 0 where there
    is none. weights: after phase E, int8.
    """

    S: Neurons
    P: Neurons
    signals: Signals
    learnt: Bool[Array, "tick"]  # noqa: F821
    weights: tuple[Int8[Array, "tick n_in n_rec"], Int8[Array, "tick n_rec n_rec"], Int8[Array, "tick n_rec n_out"]]


def run(
    chip: ReckOn, state: ReckOnState, inputs: Any, target: Any, valid: Any, record: bool = False
) -> tuple[ReckOnState, Result, Registers | None]:
    """Run one sample. Membranes and traces start from 0, weights and generators from `state`.

    Tick 0 only takes in events; each later one decays (phase S), counts a decision and learns (E) where `valid`, and
    takes in events (P); the last one only decays and counts. Learning is online: weights change within the sample.

    Args:
        chip: the configuration.
        state: weights and generators.
        inputs: spikes, 0 or 1, `[time, n_in]`.
        target: the class, from 0; or with `regression` outputs' targets, 2048 for 1, 16 bits and sign, `[time, n_out]`.
        valid: ticks with a target and decision counting (TARGET_VALID and INFER_ACC), boolean `[time]`.
        record: return registers of every tick, too (about a byte a weight and tick).

    Returns:
        The state after it, the result, and the registers or None.

    Example:
        >>> import numpy as np
        >>> from eprop.chips import reckon
        >>> chip = reckon.ReckOn(n_in=4, n_rec=16)
        >>> rng = np.random.default_rng(0)
        >>> draw = lambda *shape: rng.integers(-100, 100, shape)
        >>> state = reckon.start(chip, draw(4, 16), draw(16, 16) * (1 - np.eye(16, dtype=int)), draw(16, 2))
        >>> spikes = rng.random((200, 4)) < 0.1
        >>> state, result, _ = reckon.run(chip, state, spikes, 1, np.arange(200) >= 100)
        >>> int(result.counts.sum())
        100
    """
    ticks = np.shape(inputs)[0] if np.ndim(inputs) == 2 else 0
    require(ticks >= 2, f"inputs: expected [time, {chip.n_in}] with at least 2 ticks, got shape {np.shape(inputs)}")
    spikes = integers("inputs", inputs, (ticks, chip.n_in), 0, 1).astype(bool)
    marked = integers("valid", valid, (ticks,), 0, 1).astype(bool)
    return _run(chip, *constants(chip), state, spikes, targets(chip, target, ticks), marked, record)


def targets(chip: ReckOn, target: Any, ticks: int) -> np.ndarray:
    """Targets of each tick, `[time, n_out]`: 2048 for the class and 0 for others, or those given."""
    if chip.regression:
        return integers("target", target, (ticks, chip.n_out), -(2**15), 2**15 - 1)
    require_range(target=(int(target), 0, chip.n_out - 1))
    return np.broadcast_to(TOP * (np.arange(chip.n_out) == int(target)), (ticks, chip.n_out)).astype(np.int32)


@lru_cache(maxsize=8)
def constants(chip: ReckOn) -> tuple[StepConstants, LearnConstants]:
    """Constants of both phases."""
    return step_constants(chip), learn_constants(chip)


@partial(jax.jit, static_argnames=("chip", "record"))
def _run(chip, for_step, for_learning, state, inputs, target, valid, record):
    """`run`, once its arguments are arrays."""
    ticks = inputs.shape[0]
    last = np.arange(1, ticks) == ticks - 1
    neurons, generators = deliver(chip, for_step, state.weights, rest(chip), state.generators, inputs[0])
    first = neurons
    step = partial(_tick, chip, for_step, for_learning, record)
    begin = (state.weights, neurons, generators, jnp.zeros((chip.n_out,), jnp.int32), _no_events(chip))
    xs = (inputs[1:] & ~last[:, None], target[1:], valid[1:], valid[1:] & ~last, last)
    (weights, neurons, generators, counts, events), rows = jax.lax.scan(step, begin, xs)
    events = _count(events, inputs[0], jnp.zeros((chip.n_rec,), bool), jnp.zeros((), bool), jnp.zeros((6,), jnp.int32))
    result = Result(jnp.argmax(counts).astype(jnp.int32), counts, neurons.o, events)
    if rows is not None:
        before = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b[:-1]]), first, rows.P)
        rows = rows._replace(P=before)
    return ReckOnState(weights, generators), result, rows


def _tick(chip, for_step, for_learning, record, carry, xs):
    """One tick: S, decision, E, P."""
    weights, neurons, generators, counts, events = carry
    x, target, counted, learns, last = xs
    decayed, generators = decay(chip, for_step, neurons, generators)
    winner = jnp.argmax(decayed.o) == jnp.arange(chip.n_out)
    counts = counts + (winner & counted).astype(jnp.int32)
    found = signals(chip, weights, decayed, target)
    learnt = (weights, generators, jnp.zeros((6,), jnp.int32))
    if chip.do_eprop:
        learn = lambda: _learn(chip, for_learning, weights, decayed, generators, found)  # noqa: E731
        learnt = jax.lax.cond(learns, learn, lambda: learnt)
    weights, generators, work = learnt
    neurons, generators = deliver(chip, for_step, weights, decayed._replace(z=decayed.z & ~last), generators, x)
    events = _count(events, x, decayed.z & ~last, learns & (chip.do_eprop > 0), work)
    rows = None
    if record:
        shown = jax.tree.map(lambda a: jnp.where(learns, a, 0), found)
        small = tuple(w.astype(jnp.int8) for w in weights)
        rows = Registers(decayed, neurons, shown, learns & (chip.do_eprop > 0), small)  # pyright: ignore
    return (weights, neurons, generators, counts, events), rows


def _learn(chip, for_learning, weights, neurons, generators, found):
    """Phase E, and its work: synapses touched and moved, `[6]`, for input, recurrent and output weights."""
    new, generators = update(chip, for_learning, weights, neurons, generators, found)
    touched = touches(chip, neurons, found.reg)
    moved = [(after != before).sum(dtype=jnp.int32) for after, before in zip(new, weights, strict=True)]
    return new, generators, jnp.stack([*touched, *moved])


def _count(events: Events, x: Array, z: Array, learns: Array, work: Array) -> Events:
    """The counts, one tick further."""
    pairs = (jnp.zeros_like(z).at[: x.shape[0]].set(x) | z).sum(dtype=jnp.int32)
    new = [x.astype(jnp.int32), z.astype(jnp.int32), pairs, learns.astype(jnp.int32), *work]
    return Events(*(old + more for old, more in zip(events, new, strict=True)))


def _no_events(chip: ReckOn) -> Events:
    sizes = {"inputs": (chip.n_in,), "spikes": (chip.n_rec,)}
    return Events(*(jnp.zeros(sizes.get(name, ()), jnp.int32) for name in Events._fields))
