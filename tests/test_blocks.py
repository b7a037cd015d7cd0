"""Position-wise maps around elementwise layers: where e-prop is BPTT, and how far a stream is from it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eprop import (
    ALIF,
    BPTT,
    LIF,
    LRU,
    RTRL,
    RTU,
    Block,
    Dense,
    EProp1,
    EProp3,
    Filtered,
    GatedLinearUnit,
    InvalidSetting,
    LayerNorm,
    Learner,
    MinGRU,
    Network,
    Readout,
    Recurrent,
    partition,
    value_and_grad,
)
from models import BATCH, N_IN, N_OUT, TIME, N, check_alive, difference, inputs, targets

pytestmark = pytest.mark.usefixtures("compiled_quickly")

keys = [jax.random.key(i) for i in range(20)]


def elementwise(neuron, n_in, key, **options):
    return Recurrent(neuron, n_in, N, key=key, dtype=jnp.float64, **options)


def stack():
    """Encoder and LRU; norm, RTU, gated linear unit and residual; norm, minGRU, dense map and residual."""
    f64 = {"dtype": jnp.float64}
    lru, rtu = (
        LRU.ring(keys[0], N, r_min=0.8, dtype=jnp.float64),
        RTU.ring(keys[1], N, r_min=0.8, dtype=jnp.float64, activation="tanh"),
    )
    first = Block(elementwise(lru, N, keys[2], trainable=("nu", "theta")), (Dense(N_IN, N, key=keys[3], **f64),))
    glu = GatedLinearUnit(N, N, key=keys[5], **f64)
    second = Block(elementwise(rtu, N, keys[4], bias=True), (LayerNorm(N, **f64),), (glu,), residual=True)
    dense = Dense(N, N, key=keys[7], **f64)
    third = Block(elementwise(MinGRU(), N, keys[6], bias=True), (LayerNorm(N, **f64),), (dense,), residual=True)
    return Network((first, second, third), Readout(N, N_OUT, key=keys[8], dtype=jnp.float64))


def squared(y, target, mask=None):
    return 0.5 * jnp.sum((y - target) ** 2)


@eqx.filter_jit
def gradient_of(network, rule, x, target):
    return value_and_grad(lambda n: squared(n(x, rule).y, target), rule)(network)[1]


@eqx.filter_jit
def plain_gradient(network, x, target):
    """The stack as one loop over time, maps written down again."""

    def norm(m, x):
        x = x - x.mean(-1, keepdims=True)
        return m.gain * x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5) + m.bias

    def loss(chosen, rest):
        model = eqx.combine(chosen, rest)
        first, second, third = model.layers
        (encoder,), (glu,), (dense,) = first.before, second.after, third.after

        def layer(block, state, x):
            neuron, s = block.layer.neuron, block.layer
            bias = 0.0 if s.bias is None else s.bias
            currents = jnp.einsum("bi,iqj->qbj", x, s.w_in) + (bias if s.bias is None else bias[:, None])
            return neuron.step(state, tuple(currents), jnp.zeros((BATCH, N)))

        def step(states, given):
            x, target = given
            a, h = layer(first, states[0], x @ encoder.weight + encoder.bias)
            b, z = layer(second, states[1], norm(second.before[0], h))
            h = h + (z @ glu.value.weight + glu.value.bias) / (1 + jnp.exp(-(z @ glu.gate.weight + glu.gate.bias)))
            c, z = layer(third, states[2], norm(third.before[0], h))
            h = h + z @ dense.weight + dense.bias
            return (a, b, c), squared(h @ model.readout.weight + model.readout.bias, target)

        begin = tuple(block.layer.neuron.init((BATCH, N), jnp.float64) for block in model.layers)
        return jax.lax.scan(step, begin, (x, target))[1].sum()

    return jax.grad(loss)(*partition(network, BPTT()))


def test_eprop_through_three_elementwise_layers_and_maps_is_bptt():
    network, x, target = stack(), inputs(), targets()
    expected = plain_gradient(network, x, target)
    check_alive(network(x, BPTT()).z[-1], expected)
    assert len(jax.tree.leaves(expected)) > 20
    assert difference(gradient_of(network, BPTT(), x, target), expected) < 1e-10
    assert difference(gradient_of(network, EProp1(), x, target), expected) < 1e-10


def streamed(network, x, target, window):
    learner = Learner(EProp1(), optax.sgd(1.0), squared, update_every=None)
    state = learner.init(network, BATCH)
    for t in range(0, x.shape[0], window):
        state, _, _ = learner.step(state, x[t : t + window], target[t : t + window])
    return state.gradient


def test_as_a_stream_the_top_layer_is_exact_and_the_lower_ones_nearly():
    network, x, target = stack(), inputs(24), targets(24)
    expected = gradient_of(network, BPTT(), x, target)
    for window in (1, 6):
        found = streamed(network, x, target, window)
        top = [(g.layers[-1].layer, g.layers[-1].after, g.readout) for g in (found, expected)]
        assert difference(*top) < 1e-10
        assert difference(found.layers[0], expected.layers[0]) > 1e-4
    assert difference(streamed(network, x, target, 24), expected) < 1e-10


@pytest.mark.slow
def test_feedback_weights_replace_the_head_alone():
    network, x, target = stack(), inputs(), targets()
    same = eqx.tree_at(lambda n: n.readout.feedback_weights, network, network.readout.weight)
    found = gradient_of(same, EProp1("random"), x, target)
    expected = gradient_of(network, EProp1(), x, target)
    assert difference(found.layers, expected.layers) < 1e-10
    other = gradient_of(network, EProp1("random"), x, target)
    assert difference(other.layers[-1], expected.layers[-1]) > 1e-2


@pytest.mark.slow
def test_a_block_of_spiking_neurons_learns_online_and_its_rates_are_the_neurons():
    f64 = {"dtype": jnp.float64}
    block = Block(
        Recurrent(ALIF(), N, 9, key=keys[0], **f64),
        (Dense(N_IN, N, key=keys[1], **f64),),
        (Dense(9, 3, key=keys[2], **f64),),
    )
    network = Network((block,), Readout(3, N_OUT, key=keys[3], **f64))
    learner = Learner(EProp1(), optax.adam(1e-2), squared, rate_strength=1.0)
    state = learner.init(network, BATCH)
    assert state.rates[0].shape == (9,)
    losses = []
    for _ in range(30):
        state, _, metrics = learner.step(state, 2.0 * inputs(), targets())
        losses.append(float(metrics.loss))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) and 0 < float(metrics.rate) < 1
    rule = EProp3(TIME)
    synthesised = Learner(rule, optax.adam(1e-2), squared, synthesiser_optimiser=optax.adam(1e-2))
    state, _, metrics = synthesised.step(synthesised.init(network, BATCH), inputs(), targets())
    assert np.isfinite(float(metrics.loss))


BAD = {
    "block: Dense shows 5 channels, and Recurrent reads 6": lambda: Block(
        elementwise(LRU(), 6, keys[0]), (Dense(4, 5, key=keys[1]),)
    ),
    "residual: the block reads 4 channels and shows 6": lambda: Block(
        elementwise(LRU(), 6, keys[0]), (Dense(4, 6, key=keys[1]),), residual=True
    ),
    "layer: its neuron is behind a readout filter": lambda: Block(elementwise(Filtered(LIF()), 6, keys[0])),
    "rule 'rtrl': gives no gradient into a layer's inputs": lambda: Network(
        stack().layers[:1], stack().readout
    )(inputs(), RTRL()),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_named(message):
    with pytest.raises(InvalidSetting, match=message):
        BAD[message]()
