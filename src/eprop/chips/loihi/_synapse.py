"""Synapses: how weights are held, and the sum that reaches a neuron."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32

from eprop.chips.loihi._settings import Connection, Variant

DENDRITE = 2**15 - 1
"""The largest that 21 bits hold before the shift by 6."""


def truncate(connection: Connection, variant: Variant, weights: Any) -> np.ndarray:
    """Weights as the connection holds them at the start, `[pre, post]`.

    A connection that does not learn first clips them to the range of its sign mode. Then the low bits are cleared,
    rounding down (inhibitory weights: their size); one that learns keeps all bits that it learns later.
    """
    w = np.asarray(weights, np.int32)
    low, high = connection.range
    if connection.rule is None:
        w = np.clip(w, low, high)
    by_size = {"inhibitory": True, "excitatory": False, "mixed": variant.truncation == "towards-zero"}
    if by_size[connection.sign_mode]:
        return np.sign(w) * (np.abs(w) >> connection.cut << connection.cut)
    return w >> connection.cut << connection.cut


def dendrite(
    connection: Connection,
    variant: Variant,
    weights: Int32[Array, "pre post"],
    spikes: Bool[Array, "pre"],  # noqa: F821
) -> Int32[Array, "post"]:  # noqa: F821
    """The sum of the weights whose inputs fired, shifted by the exponent; not limited here."""
    shift = connection.weight_exp
    if shift >= 0 and variant.dendrite == "clipped":
        weights = jnp.clip(weights << shift, -DENDRITE, DENDRITE)
        return jnp.where(spikes[:, None], weights, 0).sum(0, dtype=jnp.int32)
    if shift >= 0 or variant.exponent == "sum":
        total = jnp.where(spikes[:, None], weights, 0).sum(0, dtype=jnp.int32)
        return total << shift if shift >= 0 else total >> -shift
    return jnp.where(spikes[:, None], weights >> -shift, 0).sum(0, dtype=jnp.int32)
