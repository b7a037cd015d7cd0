"""Any neuron on a grid of b bits, in float carriers: to find out how many bits a task needs."""

import math
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from eprop.chips._checks import require_range
from eprop.errors import require, require_choice
from eprop.neurons import Outputs, PyTree, Wrapper

Rounding = Literal["nearest", "stochastic"]


def unit(bits: int, range: float) -> float:
    """The distance between neighbours on a grid of `bits` bits, sign included, over `-range` to `range`.

    A power of two, so that a chip reaches it by shifting: the smallest whose grid spans the range,
    `2^(bits-1) unit >= range`.
    """
    require_range(bits=(bits, 1, 32))
    require(range > 0 and math.isfinite(range), f"range = {range}: must be above 0")
    return 2.0 ** math.ceil(math.log2(range) - (bits - 1))


def quantise(x: Float[Array, "*shape"], bits: int, range: float, key: PRNGKeyArray | None = None) -> Array:
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
    random = None if key is None else jax.random.uniform(key, x.shape, x.dtype)
    return _on_grid(x, bits, range, random)


def _on_grid(x: Array, bits: int, range: float, random: Array | None) -> Array:
    step = unit(bits, range)
    scaled = jax.lax.stop_gradient(x) / step
    whole = jnp.round(scaled) if random is None else jnp.floor(scaled + random)
    top = 2.0 ** (bits - 1)
    return x + jax.lax.stop_gradient(step * jnp.clip(whole, -top, top - 1) - x)


def unit_update(
    w: Float[Array, "*shape"], update: Float[Array, "*shape"], bits: int, range: float, key: PRNGKeyArray
) -> Array:
    """The update written as one unit up or down, with probability `min(1, |update| / unit)`; saturating.

    As on a chip that keeps no more bits of a weight than it computes with. In the mean it is the update, where that
    is below a unit.
    """
    step, top = unit(bits, range), 2.0 ** (bits - 1)
    draw = jax.random.uniform(key, w.shape, w.dtype) < jnp.abs(update) / step
    return jnp.clip(w + step * jnp.sign(update) * draw, -top * step, (top - 1) * step)


class QuantisedState(NamedTuple):
    neuron: PyTree
    random: UInt32[Array, "batch neuron"] | None  # a generator a neuron, where rounding is stochastic


class Quantised(Wrapper):
    """A neuron whose state stands on a grid of b bits after every step.

        s_t = Q(f(s_{t-1}, I_t))

    Straight-through: derivatives are those of the model itself, so traces, e-prop and BPTT all go through. Spikes are
    decided within the step, before rounding.

    Departs from a chip: numbers are floats that happen to stand on a grid, and the step's own products are exact.
    `eprop.chips.reckon` and `eprop.chips.loihi` compute two chips' own arithmetic.

    Args:
        neuron: the model to wrap.
        bits: bits of each state component, sign included, 2 to 32 (floats of 32 bits hold 24 of them); one number, or
            one a component in the order of the state's floating leaves.
        spans: what each component's grid spans, in its own units, above 0; one number or one a component.
        rounding: nearest, or stochastic (unbiased, a draw for each number).
        seed: of the draws.

    Example:
        >>> import jax.numpy as jnp
        >>> from eprop import LIF
        >>> from eprop.chips import Quantised
        >>> neuron = Quantised(LIF(), bits=4, spans=1.0)
        >>> state, z = neuron.step(neuron.init((1, 2)), (jnp.array([[0.3, 0.7]]),), jnp.zeros((1, 2)))
        >>> state.neuron.v.tolist(), z.tolist()
        ([[0.25, 0.75]], [[0.0, 1.0]])
    """

    bits: int | tuple[int, ...] = eqx.field(default=8, static=True)
    spans: float | tuple[float, ...] = eqx.field(default=2.0, static=True)
    rounding: Rounding = eqx.field(default="nearest", static=True)
    seed: int = eqx.field(default=0, static=True)

    def __check_init__(self) -> None:
        require_choice("rounding", self.rounding, ("nearest", "stochastic"))
        require_range(seed=(self.seed, 0, 2**32 - 1))
        components = len(jax.tree.leaves(eqx.filter(self.neuron.init((1, 1)), eqx.is_inexact_array)))
        for name in ("bits", "spans"):
            value = getattr(self, name)
            require(
                not isinstance(value, tuple) or len(value) == components,
                f"{name} = {value}: {type(self.neuron).__name__} has {components} state components",
            )
        for bits, span in zip(_each(self.bits, components), _each(self.spans, components), strict=True):
            require_range(bits=(bits, 2, 32))
            unit(bits, span)

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> QuantisedState:
        random = None
        if self.rounding == "stochastic":
            index = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
            random = _mixed(index + jnp.uint32(self.seed * 0x9E3779B9 % 2**32)) | jnp.uint32(1)
        return QuantisedState(self.neuron.init(shape, dtype), random)

    def step(self, state: QuantisedState, currents: tuple[Array, ...], z_prev: Array) -> tuple[QuantisedState, Outputs]:
        new, outputs = self.neuron.step(state.neuron, currents, z_prev)
        floating, rest = eqx.partition(new, eqx.is_inexact_array)
        leaves, structure = jax.tree.flatten(floating)
        random, rounded = state.random, []
        grids = zip(leaves, _each(self.bits, len(leaves)), _each(self.spans, len(leaves)), strict=True)
        for leaf, bits, span in grids:
            draw = None
            if random is not None:
                random = _next(random)
                draw = (random >> 8).astype(leaf.dtype) / 2.0**24
            rounded.append(_on_grid(leaf, bits, span, draw))
        return QuantisedState(eqx.combine(structure.unflatten(rounded), rest), random), outputs

    def observe(self, before: QuantisedState, state: QuantisedState) -> dict[str, Array]:
        return self.neuron.observe(before.neuron, state.neuron)


def _each(value: Any, count: int) -> tuple:
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
