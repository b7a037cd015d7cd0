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

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from eprop.eligibility._adjoint import Pullbacks, adjoint, linearise
from eprop.eligibility._carry import advance_traces, contract_traces, zero_traces
from eprop.eligibility._trajectory import Gradients, Traces, Trajectory, gather, split_constants
from eprop.neurons import Neuron, traced
from eprop.neurons._base import Outputs, State


def contract_window(
    neuron: Neuron,
    pullbacks: Pullbacks,
    presynaptic: Float[Array, "time batch pre"],
    learning_signals: Outputs,
    last: State,
    traces: Traces | None,
) -> tuple[Float[Array, "pre current neuron"], PyTree]:
    """One window's `sum_t L e`: over synapses, and over spread constants.

    The adjoint starts from zero at the window's end: what a state does later is counted later, by its traces.
    """
    no_future = jax.tree.map(jnp.zeros_like, traced(last))
    constants, before, g = adjoint(pullbacks, learning_signals, no_future)
    synapses = outer_product(presynaptic, jnp.stack(g, axis=2))
    if traces is not None:
        earlier, constants = contract_traces(neuron, before, traces, constants)
        synapses = synapses + earlier
    return synapses, constants


def outer_product(presynaptic: Float[Array, "time batch pre"], g: Float[Array, "time batch current neuron"]) -> Array:
    """`sum_{t,b} x_i g_j^q`, as one matrix product: `[pre, current, neuron]`."""
    pre, (_, _, k, n) = presynaptic.shape[-1], g.shape
    return (presynaptic.reshape(-1, pre).T @ g.reshape(-1, k * n)).reshape(pre, k, n)


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
        run = linearise(neuron, state, currents, z_prev)
        synapses, constant = contract_window(neuron, run.pullbacks, presynaptic, signals, run.last, traces)
        if keep_traces:
            traces = advance_traces(neuron, run, presynaptic, traces)
        return (run.last, traces), Gradients(synapses, gather(constants, constant))

    if window == time:
        return one_window((trajectory.state, None), steps, keep_traces=False)[1]
    whole = time // window * window
    carry: Any = (trajectory.state, zero_traces(neuron, trajectory.state, trajectory.presynaptic.shape[-1]))
    windows = jax.tree.map(lambda x: x[:whole].reshape(-1, window, *x.shape[1:]), steps)
    carry, gradients = jax.lax.scan(one_window, carry, windows)
    total = jax.tree.map(lambda g: g.sum(0), gradients)
    if whole < time:
        _, rest = one_window(carry, jax.tree.map(lambda x: x[whole:], steps), keep_traces=False)
        total = jax.tree.map(jnp.add, total, rest)
    return total
