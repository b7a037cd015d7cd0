"""The unroll whose gradient is e-prop's (DESIGN contract C3)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.eligibility._trajectory import (
    Carry,
    Synapses,
    contract_presynaptic,
    gather,
    input_drive,
    presynaptic_activity,
    run,
    split_constants,
    split_presynaptic,
    spread,
    unstack_currents,
)
from eprop.eligibility._windowed import advance_traces, contract_window, zero_traces
from eprop.neurons import Neuron, recurrent_output, traced
from eprop.neurons._base import Outputs


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
    constants, rest = split_constants(neuron)
    outputs, last = _unroll(rest, constants, synapses, inputs, carry)
    return outputs, jax.lax.stop_gradient(last)


def with_traces(neuron: Neuron, synapses: Synapses, carry: Carry) -> Carry:
    """The carry with zero eligibility vectors, so that `unroll` carries them over windows."""
    n_in, num_currents, _ = synapses.w_in.shape
    n_pre = n_in + synapses.w_rec.shape[0] + 1
    return carry._replace(traces=zero_traces(neuron, carry.state, n_pre, num_currents))


def _unroll(rest, constants, synapses, inputs, carry):
    """`unroll` as a function of arrays, closed over the static part of the neuron."""

    @jax.custom_vjp
    def network(constants, synapses, inputs, carry):
        return forward(constants, synapses, inputs, carry)[0]

    def forward(constants, synapses, inputs, carry):
        floating, integer = eqx.partition(carry.state, eqx.is_inexact_array)

        def layer(constants, floating, drive):
            state = eqx.combine(floating, integer)
            (last, z), (outputs, _) = run(
                eqx.combine(constants, rest), synapses.w_rec, state, carry.z, drive, cut_recurrence=True
            )
            return (outputs, traced(last)), (last, z)

        drive = input_drive(synapses, inputs)
        (outputs, _), pullback, (last, z) = jax.vjp(layer, spread(constants, carry.z), floating, drive, has_aux=True)
        presynaptic, _ = presynaptic_activity(inputs, carry.z, recurrent_output(outputs))
        traces = carry.traces
        if traces is not None:
            traces = advance_traces(pullback, presynaptic, outputs, last, traces)
        residuals = (constants, synapses, presynaptic, last, carry.traces, pullback)
        return (outputs, Carry(last, z, traces)), residuals

    def backward(residuals, cotangents):
        constants, synapses, presynaptic, last, traces, pullback = residuals
        learning_signals, _ = cotangents
        gradient, constant, g = contract_window(pullback, presynaptic, learning_signals, last, traces)
        w_in, w_rec, bias = split_presynaptic(gradient, synapses.w_in.shape[0])
        into_inputs = jnp.einsum("tbkn,ikn->tbi", g, synapses.w_in)
        into_synapses = Synapses(w_in, w_rec, None if synapses.bias is None else bias)
        return gather(constants, constant), into_synapses, into_inputs, None

    network.defvjp(forward, backward)
    return network(constants, synapses, inputs, carry)


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
    (last, z), (outputs, _) = run(
        neuron, synapses.w_rec, carry.state, carry.z, drive, cut_recurrence=False, window=window
    )
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

    shapes = jax.eval_shape(lambda: unroll_exact(neuron, synapses, inputs, carry)[0])
    nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.value_and_grad(of_perturbation)(nothing)
