"""The neuron: current and voltage of 24 bits."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32

from eprop.chips.loihi._settings import LoihiLIF, Variant

TOP = 2**23


class LIFState(NamedTuple):
    """Current and voltage, in int32."""

    u: Int32[Array, "n"]  # noqa: F821
    v: Int32[Array, "n"]  # noqa: F821


def step(
    lif: LoihiLIF,
    variant: Variant,
    state: LIFState,
    a: Int32[Array, "n"],  # noqa: F821
    threshold: Int32[Array, "n"] | None = None,  # noqa: F821
) -> tuple[LIFState, Bool[Array, "n"], Int32[Array, "n"]]:  # noqa: F821
    """One step with the sum of weights `a`: current, voltage, threshold, reset; see `LoihiLIF`.

    `threshold`, in the voltage's units, stands for the settings' `vth << 6` where a neuron's program has its own.

    Returns the state, the spikes, and the voltage before its reset.

    Exact in 32 bits while |a| < 2^24. Above 2^18 one wrap is not enough and the current leaves its 24 bits,
    as it does in the models.
    """
    u = shrink(state.u, 4096 - lif.du - (variant.current_decay == "du+1"))
    add = a << 6
    if variant.dendrite == "wrapped":
        add = (add << 10) >> 10  # 21 bits and sign
    u = u + add
    if variant.current_wrap == "twos-complement":
        u = (u << 8) >> 8
    else:
        u = jnp.where(u > TOP, u - 2 * TOP, jnp.where(u <= -TOP, u + 2 * TOP, u))
    v = jnp.clip(shrink(state.v, 4096 - lif.dv) + u + bias(lif), -(TOP - 1), TOP - 1)
    z = v > (lif.vth << 6 if threshold is None else threshold)
    return LIFState(u, jnp.where(z, 0, v)), z, v


def shrink(x: Int32[Array, "n"], factor: int) -> Int32[Array, "n"]:  # noqa: F821
    """`x factor / 4096`, towards zero: the product, up to 43 bits, in two halves of 12 bits and the rest."""
    size = jnp.abs(x)
    return jnp.sign(x) * ((size >> 12) * factor + ((size & 4095) * factor >> 12))


def bias(lif: LoihiLIF) -> np.ndarray:
    """`mantissa << exponent`."""
    mantissa, exponent = np.array(lif.bias_mant, np.int32), np.array(lif.bias_exp, np.int32)
    return np.where(exponent >= 0, mantissa << np.maximum(exponent, 0), mantissa >> np.maximum(-exponent, 0))
