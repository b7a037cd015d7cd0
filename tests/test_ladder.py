"""What holds the library together, for every neuron model and weight (the model table is in `models.py`)."""

import functools

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from eprop import ALIF, BPTT, LIF, LSTM, EProp1, make_rule, trainable, value_and_grad
from eprop.eligibility import _pullbacks as pullbacks
from eprop.eligibility import (
    dense_vectors,
    record,
    settle,
    split_presynaptic,
    stepwise,
    stepwise_gradient,
    total_learning_signals,
    unroll,
    with_traces,
)
from eprop.neurons import readout_output, recurrent_output, traced
from models import BATCH, MODELS, SMOOTH, TIME, N, check_alive, difference, inputs, make, targets

pytestmark = pytest.mark.usefixtures("compiled_quickly")

EXACT = 1e-10
CORE = ("alif", "lstm")
each = lambda name: name if name in CORE else pytest.param(name, marks=pytest.mark.slow)  # noqa: E731
every_model = pytest.mark.parametrize("name", [each(name) for name in MODELS])
"""All models; `make test` has the core alone, and all of them on the rung that holds each model's traces."""


def loss_of(y, z, target):
    return 0.5 * jnp.sum((y - target) ** 2) + 3.0 * jnp.sum((z.mean((0, 1)) - 0.1) ** 2)


def gradient(network, rule, x, target):
    """The rule's gradient of a loss on outputs and on firing rates, for all that is trained."""
    return compiled_gradient(network, make_rule(rule), x, target)


def gradient_anew(network, rule, x, target):
    """The same, compiled anew: what a test has changed in the engine is seen."""
    return eqx.filter_jit(lambda *a: plain_gradient(*a))(network, make_rule(rule), x, target)


def plain_gradient(network, rule, x, target):
    chosen, rest = eqx.partition(network, trainable(network, BPTT()))

    def loss(chosen):
        result = eqx.combine(chosen, rest)(x, rule)
        return loss_of(result.y, result.z[0], target)

    return jax.grad(loss)(chosen)


compiled_gradient = eqx.filter_jit(plain_gradient)


@functools.cache
def recorded(name, dtype=jnp.float64):
    """A layer that ran, what it left behind, and any learning signals."""
    layer = make(name, dtype).layers[0]
    run = eqx.filter_jit(lambda x: record(layer.neuron, layer.synapses(), x, layer.start(BATCH)))
    outputs, trajectory = run(inputs(dtype=dtype))
    keys = iter(jax.random.split(jax.random.key(5), 4))
    signals = jax.tree.map(lambda o: jax.random.normal(next(keys), o.shape, o.dtype), outputs)
    return layer, outputs, trajectory, signals


@functools.cache
def reference(name, dtype=jnp.float64):
    """The gradient by the paper's own loops."""
    layer, outputs, trajectory, signals = recorded(name, dtype)
    found = eqx.filter_jit(stepwise_gradient)(layer.neuron, trajectory, signals)
    check_alive(recurrent_output(outputs), found)
    return found


@eqx.filter_jit
def independent_network(network, x, target, cut, forget=False):
    """The same network and loss written as one plain scan.

    `cut`: recurrent signals are detached; `forget`: each step's state is, too.
    """
    layer = network.layers[0]

    def loss(chosen, rest):
        model = eqx.combine(chosen, rest)
        layer, synapses = model.layers[0], model.layers[0].synapses()

        def step(carry, x_t):
            state, z = jax.lax.stop_gradient(carry) if forget else carry
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


# 1. windows of any length = whole = stepwise


@functools.cache
def window_of(name, dtype=jnp.float64):
    """A window's gradient over constants and synapses, given learning signals, and the last carry."""
    layer = make(name, dtype).layers[0]
    constants, rest = eqx.partition(layer.neuron, eqx.is_inexact_array)

    @jax.jit
    def one(x, carry, signals):
        of = lambda c, s: unroll(eqx.combine(c, rest), s, x, carry)  # noqa: E731
        (_, _, last), pullback = jax.vjp(of, constants, layer.synapses())
        nothing = lambda a: np.zeros(a.shape, jax.dtypes.float0) if a.dtype == jnp.int32 else jnp.zeros_like(a)  # noqa: E731
        return pullback((signals, None, jax.tree.map(nothing, last))), last

    return one


