"""What holds the library together, for every neuron model and weight (the model table is in `models.py`)."""

import functools

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from eprop import ALIF, BPTT, LIF, LSTM, make_rule, trainable
from eprop.eligibility import (
    Synapses,
    dense_traces,
    dense_zero_traces,
    eligibility_step,
    record,
    split_presynaptic,
    stepwise_gradient,
    total_learning_signals,
    unroll,
    unroll_exact,
    windowed_gradient,
    with_traces,
)
from eprop.eligibility._adjoint import linearised_step
from eprop.neurons import readout_output, recurrent_output
from models import BATCH, MODELS, N_IN, SMOOTH, TIME, N, check_alive, difference, inputs, make, targets

pytestmark = pytest.mark.usefixtures("compiled_quickly")

EXACT = 1e-10
every_model = pytest.mark.parametrize("name", MODELS)


def loss_of(y, z, target):
    return 0.5 * jnp.sum((y - target) ** 2) + 3.0 * jnp.sum((z.mean((0, 1)) - 0.1) ** 2)


def gradient(network, rule, x, target):
    """The rule's gradient of a loss on outputs and on firing rates, for all that is trained."""
    rule = make_rule(rule)
    chosen, rest = eqx.partition(network, trainable(network, BPTT()))

    def loss(chosen):
        result = eqx.combine(chosen, rest)(x, rule)
        return loss_of(result.y, result.z[0], target)

    return jax.grad(loss)(chosen)


@functools.cache
def recorded(name, dtype=jnp.float64):
    """A layer that ran, what it left behind, and any learning signals."""
    layer = make(name, dtype).layers[0]
    outputs, trajectory = record(layer.neuron, layer.synapses(), inputs(dtype=dtype), layer.start(BATCH))
    keys = iter(jax.random.split(jax.random.key(5), 4))
    signals = jax.tree.map(lambda o: jax.random.normal(next(keys), o.shape, o.dtype), outputs)
    return layer, outputs, trajectory, signals


@functools.cache
def reference(name, dtype=jnp.float64):
    """The gradient by the paper's own loops."""
    layer, outputs, trajectory, signals = recorded(name, dtype)
    found = stepwise_gradient(layer.neuron, trajectory, signals)
    check_alive(recurrent_output(outputs), found)
    return found


def independent_network(network, x, target, cut):
    """The same network and loss written as one plain scan, with recurrent signals detached where `cut`."""
    layer = network.layers[0]

    def loss(chosen, rest):
        model = eqx.combine(chosen, rest)
        layer, synapses = model.layers[0], model.layers[0].synapses()

        def step(carry, x_t):
            state, z = carry
            z_seen = jax.lax.stop_gradient(z) if cut else z
            currents = [
                x_t @ synapses.w_in[:, q] + z_seen @ synapses.w_rec[:, q] + synapses.bias[q]
                for q in range(layer.neuron.num_currents)
            ]
            state, outputs = layer.neuron.step(state, tuple(currents), z_seen)
            z = recurrent_output(outputs)
            return (state, z), (z, readout_output(outputs) @ model.readout.weight + model.readout.bias)

        start = (layer.neuron.init((x.shape[1], N), x.dtype), jnp.zeros((x.shape[1], N), x.dtype))
        _, (z, y) = jax.lax.scan(step, start, x)
        return loss_of(y, z, target)

    assert layer.bias is not None
    chosen, rest = eqx.partition(network, trainable(network, BPTT()))
    return jax.grad(loss)(chosen, rest)


# 1. windowed(K) = whole = stepwise


@every_model
def test_windows_of_any_length_equal_the_stepwise_reference(name):
    layer, _, trajectory, signals = recorded(name)
    for window in (1, 2, 7, TIME - 1, TIME + 9, None):
        found = windowed_gradient(layer.neuron, trajectory, signals, window)
        assert difference(found, reference(name)) < EXACT, window


@every_model
def test_float32_agrees_to_its_rounding(name):
    layer, _, trajectory, signals = recorded(name, jnp.float32)
    expected = reference(name, jnp.float32)
    for window in (1, 7, None):
        assert difference(windowed_gradient(layer.neuron, trajectory, signals, window), expected) < 1e-4


