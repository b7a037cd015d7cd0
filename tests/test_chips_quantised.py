"""Neurons, traces, signals and weights on a grid: unbiased rounding, gradients that reach the float engine's."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eprop import (
    ALIF,
    GRU,
    LIF,
    LSTM,
    EProp1,
    Filtered,
    InvalidSetting,
    Learner,
    LearnerState,
    Network,
    Readout,
    Recurrent,
    partition,
    value_and_grad,
)
from eprop.chips import (
    Grid,
    GridUpdates,
    Quantised,
    QuantisedEProp1,
    measure_spans,
    on_grids,
    quantise,
    unit_update,
    weight_spans,
)
from eprop.chips._grid import unit
from models import TwoByTwo

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def test_the_grid_is_a_power_of_two_that_spans_the_range():
    assert unit(8, 1.0) == 2.0**-7 and unit(8, 1.1) == 2.0**-6 and unit(3, 0.9) == 0.25
    x = quantise(jnp.linspace(-2.0, 2.0, 1001), bits=5, range=1.0)
    assert sorted(set(x.tolist())) == [n / 16 for n in range(-16, 16)]


@pytest.mark.parametrize("value", [0.3, -0.3, 0.0625, -1.97])
def test_stochastic_rounding_is_unbiased(value):
    """Of a million numbers, each with a draw of its own: the mean within 4 standard errors; neighbours independent."""
    x = np.asarray(quantise(jnp.full((10**6,), value), bits=8, range=8.0, key=jax.random.key(0)))
    spread = x.std() / 1000
    assert abs(x.mean() - value) <= 4 * spread + 1e-9
    if spread:
        assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 4e-3


def test_a_neurons_own_rounding_is_unbiased_over_neurons_and_steps():
    neuron = Quantised(LIF(tau_m=1e9, v_th=100.0), bits=8, spans=128.0, rounding="stochastic")
    state, total = neuron.init((10, 1000)), []
    step = jax.jit(lambda state: neuron.step(state, (jnp.full((10, 1000), 0.3),), jnp.zeros((10, 1000)))[0])
    for _ in range(100):  # each step adds 0.3 of a unit and rounds
        before = state.neuron.v
        state = step(state)
        total.append(np.asarray(state.neuron.v - before))
    steps = np.array(total)
    assert set(np.unique(steps)) == {0.0, 1.0}
    assert abs(steps.mean() - 0.3) < 4 * np.sqrt(0.21 / steps.size)
    assert abs(np.corrcoef(steps[0].ravel()[1:], steps[0].ravel()[:-1])[0, 1]) < 0.04
    assert abs(np.corrcoef(steps[1:].ravel(), steps[:-1].ravel())[0, 1]) < 0.004


def test_updates_by_units_are_the_update_in_the_mean():
    w, update = jnp.zeros((10**6,)), jnp.full((10**6,), -0.2 / 64)
    moved = np.asarray(unit_update(w, update, bits=7, range=1.0, key=jax.random.key(1)))
    assert set(np.unique(moved)) == {0.0, -1 / 64}
    assert abs(moved.mean() + 0.2 / 64) < 4 * moved.std() / 1000
    top = unit_update(jnp.full((3,), 63 / 64), jnp.ones((3,)), bits=7, range=1.0, key=jax.random.key(1))
    assert top.tolist() == [63 / 64] * 3


def gradient(neuron, dtype=jnp.float64):
    key = jax.random.key(3)
    layer = Recurrent(Filtered(neuron, tau_out=20.0), n_in=4, n=12, key=key, dtype=dtype)
    network = Network((layer,), Readout(12, 2, key=key, dtype=dtype))
    inputs = (jax.random.uniform(key, (60, 2, 4)) < 0.3).astype(dtype)

    def loss(w):
        out = eqx.tree_at(lambda n: n.layers[0].w_in, network, w)(inputs, EProp1("symmetric"))
        return (out.y**2).sum(), out.z[0]

    g, z = jax.jit(jax.grad(loss, has_aux=True))(network.layers[0].w_in)
    return np.asarray(g), np.asarray(z)


slow = pytest.mark.slow
MODELS = [
    pytest.param(LSTM(), id="lstm", marks=slow), pytest.param(ALIF(v_th=0.6), id="alif", marks=slow),
    pytest.param(GRU(), id="gru", marks=slow), pytest.param(LIF(v_th=0.6), id="lif", marks=slow),
]  # fmt: skip


@pytest.mark.parametrize("neuron", MODELS)
def test_with_many_bits_the_gradient_is_the_float_one(neuron):
    exact, z = gradient(neuron)
    assert np.abs(exact).max() > 0 and z.any()
    fine, _ = gradient(Quantised(neuron, bits=32, spans=64.0))  # 60 steps: an ALIF neuron's b stays below
    assert np.abs(fine - exact).max() / np.abs(exact).max() < 1e-6


@slow
def test_the_error_halves_with_each_bit():
    """A smooth model: over 8 more bits the error falls by 2^8, give or take a factor of 4."""
    exact, _ = gradient(LSTM())
    error = lambda bits: np.abs(gradient(Quantised(LSTM(), bits=bits, spans=4.0))[0] - exact).max()  # noqa: E731
    few, many = error(8), error(16)
    assert 64 < few / many < 1024


def test_the_same_seed_gives_the_same_bits_and_another_gives_others():
    def run(seed):
        neuron = Quantised(LSTM(), bits=6, spans=4.0, rounding="stochastic", seed=seed)
        state = neuron.init((2, 5))
        for _ in range(10):
            state, _ = neuron.step(state, (jnp.full((2, 5), 0.3),) * 4, jnp.zeros((2, 5)))
        return np.asarray(state.neuron.c)

    assert np.array_equal(run(1), run(1)) and not np.array_equal(run(1), run(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quantised(LIF(), bits=1), "bits = 1: must be an integer from 2 to 32"),
        (lambda: Quantised(LIF(), bits=33), "bits = 33"),
        (lambda: Quantised(ALIF(), bits=(8, 8, 8)), "ALIF has 2 state components"),
        (lambda: Quantised(LIF(), spans=0.0), "range = 0.0: must be above 0"),
        (lambda: Quantised(LIF(), rounding="up"), "rounding = 'up': must be one of nearest, stochastic"),
    ],
)
def test_bad_settings_are_refused_by_name(make, message):
    with pytest.raises(InvalidSetting, match=message):
        make()


# traces and learning signals


def loss(y):
    return (y**2).sum()


def network(neuron, bias=True, trainable=()):
    """A small network with a bias, and inputs that make it spike."""
    key = jax.random.key(3)
    layer = Recurrent(neuron, n_in=4, n=8, key=key, dtype=jnp.float64, bias=bias, trainable=trainable)
    inputs = (jax.random.uniform(key, (40, 2, 4)) < 0.4).astype(jnp.float64)
    return Network((layer,), Readout(8, 2, key=key, dtype=jnp.float64)), inputs


@eqx.filter_jit
def gradient_of(network, inputs, rule):
    return value_and_grad(lambda n: loss(n(inputs, rule).y), rule)(network)[1]


def relative(gradient, exact):
    """The largest error over arrays, each relative to the array's norm."""
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(exact), strict=True)
    return max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in pairs)


