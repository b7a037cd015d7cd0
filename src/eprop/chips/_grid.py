"""Grids of b bits in float carriers: the unit, rounding, and draws that are the same for the same seed."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

from eprop.chips._checks import require_range
from eprop.errors import InvalidSetting, require

Rounding = Literal["nearest", "stochastic"]
Bits = int | Int[Array, ""]
"""A number of bits; as an array of JAX, grids of several numbers of bits run through one compiled function."""


class Grid(NamedTuple):
    """What stands on a grid: bits, sign included, and what the grid spans, one number or one a component."""

    bits: Bits
    span: float | tuple[float, ...]


def require_grid(name: str, grid: Grid, components: int) -> None:
    """Raise `InvalidSetting` for bits out of range, a span that is not above 0, or too many or too few of them."""
    require_bits_of(f"{name}.bits", grid.bits, 2)
    spans = each(grid.span, components)
    require(len(spans) == components, f"{name}.span = {grid.span}: give one number, or {components}, one a component")
    for span in spans:
        unit(2, span)


def require_bits_of(name: str, bits: Any, least: int) -> None:
    """Raise `InvalidSetting` unless `bits` is a whole number, or an array `[]` of JAX of one, from `least` to 32."""
    if isinstance(bits, (jax.Array, Tracer)):
        whole = bits.shape == () and jnp.issubdtype(bits.dtype, jnp.integer)
        require(whole, f"{name}: an array of bits must hold one integer, got {bits.dtype}{list(bits.shape)}")
        bits = least if isinstance(bits, Tracer) else int(bits)
    require_range(**{name: (bits, least, 32)})


def unit(bits: Bits, range: float) -> Any:
    """The distance between neighbours on a grid of `bits` bits, sign included, over `-range` to `range`.

    A power of two, so that a chip reaches it by shifting: the smallest whose grid spans the range,
    `2^(bits-1) unit >= range`.
    """
    if not (range > 0 and math.isfinite(range)):
        raise InvalidSetting(f"range = {range}: must be above 0")
    exponent = math.ceil(math.log2(range)) + 1
    if isinstance(bits, (jax.Array, Tracer)):
        return jnp.ldexp(jnp.ones((), jnp.float32), exponent - bits)
    require_range(bits=(bits, 1, 32))
    return 2.0 ** (exponent - bits)


def quantise(x: Float[Array, "*shape"], bits: Bits, range: float, key: PRNGKeyArray | None = None) -> Array:
    """`x` on the grid of `unit(bits, range)`: `-2^(bits-1)` to `2^(bits-1) - 1` units, saturating.

    Straight-through: the gradient is that of `x` itself, also where it saturates.

    Args:
        x: numbers of any shape.
        bits: bits, sign included, 1 to 32.
        range: what the grid should span.
        key: for stochastic rounding, unbiased, a draw for each number; None: to the nearest, ties to even.

    Example:
        >>> import jax.numpy as jnp
        >>> from eprop.chips import quantise
        >>> quantise(jnp.array([0.3, -0.3, 7.0]), bits=4, range=1.0).tolist()
        [0.25, -0.25, 0.875]
    """
    return on_grid(x, bits, range, None if key is None else jax.random.uniform(key, x.shape, x.dtype))


def on_grid(x: Array, bits: Bits, range: float, random: Array | None) -> Array:
    """`quantise` with the draws, in [0, 1), given."""
    step = jnp.asarray(unit(bits, range), x.dtype)
    scaled = jax.lax.stop_gradient(x) / step
    whole = jnp.round(scaled) if random is None else jnp.floor(scaled + random)
    return x + jax.lax.stop_gradient(step * _held(whole, bits) - x)


def unit_update(
    w: Float[Array, "*shape"], update: Float[Array, "*shape"], bits: Bits, range: float, key: PRNGKeyArray
) -> Array:
    """The update written as one unit up or down, with probability `min(1, |update| / unit)`; saturating.

    As on a chip that keeps no more bits of a weight than it computes with. In the mean it is the update, where that
    is below a unit.
    """
    step = jnp.asarray(unit(bits, range), w.dtype)
    draw = jax.random.uniform(key, w.shape, w.dtype) < jnp.abs(update) / step
    return step * _held(jnp.round(w / step) + jnp.sign(update) * draw, bits)


def _held(whole: Array, bits: Bits) -> Array:
    """Whole numbers of units, cut where the register ends."""
    top = jnp.ldexp(jnp.ones((), whole.dtype), bits - 1)
    return jnp.clip(whole, -top, top - 1)


def generators(shape: tuple[int, ...], seed: Any) -> UInt32[Array, "*shape"]:
    """A generator for each number, none of them 0; `seed`: an integer below 2^32, or an array of one."""
    index = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    start = np.uint32(seed * 0x9E3779B9 % 2**32) if isinstance(seed, int) else seed * jnp.uint32(0x9E3779B9)
    return _mixed(index + start) | jnp.uint32(1)


def drawn(random: UInt32[Array, "*shape"], dtype: Any) -> tuple[UInt32[Array, "*shape"], Float[Array, "*shape"]]:
    """Generators one draw on, and numbers in [0, 1) of 24 bits."""
    random = _next(random)
    return random, (random >> 8).astype(dtype) / 2.0**24


def digest(*arrays: Array) -> UInt32[Array, ""]:
    """A number that depends on every bit of the arrays (in single precision), and on nothing else."""
    total = jnp.zeros((), jnp.uint32)
    for x in arrays:
        bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32).ravel()
        place = jnp.arange(bits.size, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
        total = _mixed(total + jnp.sum(_mixed(bits + place), dtype=jnp.uint32))
    return total


def each(value: Any, count: int) -> tuple:
    """A tuple as it is; one value for all of `count` components."""
    return value if isinstance(value, tuple) else (value,) * count


def _next(x: Array) -> Array:
    """Marsaglia's xorshift of 32 bits (doi:10.18637/jss.v008.i14): never 0."""
    x = x ^ (x << 13)
    x = x ^ (x >> 17)
    return x ^ (x << 5)


def _mixed(x: Array) -> Array:
    """Neighbouring numbers to far ones (the finaliser of MurmurHash3)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
