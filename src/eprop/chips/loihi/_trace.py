"""Traces of 7 bits: decay with stochastic rounding, impulses, and their values at each step of an epoch."""

from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from eprop.chips.loihi._draws import LOW, ONE
from eprop.chips.loihi._settings import LearningRule, Variant

LARGEST = 127
SENT = 2**15
"""Neurons may send -2^15 to 2^15 - 1."""


class Decay(NamedTuple):
    """The outcome of decay for every value, so that doubles are needed nowhere: `floor(p)`, and the fraction of `p`.

    `[trace, value]`, value 0 stands at `zero`; the fraction in 2^-53, rounded up, in two parts.
    """

    whole: Int32[Array, "trace value"]
    high: Int32[Array, "trace value"]
    low: Int32[Array, "trace value"]


class TraceConstants(NamedTuple):
    """Decay and impulses of the x and the y traces."""

    x: Decay
    y: Decay
    x_impulse: Int32[Array, "2 2"]  # [trace, whole and part]
    y_impulse: Int32[Array, "3 2"]


def trace_constants(rule: LearningRule, variant: Variant) -> TraceConstants:
    """The constants of a rule."""
    sent = rule.factors == 3
    x, y = (_tables(rule.decay(side, variant), side == "y" and sent) for side in "xy")
    impulses = (np.array(rule.impulses(side, variant), np.int32) for side in "xy")
    return TraceConstants(x, y, *impulses)  # pyright: ignore[reportArgumentType]


def _tables(factors: tuple[Fraction, ...], sent: bool) -> Decay:
    columns = [_table(factor, -SENT if sent else 0, SENT if sent else LARGEST + 1) for factor in factors]
    return Decay(*(np.stack(part) for part in zip(*columns, strict=True)))  # pyright: ignore[reportArgumentType]


@lru_cache(maxsize=64)
def _table(factor: Fraction, first: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`p = x factor`, rounded once to 53 significant bits, for `x` from `first` to `end - 1`."""
    numerator, q = factor.numerator, factor.denominator.bit_length() - 1
    rows = []
    for x in range(first, end):
        p = _double(x * numerator)
        whole = p >> q
        fraction = -((-(p - (whole << q)) * ONE) // 2**q) if q else 0  # rounded up
        rows.append((whole, fraction >> LOW, fraction & (2**LOW - 1)))
    return tuple(np.array(rows, np.int64).astype(np.int32).T)  # pyright: ignore[reportReturnType]


def _double(product: int) -> int:
    """An integer rounded to 53 significant bits, ties to even."""
    extra = abs(product).bit_length() - 53
    if extra <= 0:
        return product
    size, half = abs(product), 1 << (extra - 1)
    kept, rest = size >> extra, size & ((1 << extra) - 1)
    kept += rest > half or (rest == half and kept & 1)
    return (kept << extra) * (1 if product > 0 else -1)


def decayed(table: Decay, zero: int, value: Int32[Array, "trace n"], random: Int32[Array, "trace 2"]) -> Array:
    """`floor(p) + (R < fraction of p)`; `random`: R of 53 bits in two parts, one number for all neurons."""
    place = value + zero
    at = lambda part: jnp.take_along_axis(part, place, axis=1)  # noqa: E731
    high, low = random[:, :1], random[:, 1:]
    up = (high < at(table.high)) | ((high == at(table.high)) & (low < at(table.low)))
    return at(table.whole) + up.astype(jnp.int32)


def pushed(value: Int32[Array, "trace n"], impulse: Int32[Array, "trace 2"], random: Int32[Array, "trace"]) -> Array:  # noqa: F821
    """With an impulse: `clip(value + whole + (R < part), 0, 127)`, R from 0 to 127 against a part of 256ths."""
    add = impulse[:, 0] + (random < impulse[:, 1]).astype(jnp.int32)
    return jnp.clip(value + add[:, None], 0, LARGEST)


def again(
    register: Int32[Array, "trace n"],
    spiked_at: Int32[Array, "n"],  # noqa: F821
    spikes: Array,
    k: Array,
    impulse: Int32[Array, "trace 2"],
    random: Int32[Array, "trace"],  # noqa: F821
) -> tuple[Array, Array]:
    """The spiking phase of a step: a second or later spike of an epoch adds to the register; the last counts."""
    twice = spikes & (spiked_at > 0)
    register = jnp.where(twice[None], pushed(register, impulse, random), register)
    return register, jnp.where(spikes, k, spiked_at)


def history(
    table: Decay,
    sent: bool,
    impulse: Int32[Array, "trace 2"],
    register: Int32[Array, "trace n"],
    spiked_at: Int32[Array, "n"],  # noqa: F821
    random_decay: Int32[Array, "trace 2"],
    random_impulse: Int32[Array, "trace"],  # noqa: F821
    steps: int,
    once: bool = False,
) -> Int32[Array, "step trace n"]:
    """Values `h(k)` of a trace at steps 1 to `steps` of the epoch, from its register: decay, then the impulse.

    `once`: the trace decays at the first of them alone.
    """

    def one(value, k):
        lower = decayed(table, SENT if sent else 0, value, random_decay)
        value = jnp.where(k == 1, lower, value) if once else lower
        value = jnp.where((spiked_at == k)[None], pushed(value, impulse, random_impulse), value)
        return value, value

    if steps == 1:
        return one(register, 1)[1][None]
    return jax.lax.scan(one, register, jnp.arange(1, steps + 1, dtype=jnp.int32))[1]
