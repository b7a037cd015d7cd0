"""Protocols of plasticity experiments: spikes at given times, and what e-prop then does to one synapse."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from eprop.eligibility import Synapses, start, unroll
from eprop.neurons import Neuron, readout_output, recurrent_output

JUST_ABOVE = 1e-9
"""A forced spike's membrane lies so far above its threshold, in thresholds: there psi has its height, gamma / v_th."""


@eqx.filter_jit
def weight_change(
    neuron: Neuron,
    presynaptic: Float[np.ndarray, "time sample"],
    drive: Float[Array, "time sample neuron"] | Float[np.ndarray, "time sample neuron"],
    learning_signal: Float[np.ndarray, "time sample"],
) -> tuple[Float[Array, "sample neuron"], Float[Array, "time sample neuron"]]:
    """`-sum_t L^t e^t`: what e-prop does to a synapse at learning rate 1, and the neuron's spikes.

    The traces are the engine's own: the sum is the gradient of `unroll`. The synapse watched has weight 0, so that its
    own spikes move nothing; the neuron is moved by `drive` alone.

    Args:
        neuron: the model; constants `[neuron]` make neurons that differ.
        presynaptic: spikes x of the synapse.
        drive: current into the neurons, from elsewhere.
        learning_signal: `L`, at the neuron's output; at the readout's `z_bar` where there is a filter.
    """
    size = drive.shape[-1]

    def of_one(x: Array, current: Array, signal: Array) -> tuple[Array, Array]:
        seen = jnp.concatenate([x[:, None], current], axis=-1)[:, None]  # [time, 1, 1 + neuron]
        carry = start(neuron, 1, size, x.dtype)
        weights = jnp.concatenate([jnp.zeros((1, 1, size)), jnp.eye(size)[:, None]]).astype(x.dtype)

        def run(w_in: Array) -> tuple[Array, Array]:
            outputs = unroll(neuron, Synapses(w_in), seen, carry)[0]
            return readout_output(outputs), recurrent_output(outputs)

        shown, pullback, z = jax.vjp(run, weights, has_aux=True)
        signals = jnp.broadcast_to(signal[:, None, None], shown.shape).astype(shown.dtype)
        return 0.0 - pullback(signals)[0][0, 0], z[:, 0]

    given = (jnp.asarray(x) for x in (presynaptic, drive, learning_signal))
    return jax.vmap(of_one, in_axes=1, out_axes=(0, 1))(*given)


@eqx.filter_jit
def hold(
    neuron: Neuron, when: Bool[np.ndarray, "time sample"], offset: Float[np.ndarray, "time sample"], size: int = 1
) -> Float[Array, "time sample neuron"]:
    """The current that brings the membrane to its threshold plus `offset` at the steps `when`; 0 at all others.

    For neurons whose membrane adds the current as it is (LIF, ALIF, STDPLIF, STDPALIF with an input gain of 1).
    """

    def step(carry: tuple, given: tuple[Array, Array]) -> tuple[tuple, Array]:
        state, z = carry
        now, distance = given
        seen = neuron.observe(state, neuron.step(state, (jnp.zeros_like(z),), z)[0])
        current = jnp.where(now[:, None], seen["threshold"] + distance[:, None] - seen["v"], 0.0).astype(z.dtype)
        state, outputs = neuron.step(state, (current,), z)
        return (state, recurrent_output(outputs)), current

    begin = start(neuron, when.shape[1], size, jnp.result_type(float))
    return jax.lax.scan(step, (begin.state, begin.z), (jnp.asarray(when), jnp.asarray(offset)))[1]


def at_times(steps: int, times: list[list[int]]) -> Bool[np.ndarray, "time sample"]:
    """True at the given steps of each sample."""
    when = np.zeros((steps, len(times)), bool)
    for sample, each in enumerate(times):
        when[each, sample] = True
    return when