def errors(neuron, all_bits, trainable=(), state=True):
    """Errors of the gradient, against the engine's, with everything on grids of so many bits."""
    made, inputs = network(neuron, trainable=trainable)
    exact = gradient_of(made, inputs, EProp1("random"))
    spans = measure_spans(made, inputs, loss, "random")
    found = []
    for bits in jnp.asarray(all_bits):
        grids = {"traces": Grid(bits, spans.traces), "signals": Grid(bits, spans.signals)}
        quantised = Quantised(made.layers[0].neuron, bits=bits, spans=spans.state) if state else made.layers[0].neuron
        other = eqx.tree_at(lambda n: n.layers[0].neuron, made, quantised)
        found.append(relative(gradient_of(other, inputs, QuantisedEProp1("random", **grids)), exact))
    return found


@pytest.mark.parametrize(
    ("neuron", "state"),
    [
        pytest.param(Filtered(LIF(v_th=0.6), 20.0), False, id="lif"),
        pytest.param(Filtered(TwoByTwo(), 5.0), True, id="user's", marks=slow),
        pytest.param(Filtered(ALIF(v_th=0.6, tau_a=30.0), 20.0), False, id="alif", marks=slow),
        pytest.param(LSTM(), True, id="lstm", marks=slow),
    ],
)
def test_with_each_bit_the_gradients_error_halves_down_to_nothing(neuron, state):
    """Over 8 bits by 2^8, give or take a factor of 4. `state`: of smooth models; spikes that rounding moves jump."""
    few, many, all_of_them = errors(neuron, (12, 20, 32), state=state)
    assert 64 < few / many < 1024 and all_of_them < 1e-6


