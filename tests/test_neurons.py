"""Neuron models against loops of their equations in NumPy; constants and their ranges; what is refused."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eprop import (
    ALIF,
    BPTT,
    ELSTM,
    LIF,
    LRU,
    LSTM,
    RTU,
    STDPALIF,
    STDPLIF,
    AdEx,
    CubaLIF,
    EProp1,
    Filtered,
    InvalidSetting,
    Izhikevich,
    MinGRU,
    Neuron,
    Rate,
    Recurrent,
    keep_in_range,
)
from eprop.errors import require_positive, whole_number
from eprop.neurons import SURROGATES, TIME_CONSTANT, Exponential, FastSigmoid, Gaussian, recurrent_output, require_size
from models import ELEMENTWISE, MODELS, N, difference, inputs, make, targets

pytestmark = pytest.mark.usefixtures("compiled_quickly")

STEPS = 200


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


# each: from currents [time, current] of one neuron, its outputs and states, by the docstring's equations


def stdp(currents, n_ref, beta):
    v, b, last, seen = 0.0, 0.0, -999, []
    for t, (current,) in enumerate(currents):
        since = t - last
        wiped = since == 1 or since < n_ref
        v = (0.0 if wiped else np.exp(-1 / 20.0) * v) + current
        threshold = 0.6 + beta * b
        z = float(v > threshold and since >= n_ref)
        b = np.exp(-1 / 100.0) * b + z
        last = t if z else last
        seen.append((z, v, b))
    return seen


def cuba(currents):
    v, i, z, r, seen = 0.0, 0.0, 0.0, 0, []
    for (current,) in currents:
        i = np.exp(-1 / 4.0) * i + current
        v = np.exp(-1 / 20.0) * v + i - 0.6 * z
        z = float(v > 0.6 and r == 0)
        r = min(max(r + 3 * int(z) - 1, 0), 3)
        seen.append((z, v, i))
    return seen


def izhikevich(currents, a, b, c, d, scale, dt=1.0):
    v, u, seen = -65.0, -65.0 * b, []
    for (current,) in currents:
        if v > 30.0:
            v, u = c, u + d
        for _ in range(2):
            v = v + dt / 2 * (0.04 * v**2 + 5 * v + 140 - u + scale * current)
        u = u + dt * a * (b * v - u)
        seen.append((float(v > 30.0), v, u))
    return seen


def adex(currents, scale):
    v, w, seen = -70.6, 0.0, []
    for (current,) in currents:
        if v > -40.4:
            v, w = -70.6, w + 80.5
        dv = (-30.0 * (v + 70.6) + 30.0 * 2.0 * np.exp((v + 50.4) / 2.0) - w + scale * current) / 281.0
        dw = (4.0 * (v + 70.6) - w) / 144.0
        v, w = v + dv, w + dw
        seen.append((float(v > -40.4), v, w))
    return seen


def lru(currents):
    eigenvalue, h, seen = np.exp(-np.exp(-2.0) + 1j * np.exp(-0.5)), 0j, []
    for re, im in currents:
        h = eigenvalue * h + np.sqrt(1 - abs(eigenvalue) ** 2) * (re + 1j * im)
        seen.append((h.real, h.real, h.imag))
    return seen


def rtu(currents, f, inside):
    r, angle, c1, c2, seen = np.exp(-np.exp(-2.0)), np.exp(-0.5), 0.0, 0.0, []
    for x1, x2 in currents:
        g, p, n = r * np.cos(angle), r * np.sin(angle), np.sqrt(1 - r**2)
        c1, c2 = g * c1 - p * c2 + n * x1, g * c2 + p * c1 + n * x2
        if inside:
            c1, c2 = f(c1), f(c2)
        seen.append((c1 if inside else f(c1), c1, c2))
    return seen


def min_gru(currents):
    h, seen = 0.0, []
    for gate, candidate in currents:
        h = (1 - sigmoid(gate)) * h + sigmoid(gate) * candidate
        seen.append((h, h))
    return seen


def elstm(currents):
    c, seen = 0.0, []
    for f, g, o in currents:
        forget = sigmoid(f + 0.5 * c)
        c = forget * c + (1 - forget) * np.tanh(g - 0.7 * c)
        seen.append((sigmoid(o + 0.9 * c) * c, c))
    return seen


relu = lambda x: max(x, 0.0)  # noqa: E731
SCRIPTS = {
    "stdp-lif": (STDPLIF(n_refractory=3), lambda x: [s[:2] for s in stdp(x, 3, 0.0)]),
    "stdp-lif, one step": (STDPLIF(n_refractory=1), lambda x: [s[:2] for s in stdp(x, 1, 0.0)]),
    "stdp-alif": (STDPALIF(n_refractory=4, tau_a=100.0, beta=0.3), lambda x: stdp(x, 4, 0.3)),
    "cuba-lif": (CubaLIF(tau_syn=4.0, n_refractory=3), cuba),
    "regular spiking": (Izhikevich.regular_spiking(), lambda x: izhikevich(x, 0.02, 0.2, -65, 8, 10.0)),
    "fast spiking": (Izhikevich.fast_spiking(input_scale=7.0), lambda x: izhikevich(x, 0.1, 0.2, -65, 2, 7.0)),
    "bursting": (Izhikevich.bursting(jump="kept"), lambda x: izhikevich(x, 0.02, 0.2, -55, 4, 10.0)),
    "chattering, half steps": (Izhikevich.chattering(dt=0.5), lambda x: izhikevich(x, 0.02, 0.2, -50, 2, 10.0, 0.5)),
    "adex": (AdEx(), lambda x: adex(x, 1000.0)),
    "lru": (LRU(nu=-2.0, theta=-0.5), lru),
    "rtu": (RTU(nu=-2.0, theta=-0.5), lambda x: rtu(x, relu, True)),
    "linear rtu": (RTU(nu=-2.0, theta=-0.5, activation="tanh", recurrence="linear"), lambda x: rtu(x, np.tanh, False)),
    "min-gru": (MinGRU(), min_gru),
    "elstm": (ELSTM(w_f=0.5, w_g=-0.7, w_o=0.9), elstm),
}


def run(neuron, currents):
    """Outputs and states of the model on currents `[time, batch, current, neuron]`: all steps, and the state before."""
    start = neuron.init((currents.shape[1], currents.shape[3]), currents.dtype)

    def step(carry, x):
        state, z = carry
        after, outputs = neuron.step(state, tuple(x[:, q] for q in range(x.shape[1])), z)
        return (after, recurrent_output(outputs)), (outputs, state, after)

    return jax.lax.scan(step, (start, jnp.zeros_like(currents[0, :, 0])), currents)[1]


@functools.cache
def some_currents(k, drive=0.0):
    return drive + 1.2 * jax.random.normal(jax.random.key(11), (STEPS, 2, k, 3), jnp.float64)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_model_is_its_equations_in_numpy(name):
    neuron, script = SCRIPTS[name]
    currents = some_currents(neuron.num_currents, 0.5 * neuron.spiking)
    z, _, states = run(neuron, currents)
    if neuron.spiking:
        assert set(np.unique(z)) == {0.0, 1.0}
        assert 5 < float(z.sum()) < 0.7 * z.size
        assert all(z.sum(0).ravel() >= 1)
    for b in range(2):
        for j in range(3):
            expected = np.array(script(np.asarray(currents[:, b, :, j])))
            found = [z, *jax.tree.leaves(states)][: expected.shape[1]]
            for column, leaf in zip(expected.T, found, strict=True):
                assert difference(leaf[:, b, j], column) < 1e-9


@pytest.mark.parametrize("name", [*SCRIPTS, "lif", "alif", "rate"])
def test_a_step_is_elementwise_and_its_derivative_is_finite(name):
    """The jvp along one neuron of one sample moves that entry alone: state, output, whatever the argument."""
    neuron = SCRIPTS[name][0] if name in SCRIPTS else {"lif": LIF(), "alif": ALIF(), "rate": Rate()}[name]
    k = neuron.num_currents
    state = neuron.init((2, 3), jnp.float64)
    currents = tuple(some_currents(k)[0, :, q] for q in range(k))
    state, z = neuron.step(state, currents, jnp.zeros((2, 3), jnp.float64))
    floating, integer = eqx.partition(state, eqx.is_inexact_array)

    def step(floating, currents, z):
        after, outputs = neuron.step(eqx.combine(floating, integer), currents, z)
        return eqx.filter(after, eqx.is_inexact_array), outputs

    arguments = (floating, currents, z)
    one = jnp.zeros((2, 3), jnp.float64).at[1, 2].set(1.0)
    moved = jax.jvp(step, arguments, jax.tree.map(lambda _: one, arguments))[1]
    for leaf in jax.tree.leaves(moved):
        assert bool(jnp.isfinite(leaf).all())
        assert not leaf.at[1, 2].set(0.0).any()
    assert any(float(leaf[1, 2]) != 0.0 for leaf in jax.tree.leaves(moved))


def test_izhikevich_presets_fire_as_their_names_say():
    def times(neuron, steps=400):
        z, _, _ = run(neuron, jnp.ones((steps, 1, 1, 1), jnp.float64))
        return np.flatnonzero(z[:, 0, 0])

    rates = {name: len(times(getattr(Izhikevich, name)())) for name in ("regular_spiking", "fast_spiking")}
    assert rates["fast_spiking"] > 2 * rates["regular_spiking"]
    gaps = np.diff(times(Izhikevich.regular_spiking()))
    assert gaps[0] < gaps[-1]  # adaptation
    burst = np.diff(times(Izhikevich.bursting()))
    assert burst[0] < 0.3 * burst[-1]  # a burst at the onset, single spikes then
    chatter = np.diff(times(Izhikevich.chattering()))
    assert sum(chatter > 4 * chatter.min()) >= 3  # bursts again and again


@pytest.mark.parametrize("beta", [0.0, 0.4])
def test_a_presynaptic_spike_after_the_neurons_own_weakens_the_synapse_in_stdp_models_alone(beta):
    """One input spike, one spike of the neuron at t = 60, forced by a strong current; e summed over time."""
    n_ref, v_th, gamma = 5, 1.0, 0.3

    def change(neuron, delay):
        """`sum_t dz_t/dI` at the input's step, by autodiff: the eligibility trace, summed."""
        drive = jnp.zeros((STEPS, 1, 1, 1), jnp.float64).at[60].set(1.0001)

        def total(height):
            start = neuron.init((1, 1), jnp.float64)

            def step(carry, x):
                state, z = carry
                state, new = neuron.step(state, (x[:, 0],), jax.lax.stop_gradient(z))
                return (state, new), new

            at = drive.at[60 - delay].add(height)
            return jax.lax.scan(step, (start, jnp.zeros((1, 1), jnp.float64)), at)[1]

        z, slope = jax.jvp(total, (0.0,), (1.0,))
        assert np.flatnonzero(z).tolist() == [60]
        return float(slope.sum())

    constants = {"v_th": v_th, "n_refractory": n_ref} | ({"beta": beta} if beta else {})
    kinds = {"stdp": (STDPALIF if beta else STDPLIF)(**constants), "plain": (ALIF if beta else LIF)(**constants)}
    for delay in (0, 1, 5, 20):  # post after pre: the causal half, the same in both
        expected = gamma / v_th * np.exp(-delay / 20.0)
        if beta == 0:
            assert change(kinds["stdp"], delay) == pytest.approx(expected, rel=1e-3)
        assert change(kinds["stdp"], delay) > 0.1 * expected
    for delay in (-1, -2, -4):  # post before pre, within the refractory period
        assert change(kinds["plain"], delay) == pytest.approx(0.0, abs=1e-12)
        assert change(kinds["stdp"], delay) == pytest.approx(-gamma / v_th, rel=0.5 if beta else 1e-9)
    assert change(kinds["stdp"], -n_ref) == pytest.approx(0.0, abs=1e-2)


