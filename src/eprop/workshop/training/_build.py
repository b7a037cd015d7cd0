"""From settings to a network and an optimiser."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from eprop.errors import require
from eprop.learning_signals import Feedback
from eprop.networks import (
    SIGNS,
    Bidirectional,
    Block,
    Dense,
    Embedding,
    GatedLinearUnit,
    LayerNorm,
    Network,
    Population,
    Readout,
    Recurrent,
    Rewiring,
    random_mask,
)
from eprop.neurons import (
    ALIF,
    ELSTM,
    GRU,
    LIF,
    LRU,
    LSTM,
    RTU,
    SURROGATES,
    Filtered,
    MinGRU,
    Neuron,
    Rate,
)
from eprop.workshop._populations import parse_populations
from eprop.workshop.optimisers import make_optimiser
from eprop.workshop.settings import NetworkSettings, OptimiserSettings


def build_neuron(settings: NetworkSettings, dt: float = 1.0, key: PRNGKeyArray | None = None) -> Neuron:
    """The neuron model, behind the readout's filter where there is one.

    Args:
        dt: length of a step, ms.
        key: of constants that are drawn; None: some key.
    """
    s, key = settings, jax.random.key(0) if key is None else key
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
            "lru": lambda: LRU.ring(key, s.neurons, s.r_min, s.r_max),
            "rtu": lambda: RTU.ring(key, s.neurons, s.r_min, s.r_max),
            "min-gru": MinGRU,
            "elstm": lambda: ELSTM.random(key, s.neurons),
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
    dtype = jnp.dtype(s.precision)
    key_readout, *keys = jax.random.split(key, 1 + s.layers)
    embedding = None
    if s.embedding is not None:
        embedding = Embedding(n_in, s.embedding, key=jax.random.fold_in(key, n_in), dtype=dtype)
    layers, size, read = [], n_in if s.embedding is None else s.embedding, 0
    for key_layer in keys:
        below = _below(s) if layers else {}
        halves = jax.random.split(key_layer) if s.bidirectional else [key_layer]
        one = lambda n_in, key, below=below: _layer(s, dt, n_in, below, key, dtype)  # noqa: E731
        if s.maps:
            layers.append(_block(s, size, one, key_layer, dtype))
        else:
            both = [one(size, key) for key in halves]
            layers.append(Bidirectional(*both) if s.bidirectional else both[0])
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
    frozen = tuple(part for part in s.freeze if part in ("readout", "embedding"))
    return Network(tuple(layers), readout, s.read_all, embedding, frozen)


def _block(
    s: NetworkSettings, n_in: int, layer: Callable[[int, PRNGKeyArray], Recurrent], key: PRNGKeyArray, dtype: Any
) -> Block:
    """A layer between the maps that are set."""
    n, encodes, before = s.neurons, "residual" in s.maps and n_in != s.neurons, []
    if encodes:
        before.append(Dense(n_in, n, key=jax.random.fold_in(key, 5), dtype=dtype))
    width = n if encodes else n_in
    if "norm" in s.maps:
        before.append(LayerNorm(width, dtype=dtype))
    kinds = [kind for name, kind in (("dense", Dense), ("glu", GatedLinearUnit)) if name in s.maps]
    after = tuple(kind(n, n, key=jax.random.fold_in(key, 6), dtype=dtype) for kind in kinds)
    return Block(layer(width, key), tuple(before), after, "residual" in s.maps and not encodes)


def _layer(s: NetworkSettings, dt: float, n_in: int, below: dict[str, Any], key: PRNGKeyArray, dtype: Any) -> Recurrent:
    """A layer with its constraints; `below`: signs and delays of its inputs."""
    neuron = build_neuron(s, dt, jax.random.fold_in(key, 4))
    autapses = not neuron.spiking if s.autapses is None else s.autapses
    masks = {}
    if s.density < 1:
        draw = lambda i, n_pre, **kind: random_mask(jax.random.fold_in(key, i), n_pre, s.neurons, s.density, **kind)  # noqa: E731
        masks = {"mask_in": draw(2, n_in)}
        if neuron.recurrent_currents != ():
            masks["mask_rec"] = draw(3, s.neurons, autapses=autapses)
    return Recurrent(
        neuron,
        n_in,
        _populations(s),
        key=key,
        bias=s.bias,
        autapses=s.autapses,
        **masks,
        **below,
        delays_rec=_of_neurons(s, "delay"),
        bounds=s.weight_bounds,
        rewiring=None if s.rewire is None else Rewiring(s.rewire, s.rewire_noise),
        frozen=tuple(part for part in s.freeze if part not in ("readout", "embedding")),
        trainable=s.trainable,
        weight_scale=s.weight_scale,
        dtype=dtype,
    )


def _populations(s: NetworkSettings) -> int | tuple[Population, ...]:
    """The populations of a layer, or the number of its neurons."""
    if s.populations:
        return parse_populations(s.populations)
    few = round(s.inhibitory * s.neurons)
    parts = (("inhibitory", few), ("excitatory", s.neurons - few))
    return tuple(Population(name, n, sign=name) for name, n in parts if n) if few else s.neurons  # pyright: ignore[reportArgumentType]


def _of_neurons(s: NetworkSettings, what: Literal["sign", "delay"]) -> np.ndarray | None:
    """The sign or the axonal delay of each neuron of a layer; None: no sign, no delay."""
    parts = _populations(s)
    if what == "delay" and s.delays:
        return np.arange(s.neurons) % (s.delays + 1)
    if isinstance(parts, int):
        return None
    values = np.concatenate([np.full(p.size, p.delay if what == "delay" else SIGNS[p.sign]) for p in parts])
    return values if values.any() else None


def _below(s: NetworkSettings) -> dict[str, Any]:
    """Signs and delays of a layer's inputs, where these are the neurons of the layer below."""
    signs, delays = _of_neurons(s, "sign"), _of_neurons(s, "delay")
    both = 2 if s.bidirectional else 1
    tiled = lambda x: None if x is None else np.tile(x, both)  # noqa: E731
    return {"signs_in": tiled(signs), "delays_in": tiled(delays)}


def check_network(settings: NetworkSettings) -> None:
    """Refuse settings of which no network can be made; no array is."""
    eqx.filter_eval_shape(lambda key: build_network(settings, 3, 2, key), jax.random.key(0))


def build_optimiser(
    settings: OptimiserSettings, iterations: int | None = None, updates: int = 1
) -> optax.GradientTransformation:
    """The named optimiser, clipped if asked for; a staircase, and a cosine over `iterations`, after a linear warm-up.

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

    epsilon = [f"eps={s.adam_epsilon}"] if s.optimiser == "adam" and s.adam_epsilon != 1e-8 else []
    descent = make_optimiser(s.optimiser, schedule, [*s.optimiser_options, *epsilon])
    return descent if s.clip is None else optax.chain(optax.clip_by_global_norm(s.clip), descent)
