"""The fast engine: eligibility traces contracted window by window, exactly (DESIGN contract C4).

The forward recursion of a trace belongs to a synapse; its adjoint belongs to a neuron. So inside a
window the adjoint of the neuron alone (recurrent connections cut) runs backwards from the learning
signals, and one matrix product makes weight gradients of it. What lies before the window is carried
by the eligibility vectors `eps`:

    (lambda_{t-1}, g_t) = vjp(step)(lambda_t, L_t),            lambda_K = 0
    dW   = sum_t g_t x_t^T + lambda_0 . eps_0
    eps_K = Phi eps_0 + sum_t gamma_t x_t^T

with Phi and gamma the same adjoint started from each unit vector of the final state, with L = 0.
"""

from collections.abc import Callable
from typing import Any

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
from eprop.neurons import Neuron, traced
from eprop.neurons._base import Outputs, State

Pullback = Callable[[tuple[Outputs, State]], tuple[PyTree, State, Array]]
"""Cotangents of (outputs, last traced state) to those of (spread constants, first traced state, currents)."""


def zero_traces(neuron: Neuron, state: State, n_pre: int, num_currents: int) -> Traces:
    """Eligibility vectors before the first step: all zero."""
    components = jax.tree.leaves(traced(state))
    constants, _ = split_constants(neuron)
    return Traces(
        tuple(jnp.zeros((c.shape[0], n_pre, num_currents, c.shape[1]), c.dtype) for c in components),
        tuple(jax.tree.map(jnp.zeros_like, spread(constants, c)) for c in components),
    )


def contract_window(
    pullback: Pullback,
    presynaptic: Float[Array, "time batch pre"],
    learning_signals: Outputs,
    last_state: State,
    traces: Traces | None,
) -> tuple[Float[Array, "pre current neuron"], PyTree, Array]:
    """One window's `sum_t L e`: over synapses, over spread constants, and `g`, the adjoint of the currents.

    The adjoint starts from zero at the window's end: what a state does later is counted later, by its traces.
    """
    no_future = jax.tree.map(jnp.zeros_like, traced(last_state))
    constants, first_adjoint, g = pullback((learning_signals, no_future))
    synapses = jnp.einsum("tbi,tbkn->ikn", presynaptic, g)
    if traces is not None:
        for adjoint, vector, constant_vector in zip(jax.tree.leaves(first_adjoint), *traces, strict=True):
            synapses = synapses + jnp.einsum("bn,bikn->ikn", adjoint, vector)
            constants = jax.tree.map(lambda c, e, a=adjoint: c + a * e, constants, constant_vector)
    return synapses, constants, g


def advance_traces(
    pullback: Pullback,
    presynaptic: Float[Array, "time batch pre"],
    outputs: Outputs,
    last_state: State,
    traces: Traces,
) -> Traces:
    """The eligibility vectors at the window's end, from those at its start."""
    silent = jax.tree.map(jnp.zeros_like, outputs)
    components, structure = jax.tree.flatten(traced(last_state))
    synapses, constants = [], []
    for a in range(len(components)):
        unit = structure.unflatten([jnp.full_like(c, float(i == a)) for i, c in enumerate(components)])
        constant, phi, gamma = pullback((silent, unit))
        vector = jnp.einsum("tbi,tbkn->bikn", presynaptic, gamma)
        for phi_a, old, old_constant in zip(jax.tree.leaves(phi), *traces, strict=True):
            vector = vector + phi_a[:, None, None, :] * old
            constant = jax.tree.map(lambda c, e, p=phi_a: c + p * e, constant, old_constant)
        synapses.append(vector)
        constants.append(constant)
    return Traces(tuple(synapses), tuple(constants))


def neuron_pullback(
    neuron: Neuron, state: State, currents: Float[Array, "time batch current neuron"], z_prev: Array
) -> tuple[Outputs, State, Pullback]:
    """Run the neurons alone on given currents; return outputs, last state and the adjoint of that run."""
    constants, rest = split_constants(neuron)
    floating, integer = eqx.partition(state, eqx.is_inexact_array)

    def neurons_alone(constants, floating, currents):
        model = eqx.combine(constants, rest)

        def step(state, inputs):
            currents_t, z_prev_t = inputs
            return model.step(state, unstack_currents(currents_t), z_prev_t)

        last, outputs = jax.lax.scan(step, eqx.combine(floating, integer), (currents, z_prev))
        return (outputs, traced(last)), last

    spread_constants = spread(constants, z_prev[0])
    (outputs, _), pullback, last = jax.vjp(neurons_alone, spread_constants, floating, currents, has_aux=True)
    return outputs, last, pullback


def windowed_gradient(
    neuron: Neuron, trajectory: Trajectory, learning_signals: Outputs, window: int | None = None
) -> Gradients:
    """`dE/dW_ji = sum_t L_j^t e_ji^t` (Bellec et al. 2019, eq. 1), exactly, for any neuron model.

    Args:
        neuron: the model; its floating-point array constants get gradients too.
        trajectory: what the run left behind, from `record`.
        learning_signals: like the neuron's outputs, `[time, batch, neuron]`: one `L` for each output.
        window: steps a window; 1 is the literal online rule, None one window. All give the same answer.

    Returns:
        Gradients summed over time and batch: synapses `[presynaptic, current, neuron]`, and constants.

    Differentiable in `learning_signals` and in the trajectory (e-prop 2's inner update).
    """
    time = trajectory.currents.shape[0]
    window = time if window is None else min(window, time)
    constants, _ = split_constants(neuron)
    steps = (trajectory.presynaptic, trajectory.currents, trajectory.z_prev, learning_signals)

    def one_window(carry, steps, keep_traces=True):
        state, traces = carry
        presynaptic, currents, z_prev, signals = steps
        outputs, last, pullback = neuron_pullback(neuron, state, currents, z_prev)
        synapses, constant, _ = contract_window(pullback, presynaptic, signals, last, traces)
        if keep_traces:
            traces = advance_traces(pullback, presynaptic, outputs, last, traces)
        return (last, traces), Gradients(synapses, gather(constants, constant))

    if window == time:
        return one_window((trajectory.state, None), steps, keep_traces=False)[1]
    whole = time // window * window
    n_pre, num_currents = trajectory.presynaptic.shape[-1], trajectory.currents.shape[-2]
    carry: Any = (trajectory.state, zero_traces(neuron, trajectory.state, n_pre, num_currents))
    windows = jax.tree.map(lambda x: x[:whole].reshape(-1, window, *x.shape[1:]), steps)
    carry, gradients = jax.lax.scan(one_window, carry, windows)
    total = jax.tree.map(lambda g: g.sum(0), gradients)
    if whole < time:
        _, rest = one_window(carry, jax.tree.map(lambda x: x[whole:], steps), keep_traces=False)
        total = jax.tree.map(jnp.add, total, rest)
    return total