def windowed_gradient(name, x, signals, lengths=None, dtype=jnp.float64):
    """`sum_t L e` over constants and synapses by the engine, window after window."""
    layer, one = make(name, dtype).layers[0], window_of(name, dtype)
    carry, t, total = layer.start(x.shape[1], traces=lengths is not None), 0, None
    for length in (x.shape[0],) if lengths is None else lengths:
        part = slice(t, t + length)
        found, carry = one(x[part], carry, jax.tree.map(lambda s, part=part: s[part], signals))
        carry = carry._replace(traces=settle(layer.neuron, carry.traces))
        total = found if total is None else jax.tree.map(jnp.add, total, found)
        t += length
    return total


@every_model
def test_windows_of_any_length_equal_the_stepwise_reference(name):
    layer, _, _, signals = recorded(name)
    synapses, constants = reference(name)
    expected = constants, split_presynaptic(synapses, layer.synapses())
    for lengths in (None, (1, 1, 7, 7, 7)):
        assert difference(windowed_gradient(name, inputs(), signals, lengths), expected) < EXACT, lengths


@every_model
def test_float32_agrees_to_its_rounding(name):
    layer, _, _, signals = recorded(name, jnp.float32)
    synapses, constants = reference(name, jnp.float32)
    expected = constants, split_presynaptic(synapses, layer.synapses())
    found = windowed_gradient(name, inputs(dtype=jnp.float32), signals, dtype=jnp.float32)
    assert difference(found, expected) < 1e-4


@every_model
@pytest.mark.parametrize("recurrence", ["cut", "kept"])
@pytest.mark.parametrize("carried", [False, True], ids=["alone", "carried"])
def test_the_unroll_is_its_stepwise_twin_in_all_that_it_returns(name, recurrence, carried):
    """Outputs, readout, carried vectors; gradients over constants, synapses, inputs, first state, `z`, `W_out`, `B`."""
    layer = make(name).layers[0]
    synapses, start = layer.synapses(), layer.start(BATCH)
    constants, rest = eqx.partition(layer.neuron, eqx.is_inexact_array)
    keys = jax.random.split(jax.random.key(7), 2)
    read = tuple(jax.random.normal(key, (N, 2), jnp.float64) for key in keys)
    wave = lambda x, k=1.0: jnp.sum(jnp.cos(k * jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape) * x)  # noqa: E731

    def window_of(engine):
        def loss(constants, synapses, x, floating, z, read, carry):
            carry = carry._replace(state=eqx.combine(floating, carry.state), z=z)
            arguments = (eqx.combine(constants, rest), synapses, x, carry)
            outputs, y, last = engine(*arguments, recurrence=recurrence, read=read)
            waves = [
                wave(leaf, 1.0 + i) for i, leaf in enumerate(jax.tree.leaves((outputs, traced(last.state), last.z)))
            ]
            return sum(waves) + jnp.sum(y**2), (outputs, y, last)

        return jax.jit(jax.grad(loss, argnums=tuple(range(6)), has_aux=True))

    fast, slow = window_of(unroll), window_of(stepwise.unroll)
    carries = start, start
    if carried:
        dense = stepwise.dense_zero_traces(layer.neuron, start.state, synapses.presynaptic)
        carries = with_traces(layer.neuron, synapses, start), start._replace(traces=dense)
    t = 0
    for length in (7, 1) if carried else (TIME,):
        x = inputs()[t : t + length]
        results = [
            of(constants, synapses, x, traced(carry.state), carry.z, read, carry)
            for of, carry in zip((fast, slow), carries, strict=True)
        ]
        (found, (*shown, carry)), (expected, (*expected_shown, expected_carry)) = results
        assert float(jnp.abs(expected[1].w_in).max()) > 0
        assert difference((found, shown), (expected, expected_shown)) < EXACT
        assert difference((carry.state, carry.z), (expected_carry.state, expected_carry.z)) < EXACT
        if carried:
            assert difference(dense_vectors(layer.neuron, carry.traces, N), expected_carry.traces.synapses) < EXACT
        carries, t = (carry, expected_carry), t + length


