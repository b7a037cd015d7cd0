"""The reference: the paper's own forward recursion, step by step and synapse by synapse.

    eps_ji^t = D_j^{t-1} eps_ji^{t-1} + ds_j^t/dW_ji           (Bellec et al. 2019, eq. 2)
    e_ji^t   = dz_j^t/ds_j^t . eps_ji^t                        (eq. 3)

Slow (it touches every synapse at every step) and plain. `unroll` has the signature and the gradient of the fast
`eprop.eligibility.unroll`, which is held against it; the pictures of eligibility traces are drawn from it. It uses
forward-mode derivatives of `step` for the traces, and plain automatic differentiation of a plain loop for everything
else; the engine uses neither.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.eligibility._delays import DelayLine, pushed, seen, shifted
from eprop.eligibility._types import (
    Carry,
    Synapses,
    Traces,
    contract_presynaptic,
    filled,
    gather,
    input_currents,
    presynaptic_activity,
    split_constants,
    split_presynaptic,
    spread,
    unstack_currents,
    with_gradient,
)
from eprop.eligibility._unroll import Read, Recurrence
from eprop.neurons import Neuron, Outputs, PyTree, State, readout_output, recurrent_output


class Trajectory(NamedTuple):
    """The record of a run, as far as one layer's eligibility traces depend on it."""

    state: State  # before the first step
    presynaptic: Float[Array, "time batch pre"]  # [x_t, z_{t-1}, 1]
    currents: Float[Array, "time batch current neuron"]
    z_prev: Float[Array, "time batch neuron"]


class StepTraces(NamedTuple):
    """Eligibility traces of one step, for each output (z, and z_bar where there is a filter).

    synapses: tuple of `[batch, presynaptic, current, neuron]`; constants: tuple of pytrees `[batch, neuron]`.
    """

    synapses: tuple[Float[Array, "batch pre current neuron"], ...]
    constants: tuple[PyTree, ...]


def unroll(
    neuron: Neuron,
    synapses: Synapses,
    inputs: Float[Array, "time batch n_in"],
    carry: Carry,
    *,
    recurrence: Recurrence = "cut",
    read: Read | None = None,
) -> tuple[Outputs, Float[Array, "time batch output"] | None, Carry]:
    """`eprop.eligibility.unroll` by the paper's recursion; arguments, results and gradients as there.

    But eligibility vectors, in the carry that is given and in the one returned, are those of `dense_zero_traces`: an
    entry for every synapse and current.
    """
    constants, rest = split_constants(neuron)
    floating, integer = eqx.partition(carry.state, eqx.is_inexact_array)

    past, delays = (None, None) if carry.line is None else carry.line

    def loop(constants, synapses, inputs, floating, z, past, perturbations, integers):
        integer, delays = integers
        line = None if delays is None else DelayLine(past, delays)
        start = Carry(eqx.combine(floating, integer), z, line=line)
        return _loop(eqx.combine(constants, rest), synapses, inputs, start, perturbations, recurrence == "cut")

    def forward(constants, synapses, inputs, floating, z, past, integers, vectors, read):
        outputs, (last, _, line), trajectory = loop(constants, synapses, inputs, floating, z, past, None, integers)
        y = None if read is None else readout_output(outputs) @ read[0]
        after = vectors
        if vectors is not None:
            after = _recursion(eqx.combine(constants, rest), trajectory, vectors, None)[0]
        last, others = eqx.partition(last, eqx.is_inexact_array)
        results = (outputs, y, last, recurrent_output(outputs)[-1], _past(line), others, after)
        return results, ((constants, synapses, inputs, floating, z, past), integers, vectors, read, outputs, trajectory)

    def backward(kept, cotangents):
        arguments, integers, vectors, read, outputs, trajectory = kept
        constants, synapses = arguments[:2]
        signals, error, *seed, _, _ = cotangents
        of_read = None
        if read is not None and error is not None:
            signals, of_read = through_head(signals, outputs, error, read)

        def shown(*arguments):
            outputs, (last, z, line), _ = loop(*arguments, integers=integers)
            return outputs, eqx.filter(last, eqx.is_inexact_array), z, _past(line)

        nothing = jax.tree.map(jnp.zeros_like, outputs)
        results, pullback = jax.vjp(shown, *arguments, nothing)
        given = filled((signals, *seed), results)
        of_constants, of_synapses, of_inputs, *of_start, total = pullback(given)
        if recurrence == "cut" or vectors is not None:  # else: plain differentiation, BPTT
            model = eqx.combine(constants, rest)
            begin = dense_zero_traces(model, trajectory.state, synapses.presynaptic) if vectors is None else vectors
            weights, of_constants = _recursion(model, trajectory, begin, total)[1]
            of_synapses = split_presynaptic(weights, synapses)
        of_start = (None, None, None) if recurrence == "cut" else of_start
        return of_constants, of_synapses, of_inputs, *of_start, None, None, of_read

    arguments = (constants, synapses, inputs, floating, carry.z, past, (integer, delays), carry.traces, read)
    outputs, y, last, z, past, others, traces = with_gradient(forward, backward)(*arguments)
    if recurrence == "cut":
        last, z, past = jax.lax.stop_gradient((last, z, past))
    line = None if delays is None else DelayLine(past, delays)
    return outputs, y, Carry(eqx.combine(last, others), z, jax.lax.stop_gradient(traces), line)


