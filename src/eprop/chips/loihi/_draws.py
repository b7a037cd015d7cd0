"""The random numbers of a learning connection: drawn before a run, or handed over as recorded."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from eprop.chips.loihi._settings import LearningRule, Variant
from eprop.errors import require

ONE = 2**53
LOW = 26
"""Fractions of 53 bits are held in two integers: 27 bits above so many."""


class Draws(NamedTuple):
    """Numbers of five generators from step `start` on: integers of 53 bits, impulses 0 to 127.

    x_decay, y_decay, x_impulse, y_impulse: `[2 steps + 1]`, or `[2 steps + 1, traces]`, entry 2 s after step s (from
    the start of these draws), entry 0 before the first one. w: `[steps // t_epoch + 1]`, entry e in epoch e.
    """

    x_decay: np.ndarray
    y_decay: np.ndarray
    x_impulse: np.ndarray
    y_impulse: np.ndarray
    w: np.ndarray


class StepDraws(NamedTuple):
    """The drawn numbers that a run reads, one row a step."""

    x_decay: Int32[Array, "step 2 2"]  # [step, trace, high and low part]
    y_decay: Int32[Array, "step 3 2"]
    x_impulse: Int32[Array, "step 2"]
    y_impulse: Int32[Array, "step 3"]
    y_again: Int32[Array, "step 3"]
    w: Int32[Array, "step"]  # noqa: F821


def draw(rule: LearningRule, steps: int, variant: Variant | None = None, start: int = 0) -> Draws:
    """The numbers of so many steps, from NumPy's PCG64 as the models draw them; `start`: steps already done.

    Seeds are `rng_seed` to `rng_seed + 3`, and 2 for weights. Two numbers a step from each of the first four.
    """
    variant = Variant() if variant is None else variant
    each = variant.trace_draws == "each-trace"
    count = 2 * (start + steps) + 1

    def numbers(offset: int, traces: int, impulse: bool) -> np.ndarray:
        generator = np.random.default_rng(rule.rng_seed + offset)
        shape = (count, traces) if each else (count,)
        found = generator.integers(0, 128, shape) if impulse else (generator.random(shape) * ONE).astype(np.int64)
        return found[2 * start :]

    epochs = (start + steps) // rule.t_epoch + 1
    w = (np.random.default_rng(2).random(epochs) * ONE).astype(np.int64)[start // rule.t_epoch :]
    return Draws(numbers(0, 2, False), numbers(2, 3, False), numbers(1, 2, True), numbers(3, 3, True), w)


def never(steps: int) -> Draws:
    """Numbers that never round up."""
    decay, impulse = np.full(2 * steps + 1, ONE), np.full(2 * steps + 1, 256)
    return Draws(decay, decay, impulse, impulse, np.full(steps + 1, ONE))


def by_step(draws: Draws, rule: LearningRule, steps: int, start: int = 0) -> StepDraws:
    """The draws in the order of steps, after `start` steps done."""
    epoch = (start + np.arange(1, steps + 1)) // rule.t_epoch - start // rule.t_epoch
    for name, value in draws._asdict().items():
        length = int(epoch[-1]) + 1 if name == "w" else 2 * steps + 1
        require(len(value) >= length, f"draws.{name}: expected at least {length} numbers, got {len(value)}")
    each = lambda x, n: np.broadcast_to(x[:, None] if x.ndim == 1 else x, (len(x), n))  # noqa: E731
    at = 2 * np.arange(1, steps + 1)
    halves = lambda x: np.stack([x >> LOW, x & (2**LOW - 1)], axis=-1).astype(np.int32)  # noqa: E731
    impulse = lambda x, n, index: each(np.asarray(x), n)[index].astype(np.int32)  # noqa: E731
    decay = lambda x, n: halves(each(np.asarray(x, np.int64), n)[at])  # noqa: E731
    rows = (
        decay(draws.x_decay, 2), decay(draws.y_decay, 3),
        impulse(draws.x_impulse, 2, at), impulse(draws.y_impulse, 3, at), impulse(draws.y_impulse, 3, at - 1),
        (np.asarray(draws.w, np.int64)[epoch] >> 37).astype(np.int32),
    )  # fmt: skip
    return StepDraws(*(jnp.asarray(row) for row in rows))