@pytest.mark.parametrize("name", [each(name) for name in ["lif", "alif", "lstm", "user's"]])
def test_pullbacks_computed_again_are_the_stored_ones(name, monkeypatch):
    """Where a program of JAX cannot be taken apart, the plain way gives the same numbers."""
    network, x, target = make(name), inputs(), targets()
    expected = {rule: gradient(network, rule, x, target) for rule in ("eprop1", "bptt")}
    monkeypatch.setattr(pullbacks, "CUTS", False)
    for rule, stored in expected.items():
        assert difference(gradient_anew(network, rule, x, target), stored) < EXACT


# 2. e-prop = autodiff of the network with recurrent signals detached


@pytest.mark.parametrize("name", MODELS)
def test_eprop_is_autodiff_with_recurrent_signals_detached(name):
    network, x, target = make(name), inputs(), targets()
    expected = independent_network(network, x, target, cut=True)
    check_alive(eqx.filter_jit(network)(x, BPTT()).z[0], expected)
    assert difference(gradient(network, "eprop1:symmetric", x, target), expected) < EXACT


@pytest.mark.parametrize("name", [each(name) for name in ["lif", "alif", "lstm"]])
@pytest.mark.parametrize("rule", ["eprop1:symmetric", "bptt"])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_backward_pass_in_chunks_is_the_same_whatever_their_length(name, rule, steps, monkeypatch):
    network, x, target = make(name), inputs(), targets()
    assert TIME % 3 and TIME > 6  # several whole chunks, and a rest
    monkeypatch.setattr("eprop.eligibility._unroll._chunk", lambda time, batch, columns: steps)
    expected = independent_network(network, x, target, cut=rule != "bptt")
    assert difference(gradient_anew(network, rule, x, target), expected) < EXACT


# 3. with the total derivative as learning signal: BPTT = RTRL


@every_model
def test_bptt_is_autodiff_of_an_independent_network_and_rtrl_equals_it(name):
    network, x, target = make(name), inputs(), targets()
    expected = independent_network(network, x, target, cut=False)
    check_alive(eqx.filter_jit(network)(x, BPTT()).z[0], expected)
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
        return loss(unroll(eqx.combine(constants, rest), synapses, x, start, recurrence="kept")[0])

    expected = jax.jit(jax.grad(bptt, argnums=(0, 1)))(constants, synapses)
    value, signals = jax.jit(lambda x: total_learning_signals(neuron, synapses, x, start, loss))(x)
    _, outputs, trajectory, _ = recorded(name)
    assert float(value) == pytest.approx(float(loss(outputs)), rel=1e-12)
    check_alive(recurrent_output(outputs), expected)
    assert difference(windowed_gradient(name, x, signals), expected) < EXACT
    weights, of_constants = eqx.filter_jit(stepwise_gradient)(neuron, trajectory, signals)
    assert difference((of_constants, split_presynaptic(weights, synapses)), expected) < EXACT


@pytest.mark.parametrize("name", [each(name) for name in SMOOTH])
def test_bptt_of_smooth_models_equals_finite_differences(name):
    network, x, target = make(name), inputs(9), targets(9)
    exact = gradient(network, "bptt", x, target)
    chosen, rest = eqx.partition(network, trainable(network, BPTT()))
    flat, unravel = jax.flatten_util.ravel_pytree(chosen)

    @jax.jit
    def loss(flat):
        result = eqx.combine(unravel(flat), rest)(x, BPTT())
        return loss_of(result.y, result.z[0], target)

    direction = jax.random.normal(jax.random.key(8), (3, flat.size), flat.dtype)
    for d in direction:
        h = 1e-5
        slope = (loss(flat + h * d) - loss(flat - h * d)) / (2 * h)
        assert float(jax.flatten_util.ravel_pytree(exact)[0] @ d) == pytest.approx(float(slope), rel=1e-6)


# 4. e-prop 1 = BPTT where nothing is cut


@pytest.mark.parametrize("name", [each(name) for name in SMOOTH])
def test_without_recurrent_weights_and_reset_eprop1_is_bptt(name):
    network = make(name, mask_rec=jnp.zeros((N, N), bool))
    x, target = inputs(), targets()
    expected = gradient(network, "bptt", x, target)
    assert float(jnp.abs(expected.layers[0].w_rec).max()) == 0.0
    assert difference(gradient(network, "eprop1:symmetric", x, target), expected) < EXACT