@every_model
def test_unrolling_over_windows_with_a_carry_equals_the_stepwise_reference(name):
    layer, outputs, trajectory, signals = recorded(name)
    neuron, synapses, x = layer.neuron, layer.synapses(), inputs()
    constants, rest = eqx.partition(neuron, eqx.is_inexact_array)
    expected = reference(name)
    total = expected.constants, Synapses(*split_presynaptic(expected.synapses, N_IN))

    def pair(constants, synapses, x, carry, signal):
        outputs, carry = unroll(eqx.combine(constants, rest), synapses, x, carry)
        products = jax.tree.map(lambda s, o: jnp.sum(s * o), signal, outputs)
        return sum(jax.tree.leaves(products)), (outputs, carry)

    step = jax.jit(jax.grad(pair, argnums=(0, 1), has_aux=True))
    vectors = stepwise_vectors(neuron, trajectory)
    for lengths in ((1, 7, 15), (1,) * TIME):
        carry, t, summed = with_traces(neuron, synapses, layer.start(BATCH)), 0, jax.tree.map(jnp.zeros_like, total)
        for length in lengths:
            part = slice(t, t + length)
            cut = jax.tree.map(lambda s, part=part: s[part], signals)
            found, (shown, carry) = step(constants, synapses, x[part], carry, cut)
            assert difference(shown, jax.tree.map(lambda o, part=part: o[part], outputs)) < EXACT
            summed = jax.tree.map(jnp.add, summed, found)
            t += length
        assert difference(summed, total) < EXACT, lengths
        assert difference(dense_traces(neuron, carry.traces, N), vectors.synapses) < EXACT, lengths
        if jax.tree.leaves(vectors.constants):
            assert difference(carry.traces.constants, vectors.constants) < EXACT, lengths


def stepwise_vectors(neuron, trajectory):
    vectors = dense_zero_traces(neuron, trajectory.state, trajectory.presynaptic.shape[-1])

    def step(carry, inputs):
        state, vectors, _ = eligibility_step(neuron, *carry, *inputs)
        return (state, vectors), None

    steps = (trajectory.presynaptic, trajectory.currents, trajectory.z_prev)
    return jax.lax.scan(step, (trajectory.state, vectors), steps)[0][1]


# 2. e-prop = autodiff of the network with recurrent signals detached


@every_model
def test_eprop_is_autodiff_with_recurrent_signals_detached(name):
    network, x, target = make(name), inputs(), targets()
    expected = independent_network(network, x, target, cut=True)
    check_alive(network(x, BPTT()).z[0], expected)
    assert difference(gradient(network, "eprop1:symmetric", x, target), expected) < EXACT


@pytest.mark.parametrize("name", ["lif", "alif", "lstm"])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_backward_pass_in_chunks_is_the_same_whatever_their_length(name, steps, monkeypatch):
    network, x, target = make(name), inputs(), targets()
    assert TIME % 3 and TIME > 6  # several whole chunks, and a rest
    monkeypatch.setattr("eprop.eligibility._unroll._chunk", lambda time, batch, columns: steps)
    expected = independent_network(network, x, target, cut=True)
    assert difference(gradient(network, "eprop1:symmetric", x, target), expected) < EXACT


# 3. with the total derivative as learning signal: BPTT = RTRL


@every_model
def test_bptt_is_autodiff_of_an_independent_network_and_rtrl_equals_it(name):
    network, x, target = make(name), inputs(), targets()
    expected = independent_network(network, x, target, cut=False)
    check_alive(network(x, BPTT()).z[0], expected)
    for rule in ("bptt", "rtrl", f"truncated_bptt:{TIME}"):
        assert difference(gradient(network, rule, x, target), expected) < EXACT, rule
    for rule in ("eprop1:symmetric", "truncated_bptt:4"):
        assert difference(gradient(network, rule, x, target), expected) > 1e-3, rule


@every_model
def test_traces_times_total_learning_signals_are_bptt(name):
    network, x, target = make(name), inputs(), targets()
    layer = network.layers[0]
    neuron, synapses, start = layer.neuron, layer.synapses(), layer.start(BATCH)
    constants, rest = eqx.partition(neuron, eqx.is_inexact_array)

    def loss(outputs):
        return loss_of(readout_output(outputs) @ network.readout.weight, recurrent_output(outputs), target)

    def bptt(constants, synapses):
        return loss(unroll_exact(eqx.combine(constants, rest), synapses, x, start)[0])

    expected = jax.grad(bptt, argnums=(0, 1))(constants, synapses)
    value, signals = total_learning_signals(neuron, synapses, x, start, loss)
    assert float(value) == pytest.approx(float(bptt(constants, synapses)), rel=1e-12)
    outputs, trajectory = record(neuron, synapses, x, start)
    check_alive(recurrent_output(outputs), expected)
    for engine in (windowed_gradient, stepwise_gradient):
        found = engine(neuron, trajectory, signals)
        pieces = Synapses(*split_presynaptic(found.synapses, N_IN))
        assert difference((found.constants, pieces), expected) < EXACT


@pytest.mark.parametrize("name", SMOOTH)
def test_bptt_of_smooth_models_equals_finite_differences(name):
    network, x, target = make(name), inputs(9), targets(9)
    exact = gradient(network, "bptt", x, target)
    chosen, rest = eqx.partition(network, trainable(network, BPTT()))
    flat, unravel = jax.flatten_util.ravel_pytree(chosen)

    def loss(flat):
        result = eqx.combine(unravel(flat), rest)(x, BPTT())
        return loss_of(result.y, result.z[0], target)

    direction = jax.random.normal(jax.random.key(8), (3, flat.size), flat.dtype)
    for d in direction:
        h = 1e-5
        slope = (loss(flat + h * d) - loss(flat - h * d)) / (2 * h)
        assert float(jax.flatten_util.ravel_pytree(exact)[0] @ d) == pytest.approx(float(slope), rel=1e-6)