def test_the_wiping_is_kept_by_eprop_and_what_it_leaves_out_is_zero():
    """STDP models read nothing from `z_prev`, and no derivative runs through the wiping."""
    neuron = STDPLIF(n_refractory=2)
    zeros = jnp.zeros((1, 1), jnp.float64)
    state, z = neuron.step(neuron.init((1, 1), jnp.float64), (zeros + 1.0,), zeros)
    assert float(z[0, 0]) == 1.0
    of_v = jax.jacobian(lambda v: neuron.step(state._replace(v=v), (zeros + 0.1,), z)[0].v)(state.v)
    assert float(of_v.ravel()[0]) == 0.0
    of_z = jax.jacobian(lambda z: neuron.step(state, (zeros + 0.1,), z)[0].v)(z)
    assert float(of_z.ravel()[0]) == 0.0


@pytest.mark.parametrize("jump", ["detached", "kept"])
@pytest.mark.parametrize("model", [Izhikevich, AdEx])
def test_the_jump_of_adaptation_is_differentiated_where_it_is_kept(model, jump):
    neuron = model(jump=jump)
    zeros = jnp.zeros((1, 1), jnp.float64)
    state = neuron.init((1, 1), jnp.float64)
    state = state._replace(v=zeros + neuron.v_peak - 0.1)

    def adaptation(v):
        return neuron.step(state._replace(v=v), (zeros,), zeros)[0][1].sum()

    slope = float(jax.grad(adaptation)(state.v)[0, 0])
    other = float(
        jax.grad(lambda v: model(jump="detached").step(state._replace(v=v), (zeros,), zeros)[0][1].sum())(state.v)[0, 0]
    )
    height = 0.3 if model is Izhikevich else 0.3 / 20.0  # psi at the peak
    size = 8.0 if model is Izhikevich else 80.5
    expected = 0.0
    if jump == "kept":  # b, or d, times psi; and what the changed u does to itself within the step
        expected = size * height
    assert slope - other == pytest.approx(expected, rel=0.5 if jump == "kept" else 1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_without_recurrent_weights_eprop_is_bptt_to_rounding(name):
    network, x, target = make(name), inputs(), targets()
    assert network.layers[0].w_rec is None

    def gradient(rule):
        of_layer = lambda layer: eqx.tree_at(lambda n: n.layers, network, (layer,))  # noqa: E731
        found = eqx.filter_grad(lambda layer: jnp.sum((of_layer(layer)(x, rule).y - target) ** 2))(network.layers[0])
        return found.w_in, found.bias, [a for a in jax.tree.leaves(found.neuron)]

    expected = gradient(BPTT())
    assert float(jnp.abs(expected[0]).min(initial=1.0, where=expected[0] != 0)) > 0
    assert all(float(jnp.abs(g).max()) > 1e-6 for g in jax.tree.leaves(expected))
    assert difference(gradient(EProp1()), expected) < 1e-10


OBSERVED = {
    "lif": LIF(n_refractory=3),
    "alif": ALIF(beta=0.5, tau_a=30.0),
    "filtered alif": Filtered(ALIF(beta=0.5, tau_a=30.0, n_refractory=2)),
    "stdp-lif": STDPLIF(n_refractory=3),
    "stdp-alif": STDPALIF(beta=0.5, tau_a=30.0, n_refractory=2),
    "cuba-lif": CubaLIF(),
    "izhikevich": Izhikevich(),
    "adex": AdEx(),
}


@pytest.mark.parametrize("name", OBSERVED)
def test_spikes_stand_above_the_observed_threshold_and_silence_at_or_below_it(name):
    neuron = OBSERVED[name]
    outputs, before, after = run(neuron, some_currents(1, 0.5))
    z = recurrent_output(outputs) > 0.5
    seen = neuron.observe(before, after)
    period = getattr(getattr(neuron, "neuron", neuron), "n_refractory", 1)
    fired = np.asarray(z)
    refractory = np.zeros_like(fired)
    for lag in range(1, period):
        refractory[lag:] |= fired[:-lag]
    assert fired.sum() > 20
    assert (seen["v"] > seen["threshold"])[fired].all()
    assert (seen["v"] <= seen["threshold"])[~fired & ~refractory].all()
    if "alif" in name:  # and the threshold of the step after is another one
        late = np.asarray(neuron.observe(after, after)["threshold"])
        assert (np.asarray(seen["v"]) <= late)[fired].any()


# constants


def test_numbers_lists_and_arrays_make_the_same_neuron():
    x = some_currents(1, 0.3)
    expected = run(LIF(tau_m=13.0, n_refractory=5), x)[0]
    for given in (13, np.float32(13), [13.0] * 3, (13, 13, 13), np.full(3, 13), jnp.full(3, 13), np.full(3, 13.0)):
        neuron = LIF(tau_m=given, n_refractory=5.0)  # pyright: ignore[reportArgumentType]
        assert isinstance(neuron.tau_m, float) or eqx.is_inexact_array(neuron.tau_m)
        assert type(neuron.n_refractory) is int
        assert difference(run(neuron, x)[0], expected) == 0.0


def test_unknown_values_pass_unchecked_under_transformations():
    def build(tau):
        return LIF(tau_m=tau, v_th=tau).tau_m.sum()

    tau = jnp.array([5.0, 6.0])
    assert float(jax.jit(build)(-tau)) == -11.0
    assert jax.vmap(lambda t: LIF(tau_m=t).tau_m)(-tau).shape == (2,)
    assert jax.eval_shape(build, tau).shape == ()
    assert LIF(tau_m=jax.ShapeDtypeStruct((3,), jnp.float32)).tau_m.shape == (3,)  # pyright: ignore
    assert LIF(tau_m=None).tau_m is None  # pyright: ignore[reportArgumentType]
    layer = eqx.filter_eval_shape(lambda key: Recurrent(ALIF(), 2, 3, key=key, trainable=("beta",)), jax.random.key(0))
    assert layer.neuron.beta.shape == (3,)
    assert jax.tree.map(lambda x: -x, LIF(tau_m=tau)).tau_m.tolist() == [-5.0, -6.0]
    assert eqx.filter(LIF(tau_m=tau), lambda _: False).tau_m is None
    require_positive(nothing=None, shape=jax.ShapeDtypeStruct((), jnp.float32))


class Own(Neuron):
    """A user's model with a range of its own."""

    ranges = {"tau": TIME_CONSTANT}
    tau: float | jax.Array = 10.0
    dt: float = 2.0

    def init(self, shape, dtype=jnp.float32):
        return jnp.zeros(shape, dtype)

    def step(self, state, currents, z_prev):
        state = jnp.exp(-self.dt / self.tau) * state + currents[0]
        return state, jnp.tanh(state)


def moved(neuron, name, value):
    return eqx.tree_at(lambda n: getattr(n, name), neuron, jnp.asarray(value, jnp.float32))


def test_an_update_out_of_range_is_projected_back():
    alif = ALIF(tau_m=jnp.full(2, 20.0), tau_a=jnp.array(9.0), beta=jnp.zeros(2), v_th=jnp.ones(2), dt=0.5)
    out = alif
    for name, value in (("tau_m", [-3.0, 7.0]), ("tau_a", 0.0), ("beta", [-0.1, 0.2]), ("v_th", [-1.0, 0.5])):
        out = moved(out, name, value)
    kept = jax.jit(keep_in_range)(out)
    assert kept.tau_m.tolist() == pytest.approx([0.05, 7.0])  # a tenth of a step
    assert float(kept.tau_a) == pytest.approx(0.05)
    assert kept.beta.tolist() == pytest.approx([0.0, 0.2])
    assert kept.v_th.tolist() == pytest.approx([0.001, 0.5])
    assert difference(keep_in_range(kept), kept) == 0.0
    assert type(kept)(tau_m=kept.tau_m, tau_a=kept.tau_a, beta=kept.beta, v_th=kept.v_th).dt == 1.0  # a legal neuron


def test_projection_reaches_wrapped_neurons_frames_layers_and_users_own_models():
    inner = moved(ALIF(beta=jnp.zeros(2)), "beta", [-1.0, 1.0])
    filtered = moved(Filtered(inner, tau_out=jnp.array([5.0, 5.0]), frame=4), "tau_out", [-1.0, 5.0])
    kept = keep_in_range(filtered)
    assert kept.neuron.beta.tolist() == [0.0, 1.0]
    assert kept.tau_out.tolist() == pytest.approx([0.4, 5.0])  # a tenth of a frame
    own = keep_in_range({"a": moved(Own(tau=jnp.array([3.0])), "tau", [-3.0]), "w": jnp.array(-1.0)})
    assert own["a"].tau.tolist() == pytest.approx([0.2]) and float(own["w"]) == -1.0
    network = make("alif")
    network = eqx.tree_at(lambda n: n.layers[0].neuron.neuron.beta, network, -jnp.ones(N))
    assert float(keep_in_range(network).layers[0].neuron.neuron.beta.max()) == 0.0


@pytest.mark.parametrize("name", [*MODELS, *ELEMENTWISE])
def test_projection_is_the_identity_in_range(name):
    network = make(name)
    kept = keep_in_range(network)
    assert jax.tree.structure(kept) == jax.tree.structure(network)
    assert all(
        a is b or bool((a == b).all()) for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(network), strict=True)
    )
    neuron = network.layers[0].neuron
    assert keep_in_range(eqx.filter(neuron, lambda _: False)) is not None
    fixed = LIF(tau_m=0.01)
    assert keep_in_range(fixed).tau_m == 0.01


