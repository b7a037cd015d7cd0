"""Neurons on a grid: what the grid is, unbiased rounding, gradients that reach the float engine's as bits grow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eprop import ALIF, GRU, LIF, LSTM, EProp1, Filtered, InvalidSetting, Network, Readout, Recurrent
from eprop.chips import Quantised, quantise, unit_update
from eprop.chips._grid import unit

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
    for _ in range(100):  # each step adds 0.3 of a unit and rounds
        before = state.neuron.v
        state, _ = neuron.step(state, (jnp.full((10, 1000), 0.3),), jnp.zeros((10, 1000)))
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
        import equinox as eqx

        out = eqx.tree_at(lambda n: n.layers[0].w_in, network, w)(inputs, EProp1("symmetric"))
        return (out.y**2).sum(), out.z[0]

    g, z = jax.jit(jax.grad(loss, has_aux=True))(network.layers[0].w_in)
    return np.asarray(g), np.asarray(z)


slow = pytest.mark.slow
MODELS = [
    pytest.param(LSTM(), id="lstm"), pytest.param(ALIF(v_th=0.6), id="alif"),
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