# 4. e-prop 1 = BPTT where nothing is cut


@pytest.mark.parametrize("name", SMOOTH)
def test_without_recurrent_weights_and_reset_eprop1_is_bptt(name):
    network = make(name, mask_rec=jnp.zeros((N, N), bool))
    x, target = inputs(), targets()
    expected = gradient(network, "bptt", x, target)
    assert float(jnp.abs(expected.layers[0].w_rec).max()) == 0.0
    assert difference(gradient(network, "eprop1:symmetric", x, target), expected) < EXACT


# 6. at T = 1 every rule is BPTT


@every_model
def test_at_one_step_every_rule_is_bptt_for_every_parameter(name):
    network, x, target = make(name), inputs(1), targets(1)
    expected = gradient(network, "bptt", x, target)
    layer = expected.layers[0]
    alive = np.abs(np.asarray(layer.w_in)).max((0, 2))  # by current
    silent = {
        "lstm": {2},
        "lstm with filter": {2},
    }.get(name, set())
    assert {q for q, a in enumerate(alive) if a == 0} == silent  # a forget gate has nothing to forget at t = 1
    assert float(jnp.abs(expected.readout.weight).max()) > 0 or network.layers[0].neuron.spiking
    assert float(jnp.abs(expected.readout.bias).max()) > 0
    for rule in ("eprop1:symmetric", "rtrl", "truncated_bptt:1"):
        assert difference(gradient(network, rule, x, target), expected) < EXACT, rule


# 7. laws


@every_model
def test_the_gradient_is_linear_in_the_learning_signal(name):
    layer, _, trajectory, one = recorded(name)
    other = jax.tree.map(lambda s: jnp.cos(3.0 * s), one)
    mix = jax.tree.map(lambda a, b: 2.0 * a - 0.5 * b, one, other)
    of = lambda s: windowed_gradient(layer.neuron, trajectory, s)  # noqa: E731
    expected = jax.tree.map(lambda a, b: 2.0 * a - 0.5 * b, of(one), of(other))
    assert difference(of(mix), expected) < EXACT


@every_model
def test_what_follows_a_learning_signal_does_not_matter(name):
    layer, x = make(name).layers[0], inputs()
    t = 11

    def up_to_t(x):
        outputs, trajectory = record(layer.neuron, layer.synapses(), x, layer.start(BATCH))
        signals = jax.tree.map(lambda o: jnp.ones_like(o).at[t + 1 :].set(0.0), outputs)
        return windowed_gradient(layer.neuron, trajectory, signals, 5)

    assert difference(up_to_t(x.at[t + 1 :].add(1.0)), up_to_t(x)) < EXACT


@every_model
def test_a_batch_is_the_sum_of_its_samples_and_jit_changes_nothing(name):
    network, x = make(name), inputs()

    def of(x, target):
        chosen, rest = eqx.partition(network, trainable(network, BPTT()))
        model = lambda c: eqx.combine(c, rest)(x, make_rule("eprop1"))  # noqa: E731
        return jax.grad(lambda c: 0.5 * jnp.sum((model(c).y - target) ** 2))(chosen)

    together = of(x, targets())
    alone = [of(x[:, b : b + 1], targets()[:, b : b + 1]) for b in range(BATCH)]
    assert difference(jax.tree.map(lambda *g: sum(g), *alone), together) < EXACT
    assert difference(jax.jit(of)(x, targets()), together) < EXACT


@every_model
def test_neurons_can_be_renumbered(name):
    network, x, target = make(name), inputs(), targets()
    order = jnp.array([3, 0, 5, 1, 4, 2])
    per_neuron = lambda a: a[order] if eqx.is_inexact_array(a) and a.shape == (N,) else a  # noqa: E731

    def renumber(tree):
        layer = tree.layers[0]
        layer = eqx.tree_at(
            lambda m: (m.w_in, m.w_rec, m.bias),
            layer,
            (layer.w_in[..., order], layer.w_rec[order][..., order], layer.bias[..., order]),
        )
        layer = eqx.tree_at(lambda m: m.neuron, layer, jax.tree.map(per_neuron, layer.neuron))
        return eqx.tree_at(lambda n: (n.layers, n.readout.weight), tree, ((layer,), tree.readout.weight[order]))

    expected = renumber(gradient(network, "eprop1:symmetric", x, target))
    assert difference(gradient(renumber(network), "eprop1:symmetric", x, target), expected) < EXACT


@pytest.mark.parametrize(("name", "arrays"), [("lif", 1), ("alif", 1), ("lstm", 6)])
def test_a_step_stores_few_arrays_and_no_constants(name, arrays):
    neuron = {"lif": LIF(n_refractory=5), "alif": ALIF(n_refractory=5), "lstm": LSTM()}[name]
    state, z = neuron.init((2, 3)), jnp.zeros((2, 3))
    step, _ = linearised_step(neuron, state, z, neuron.num_currents)
    stored = step(state, jnp.ones((2, neuron.num_currents, 3)), z)[2]
    assert [x.shape for x in stored] == arrays * [(2, 3)]