@slow
def test_constants_learn_on_grids_too():
    neuron = Filtered(ALIF(v_th=0.6, tau_a=30.0), 20.0)
    assert errors(neuron, (32,), trainable=("tau_m", "beta"), state=False)[0] < 1e-6


def test_stochastic_traces_are_unbiased_and_depend_on_seed_and_data_alone():
    made, inputs = network(LSTM())
    spans = measure_spans(made, inputs, loss)
    grids = {"traces": Grid(10, spans.traces), "signals": Grid(10, spans.signals), "rounding": "stochastic"}
    exact = np.asarray(gradient_of(made, inputs, EProp1()).layers[0].w_in)

    def drawn(seed):
        return np.asarray(gradient_of(made, inputs, QuantisedEProp1(seed=jnp.uint32(seed), **grids)).layers[0].w_in)

    assert np.array_equal(drawn(1), drawn(1)) and not np.array_equal(drawn(1), drawn(2))
    found = np.stack([drawn(seed) for seed in range(8)])
    spread = found.std(0, ddof=1) / np.sqrt(8)
    assert np.abs((found.mean(0) - exact) / spread).mean() < 1.5  # 0.9 where nothing is biased


def test_a_decay_by_shifts_is_one_minus_a_power_of_two():
    neuron = Quantised(Filtered(LIF(tau_m=20.0), tau_out=9.0), bits=32, spans=64.0, decay="shift")
    state = neuron.init((1, 1), jnp.float64)
    v = []
    for current in (0.4, 0.0, 0.0):
        state, _ = neuron.step(state, (jnp.full((1, 1), current),), jnp.zeros((1, 1)))
        v.append(float(state.neuron.neuron.v[0, 0]))
    assert v[1] / v[0] == pytest.approx(15 / 16) and v[2] / v[1] == pytest.approx(15 / 16)  # exp(-1/20) = 0.951
    slow_one = state._replace(neuron=state.neuron._replace(z_bar=jnp.ones((1, 1))))
    _, (_, z_bar) = neuron.step(slow_one, (jnp.zeros((1, 1)),), jnp.zeros((1, 1)))
    assert float(z_bar[0, 0]) == pytest.approx(7 / 8)  # exp(-1/9) = 0.895


# updates


def test_collected_updates_lose_nothing_and_saturate():
    updates = GridUpdates(optax.sgd(1.0), bits=4, spans=1.0)
    w, change = jnp.array([0.25, 0.8]), -jnp.array([0.03, 0.09])
    state = updates.init(w)
    for _ in range(10):
        step, state = updates.update(change, state, w)
        w = w + step
        assert np.allclose(w * 8, np.round(w * 8))
    assert w.tolist() == [0.5, 0.875] and float(w[0] + state.rest[0]) == pytest.approx(0.55)


