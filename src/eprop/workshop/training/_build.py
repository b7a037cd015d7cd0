"""From settings to a network and an optimiser."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray

from eprop.errors import require
from eprop.learning_signals import Feedback
from eprop.networks import Bidirectional, Embedding, Network, Readout, Recurrent
from eprop.neurons import ALIF, GRU, LIF, LSTM, SURROGATES, Filtered, Neuron, Rate
from eprop.workshop.settings import NetworkSettings, OptimiserSettings


def build_neuron(settings: NetworkSettings, dt: float = 1.0) -> Neuron:
    """The neuron model, behind the readout's filter where there is one; `dt`: length of a step, ms."""
    s = settings
    membrane: dict[str, Any] = dict(
        tau_m=s.tau_m,
        v_th=s.v_th,
        n_refractory=s.n_refractory,
        dt=dt,
        surrogate=SURROGATES[s.surrogate](dampening_factor=s.gamma),
        input_gain=s.input_gain,
        pseudo_derivative_scaling=s.pseudo_derivative_scaling,
        pseudo_derivative_in_refractory=s.pseudo_derivative_in_refractory,
    )
    if s.neuron in ("alif", "lsnn"):
        adaptive = s.neurons if s.neuron == "alif" else round(s.adaptive_fraction * s.neurons)
        neuron = ALIF(
            **membrane,
            tau_a=s.tau_a,
            beta=s.beta * (jnp.arange(s.neurons) >= s.neurons - adaptive),
            adaptation_gain=s.adaptation_gain,
            threshold_scaling=s.threshold_scaling,
            adaptation_masked=s.adaptation_masked,
        )
    else:
        neuron = {
            "lif": lambda: LIF(**membrane, reset=s.reset),
            "lstm": LSTM,
            "gru": GRU,
            "rate": lambda: Rate(tau_m=s.tau_m, dt=dt),
        }[s.neuron]()
    if s.tau_out is None:
        return neuron
    return Filtered(neuron, tau_out=s.tau_out, gain=s.readout_gain, dt=dt, frame=s.steps_per_frame)


def build_network(
    settings: NetworkSettings,
    n_in: int,
    n_out: int,
    key: PRNGKeyArray,
    dt: float = 1.0,
    feedback: Feedback | None = None,
) -> Network:
    """A network with random initial weights; the same key gives the same weights whatever the rule.

    Adaptive feedback weights may have a scale of their own (`adaptive_feedback_scale`).
    """
    s = settings
    own = feedback is not None and feedback.adapts and s.adaptive_feedback_scale is not None
    neuron = build_neuron(s, dt)
    dtype = jnp.dtype(s.precision)
    key_readout, *keys = jax.random.split(key, 1 + s.layers)

    def recurrent(size: int, key: PRNGKeyArray) -> Recurrent:
        return Recurrent(
            neuron,
            size,
            s.neurons,
            key=key,
            bias=s.bias,
            autapses=s.autapses,
            trainable=s.trainable,
            weight_scale=s.weight_scale,
            dtype=dtype,
        )

    embedding = None
    if s.embedding is not None:
        embedding = Embedding(n_in, s.embedding, key=jax.random.fold_in(key, n_in), dtype=dtype)
    layers, size, read = [], n_in if s.embedding is None else s.embedding, 0
    for key_layer in keys:
        if s.bidirectional:
            ahead, behind = jax.random.split(key_layer)
            layers.append(Bidirectional(recurrent(size, ahead), recurrent(size, behind)))
        else:
            layers.append(recurrent(size, key_layer))
        size = layers[-1].size
        read = read + size if s.read_all else size
    readout = Readout(
        read,
        n_out,
        key=key_readout,
        feedback_scale=s.adaptive_feedback_scale if own else s.feedback_scale,
        weight_scale=s.readout_scale,
        dtype=dtype,
    )
    return Network(tuple(layers), readout, s.read_all, embedding)


def build_optimiser(
    settings: OptimiserSettings, iterations: int | None = None, updates: int = 1
) -> optax.GradientTransformation:
    """Adam or SGD behind optional clipping; a staircase, and a cosine over `iterations`, after a linear warm-up.

    Args:
        settings: which, and at what rate.
        iterations: how many there will be; None where that is not known.
        updates: of the weights in each of them. The schedule counts iterations.

    Raises:
        InvalidSetting: for a decay to the last iteration where that is not known.
    """
    s = settings
    require(
        iterations is not None or not s.cosine_decay,
        "cosine_decay: needs to know how many updates there will be, and here nobody does (a stream goes on; "
        "sequences of a curriculum grow); use decay_factor and decay_every",
    )
    stairs = optax.exponential_decay(s.learning_rate, s.decay_every, s.decay_factor, staircase=True)

    def schedule(count):
        done = count / updates
        cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.minimum(done / iterations, 1.0))) if s.cosine_decay else 1.0
        return stairs(done) * cosine * jnp.minimum(1.0, (done + 1) / max(s.warmup, 1))

    descent = optax.adam(schedule, eps=s.adam_epsilon) if s.optimiser == "adam" else optax.sgd(schedule)
    return descent if s.clip is None else optax.chain(optax.clip_by_global_norm(s.clip), descent)
