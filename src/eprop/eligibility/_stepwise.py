"""The reference: the paper's own forward recursion, step by step and synapse by synapse.

    eps_ji^t = D_j^{t-1} eps_ji^{t-1} + ds_j^t/dW_ji           (Bellec et al. 2019, eq. 2)
    e_ji^t   = dz_j^t/ds_j^t . eps_ji^t                        (eq. 3)

Slow (it touches every synapse at every step) and plain: the windowed engine is held against it, and
the pictures of eligibility traces are drawn from it. It uses forward-mode derivatives of `step`; the
engine uses reverse mode.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from eprop.eligibility._trajectory import (
    Gradients,
    Traces,
    Trajectory,
    gather,
    split_constants,
    spread,
    unstack_currents,
)
from eprop.neurons import Neuron
from eprop.neurons._base import Outputs, State


class StepTraces(NamedTuple):
    """Eligibility traces of one step, for each output (z, and z_bar where there is a filter).

    synapses: tuple of `[batch, presynaptic, current, neuron]`; constants: tuple of pytrees `[batch, neuron]`.
    """

    synapses: tuple[Float[Array, "batch pre current neuron"], ...]
    constants: tuple[PyTree, ...]


def dense_zero_traces(neuron: Neuron, state: State, n_pre: int) -> Traces:
    """Eligibility vectors before the first step, one for every synapse and current."""
    components = jax.tree.leaves(eqx.filter(state, eqx.is_inexact_array))
    constants, _ = split_constants(neuron)
    shape = (n_pre, neuron.num_currents)
    return Traces(
        tuple(jnp.zeros((c.shape[0], *shape, c.shape[1]), c.dtype) for c in components),
        tuple(jax.tree.map(jnp.zeros_like, spread(constants, c)) for c in components),
    )


def eligibility_step(
    neuron: Neuron,
    state: State,
    vectors: Traces,
    presynaptic: Float[Array, "batch pre"],
    currents: Float[Array, "batch current neuron"],
    z_prev: Float[Array, "batch neuron"],
) -> tuple[State, Traces, StepTraces]:
    """One step of the recursion: new state, new eligibility vectors, and this step's eligibility traces."""
    constants, rest = split_constants(neuron)
    constants = spread(constants, z_prev)
    floating, integer = eqx.partition(state, eqx.is_inexact_array)
    state_leaves, state_structure = jax.tree.flatten(floating)
    constant_leaves, constant_structure = jax.tree.flatten(constants)

    def step(state_leaves, currents, constant_leaves):
        model = eqx.combine(constant_structure.unflatten(constant_leaves), rest)
        whole = eqx.combine(state_structure.unflatten(state_leaves), integer)
        new, outputs = model.step(whole, currents, z_prev)
        new_floating, new_integer = eqx.partition(new, eqx.is_inexact_array)
        return (jax.tree.leaves(new_floating), jax.tree.leaves(outputs)), new_integer

    arguments = (state_leaves, list(unstack_currents(currents)), constant_leaves)

    def derivative(argument: int, entry: int) -> tuple[list[Array], list[Array]]:
        """d(new state, outputs) / d(one entry of one argument): step is elementwise, so one tangent of ones."""
        tangents = jax.tree.map(jnp.zeros_like, arguments)
        tangents[argument][entry] = jnp.ones_like(arguments[argument][entry])
        return jax.jvp(lambda *a: step(*a)[0], arguments, tangents)[1]

    by_state = [derivative(0, a) for a in range(len(state_leaves))]
    by_current = [derivative(1, q) for q in range(len(arguments[1]))]
    by_constant = [derivative(2, c) for c in range(len(constant_leaves))]

    def synaptic(kind: int, row: int) -> Float[Array, "batch pre current neuron"]:
        """`sum_a (d row / d s_a) eps_a + (d row / d I_q) x_i`."""
        direct = jnp.stack([d[kind][row] for d in by_current], axis=1)  # [batch, current, neuron]
        total = presynaptic[:, :, None, None] * direct[:, None]
        for d, vector in zip(by_state, vectors.synapses, strict=True):
            total = total + d[kind][row][:, None, None, :] * vector
        return total

    def of_constants(kind: int, row: int) -> PyTree:
        leaves = []
        for c, d_constant in enumerate(by_constant):
            total = d_constant[kind][row]
            for d, vector in zip(by_state, vectors.constants, strict=True):
                total = total + d[kind][row] * jax.tree.leaves(vector)[c]
            leaves.append(total)
        return constant_structure.unflatten(leaves)

    (new_leaves, outputs), new_integer = step(*arguments)
    states, shown = range(len(new_leaves)), range(len(outputs))
    new_vectors = Traces(tuple(synaptic(0, a) for a in states), tuple(of_constants(0, a) for a in states))
    traces = StepTraces(tuple(synaptic(1, o) for o in shown), tuple(of_constants(1, o) for o in shown))
    return eqx.combine(state_structure.unflatten(new_leaves), new_integer), new_vectors, traces


def stepwise_gradient(neuron: Neuron, trajectory: Trajectory, learning_signals: Outputs) -> Gradients:
    """`sum_t L_j^t e_ji^t` by the paper's recursion; arguments and result as in `windowed_gradient`."""
    constants, _ = split_constants(neuron)
    n_pre, num_currents = trajectory.presynaptic.shape[-1], trajectory.currents.shape[-2]
    vectors = dense_zero_traces(neuron, trajectory.state, n_pre)
    total = Gradients(
        jnp.zeros((n_pre, num_currents, trajectory.z_prev.shape[-1]), trajectory.presynaptic.dtype),
        jax.tree.map(jnp.zeros_like, constants),
    )

    def step(carry, inputs):
        state, vectors, total = carry
        presynaptic, currents, z_prev, signals = inputs
        state, vectors, traces = eligibility_step(neuron, state, vectors, presynaptic, currents, z_prev)
        synapses, constant = total
        for signal, trace, constant_trace in zip(jax.tree.leaves(signals), *traces, strict=True):
            synapses = synapses + (signal[:, None, None, :] * trace).sum(0)
            product = jax.tree.map(lambda e, s=signal: s * e, constant_trace)
            constant = jax.tree.map(jnp.add, constant, gather(constants, product))
        return (state, vectors, Gradients(synapses, constant)), None

    steps = (trajectory.presynaptic, trajectory.currents, trajectory.z_prev, learning_signals)
    (_, _, total), _ = jax.lax.scan(step, (trajectory.state, vectors, total), steps)
    return total


def eligibility_traces(
    neuron: Neuron, trajectory: Trajectory
) -> tuple[Float[Array, "time batch pre current neuron"], ...]:
    """All eligibility traces of a (small) network at every step, one array for each output: for looking at."""
    n_pre = trajectory.presynaptic.shape[-1]

    def step(carry, inputs):
        state, vectors, traces = eligibility_step(neuron, *carry, *inputs)
        return (state, vectors), traces.synapses

    vectors = dense_zero_traces(neuron, trajectory.state, n_pre)
    steps = (trajectory.presynaptic, trajectory.currents, trajectory.z_prev)
    return jax.lax.scan(step, (trajectory.state, vectors), steps)[1]