def _past(line: DelayLine | None) -> Array | None:
    return None if line is None else line.past


def through_head(signals: Outputs, outputs: Outputs, error: Array, read: Read) -> tuple[Outputs, Read]:
    """The learning signals with those that a head's error sends back, and the gradients of its weights and feedback."""
    leaves, structure = jax.tree.flatten(signals, is_leaf=lambda s: s is None)
    more = error @ read[1].T
    weight = jnp.einsum("tbn,tbk->nk", readout_output(outputs), error)
    signals = structure.unflatten([*leaves[:-1], more if leaves[-1] is None else leaves[-1] + more])
    return signals, (weight, weight)


def record(
    neuron: Neuron, synapses: Synapses, inputs: Float[Array, "time batch n_in"], carry: Carry
) -> tuple[Outputs, Trajectory]:
    """Run a layer and keep what its traces depend on (differentiable: nothing is detached)."""
    outputs, _, trajectory = _loop(neuron, synapses, inputs, carry)
    return outputs, trajectory


def total_learning_signals(
    neuron: Neuron,
    synapses: Synapses,
    inputs: Float[Array, "time batch n_in"],
    carry: Carry,
    loss: Callable[[Outputs], Array],
) -> tuple[Array, Outputs]:
    """BPTT's learning signals `L_j^t = dE/dz_j^t`, the total derivative: with them `sum_t L e` is BPTT's gradient.

    Args:
        loss: function of the outputs of all steps to a scalar.

    Returns:
        The loss, and the learning signals, like the outputs.

    The derivative is taken at `z` as other neurons, the reset and the loss see it; what `z` does to the
    neuron's own adaptation is in the trace already.
    """
    outputs = jax.eval_shape(lambda: _loop(neuron, synapses, inputs, carry)[0])
    nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), outputs)
    return jax.value_and_grad(lambda p: loss(_loop(neuron, synapses, inputs, carry, p)[0]))(nothing)


def stepwise_gradient(
    neuron: Neuron, trajectory: Trajectory, learning_signals: Outputs
) -> tuple[Float[Array, "pre current neuron"], PyTree]:
    """`sum_t L_j^t e_ji^t` by the paper's recursion.

    Args:
        neuron: the model; its floating-point array constants get gradients too.
        trajectory: what the run left behind, from `record`.
        learning_signals: like the neuron's outputs, `[time, batch, neuron]`: one `L` for each output.

    Returns:
        Gradients summed over time and batch: over `[x, z_prev, 1]`, `[presynaptic, current, neuron]`, and constants.
    """
    begin = dense_zero_traces(neuron, trajectory.state, trajectory.presynaptic.shape[-1])
    return _recursion(neuron, trajectory, begin, learning_signals)[1]


