"""Trials of learning to learn: weights of all samples or of each sample, gradients of each sample."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.eligibility._trajectory import (
    Carry,
    Synapses,
    Trajectory,
    presynaptic_activity,
    split_constants,
    start,
    unstack_currents,
)
from eprop.eligibility._windowed import windowed_gradient
from eprop.neurons import Neuron, recurrent_output
from eprop.neurons._base import Outputs


class Trial(NamedTuple):
    """A run from zero state to its end: what the layer showed, and what its traces depend on."""

    outputs: Outputs
    trajectory: Trajectory


def trial(neuron: Neuron, synapses: Synapses, inputs: Float[Array, "time batch n_in"]) -> Trial:
    """Run a layer from its initial state, with nothing cut, and keep what its traces depend on.

    Args:
        neuron: the neuron model.
        synapses: weights of all samples, `[presynaptic, current, postsynaptic]`, or of each: `[batch, ...]`.
        inputs: `[time, batch, n_in]`; with weights of each sample, inputs of one sample (batch 1) serve all.
    """
    each = synapses.w_rec.ndim == 4
    batch = synapses.w_rec.shape[0] if each else inputs.shape[1]
    carry = start(neuron, batch, synapses.w_rec.shape[-1], synapses.w_rec.dtype)
    outputs, currents = run_exact(neuron, synapses.w_rec, input_drive(synapses, inputs), carry)
    z = recurrent_output(outputs)
    shown = jnp.broadcast_to(inputs, (inputs.shape[0], batch, inputs.shape[2]))
    presynaptic, z_prev = presynaptic_activity(shown, carry.z, z)
    return Trial(outputs, Trajectory(carry.state, presynaptic, currents, z_prev))


def input_drive(synapses: Synapses, inputs: Float[Array, "time batch n_in"]) -> Array:
    """What inputs and bias add to the currents of all steps, `[time, batch, current, neuron]`."""
    w_in, bias = synapses.w_in, synapses.bias
    if w_in.ndim == 3:
        drive = jnp.einsum("tbi,ikn->tbkn", inputs, w_in)
        return drive if bias is None else drive + bias[None, None]
    if inputs.shape[1] == 1:
        drive = jnp.einsum("ti,bikn->tbkn", inputs[:, 0], w_in)
    else:
        drive = jnp.einsum("tbi,bikn->tbkn", inputs, w_in)
    return drive if bias is None else drive + bias[None]


def run_exact(
    neuron: Neuron, w_rec: Array, drive: Float[Array, "time batch current neuron"], carry: Carry
) -> tuple[Outputs, Float[Array, "time batch current neuron"]]:
    """Run a layer whose input drive is known: outputs and currents of all steps, nothing cut.

    The gradient is that of `unroll_exact`; but `w_rec`'s is formed once the backward pass has the
    currents' adjoint `g` of all steps, as one product `sum_t z_{t-1} g_t^T`, not added up step by step.

    Args:
        w_rec: `[neuron, current, neuron]` for all samples, or `[batch, neuron, current, neuron]`.
        carry: the state before the first step; it gets no gradient.
    """
    constants, rest = split_constants(neuron)
    samples = "b" if w_rec.ndim == 4 else ""

    def layer(constants, w_rec, drive, carry):
        model = eqx.combine(constants, rest)
        # One axis of currents and neurons: XLA's CPU code for products over two axes is ten times slower.
        flat = w_rec.reshape(*w_rec.shape[:-2], -1)

        def step(state_z, drive_t):
            state, z_prev = state_z
            currents = drive_t + (z_prev[:, None] @ flat).reshape(drive_t.shape)
            state, outputs = model.step(state, unstack_currents(currents), z_prev)
            return (state, recurrent_output(outputs)), (outputs, currents)

        return jax.lax.scan(step, (carry.state, carry.z), drive)[1]

    def forward(constants, w_rec, drive, carry):
        shown, pullback = jax.vjp(lambda c, d: layer(c, w_rec, d, carry), constants, drive)
        return shown, (pullback, recurrent_output(shown[0]), carry.z)

    def backward(residuals, cotangents):
        pullback, z, z_start = residuals
        of_constants, g = pullback(cotangents)
        z_prev = jnp.concatenate([z_start[None], z[:-1]])
        return of_constants, jnp.einsum(f"tbi,tbkn->{samples}ikn", z_prev, g), g, None

    run = jax.custom_vjp(layer)
    run.defvjp(forward, backward)
    return run(constants, w_rec, drive, carry)


def sample_gradients(
    neuron: Neuron, trajectory: Trajectory, learning_signals: Outputs
) -> Float[Array, "batch pre current neuron"]:
    """`sum_t L_j^t e_ji^t` of each sample by itself; arguments as in `windowed_gradient`.

    A trajectory of one sample (batch 1) serves all learning signals, as where all tasks start from the
    same weights and see the same inputs: then one product forms the gradients of all samples.
    """

    def one(state, steps, signals):
        state = jax.tree.map(lambda x: x[None], state)
        steps, signals = jax.tree.map(lambda x: x[:, None], (steps, signals))
        return windowed_gradient(neuron, Trajectory(state, *steps), signals).synapses

    steps = (trajectory.presynaptic, trajectory.currents, trajectory.z_prev)
    if trajectory.currents.shape[1] == 1:
        state, steps = jax.tree.map(lambda x: x[0], trajectory.state), jax.tree.map(lambda x: x[:, 0], steps)
        return jax.vmap(one, (None, None, 1))(state, steps, learning_signals)
    return jax.vmap(one, (0, 1, 1))(trajectory.state, steps, learning_signals)
