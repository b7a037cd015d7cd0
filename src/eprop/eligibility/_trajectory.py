"""What the engine and its reference share: synapses, what a run leaves behind, and what a window hands on."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from eprop.errors import require
from eprop.neurons import Neuron, recurrent_output
from eprop.neurons._base import Outputs, State


class Synapses(NamedTuple):
    """The weights of one layer. Index order everywhere: presynaptic, current, postsynaptic."""

    w_in: Float[Array, "n_in current neuron"]
    w_rec: Float[Array, "neuron current neuron"]
    bias: Float[Array, "current neuron"] | None = None


class Traces(NamedTuple):
    """Eligibility vectors at the end of a window, one entry for each traced state component.

    synapses: tuple of `[batch, presynaptic, current, neuron]`, presynaptic = inputs, neurons, and 1 for the bias;
        currents are those that reach the component; a component whose vector is the same for all neurons has
        `[batch, presynaptic, current]` (see `trace_structure`).
    constants: tuple of pytrees like the neuron's trainable constants, leaves `[batch, neuron]`.
    """

    synapses: tuple[Float[Array, "batch pre current neuron"] | Float[Array, "batch pre current"], ...]
    constants: tuple[PyTree, ...]


class LateTraces(NamedTuple):
    """Eligibility vectors at the *start* of the last window, and what that window adds: `unroll_with_boundary`'s.

    They are advanced when the next window begins, and then read only: so the big arrays are written in place.

    vectors: as `Traces`, but `[batch, presynaptic, kept, neuron]`: the currents that can leave a trace.
    adjoints: for each component, the window's adjoint from its unit vector: over constants `[batch, neuron]`,
        over the components at the start (`Phi`), and over the kept currents (`gamma`, `[time, batch, kept, neuron]`).
    presynaptic: `[x_t, z_{t-1}, 1]` of the window.
    """

    vectors: Traces
    adjoints: tuple[tuple[PyTree, tuple[Array, ...], Float[Array, "time batch kept neuron"]], ...]
    presynaptic: Float[Array, "time batch pre"]


class Carry(NamedTuple):
    """What a window hands to the next: neuron state, last output, and (if asked for) eligibility vectors."""

    state: State
    z: Float[Array, "batch neuron"]
    traces: Traces | LateTraces | None = None


class Trajectory(NamedTuple):
    """What a network's run leaves behind, as far as one layer's eligibility traces depend on it."""

    state: State  # before the first step
    presynaptic: Float[Array, "time batch pre"]  # [x_t, z_{t-1}, 1]
    currents: Float[Array, "time batch current neuron"]
    z_prev: Float[Array, "time batch neuron"]


class Gradients(NamedTuple):
    """`sum_t L_j^t e_ji^t`, for synapses `[presynaptic, current, neuron]` and for the neuron's constants."""

    synapses: Float[Array, "pre current neuron"]
    constants: PyTree


def split_constants(neuron: Neuron) -> tuple[PyTree, PyTree]:
    """The neuron's trainable constants (floating-point arrays), and the rest of it."""
    return eqx.partition(neuron, eqx.is_inexact_array)


def require_traces_of(constants: PyTree, traces: Traces | LateTraces | None) -> None:
    """Refuse eligibility vectors that were begun when other constants of the neuron were arrays."""
    if traces is None:
        return
    vectors = traces.vectors if isinstance(traces, LateTraces) else traces
    require(
        all(jax.tree.structure(vector) == jax.tree.structure(constants) for vector in vectors.constants),
        "carry: its eligibility vectors were begun with other neuron constants as arrays than the network has now; "
        "a network that is an argument of jax.jit has all its numbers made arrays: use equinox.filter_jit",
    )


def spread(constants: PyTree, like: Float[Array, "batch neuron"]) -> PyTree:
    """Constants broadcast to one value for each sample and neuron, so that each has a trace of its own."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, like.shape), constants)


def gather(constants: PyTree, spread_gradients: PyTree) -> PyTree:
    """The transpose of `spread`: `[batch, neuron]` gradients summed to the constants' own shapes."""

    def one(leaf, gradient):
        batch_sum = gradient.sum(tuple(range(gradient.ndim - 1)))
        return batch_sum.sum() if leaf.ndim == 0 else batch_sum

    return jax.tree.map(one, constants, spread_gradients)


