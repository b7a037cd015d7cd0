"""The unroll: a layer over a window of time, whose gradient is e-prop's or BPTT's."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eprop.eligibility._adjoint import Later, adjoint
from eprop.eligibility._delays import DelayLine, seen_over_time, shifted
from eprop.eligibility._elementwise import require_elementwise
from eprop.eligibility._pullbacks import Run, run
from eprop.eligibility._traces import contract_traces, pending_of, settle
from eprop.eligibility._types import (
    Carry,
    Synapses,
    filled,
    gather,
    presynaptic_activity,
    require_traces_of,
    split_constants,
    split_presynaptic,
    with_gradient,
    zeros_of,
)
from eprop.neurons import Neuron, Outputs, PyTree, readout_output, recurrent_output, traced

Recurrence = Literal["cut", "kept"]

Read = tuple[Float[Array, "neuron output"], Float[Array, "neuron output"]]
"""Weights of a linear head, and the feedback weights `B` that its error comes back through."""


def unroll(
    neuron: Neuron,
    synapses: Synapses,
    inputs: Float[Array, "time batch n_in"],
    carry: Carry,
    *,
    recurrence: Recurrence = "cut",
    read: Read | None = None,
) -> tuple[Outputs, Float[Array, "time batch output"] | None, Carry]:
    """Run a layer over one window. Its gradient is `sum_t L_j^t e_ji^t` (Bellec et al. 2019, eq. 1).

    Forward it runs the network. Backward it takes the gradient with respect to the outputs from whatever stands
    after it, makes the learning signals `L` of it, and contracts them with the eligibility traces `e`.

    `recurrence` says how an output acts on later steps of the same window:

    - `"cut"` (e-prop 1): not at all. `L_j^t = dE/dz_j^t` as the outputs' own reader has it.
    - `"kept"`: through the recurrent weights and the reset. `L_j^t` is the total derivative of the window's loss. The
      returned carry is not detached: a gradient with respect to its state and `z` (a *seed*: what follows the window)
      enters here, and the gradient with respect to `carry.state` and `carry.z` comes out at the window's start.

    `carry.traces` says how the past counts:

    - None: weights count within the window alone. With `"kept"` and the true seed that is BPTT.
    - eligibility vectors (see `with_traces`): all earlier windows count too, and the returned carry holds the vectors
      of this one's end, for the next. What a state does after the window is then counted there, by the traces, and not
      here: the seed reaches the learning signals alone. With `"kept"` that is e-prop 3.

    `carry.line` says how long outputs take to other neurons; with it, rows of `w_rec` are the line's columns, and its
    past is state too: with `"kept"` it has a gradient, at both ends.

    Args:
        neuron, synapses: the model, and its weights, index order `[presynaptic, current, postsynaptic]`.
        inputs: `[time, batch, n_in]`.
        carry: from `start`, or from the window before.
        read: weights `W_out` and feedback weights `B` of a linear head, both `[neuron, output]`. Then
            `y_t = z_bar_t W_out` is formed here, and `L_j^t = sum_k B_jk dE/dy_k^t` chunk by chunk: neither is ever an
            array `[time, batch, neuron]`. The gradient of `W_out` is given to `B` as well (adaptive feedback).

    Returns:
        The outputs of all steps, `[time, batch, neuron]`; `y`, `[time, batch, output]` (None without `read`); the
        carry after the last step.

    Raises:
        InvalidSetting: for a step that is not elementwise, a carry with the traces of another neuron, or a forward-mode
            derivative (jax.jvp, jacfwd), which it has not.

    Approximation: with `"cut"`, recurrent signals (recurrent weights and reset) are cut, as if `z_prev` were wrapped in
        `stop_gradient`, and the returned carry is detached. Into `inputs` the gradient is `g_t W_in^T`: the part of the
        layer below's learning signal that passes through this layer's neurons, and with `"kept"` also through its
        recurrent connections within the window. `B` stands where the chain rule has `W_out`.
    """
    require_elementwise(neuron)
    require_traces_of(neuron, carry.traces)
    constants, rest = split_constants(neuron)
    floating, integer = eqx.partition(carry.state, eqx.is_inexact_array)
    traces, kept, line = settle(neuron, carry.traces), recurrence == "kept", carry.line
    past, delays = (None, None) if line is None else line
    arguments = (constants, synapses, inputs, floating, carry.z, past, (integer, delays), traces, read)
    outputs, y, last, z_last, past, others, pending = with_gradient(*_passes(rest, kept))(*arguments)
    if not kept:
        last, z_last, past = jax.lax.stop_gradient((last, z_last, past))
    if traces is not None:
        traces = jax.lax.stop_gradient(traces._replace(pending=pending))
    line = None if line is None else line._replace(past=past)
    return outputs, y, Carry(eqx.combine(last, others), z_last, traces, line)


def _passes(rest: Neuron, kept: bool) -> tuple[Callable[..., tuple], Callable[..., tuple]]:
    """The forward and the backward pass of `unroll`, as `with_gradient` takes them; `rest`: all but the constants."""

    def forward(constants, synapses, inputs, floating, z, past, integers, traces, read):
        model, (integer, delays) = eqx.combine(constants, rest), integers
        line = None if delays is None else DelayLine(past, delays)
        start = Carry(eqx.combine(floating, integer), z, line=line)
        layer = run(model, synapses, inputs, start, reset=kept)
        y = None if read is None else _read_out(layer, read[0])
        z_last, pending = recurrent_output(layer.outputs)[-1], None
        if traces is not None:
            activity = presynaptic_activity(synapses, inputs, seen_over_time(line, z, layer.z))
            pending = pending_of(model, layer, activity, z)
        last, others = eqx.partition(layer.last, eqx.is_inexact_array)
        past = None if layer.line is None else layer.line.past
        results = (layer.outputs, y, last, z_last, past, others, pending)
        return results, (constants, synapses, inputs, z, line, traces, read, layer)

    def backward(residuals, cotangents):
        constants, synapses, inputs, z, line, traces, read, layer = residuals
        signals, error, state_seed, z_seed, past_seed, _, _ = cotangents
        broadcast = None if error is None or read is None else (error, read[1])
        later = _later(layer, z, kept, traces is not None, state_seed, (z_seed, past_seed))
        found = _contract(layer, synapses, inputs, z, line, later, signals, broadcast)
        of_synapses, of_constants = found.synapses, found.constants
        if traces is not None:
            model = eqx.combine(constants, rest)
            earlier, of_constants = contract_traces(model, found.before.own, traces, of_constants)
            of_synapses = jax.tree.map(jnp.add, of_synapses, split_presynaptic(earlier, synapses))
        of_state, of_z = None, None
        if kept:
            parts = [part for part in (found.before.own, found.before.seeded) if part is not None]
            of_state, of_z = jax.tree.map(lambda *p: sum(p[1:], p[0]), *parts), found.before.z
        of_read = None if read is None else (found.weight, found.weight)
        of_past = found.before.past
        return gather(constants, of_constants), of_synapses, found.inputs, of_state, of_z, of_past, None, None, of_read

    return forward, backward


class _Contraction(NamedTuple):
    """`sum_t g_t x_t^T` of a run, and all else that its backward pass gives."""

    constants: PyTree  # spread over batch and neurons
    synapses: Synapses
    before: Later
    inputs: Float[Array, "time batch n_in"]
    weight: Float[Array, "neuron output"] | None  # of a head that is read in the engine


def _later(layer: Run, z: Array, kept: bool, traces: bool, state_seed: PyTree, z_seeds: tuple) -> Later:
    """The adjoint at the run's end: a seed counts for the weights where no traces will count it later."""
    last = traced(layer.last)
    nothing = jax.tree.map(jnp.zeros_like, last)
    if not kept:
        return Later(nothing)
    past = None if layer.line is None else layer.line.past
    seed, z_seed, past_seed = filled((state_seed, *z_seeds), (last, z, past))
    if not traces:
        return Later(seed, None, z_seed, past_seed)
    return Later(nothing, seed if jax.tree.leaves(state_seed) else None, z_seed, past_seed)