@pytest.mark.parametrize("form", [pytest.param("collected", marks=slow), "units"])
def test_training_stays_on_the_grids_and_goes_on_to_the_same_bits(form):
    """A Learner with everything on grids; state, weights and draws of an interrupted run are the unbroken one's."""
    made, inputs = network(Filtered(LIF(v_th=0.6), 20.0), bias=False)
    spans = measure_spans(made, inputs, loss, "random")
    grids = {"traces": Grid(6, spans.traces), "signals": Grid(6, spans.signals)}
    neuron = Quantised(made.layers[0].neuron, bits=12, spans=spans.state, rounding="stochastic")
    made = eqx.tree_at(lambda n: n.layers[0].neuron, made, neuron)
    rule = QuantisedEProp1("random", rounding="stochastic", **grids)
    w_spans = weight_spans(partition(made, rule)[0])
    made = eqx.combine(on_grids(partition(made, rule)[0], 6, w_spans), partition(made, rule)[1])
    updates = GridUpdates(optax.adam(0.02), 6, w_spans, form, "stochastic", seed=3)
    learner = Learner(rule, updates, lambda y, target, mask: ((y - target) ** 2).sum())
    step = eqx.filter_jit(lambda s: learner.step(s, inputs, jnp.ones((40, 2, 2)), jnp.ones((40, 2), bool))[0])

    def run(state, steps):
        for _ in range(steps):
            state = step(state)
        return state

    begin = learner.init(made, batch=None)
    unbroken = run(begin, 4)
    arrays, static = eqx.partition(run(begin, 2), eqx.is_array)
    arrays = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), arrays)  # as from a file
    resumed: LearnerState = run(eqx.combine(arrays, static), 2)
    w, again = unbroken.network.layers[0].w_in, resumed.network.layers[0].w_in
    scaled = np.asarray(w) / unit(6, w_spans.layers[0].w_in)
    assert np.array_equal(w, again) and np.array_equal(scaled, np.round(scaled))
    assert not np.array_equal(w, made.layers[0].w_in)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quantised(LSTM(), decay="shift"), "LSTM has no time constant whose decay could be a shift"),
        (lambda: Quantised(Filtered(LIF(), 20.0, frame=2)), "frame = 2: Filtered with longer frames"),
        (lambda: Quantised(LIF(), bits=jnp.array(33)), "bits = 33: must be an integer from 2 to 32"),
        (lambda: Quantised(LIF(), bits=jnp.array(8.0)), "bits: an array of bits must hold one integer"),
        (lambda: QuantisedEProp1(traces=Grid(1, 1.0), signals=Grid(8, 1.0)), "traces.bits = 1"),
        (lambda: QuantisedEProp1(traces=Grid(8, 1.0), signals=Grid(8, -1.0)), "range = -1.0: must be above 0"),
        (lambda: asked(Grid(8, (1.0, 2.0, 3.0))), "traces.span = .*: give one number, or 2, one a component"),
        (lambda: asked(Grid(8, 1.0), layers=2), "trains one recurrent layer, and this network has 2"),
        (lambda: into_inputs(), "forms no gradient into a layer's inputs"),
        (lambda: GridUpdates(optax.sgd(0.1), 8, 1.0, form="lost"), "form = 'lost': must be one of collected, units"),
        (lambda: GridUpdates(optax.sgd(0.1), 8, 0.0), "range = 0.0: must be above 0"),
    ],
)
def test_bad_grids_are_refused_by_name(make, message):
    with pytest.raises(InvalidSetting, match=message):
        make()


def asked(traces, layers=1):
    made, inputs = network(Filtered(LIF(), 20.0))
    if layers == 2:
        layer = Recurrent(Filtered(LIF(), 20.0), n_in=8, n=8, key=jax.random.key(0), dtype=jnp.float64)
        made = Network((*made.layers, layer), made.readout)
    return made(inputs, QuantisedEProp1(traces=traces, signals=Grid(8, 1.0)))


def into_inputs():
    made, inputs = network(Filtered(LIF(), 20.0))
    rule = QuantisedEProp1(traces=Grid(8, 1.0), signals=Grid(8, 1.0))
    return jax.grad(lambda x: loss(made(x, rule).y))(inputs)