def contract_presynaptic(drive: Float[Array, "*lead pre"], weights: Float[Array, "pre current neuron"]) -> Array:
    """`sum_i drive_i W_i^{q}_j`, as one matrix product: `[*lead, current, neuron]`."""
    pre, current, neuron = weights.shape
    flat = drive.reshape(-1, pre) @ weights.reshape(pre, current * neuron)
    return flat.reshape(*drive.shape[:-1], current, neuron)


def input_drive(synapses: Synapses, inputs: Float[Array, "time batch n_in"]) -> Array:
    """What inputs and bias add to the currents, for all steps at once: `[time, batch, current, neuron]`."""
    drive = contract_presynaptic(inputs, synapses.w_in)
    return drive if synapses.bias is None else drive + synapses.bias[None, None]


def unstack_currents(currents: Float[Array, "... current neuron"]) -> tuple[Float[Array, "... neuron"], ...]:
    return tuple(currents[..., q, :] for q in range(currents.shape[-2]))


def start(neuron: Neuron, batch: int, size: int, dtype: Any) -> Carry:
    """The carry before the first step: initial state, `z = 0`, no traces."""
    return Carry(neuron.init((batch, size), dtype), jnp.zeros((batch, size), dtype))


def run(
    neuron: Neuron,
    w_rec: Float[Array, "neuron current neuron"],
    state: State,
    z: Float[Array, "batch neuron"],
    drive: Float[Array, "time batch current neuron"],
    window: int | None = None,
) -> tuple[tuple[State, Array], tuple[Outputs, Array]]:
    """Run the layer over time, nothing cut.

    Args:
        window: no gradient through state and `z` across multiples of this many steps.

    Returns:
        The last state and output; the outputs and the currents of all steps.
    """

    def step(carry, inputs):
        t, drive_t = inputs
        if window is not None:
            carry = jax.tree.map(lambda c: jnp.where(t % window == 0, jax.lax.stop_gradient(c), c), carry)
        state, z_prev = carry
        currents = drive_t + contract_presynaptic(z_prev, w_rec)
        state, outputs = neuron.step(state, unstack_currents(currents), z_prev)
        return (state, recurrent_output(outputs)), (outputs, currents)

    return jax.lax.scan(step, (state, z), (jnp.arange(drive.shape[0]), drive))


def presynaptic_activity(
    inputs: Float[Array, "time batch n_in"],
    z_start: Float[Array, "batch neuron"],
    z: Float[Array, "time batch neuron"],
) -> tuple[Float[Array, "time batch pre"], Float[Array, "time batch neuron"]]:
    """`[x_t, z_{t-1}, 1]` and `z_{t-1}`."""
    z_prev = jnp.concatenate([z_start[None], z[:-1]])
    ones = jnp.ones((*z.shape[:2], 1), z.dtype)
    return jnp.concatenate([inputs, z_prev, ones], axis=-1), z_prev


def record(
    neuron: Neuron, synapses: Synapses, inputs: Float[Array, "time batch n_in"], carry: Carry
) -> tuple[Outputs, Trajectory]:
    """Run a layer and keep what its traces depend on (differentiable: nothing is detached)."""
    drive = input_drive(synapses, inputs)
    _, (outputs, currents) = run(neuron, synapses.w_rec, carry.state, carry.z, drive)
    presynaptic, z_prev = presynaptic_activity(inputs, carry.z, recurrent_output(outputs))
    return outputs, Trajectory(carry.state, presynaptic, currents, z_prev)


def split_presynaptic(
    gradient: Float[Array, "pre current neuron"], n_in: int
) -> tuple[Float[Array, "n_in current neuron"], Float[Array, "neuron current neuron"], Float[Array, "current neuron"]]:
    """The gradient over `[x, z_prev, 1]` as that of input weights, recurrent weights and bias."""
    return gradient[:n_in], gradient[n_in:-1], gradient[-1]