def _contract(
    layer: Run,
    synapses: Synapses,
    inputs: Float[Array, "time batch n_in"],
    z_start: Float[Array, "batch neuron"],
    line: DelayLine | None,
    later: Later,
    signals: Outputs,
    broadcast: tuple[Float[Array, "time batch output"], Float[Array, "neuron output"]] | None,
) -> _Contraction:
    """`sum_t g_t x_t^T` of a whole run, from its end backwards in chunks whose adjoint stays in the cache.

    Args:
        later: the adjoint at the run's end.
        signals: learning signals at the outputs; None for an output that gets none.
        broadcast: the head's error and its feedback `B`: learning signals that are formed here.
    """
    time, batch, n_in = inputs.shape
    _, k, n = synapses.w_in.shape
    chunk = _chunk(time, batch, k * n)
    quiet = jnp.zeros_like(z_start)
    delayed = None if line is None else seen_over_time(line, z_start, layer.z)

    def contract(later: Later, offset: Array, length: int) -> tuple[Later, tuple, Array]:
        whole = length == time
        part = lambda x: x if whole else jax.lax.dynamic_slice_in_dim(x, offset, length)  # noqa: E731
        here, of_weight = jax.tree.map(part, signals), None
        if broadcast is not None:
            error, shown = part(broadcast[0]).reshape(length * batch, -1), part(_shown(layer))
            here = _add_to_last(here, (error @ broadcast[1].T).reshape(length, batch, n))
            of_weight = shown.reshape(-1, n).astype(error.dtype).T @ error
        place = None if whole else (offset, length)
        found = adjoint(layer.pullbacks, here, later, quiet, synapses.w_rec, place, line)
        g = [adjoint_of_current.reshape(-1, n) for adjoint_of_current in found.g]
        presynaptic = part(inputs)
        if synapses.w_rec is not None:
            before = _z_prev(layer, z_start, offset, length) if delayed is None else part(delayed)
            presynaptic = jnp.concatenate([presynaptic, before], axis=-1)
        presynaptic = presynaptic.reshape(length * batch, -1)
        weights, bias = [presynaptic.T @ g_q for g_q in g], [g_q.sum(0) for g_q in g]
        into = sum(g_q.reshape(-1, n) @ synapses.w_in[:, q].T for q, g_q in enumerate(found.full))
        return found.before, (found.constants, weights, bias, of_weight), into.reshape(length, batch, n_in)  # pyright: ignore[reportAttributeAccessIssue]

    def one(carry: tuple[Later, tuple], offset: Array, length: int) -> tuple[tuple[Later, tuple], Array]:
        later, total = carry
        before, found, into_inputs = contract(later, offset, length)
        return (before, jax.tree.map(jnp.add, total, found)), into_inputs

    if chunk == time:
        before, total, into_inputs = contract(later, jnp.asarray(0), time)
    else:
        nothing = zeros_of(lambda: contract(later, jnp.asarray(0), chunk)[1])
        (before, total), into_inputs = _in_chunks(one, (later, nothing), time, chunk)
    constants, weights, bias, of_weight = total
    all_weights = jnp.stack(weights, axis=1)
    of_recurrent = None if synapses.w_rec is None else all_weights[n_in:]
    of_synapses = Synapses(all_weights[:n_in], of_recurrent, None if synapses.bias is None else jnp.stack(bias))
    return _Contraction(constants, of_synapses, before, into_inputs, of_weight)