def test_a_trained_constant_at_its_floor_finds_its_way_back():
    at_floor = keep_in_range(moved(LIF(tau_m=jnp.ones(1)), "tau_m", [-9.0]))
    slope = jax.grad(lambda tau: run(moved(LIF(tau_m=jnp.ones(1)), "tau_m", tau), jnp.ones((3, 1, 1, 1)))[2].v.sum())
    assert float(slope(at_floor.tau_m)[0]) > 1e-3


def test_ring_initialisation_lies_on_its_ring_and_is_finite_at_its_edges():
    for make_ring in (LRU.ring, RTU.ring):
        units = make_ring(jax.random.key(0), 4000, r_min=0.5, r_max=0.9, max_phase=1.0)
        radius, angle = np.exp(-np.exp(units.nu)), np.exp(units.theta)
        assert 0.5 <= radius.min() < 0.51 and 0.89 < radius.max() <= 0.9
        assert angle.min() > 0 and 0.99 < angle.max() <= 1.0
        assert np.mean(radius**2) == pytest.approx((0.25 + 0.81) / 2, abs=0.01)  # uniform in area
    whole = LRU.ring(jax.random.key(1), 100_000)
    assert np.isfinite(whole.nu).all() and np.isfinite(whole.theta).all()
    gain = jax.grad(lambda nu: jnp.sqrt(-jnp.expm1(-2 * jnp.exp(nu))).sum())(whole.nu)
    assert np.isfinite(gain).all()


