"""ReckOn's random numbers: linear feedback shift registers that run many bits a clock.

    b_t = b_(t-a) xor b_(t-n)

Every bit to come is a sum, modulo 2, of the `n` bits in the register now. So words and later registers are
tables of `n` columns, and drawing is an exclusive or of the columns whose register bit is 1:

    word = xor_i register_i * column_i
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

Use = Literal["leak", "leak7", "noise", "weights", "readout"]


@dataclass(frozen=True)
class ShiftRegister:
    """One kind of generator: `n` bits, tap `a`, `width` bits a word, `words` words an advance.

    `age[i]` says which past bit register bit `i` holds: `b_(-age[i])`.
    """

    n: int
    a: int
    width: int
    words: int
    age: tuple[int, ...]


REGISTERS: dict[Use, ShiftRegister] = {
    "leak": ShiftRegister(15, 1, 15, 1, (1, *range(15, 1, -1))),
    "leak7": ShiftRegister(15, 1, 7, 1, (1, 15, 8, 14, 7, 13, 6, 12, 5, 11, 4, 10, 3, 9, 2)),
    "noise": ShiftRegister(17, 3, 16, 2, (3, 2, 1, *range(17, 3, -1))),
    "weights": ShiftRegister(25, 3, 32, 16, (3, 2, 1, *range(25, 3, -1))),
    "readout": ShiftRegister(22, 1, 28, 16, (1, *range(22, 1, -1))),
}
"""Rounding of membranes and input and recurrent traces; of output traces and outputs; noise; input and recurrent
weights; output weights. From the chip's public design (arXiv 2208.09759)."""


def words(use: Use, advances: int) -> np.ndarray:
    """Columns of the words offered in so many advances: uint32 `[advances * words, n]`."""
    return _columns(use, advances)[0]


def jumps(use: Use, advances: int) -> np.ndarray:
    """Columns of the register after 0, 1, ..., `advances` advances: uint32 `[advances + 1, n]`."""
    return _columns(use, advances)[1]


def draw(columns: UInt32[Array, "*lead n"], register: UInt32[Array, ""]) -> UInt32[Array, "*lead"]:
    """`xor_i register_i columns[..., i]`."""
    held = (register >> jnp.arange(columns.shape[-1], dtype=jnp.uint32)) & jnp.uint32(1)
    zero = jnp.uint32(0)
    return jax.lax.reduce(jnp.where(held == 1, columns, zero), zero, jax.lax.bitwise_xor, (columns.ndim - 1,))


@lru_cache(maxsize=32)
def _columns(use: Use, advances: int) -> tuple[np.ndarray, np.ndarray]:
    kind = REGISTERS[use]
    bits = kind.width * kind.words
    stream = _stream(kind, advances * bits)  # which register bits make b_t, from t = -n on
    offered = stream[kind.n - kind.a :][: advances * bits].reshape(advances * kind.words, kind.width)
    held = np.arange(advances + 1)[:, None] * bits - np.array(kind.age)[None]
    return _transpose(offered, kind.n), _transpose(stream[held + kind.n], kind.n)


def _stream(kind: ShiftRegister, length: int) -> np.ndarray:
    """Masks over register bits for `b_t`, `t = -n .. length`.

    Squaring the polynomial doubles both lags, so that ever longer pieces follow from the past at once:
    `b_t = b_(t - a 2^k) xor b_(t - n 2^k)`.
    """
    n, a, factor, done = kind.n, kind.a, 1, kind.n
    masks = np.zeros(n + length, np.uint32)
    for bit, age in enumerate(kind.age):
        masks[n - age] = 1 << bit
    while done < len(masks):
        factor = factor * 2 if 2 * factor * n <= done else factor
        count = min(a * factor, len(masks) - done)
        near, far = done - a * factor, done - n * factor
        masks[done : done + count] = masks[near : near + count] ^ masks[far : far + count]
        done += count
    return masks


def _transpose(masks: np.ndarray, n: int) -> np.ndarray:
    """From masks of register bits for each bit of a word, `[word, bit]`, to the words' columns, `[word, n]`."""
    columns = np.zeros((masks.shape[0], n), np.uint32)
    for bit in range(masks.shape[1]):
        has = masks[:, bit, None] >> np.arange(n, dtype=np.uint32) & np.uint32(1)
        columns |= has << np.uint32(bit)
    return columns
