"""e-prop 2: the inner update of each task's own weights, by learning signals that a trained error module sends."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.eligibility import Synapses, start, unroll
from eprop.neurons import Filtered, Neuron


def inner_gradient(
    neuron: Neuron,
    synapses: Synapses,
    inputs: Float[Array, "time _ n_in"],
    z: Float[Array, "time _ neuron"],
    learning_signals: Float[Array, "time batch neuron"],
    filtered: bool = False,
) -> Synapses:
    """`sum_t L_j^t e_ji^t` of each sample by itself, on a run from rest that is known.

    Args:
        neuron: the neuron model.
        synapses: the weights that the run had, shared (`[presynaptic, current, postsynaptic]`) or of each sample.
        inputs: what the run was fed with; of batch 1 it serves all samples.
        z: the neurons' outputs in it; of batch 1, with shared weights, they serve all learning signals.
        learning_signals: `L_j^t`, `[time, batch, neuron]`.
        filtered: False (e-prop 2): `L` meets the traces of `z`, a readout's filter plays no part; True
            (e-prop 1, where `L` is an error at the readout): the traces of `z_bar`.

    Returns:
        Leaves `[batch, presynaptic, current, postsynaptic]`.

    Approximation: the traces are e-prop's, recurrent signals cut. The result itself is differentiable, in weights,
        inputs, outputs and learning signals: nothing is detached.
    """
    if isinstance(neuron, Filtered) and not filtered:
        neuron = neuron.neuron
    n_in, n = synapses.w_in.shape[-3], learning_signals.shape[-1]
    # The neurons see the known outputs as inputs: then no step waits for the product of the one before.
    z_prev = jnp.concatenate([jnp.zeros_like(z[:1]), z[:-1]])
    width = max(inputs.shape[1], z.shape[1])
    seen = jnp.concatenate([_spread(inputs, width), _spread(z_prev, width)], axis=-1)

    def of_one(synapses: Synapses, seen: Array, signals: Array) -> Synapses:
        """Gradients of one sample."""
        assert synapses.w_rec is not None
        together = Synapses(jnp.concatenate([synapses.w_in, synapses.w_rec]), None, synapses.bias)
        begin = start(neuron, 1, n, signals.dtype)

        def run(weights: Synapses) -> Array:
            outputs = unroll(neuron, weights, seen[:, None], begin)[0]
            return jax.tree.leaves(outputs)[-1]

        gradient = jax.vjp(run, together)[1](signals[:, None])[0]
        return Synapses(gradient.w_in[:n_in], gradient.w_in[n_in:], gradient.bias)

    each = 0 if synapses.w_in.ndim == 4 else None
    if width == 1 and each is None:
        return jax.vmap(of_one, (None, None, 1))(synapses, seen[:, 0], learning_signals)
    return jax.vmap(of_one, (each, 1, 1))(synapses, seen, learning_signals)


def inner_update(
    synapses: Synapses, gradient: Synapses, connected: Synapses, learning_rate: float | Float[Array, ""]
) -> Synapses:
    """One update of each sample's own weights (Bellec et al. 2019, e-prop 2).

        W_ji <- W_ji - eta sum_t L_j^t e_ji^t

    Args:
        synapses: weights before it, shared (`[presynaptic, current, postsynaptic]`) or of each sample.
        gradient: from `inner_gradient`, leaves `[batch, ...]`.
        connected: 1 where a synapse acts, 0 where it does not (`Recurrent.connected`).
        learning_rate: `eta`.

    Returns:
        Weights of each sample, leaves `[batch, presynaptic, current, postsynaptic]`.
    """
    step = lambda w, g, there: w - learning_rate * g * there[None]  # noqa: E731
    bias = synapses.bias
    if bias is not None and gradient.bias is not None:
        bias = bias - learning_rate * gradient.bias
    return Synapses(
        step(synapses.w_in, gradient.w_in, connected.w_in),
        step(synapses.w_rec, gradient.w_rec, connected.w_rec),
        bias,
    )


def _spread(x: Float[Array, "time batch n"], batch: int) -> Array:
    return jnp.broadcast_to(x, (x.shape[0], batch, x.shape[2]))
