"""Firing-rate regularisation: a learning signal of its own, on unfiltered traces."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def firing_rates(
    z: Float[Array, "time batch neuron"], valid: Bool[Array, "time batch"] | None = None
) -> Float[Array, "neuron"]:  # noqa: F821
    """`f_j`: mean of `z_j` over time and batch, spikes a step; over valid steps where `valid` is given."""
    if valid is None:
        return z.mean((0, 1))
    weight = valid.astype(z.dtype)[..., None]
    return (z * weight).sum((0, 1)) / weight.sum()


def firing_rate_loss(
    z: Float[Array, "time batch neuron"],
    target: float,
    strength: float,
    valid: Bool[Array, "time batch"] | None = None,
) -> Float[Array, ""]:
    """`E_reg = strength sum_j (f_j - target)^2` (Bellec et al. 2020, Methods).

    Args:
        z: unfiltered outputs, so that its learning signal meets the unfiltered traces `e_ji`.
        target: spikes a step (0.01 is 10 Hz at 1 ms).
        strength: `c_reg`.
    """
    return strength * jnp.sum((firing_rates(z, valid) - target) ** 2)