def test_a_layer_refuses_constants_of_other_sizes_by_name():
    for neuron, n in ((LIF(tau_m=jnp.ones(3)), 3), (Filtered(LIF(v_th=jnp.array(1.0)), tau_out=jnp.ones(3)), 3)):
        require_size(neuron, n)
    Recurrent(LIF(tau_m=jnp.ones(3)), 2, 3, key=jax.random.key(0), trainable=("v_th",))


KEY = jax.random.key(0)
REFUSED = {
    r"tau_m\[0\] = -20.0: must be above 0": lambda: LIF(tau_m=jnp.full(8, -20.0)),
    r"tau_m\[2\] = nan: must be finite": lambda: LIF(tau_m=np.array([1.0, 2.0, np.nan])),
    "tau_m = inf: must be finite": lambda: LIF(tau_m=float("inf")),
    "tau_m = True: must be a number": lambda: LIF(tau_m=True),
    "tau_m = array of bool: must be a number": lambda: LIF(tau_m=jnp.ones(3, bool)),
    "tau_m = 'fast': must be a number": lambda: LIF(tau_m="fast"),  # pyright: ignore[reportArgumentType]
    r"tau_m = \[20.0, \[3.0\]\]: must be a number": lambda: LIF(tau_m=[20.0, [3.0]]),  # pyright: ignore
    r"tau_m\[1\] = -2.0: must be above 0": lambda: LIF(tau_m=[20.0, -2.0]),  # pyright: ignore[reportArgumentType]
    r"tau_m: expected a number or an array \[neuron\], got shape \(2, 3\)": lambda: LIF(tau_m=jnp.ones((2, 3))),
    r"beta\[1\] = -0.5: must be 0 or above": lambda: ALIF(beta=jnp.array([0.5, -0.5])),
    "beta = nan: must be finite": lambda: STDPALIF(beta=float("nan")),
    r"tau_out\[\] = 0.0|tau_out = 0.0: must be above 0": lambda: Filtered(LIF(), tau_out=jnp.array(0.0)),
    "tau_syn = -1.0: must be above 0": lambda: CubaLIF(tau_syn=-1.0),
    "tau_w = 0.0: must be above 0": lambda: AdEx(tau_w=0.0),
    "input_scale = 0.0: must be above 0": lambda: Izhikevich(input_scale=0.0),
    r"nu\[0\] = nan": lambda: LRU(nu=jnp.array([jnp.nan])),
    "r_min = 0.9, r_max = 0.5: must be": lambda: LRU.ring(KEY, 3, r_min=0.9, r_max=0.5),
    "max_phase = 0.0: must be above 0": lambda: RTU.ring(KEY, 3, max_phase=0.0),
    "n_refractory = 2.5: must be a whole number": lambda: LIF(n_refractory=2.5),  # pyright: ignore
    "n_refractory = True: must be a whole number": lambda: LIF(n_refractory=True),
    "n_refractory = nan: must be a whole number": lambda: STDPLIF(n_refractory=float("nan")),  # pyright: ignore
    "frame = 1.5: must be a whole number": lambda: Filtered(LIF(), frame=1.5),  # pyright: ignore[reportArgumentType]
    "frame = 0: must be at least 1 step": lambda: Filtered(LIF(), frame=0),
    "dt = 0.5: LIF has steps of 1.0 ms": lambda: Filtered(LIF(), dt=0.5),
    "forget_bias = nan": lambda: LSTM(forget_bias=float("nan")),
    "dampening_factor = 0.0: must be above 0": lambda: Exponential(dampening_factor=0.0),
    "slope = -1.0: must be above 0": lambda: FastSigmoid(slope=-1.0),
    "width = nan: must be finite": lambda: Gaussian(width=float("nan")),
    "tau = -1.0: must be above 0": lambda: Own(tau=-1.0),
    r"tau_m: expected a number or an array \[8\].* got shape \(5,\)": lambda: Recurrent(
        LIF(tau_m=jnp.full(5, 20.0)), 3, 8, key=KEY
    ),
    r"beta: expected a number or an array \[8\]": lambda: Recurrent(
        Filtered(ALIF(beta=jnp.ones(1))), 3, 8, key=KEY, trainable=("beta",)
    ),
    r"x\[1, 0\] = 0: must be above 0": lambda: require_positive(x=np.array([[1, 2], [0, 3]])),
    "x = 3.2: must be a whole number": lambda: whole_number("x", 3.2, 1),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_breaks_a_rule_of_a_constant_is_named(message):
    with pytest.raises(InvalidSetting, match=message):
        REFUSED[message]()


def test_every_surrogate_is_found_by_name():
    assert SURROGATES["exponential"] is Exponential
    above = Exponential(dampening_factor=0.4)(jnp.array([-1.0, 0.0, 5.0]))
    assert above.tolist() == pytest.approx([0.4 * np.exp(-1.0), 0.4, 0.4])