def eligibility_traces(
    neuron: Neuron, trajectory: Trajectory
) -> tuple[Float[Array, "time batch pre current neuron"], ...]:
    """All eligibility traces of a (small) network at every step, one array for each output: for looking at."""

    def step(carry: tuple[State, Traces], inputs: tuple) -> tuple[tuple[State, Traces], tuple]:
        state, vectors, traces = eligibility_step(neuron, *carry, *inputs)
        return (state, vectors), traces.synapses

    vectors = dense_zero_traces(neuron, trajectory.state, trajectory.presynaptic.shape[-1])
    return jax.lax.scan(step, (trajectory.state, vectors), trajectory[1:])[1]


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
        new, outputs = model.step(whole, tuple(currents), z_prev)
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


def _loop(
    neuron: Neuron,
    synapses: Synapses,
    inputs: Array,
    carry: Carry,
    perturbations: Outputs | None = None,
    cut: bool = False,
) -> tuple[Outputs, tuple[State, Array, DelayLine | None], Trajectory]:
    """The network as a plain loop: outputs of all steps, the last state with `z` and delay line, and the trajectory.

    Args:
        perturbations: added to the outputs before anybody sees them.
        cut: `z_{t-1}` is detached, for recurrent weights and reset.
    """

    def step(carried: tuple, given: tuple) -> tuple[tuple, tuple]:
        state, z_prev, line = carried
        z_prev = jax.lax.stop_gradient(z_prev) if cut else z_prev
        currents, perturbation = given
        if synapses.w_rec is not None:
            currents = currents + contract_presynaptic(seen(line, z_prev), synapses.w_rec)
        state, outputs = neuron.step(state, unstack_currents(currents), z_prev)
        if perturbation is not None:
            outputs = jax.tree.map(jnp.add, outputs, perturbation)
        return (state, recurrent_output(outputs), pushed(line, z_prev)), (outputs, currents, seen(line, z_prev))

    given = (input_currents(synapses, inputs), perturbations)
    line = carry.line
    if cut and line is not None:
        line = line._replace(past=jax.lax.stop_gradient(line.past))
    last, (outputs, currents, arrived) = jax.lax.scan(step, (carry.state, carry.z, line), given)
    z_prev, activity = shifted(carry.z, recurrent_output(outputs)), presynaptic_activity(synapses, inputs, arrived)
    return outputs, last, Trajectory(carry.state, activity, currents, z_prev)


def _recursion(
    neuron: Neuron, trajectory: Trajectory, vectors: Traces, learning_signals: Outputs | None
) -> tuple[Traces, tuple[Float[Array, "pre current neuron"], PyTree]]:
    """The eligibility vectors after the last step, and `sum_t L e`, for synapses and for constants."""
    constants, _ = split_constants(neuron)
    n_pre, (_, _, k, n) = trajectory.presynaptic.shape[-1], trajectory.currents.shape
    total = jnp.zeros((n_pre, k, n), trajectory.z_prev.dtype), jax.tree.map(jnp.zeros_like, constants)

    def step(carry: tuple, given: tuple) -> tuple[tuple, None]:
        state, vectors, (synapses, constant) = carry
        presynaptic, currents, z_prev, signals = given
        state, vectors, traces = eligibility_step(neuron, state, vectors, presynaptic, currents, z_prev)
        for signal, trace, constant_trace in zip(jax.tree.leaves(signals), *traces, strict=signals is not None):
            synapses = synapses + (signal[:, None, None, :] * trace).sum(0)
            product = jax.tree.map(lambda e, s=signal: s * e, constant_trace)
            constant = jax.tree.map(jnp.add, constant, gather(constants, product))
        return (state, vectors, (synapses, constant)), None

    steps = (*trajectory[1:], learning_signals)
    (_, vectors, total), _ = jax.lax.scan(step, (trajectory.state, vectors, total), steps)
    return vectors, total
