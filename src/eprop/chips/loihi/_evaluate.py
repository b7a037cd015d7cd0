"""Rules at the end of an epoch: sums of products in 16 bits, and their way back to registers."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int32

from eprop.chips.loihi._grammar import Factor, Product
from eprop.chips.loihi._settings import Connection, Variant

EDGE = 2**15
TRACES = {"x1": 0, "x2": 1, "y1": 0, "y2": 1, "y3": 2}


class Synapses(NamedTuple):
    """Weight, tag (tag 1) and delay (tag 2) of each synapse, `[pre, post]`."""

    w: Int32[Array, "pre post"]
    t: Int32[Array, "pre post"]
    d: Int32[Array, "pre post"]


class Seen(NamedTuple):
    """The variables that the rules of a connection read. Spike times are steps of the epoch, 0: none."""

    synapses: Synapses
    x: Int32[Array, "step 2 pre"]
    y: Int32[Array, "step 3 post"]
    x_time: Int32[Array, "pre"]  # noqa: F821
    y_time: Int32[Array, "post"]  # noqa: F821
    epoch: Int32[Array, ""]


def learnt(connection: Connection, variant: Variant, seen: Seen, random: Int32[Array, ""]) -> Synapses:
    """The synapses after the rules; all of them read the registers as they were. `random`: 16 bits, one for all."""
    rule = connection.rule
    assert rule is not None
    new = {}
    for name, products in rule.products.items():
        register = getattr(seen.synapses, name)
        acc = register << 7
        for product in products:
            acc = _clipped(acc + _clipped(_value(product, variant, seen, register.shape)))
        new[name] = _register(name, connection, variant, acc, random)
    return seen.synapses._replace(**new)


def _clipped(x: Array) -> Array:
    """16 bits and sign; the lower limit is one beyond."""
    return jnp.clip(x, -EDGE - 1, EDGE - 1)


def _value(product: Product, variant: Variant, seen: Seen, shape: tuple[int, ...]) -> Array:
    """One product in units of 1/128: `(q m >> s) << (E + 7)`, `s` the bits beyond 15."""
    q = _dependency(product, seen)
    for factor in product.factors:
        f = _factor(factor, product.dependency, seen) + factor.constant
        f = jnp.sign(f) if factor.sign else f
        q = q * jnp.clip(f, -(2**factor.bits), 2**factor.bits - 1)
    bits = sum(factor.bits for factor in product.factors)
    mantissa = {"1/8": 4, "1/4": 3}.get(variant.trace_product)
    shift = 0 if mantissa is None else max(0, bits + mantissa - 15)
    q = (q * product.mantissa >> shift) << (product.exponent + 7)
    return jnp.broadcast_to(q, shape)


def _dependency(product: Product, seen: Seen) -> Array:
    """0 or 1, to be broadcast over `[pre, post]`."""
    if product.dependency == "u":
        return (seen.epoch & (2 ** (product.k or 0) - 1) == 0).astype(jnp.int32)[None, None]
    times = seen.x_time[:, None] if product.dependency == "x0" else seen.y_time[None]
    return (times > 0).astype(jnp.int32)


def _factor(factor: Factor, dependency: str, seen: Seen) -> Array:
    """A variable, to be broadcast over `[pre, post]`; traces at the dependency's spike time, or at the end."""
    if factor.name in ("w", "t", "d"):
        return getattr(seen.synapses, factor.name)
    if factor.name in ("x0", "y0"):
        return _fired(seen.x_time[:, None] if factor.name == "x0" else seen.y_time[None])
    pre = factor.name[0] == "x"
    values = (seen.x if pre else seen.y)[:, TRACES[factor.name]]  # [step, neuron]
    if dependency == "u":
        return values[-1][:, None] if pre else values[-1][None]
    time = jnp.maximum((seen.x_time if dependency == "x0" else seen.y_time) - 1, 0)
    if (dependency == "x0") == pre:
        own = jnp.take_along_axis(values, time[None], axis=0)[0]
        return own[:, None] if pre else own[None]
    return values[time] if dependency == "x0" else values[time].T


def _fired(times: Bool[Array, "pre post"]) -> Array:
    return (times > 0).astype(jnp.int32)


def _register(name: str, connection: Connection, variant: Variant, acc: Array, random: Array) -> Array:
    """Back to the register: the sign's limit, stochastic rounding, the range.

    `(acc >> b) + (R < low b bits)`, the low bits never negative; b is 7, or more where learned weights are rounded.
    """
    if name == "d" or (name == "w" and connection.sign_mode == "excitatory"):
        acc = jnp.maximum(acc, 0)
    elif name == "w" and connection.sign_mode == "inhibitory":
        acc = jnp.minimum(acc, 0)
    cut = connection.cut if name == "w" and variant.learned_weight == "rounded" else 0
    bits = 7 + cut
    up = (random >> (16 - bits)) < (acc & (2**bits - 1))
    low, high = {"w": connection.range, "t": (-257, 255), "d": (0, 255)}[name]
    rounded = ((acc >> bits) + up.astype(jnp.int32)) << cut
    return jnp.clip(rounded, low, high >> cut << cut)
