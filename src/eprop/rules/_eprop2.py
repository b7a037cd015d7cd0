"""e-prop 2: the inner update of each task's own weights, by learning signals that a trained error module sends."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.eligibility import Synapses, Trajectory, sample_gradients, split_presynaptic
from eprop.neurons import Filtered, Neuron


def inner_gradient(
    neuron: Neuron,
    synapses: Synapses,
    trajectory: Trajectory,
    learning_signals: Float[Array, "time batch neuron"],
    filtered: bool = False,
) -> Synapses:
    """`sum_t L_j^t e_ji^t` of each sample by itself, for input and recurrent weights (and bias, where there is one).

    Args:
        neuron: the neuron model.
        synapses: the weights that the trial ran with: all that is read of them is how many inputs there are.
        trajectory: what the training trial left behind (see `trial`); of batch 1 it serves all learning signals.
        learning_signals: `L_j^t`, `[time, batch, neuron]`.
        filtered: False (e-prop 2): `L` meets the traces of `z`, the readout's filter plays no part; True
            (e-prop 1, where `L` is an error at the readout): the traces of `z_bar`.

    Returns:
        Leaves `[batch, presynaptic, current, postsynaptic]`.

    Approximation: the traces are e-prop's, recurrent signals cut. The result itself is differentiable, in
    learning signals and trajectory: nothing is detached.
    """
    signals = learning_signals
    if isinstance(neuron, Filtered) and filtered:
        signals = (jnp.zeros_like(signals), signals)
    elif isinstance(neuron, Filtered):
        neuron, trajectory = neuron.neuron, trajectory._replace(state=trajectory.state.neuron)
    gradients = sample_gradients(neuron, trajectory, signals)
    n_in = synapses.w_in.shape[-3]
    w_in, w_rec, bias = jax.vmap(lambda gradient: split_presynaptic(gradient, n_in))(gradients)
    return Synapses(w_in, w_rec, None if synapses.bias is None else bias)


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
