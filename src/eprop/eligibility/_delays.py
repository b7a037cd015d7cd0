"""Axonal delays in whole steps: what the neurons see of each other's past, and its transpose.

With a delay `d` a presynaptic variable is `z_i^{t-1-d}` where without it is `z_i^{t-1}`: still presynaptic, so that the
trace of a synapse is the same recursion on another `x_t`. A delay of each neuron gives one column a neuron. Delays of
each synapse, in groups of equal delay, give one copy of all neurons a group, with the group's weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int8


class DelayLine(NamedTuple):
    """The outputs that are still on their way, and how long each takes.

    past: outputs before the last one, the newest first: `past[d-1]` is `z^{t-1-d}`, seen from step t.
    delays: of each column of presynaptic activity, 0 to `longest`; column c is of neuron `c mod n`.
    """

    past: Float[Array, "longest batch neuron"]
    delays: Int[Array, "column"]  # noqa: F821

    @property
    def neurons(self) -> Int[Array, "column"]:  # noqa: F821
        """The neuron of each column."""
        return jnp.arange(self.delays.shape[0]) % self.past.shape[2]


def seen(line: DelayLine | None, z: Float[Array, "batch neuron"]) -> Float[Array, "batch column"]:
    """What arrives at a step, from the outputs of the step before and of earlier ones."""
    if line is None:
        return z
    return jnp.concatenate([z[None], line.past])[line.delays, :, line.neurons].T


def pushed(line: DelayLine | None, z: Float[Array, "batch neuron"]) -> DelayLine | None:
    """The line one step on: `z` has become the newest of the past."""
    if line is None:
        return None
    return line._replace(past=jnp.concatenate([z[None], line.past[:-1]]))


def shifted(
    z_start: Float[Array, "batch neuron"], z: Float[Array, "time batch neuron"] | Int8[Array, "time batch neuron"]
) -> Float[Array, "time batch neuron"]:
    """`z_{t-1}`, from the output before the first step and those of all steps."""
    return jnp.concatenate([z_start[None], z[:-1].astype(z_start.dtype)])


def seen_over_time(
    line: DelayLine | None, z_start: Float[Array, "batch neuron"], z: Array
) -> Float[Array, "time batch column"]:
    """`seen` of all steps, from the line and `z` before the first and the outputs of all steps."""
    now = shifted(z_start, z)
    return now if line is None else shift(line.past, now, line.delays)


def shift(
    past: Float[Array, "longest batch n"],
    x: Float[Array, "time batch n"],
    delays: Int[Array, "column"],  # noqa: F821
) -> Float[Array, "time batch column"]:
    """`x_i^{t-d}` for each column, with `past[d-1]` for the entry d steps before the first."""
    (longest, _, n), time = past.shape, x.shape[0]
    whole = jnp.tile(jnp.concatenate([past[::-1], x]), (1, 1, delays.shape[0] // n))
    one = lambda d, column: jax.lax.dynamic_slice_in_dim(column, longest - d, time)  # noqa: E731
    return jax.vmap(one, (0, 2), 2)(delays, whole)


def newest(past: Float[Array, "longest batch n"], x: Float[Array, "time batch n"]) -> Float[Array, "longest batch n"]:
    """The past after `x`, the newest first."""
    return jnp.concatenate([past[::-1], x])[x.shape[0] :][::-1]


def sent_back(line: DelayLine, into: Float[Array, "batch column"]) -> Float[Array, "steps batch neuron"]:
    """The transpose of `seen`: adjoints of `z^{t-1}`, `z^{t-2}`, ..., `z^{t-1-longest}`."""
    longest, batch, n = line.past.shape
    return jnp.zeros((longest + 1, batch, n), into.dtype).at[line.delays, :, line.neurons].add(into.T)