# 5. without traces: what a step does at once


@pytest.mark.parametrize(
    "name", [n if n in ("alif", "lstm") else pytest.param(n, marks=pytest.mark.slow) for n in MODELS]
)
def test_immediate_is_autodiff_of_an_independent_network_that_detaches_each_state(name):
    network, x, target = make(name), inputs(), targets()
    expected = independent_network(network, x, target, cut=True, forget=True)
    assert float(jnp.abs(expected.layers[0].w_in).max()) > 0
    assert difference(gradient(network, "immediate", x, target), expected) < EXACT
    if name in ("alif", "lstm"):
        assert difference(gradient(network, "truncated_bptt:1", x, target), expected) < EXACT
        assert difference(gradient(network, "eprop1", x, target), expected) > 1e-2


@pytest.mark.parametrize("feedback", [pytest.param("symmetric", marks=pytest.mark.slow), "random"])
def test_immediate_is_the_same_in_any_windows_and_has_e_prop_1s_feedback(feedback):
    network, x, target, cut = make("alif"), inputs(), targets(), 9
    rule = make_rule(f"immediate:{feedback}")
    assert rule.feedback == make_rule(f"eprop1:{feedback}").feedback
    chosen, rest = eqx.partition(network, trainable(network, BPTT()))

    def loss(chosen, x, target, carry=None):
        result = eqx.combine(chosen, rest)(x, rule, carry)
        return 0.5 * jnp.sum((result.y - target) ** 2), result.carry

    one = jax.jit(jax.grad(loss, has_aux=True))
    whole, _ = one(chosen, x, target)
    first, carry = one(chosen, x[:cut], target[:cut], network.start(BATCH))
    second, _ = one(chosen, x[cut:], target[cut:], carry)
    check_alive(eqx.filter_jit(network)(x, BPTT()).z[0], whole.layers[0].w_in)
    assert difference(jax.tree.map(jnp.add, first, second), whole) < EXACT


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
    for rule in (
        "eprop1:symmetric",
        "immediate",
        "rtrl",
        "truncated_bptt:1",
        "eligibility_only:1",
        "synthetic_gradients:1",
        "eprop3:1",
    ):
        assert difference(gradient(network, rule, x, target), expected) < EXACT, rule


# 7. laws


@every_model
def test_the_gradient_is_linear_in_the_learning_signal(name):
    one = recorded(name)[3]
    other = jax.tree.map(lambda s: jnp.cos(3.0 * s), one)
    mix = jax.tree.map(lambda a, b: 2.0 * a - 0.5 * b, one, other)
    of = lambda s: windowed_gradient(name, inputs(), s)  # noqa: E731
    expected = jax.tree.map(lambda a, b: 2.0 * a - 0.5 * b, of(one), of(other))
    assert difference(of(mix), expected) < EXACT


@every_model
def test_what_follows_a_learning_signal_does_not_matter(name):
    x, t = inputs(), 11
    signals = jax.tree.map(lambda o: jnp.ones_like(o).at[t + 1 :].set(0.0), recorded(name)[1])
    before, after = (windowed_gradient(name, x, signals, (1, 1, 7, 7, 7)) for x in (x, x.at[t + 1 :].add(1.0)))
    assert difference(before, after) < EXACT


@every_model
def test_a_batch_is_the_sum_of_its_samples_and_jit_changes_nothing(name):
    network, x = make(name), inputs()

    def of(x, target):
        loss = lambda n: 0.5 * jnp.sum((n(x, EProp1()).y - target) ** 2)  # noqa: E731
        return value_and_grad(loss, BPTT())(network)[1]

    compiled = jax.jit(of)
    together = compiled(x, targets())
    alone = [compiled(x[:, b : b + 1], targets()[:, b : b + 1]) for b in range(BATCH)]
    assert difference(jax.tree.map(lambda *g: sum(g), *alone), together) < EXACT
    if name in ("alif", "lstm"):  # without a compiler every operation is one of its own: slow
        assert difference(of(x, targets()), together) < EXACT


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
    step, _ = pullbacks.linearised_step(neuron, state, z, neuron.num_currents)
    stored = step(state, jnp.ones((2, neuron.num_currents, 3)), z)[2]
    assert [x.shape for x in stored] == arrays * [(2, 3)]
