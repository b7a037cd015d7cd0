"""Spike codes of what a network is told: the time, and the value of a coordinate."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def clock(steps: int, dt: float, groups: int, neurons: int, period: float) -> Float[Array, "time channel"]:
    """Groups of neurons that fire regularly, one group after the other: `[time, groups * neurons]`.

    The trial is cut in `groups` equal parts; in its own part a group's `neurons` all fire every `period` ms.
    Without randomness: the same in every trial (the authors' released e-prop 2 code).
    """
    t = jnp.arange(steps)
    active = t[:, None] * groups // steps == jnp.arange(groups * neurons)[None] // neurons
    fires = t % max(round(period / dt), 1) == 0
    return (active & fires[:, None]).astype(jnp.float32)


def population_code(
    values: Float[Array, "*lead coordinate"], neurons: int, width: float, rate: float, dt: float, key: PRNGKeyArray
) -> Float[Array, "*lead channel"]:
    """Spikes of neurons with Gaussian tuning curves over [-1, 1], `neurons` a coordinate.

        p = rate dt / 1000 exp(-(value - centre)^2 / (2 sigma^2)),      sigma = 2 width / neurons

    Args:
        values: coordinates, clipped to [-1, 1].
        neurons: neurons a coordinate, with centres evenly from -1 - 2 sigma to 1 + 2 sigma.
        width: sigma in units of `2 / neurons` (10 in the authors' released code: sigma 0.2 for 100 neurons).
        rate: rate of a neuron whose centre is met, Hz; spikes are drawn independently (Bernoulli).
    """
    sigma = 2.0 * width / neurons
    centres = jnp.linspace(-1.0 - 2.0 * sigma, 1.0 + 2.0 * sigma, neurons, dtype=values.dtype)
    distance = jnp.clip(values, -1.0, 1.0)[..., None] - centres.reshape((1,) * values.ndim + (neurons,))
    probability = rate * dt / 1000.0 * jnp.exp(-0.5 * (distance / sigma) ** 2)
    drawn = jax.random.bits(key, probability.shape, jnp.uint16)  # half the cost of a float32: p in steps of 2^-16
    spikes = drawn.astype(values.dtype) < probability * 2.0**16
    return spikes.reshape(*values.shape[:-1], -1).astype(values.dtype)
