"""The unroll whose gradient is e-prop's (DESIGN contract C3)."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, PyTree

from eprop.eligibility._adjoint import Linearised, adjoint, run_linearised, zeros_of
from eprop.eligibility._carry import advance_traces, contract_traces, zero_traces
from eprop.eligibility._trajectory import (
    Carry,
    Synapses,
    contract_presynaptic,
    gather,
    input_drive,
    presynaptic_activity,
    require_traces_of,
    run,
    split_constants,
    split_presynaptic,
    unstack_currents,
)
from eprop.neurons import Neuron, readout_output, recurrent_output, traced
from eprop.neurons._base import Outputs, State


def unroll(
    neuron: Neuron, synapses: Synapses, inputs: Float[Array, "time batch n_in"], carry: Carry
) -> tuple[Outputs, Carry]:
    """Run a layer over one window; its gradient is e-prop's, `sum_t L_j^t e_ji^t` (Bellec et al. 2019, eq. 1).

    Forward it runs the network. Backward it takes `dE/d(outputs)` from whatever stands after it as the
    learning signals and contracts them with the eligibility traces. With `carry.traces` the traces of
    all earlier windows count too, and the returned carry holds the new ones: summed over windows the
    gradient is that of the whole sequence, in memory that does not grow with it.

    Args:
        neuron: the neuron model.
        synapses: weights, index order `[presynaptic, current, postsynaptic]`.
        inputs: `[time, batch, n_in]`.
        carry: from `start`, or from the window before. `traces=None`: nothing lies before, nothing is
            carried on; otherwise (see `with_traces`) eligibility vectors are carried.

    Returns:
        The outputs of all steps, `[time, batch, neuron]`, and the carry after the last.

    Approximation: recurrent signals are cut, as if `z_prev` were wrapped in `stop_gradient` in the
    recurrent currents and in the reset. Into `inputs` it returns `g_t W_in^T`: the part of the layer
    below's learning signal that passes through this layer's neurons, not through its recurrent
    connections. The returned carry is detached: what a state does after the window is counted then,
    by the carried traces.
    """
    outputs, _, last = _unroll(neuron, synapses, inputs, carry, None)
    return outputs, last


def unroll_and_read(
    neuron: Neuron,
    synapses: Synapses,
    inputs: Float[Array, "time batch n_in"],
    carry: Carry,
    weight: Float[Array, "neuron output"],
    feedback: Float[Array, "neuron output"],
) -> tuple[Outputs, Float[Array, "time batch output"], Carry]:
    """`unroll`, and a readout of it: `y_t = z_bar_t W_out`, with learning signals `L_j^t = sum_k B_jk dE/dy_k^t`.

    The same gradient as a readout behind `unroll` (see `broadcast_readout`), but neither the learning signals nor what
    the readout reads of spikes is ever an array `[time, batch, neuron]`: both are formed chunk by chunk.

    Args:
        weight: `W_out`.
        feedback: `B`; as with adaptive feedback, its gradient is that of `W_out`.

    Returns:
        The outputs of all steps, `y`, and the carry after the last step.

    Approximation: as `unroll`; and `B` stands where the chain rule has `W_out`.
    """
    return _unroll(neuron, synapses, inputs, carry, (weight, feedback))


def with_traces(neuron: Neuron, synapses: Synapses, carry: Carry) -> Carry:
    """The carry with zero eligibility vectors, so that `unroll` carries them over windows."""
    n_pre = synapses.w_in.shape[0] + synapses.w_rec.shape[0] + 1
    return carry._replace(traces=zero_traces(neuron, carry.state, n_pre))


def _unroll(neuron, synapses, inputs, carry, read):
    """Both unrolls; `read`: weights and feedback of the readout, or None."""
    constants, rest = split_constants(neuron)
    require_traces_of(constants, carry.traces)

    @jax.custom_vjp
    def network(constants, synapses, inputs, carry, read):
        return forward(constants, synapses, inputs, carry, read)[0]

    def forward(constants, synapses, inputs, carry, read):
        neuron = eqx.combine(constants, rest)
        layer = run_linearised(neuron, synapses, inputs, carry)
        z, traces = recurrent_output(layer.outputs), carry.traces
        if traces is not None:
            traces = advance_traces(neuron, layer, presynaptic_activity(inputs, carry.z, z)[0], traces)
        y = None if read is None else _read_out(layer, read[0])
        residuals = (constants, synapses, inputs, carry.z, carry.traces, read, layer)
        return (layer.outputs, y, Carry(layer.last, z[-1], traces)), residuals

    def forward_values(*arguments):
        return forward(*jax.tree.map(lambda a: a.value, arguments, is_leaf=lambda a: hasattr(a, "perturbed")))

    def backward(residuals, cotangents):
        constants, synapses, inputs, z_start, traces, read, layer = residuals
        neuron = eqx.combine(constants, rest)
        signals, error, _ = jax.tree.map(lambda s: None if isinstance(s, SymbolicZero) else s, cotangents)
        broadcast = None if error is None else (error, read[1])
        gradient = contract_run(layer, synapses, inputs, z_start, signals, broadcast)
        of_constants, of_synapses, before, into_inputs, of_weight = gradient
        if traces is not None:
            earlier, of_constants = contract_traces(neuron, before, traces, of_constants)
            pieces = split_presynaptic(earlier, inputs.shape[-1])
            of_synapses = jax.tree.map(jnp.add, of_synapses, Synapses(*pieces))
        if synapses.bias is None:
            of_synapses = of_synapses._replace(bias=None)
        of_read = None if of_weight is None else (of_weight, of_weight)
        return gather(constants, of_constants), of_synapses, into_inputs, None, of_read

    network.defvjp(forward_values, backward, symbolic_zeros=True)  # a silent output costs nothing
    outputs, y, last = network(constants, synapses, inputs, carry, read)
    return outputs, y, jax.lax.stop_gradient(last)


def contract_run(
    layer: Linearised,
    synapses: Synapses,
    inputs: Float[Array, "time batch n_in"],
    z_start: Float[Array, "batch neuron"],
    signals: Outputs,
    broadcast: tuple[Float[Array, "time batch output"], Float[Array, "neuron output"]] | None = None,
) -> tuple[PyTree, Synapses, State, Float[Array, "time batch n_in"], Float[Array, "neuron output"] | None]:
    """`sum_t g_t x_t^T` of a whole run, from its end backwards in chunks whose adjoint stays in the cache.

    Args:
        signals: learning signals at the outputs; None for an output that gets none.
        broadcast: the readout's error and its feedback `B`: learning signals that are formed here.

    Returns:
        Gradients of the spread constants and of the synapses (a bias included), the adjoint of the state
        before the run, that of the inputs, and the gradient of the readout's weights.
    """
    time, batch, n_in = inputs.shape
    _, k, n = synapses.w_in.shape
    chunk = _chunk(time, batch, k * n)

    def contract(later, offset, length):
        part = lambda x: jax.lax.dynamic_slice_in_dim(x, offset, length)  # noqa: E731
        here, of_weight = jax.tree.map(part, signals), None
        if broadcast is not None:
            error, shown = part(broadcast[0]).reshape(length * batch, -1), part(_shown(layer))
            here = _add_to_last(here, (error @ broadcast[1].T).reshape(length, batch, n))
            of_weight = shown.reshape(-1, n).astype(error.dtype).T @ error
        constants, before, g = adjoint(layer.pullbacks, here, later, (offset, length))
        g = [adjoint_of_current.reshape(-1, n) for adjoint_of_current in g]
        z_prev = jax.lax.dynamic_slice_in_dim(layer.z, jnp.maximum(offset - 1, 0), length).astype(z_start.dtype)
        z_prev = jnp.where(offset == 0, jnp.concatenate([z_start[None], z_prev[:-1]]), z_prev)
        presynaptic = jnp.concatenate([part(inputs), z_prev], axis=-1).reshape(-1, n_in + n)
        weights, bias = [presynaptic.T @ g_q for g_q in g], [g_q.sum(0) for g_q in g]
        into_inputs = functools.reduce(jnp.add, [g_q @ synapses.w_in[:, q].T for q, g_q in enumerate(g)])
        return before, (constants, weights, bias, of_weight), into_inputs.reshape(length, batch, n_in)

    def one(carry, offset, length):
        later, total = carry
        before, found, into_inputs = contract(later, offset, length)
        return (before, jax.tree.map(jnp.add, total, found)), into_inputs

    last = jax.tree.map(jnp.zeros_like, traced(layer.last))
    nothing = zeros_of(lambda: contract(last, jnp.asarray(0), chunk)[1])
    (before, total), into_inputs = _in_chunks(one, (last, nothing), time, chunk)
    constants, weights, bias, of_weight = total
    weights = jnp.stack(weights, axis=1)
    of_synapses = Synapses(weights[:n_in], weights[n_in:], jnp.stack(bias))
    return constants, of_synapses, before, into_inputs, of_weight


def _read_out(layer: Linearised, weight: Float[Array, "neuron output"]) -> Float[Array, "time batch output"]:
    """`z_bar_t W_out` of all steps; spikes become floating-point numbers a chunk at a time."""
    shown = _shown(layer)
    if shown.dtype == weight.dtype:
        return shown @ weight
    time, batch, n = shown.shape
    one = lambda _, at, length: (None, jax.lax.dynamic_slice_in_dim(shown, at, length).astype(weight.dtype) @ weight)  # noqa: E731
    return _in_chunks(one, None, time, _chunk(time, batch, n))[1]


def _shown(layer: Linearised) -> Array:
    """What a readout reads, as it is kept."""
    return layer.z if len(jax.tree.leaves(layer.outputs)) == 1 else readout_output(layer.outputs)


def _add_to_last(signals: Outputs, more: Array) -> Outputs:
    """More learning signal at the output that the readout reads."""
    leaves, structure = jax.tree.flatten(signals, is_leaf=lambda s: s is None)
    leaves[-1] = more if leaves[-1] is None else leaves[-1] + more
    return structure.unflatten(leaves)


def _in_chunks(one: Callable, carry: Any, time: int, chunk: int) -> tuple[Any, Array]:
    """`one(carry, first step, steps) -> (carry, result [steps, ...])` from the end backwards; results side by side."""
    whole = time // chunk * chunk
    tail = None
    if whole < time:
        carry, tail = one(carry, jnp.asarray(whole), time - whole)
    starts = jnp.arange(0, whole, chunk)
    carry, heads = jax.lax.scan(lambda c, start: one(c, start, chunk), carry, starts, reverse=True)
    heads = heads.reshape(whole, *heads.shape[2:])
    return carry, heads if tail is None else jnp.concatenate([heads, tail])


def _chunk(time: int, batch: int, columns: int) -> int:
    """Steps of a chunk: `g` takes about a megabyte, and the product has at least 512 rows."""
    steps = max(320_000 // (batch * columns), -(-512 // batch), 1)
    return -(-time // -(-time // steps))


def unroll_exact(
    neuron: Neuron,
    synapses: Synapses,
    inputs: Float[Array, "time batch n_in"],
    carry: Carry,
    window: int | None = None,
) -> tuple[Outputs, Carry]:
    """Run a layer with nothing cut: ordinary differentiation gives BPTT; with `window`, truncated BPTT.

    Args and Returns as in `unroll`; `window`: the gradient does not cross multiples of this many steps.
    """
    drive = input_drive(synapses, inputs)
    (last, z), (outputs, _) = run(neuron, synapses.w_rec, carry.state, carry.z, drive, window)
    return outputs, Carry(last, z)


def total_learning_signals(
    neuron: Neuron, synapses: Synapses, inputs: Array, carry: Carry, loss
) -> tuple[Array, Outputs]:
    """BPTT's learning signals `L_j^t = dE/dz_j^t`, the total derivative: with them `sum_t L e` is BPTT's gradient.

    Args:
        loss: function of the outputs of all steps to a scalar.

    Returns:
        The loss, and the learning signals, like the outputs.

    The derivative is taken at `z` as other neurons, the reset and the loss see it; what `z` does to the
    neuron's own adaptation is in the trace already.
    """
    drive = input_drive(synapses, inputs)

    def of_perturbation(perturbations):
        def step(state_z, inputs):
            state, z_prev = state_z
            drive_t, perturbation = inputs
            currents = drive_t + contract_presynaptic(z_prev, synapses.w_rec)
            state, outputs = neuron.step(state, unstack_currents(currents), z_prev)
            outputs = jax.tree.map(jnp.add, outputs, perturbation)
            return (state, recurrent_output(outputs)), outputs

        return loss(jax.lax.scan(step, (carry.state, carry.z), (drive, perturbations))[1])

    nothing = zeros_of(lambda: unroll_exact(neuron, synapses, inputs, carry)[0])
    return jax.value_and_grad(of_perturbation)(nothing)