def _z_prev(layer: Run, z_start: Array, offset: Int[Array, ""], length: int) -> Float[Array, "time batch neuron"]:
    """`z_{t-1}` of a stretch of steps."""
    if length == layer.z.shape[0]:
        return shifted(z_start, layer.z)
    z_prev = jax.lax.dynamic_slice_in_dim(layer.z, jnp.maximum(offset - 1, 0), length).astype(z_start.dtype)
    return jnp.where(offset == 0, jnp.concatenate([z_start[None], z_prev[:-1]]), z_prev)


def _read_out(layer: Run, weight: Float[Array, "neuron output"]) -> Float[Array, "time batch output"]:
    """`z_bar_t W_out` of all steps; spikes become floating-point numbers a chunk at a time."""
    shown = _shown(layer)
    if shown.dtype == weight.dtype:
        return shown @ weight
    time, batch, n = shown.shape
    one = lambda _, at, length: (None, jax.lax.dynamic_slice_in_dim(shown, at, length).astype(weight.dtype) @ weight)  # noqa: E731
    return _in_chunks(one, None, time, _chunk(time, batch, n))[1]


def _shown(layer: Run) -> Array:
    """The output that a head reads, as it is kept."""
    return layer.z if len(jax.tree.leaves(layer.outputs)) == 1 else readout_output(layer.outputs)


def _add_to_last(signals: Outputs, more: Array) -> Outputs:
    """More learning signal at the output that the head reads."""
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
