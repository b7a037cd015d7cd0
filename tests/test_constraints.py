"""Biology's constraints: masks, signs, bounds, frozen parts, populations, rewiring, in gradients and in learning."""

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
    LSTM,
    EProp1,
    Filtered,
    InvalidSetting,
    Learner,
    Network,
    Population,
    Rate,
    Readout,
    Recurrent,
    Rewiring,
    apply_updates,
    make_rule,
    partition,
    random_mask,
    value_and_grad,
)
from eprop.workshop.cli import main
from eprop.workshop.settings import NetworkSettings
from eprop.workshop.training import check_network, load_run
from models import BATCH, N_IN, N_OUT, N, check_alive, difference, inputs, targets

pytestmark = pytest.mark.usefixtures("compiled_quickly")

PARTS = (
    Population("fast", 2, sign="inhibitory", constants={"tau_m": 5.0}),
    Population("slow", N - 2, sign="excitatory", constants={"tau_a": 40.0}),
)


def squared(y, target, mask):
    return 0.5 * jnp.sum(mask[..., None] * (y - target) ** 2)


def constrained(neuron=None, n=PARTS, seed=0, n_in=N_IN, density=0.5, **options):
    """A layer with everything on it."""
    keys = jax.random.split(jax.random.key(seed), 3)
    neuron = Filtered(ALIF(tau_a=30.0, beta=0.2, n_refractory=2), tau_out=9.0) if neuron is None else neuron
    options = {"bounds": (-1.5, 1.5), "frozen": ("w_rec:slow",), "bias": True} | options
    if density < 1:
        options["mask_in"] = random_mask(keys[1], n_in, N, density)
        options["mask_rec"] = random_mask(keys[2], N, N, density, autapses=False)
    return Recurrent(neuron, n_in, n, key=keys[0], dtype=jnp.float64, **options)


def read(*layers):
    return Network(layers, Readout(N, N_OUT, key=jax.random.key(9), dtype=jnp.float64))


def plain_gradient(network, x, target, cut):
    """A loop of its own: masks, signs and populations as written down, recurrent signals detached where `cut`."""
    layer = network.layers[0]
    tau_m = jnp.array([5.0] * 2 + [20.0] * (N - 2))
    tau_a = jnp.array([30.0] * 2 + [40.0] * (N - 2))
    exist_in, exist_rec = layer.mask_in.astype(float), (layer.mask_rec & ~jnp.eye(N, dtype=bool)).astype(float)
    learns = jnp.arange(N) < 2  # w_rec:slow is frozen
    gamma, v_th, beta, kappa = 0.3, 0.6, 0.2, jnp.exp(-1 / 9.0)

    @jax.custom_jvp
    def fire(v):
        return (v > 0).astype(v.dtype)

    fire.defjvp(lambda p, t: (fire(*p), gamma * jnp.maximum(0.0, 1.0 - jnp.abs(p[0])) * t[0]))

    def loss(weights):
        w_in, w_rec, bias, w_out, b_out = weights
        w_rec = jnp.where(learns, w_rec, jax.lax.stop_gradient(w_rec))

        def step(carry, given):
            v, a, z, z_bar, quiet = carry
            x_t, target_t = given
            seen = jax.lax.stop_gradient(z) if cut else z
            current = x_t @ (w_in[:, 0] * exist_in) + seen @ (w_rec[:, 0] * exist_rec) + bias[0]
            v = jnp.exp(-1 / tau_m) * v + current - v_th * seen
            z = fire((v - v_th - beta * a) / v_th) * (quiet == 0)
            a = jnp.exp(-1 / tau_a) * a + z
            z_bar = kappa * z_bar + z
            quiet = jax.lax.stop_gradient(z)  # n_refractory = 2: silent for one step after a spike
            return (v, a, z, z_bar, quiet), 0.5 * jnp.sum((z_bar @ w_out + b_out - target_t) ** 2)

        return jax.lax.scan(step, (jnp.zeros((BATCH, N)),) * 5, (x, target))[1].sum()

    out = network.readout
    return jax.jit(jax.grad(loss))((layer.w_in, layer.w_rec, layer.bias, out.weight, out.bias))


@eqx.filter_jit
def found_gradient(network, rule, x, target):
    mask = jnp.ones(x.shape[:2])
    g = value_and_grad(lambda n: squared(n(x, rule).y, target, mask), rule)(network)[1]
    return g.layers[0].w_in, g.layers[0].w_rec, g.layers[0].bias, g.readout.weight, g.readout.bias


@pytest.mark.parametrize(
    "rule",
    [
        "bptt",
        "eprop1",
        *(pytest.param(r, marks=pytest.mark.slow) for r in ("rtrl", "eligibility_only:23", "truncated_bptt:23")),
    ],
)
def test_gradients_are_those_of_a_plain_loop(rule):
    network, x, target = read(constrained()), 2.0 * inputs(), targets()
    expected = plain_gradient(network, x, target, cut=rule == "eprop1")
    found = found_gradient(network, make_rule(rule), x, target)
    check_alive(eqx.filter_jit(network)(x, BPTT()).z[0], found)
    assert difference(found, expected) < 1e-10
    assert not np.asarray(found[0][:, 0])[~np.asarray(network.layers[0].mask_in)].any()
    assert not np.asarray(found[1])[:, :, 2:].any()  # frozen, exactly


@pytest.mark.parametrize(
    "feedback", ["random", *(pytest.param(f, marks=pytest.mark.slow) for f in ("symmetric", "adaptive", "uniform"))]
)
def test_windows_of_a_stream_add_up_to_the_whole_sequence(feedback):
    network, x, target = read(constrained()), 2.0 * inputs(), targets()
    rule = EProp1(feedback)
    learner = Learner(rule, optax.sgd(1.0), squared, update_every=None)
    state, t = learner.init(network, BATCH), 0
    for length in (1, 7, 15):
        state, _, _ = learner.step(state, x[t : t + length], target[t : t + length])
        t += length
    g = state.gradient
    found = g.layers[0].w_in, g.layers[0].w_rec, g.layers[0].bias, g.readout.weight, g.readout.bias
    assert difference(found, found_gradient(network, rule, x, target)) < 1e-10


OPTIMISERS = {
    "sgd": optax.sgd(0.3),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "adam": optax.adam(0.02),
    "adamw": optax.adamw(0.02, weight_decay=0.1),
    "rmsprop": optax.rmsprop(0.02),
}


@pytest.mark.parametrize(
    "optimiser", [o if o in ("adam", "sgd") else pytest.param(o, marks=pytest.mark.slow) for o in OPTIMISERS]
)
def test_signs_never_flip_and_bounds_and_frozen_parts_hold_in_a_thousand_updates(optimiser):
    """Gradients are noise here: any direction is tried."""
    network = read(constrained(frozen=("w_rec:slow", "bias"), bias=True))
    transformation = OPTIMISERS[optimiser]
    parameters, fixed = partition(network, EProp1())
    assert parameters.layers[0].bias is None
    begin = network.layers[0]

    def holds(layer):
        inside = (jnp.abs(layer.w_in) <= 1.5).all() & (jnp.abs(layer.w_rec) <= 1.5).all()
        signs = (layer.w_rec[:2] <= 0).all() & (layer.w_rec[2:] >= 0).all()
        frozen = (layer.w_rec[..., 2:] == begin.w_rec[..., 2:]).all() & (layer.bias == begin.bias).all()
        empty = (jnp.where(layer.mask_in[:, None], 0.0, layer.w_in) == 0).all()
        return inside & signs & frozen & empty

    def update(carried, key):
        parameters, state = carried
        keys = iter(jax.random.split(key, 8))
        gradient = jax.tree.map(lambda w: 3 * jax.random.normal(next(keys), w.shape, w.dtype), parameters)
        updates, state = transformation.update(gradient, state, parameters)
        network = apply_updates(eqx.combine(parameters, fixed), updates)
        return (partition(network, EProp1())[0], state), (
            holds(network.layers[0]),
            (network.layers[0].w_rec == 0).sum(),
        )

    keys = jax.random.split(jax.random.key(1), 1000)
    (last, _), (held, zeros) = jax.lax.scan(update, (parameters, transformation.init(parameters)), keys)
    assert bool(held.all())
    assert int(zeros.min()) >= int((~begin.mask_rec).sum()) and len(set(zeros.tolist())) > 1  # some wait at exactly 0
    assert float(jnp.abs(last.layers[0].w_rec - begin.w_rec).max()) > 0.1


@pytest.mark.parametrize("dale", [True, False])
def test_rewiring_keeps_the_number_of_synapses_at_each_update(dale):
    parts = PARTS if dale else N
    layer = constrained(n=parts, density=0.4, frozen=(), rewiring=Rewiring(l1=1e-3, noise=1e-3))
    network = read(layer)
    counts = int(layer.mask_in.sum()), int(layer.mask_rec.sum())
    seen = []
    for i in range(60):
        keys = iter(jax.random.split(jax.random.key(i), 8))
        updates = jax.tree.map(
            lambda w, keys=keys: 0.1 * jax.random.normal(next(keys), w.shape, w.dtype), partition(network, BPTT())[0]
        )
        before, network = network.layers[0], apply_updates(network, updates)
        after = network.layers[0]
        assert (int(after.mask_in.sum()), int(after.mask_rec.sum())) == counts
        assert not (after.mask_rec & jnp.eye(N, dtype=bool)).any()
        assert bool((after.signs_rec[:, None] * after.w_rec >= 0).all())
        assert not jnp.where(after.mask_rec[:, None], 0.0, after.w_rec).any()
        new = after.mask_rec & ~before.mask_rec
        assert not jnp.where(new[:, None], after.w_rec, 0.0).any()
        seen.append(int(new.sum()))
    assert sum(seen) > 10
    still = read(constrained(n=parts, density=0.4, frozen=("w_rec", "w_in:slow") if dale else ("w_rec",),
                             rewiring=Rewiring(noise=9.0)))  # fmt: skip
    moved = apply_updates(still, jax.tree.map(lambda w: 0.0 * w, partition(still, BPTT())[0])).layers[0]
    assert bool((moved.w_rec == still.layers[0].w_rec).all() & (moved.mask_rec == still.layers[0].mask_rec).all())
    assert bool((moved.mask_in != still.layers[0].mask_in).any())
    assert not dale or bool((moved.w_in == still.layers[0].w_in)[..., 2:].all())


def test_new_places_are_drawn_evenly():
    layer = constrained(n=N, density=0.4, frozen=(), rewiring=Rewiring(), autapses=True)
    away = eqx.tree_at(lambda m: m.w_rec, layer, -1.0 * layer.signs_rec[:, None] * jnp.ones_like(layer.w_rec))
    grown = np.zeros((N, N))
    for i in range(300):
        key = jax.random.key_data(jax.random.key(i))
        moved = eqx.tree_at(lambda m: m.rewiring_key, away, key).constrained(layer)
        grown += np.asarray(moved.mask_rec)
    expected = 300 * int(layer.mask_rec.sum()) / N**2  # all vanish, so that each place is as likely
    assert np.abs(grown - expected).max() < 5 * np.sqrt(expected)


def test_masks_have_the_number_of_synapses_that_the_density_says():
    for density in (0.1, 0.37, 1.0):
        mask = random_mask(jax.random.key(0), 20, 20, density, autapses=False)
        assert int(mask.sum()) == round(density * 380) and not np.diagonal(mask).any()


def test_excitation_and_inhibition_start_in_balance():
    parts = (Population("i", 40, sign="inhibitory"), Population("e", 160, sign="excitatory"))
    w = Recurrent(LIF(), 1, parts, key=jax.random.key(0)).w_rec[:, 0]
    assert abs(float(w.sum(0).mean())) < 0.05
    assert float((w**2).sum(0).mean()) == pytest.approx(1.0, abs=0.05)


def test_populations_have_constants_of_their_own_and_learn_them_together():
    layer = constrained(trainable=("tau_m",))
    assert layer.neuron.neuron.tau_m.tolist() == [5.0, 5.0, 20.0, 20.0, 20.0, 20.0]
    assert layer.neuron.neuron.tau_a.tolist() == [30.0, 30.0, 40.0, 40.0, 40.0, 40.0]
    chosen = partition(read(layer), BPTT())[0].layers[0].neuron.neuron
    assert chosen.tau_m.shape == (N,) and chosen.tau_a is None


def test_given_weights_keep_their_constraints():
    w = jnp.ones((N, N)).at[:2].set(-1.0)
    layer = Recurrent.from_weights(LIF(), jnp.ones((N_IN, N)), w, populations=(PARTS[0], Population("rest", N - 2)))
    assert layer.populations == (("fast", 2), ("rest", N - 2))
    with pytest.raises(InvalidSetting, match="w_rec: has weights outside their bounds, or of another sign"):
        Recurrent.from_weights(LIF(), jnp.ones((N_IN, N)), -w, populations=(PARTS[0], Population("rest", N - 2)))


BAD = {
    "density = 0.0: must be above 0 and at most 1": lambda: random_mask(jax.random.key(0), 3, 3, 0.0),
    "density = 1.5: must be above 0": lambda: random_mask(jax.random.key(0), 3, 3, 1.5),
    r"mask_in: expected shape \(4, 6\), got \(4, 5\)": lambda: constrained(density=1, mask_in=jnp.ones((4, 5), bool)),
    "mask_in: expected True and False, got float": lambda: constrained(density=1, mask_in=jnp.ones((4, 6))),
    r"signs_in: expected shape \(4,\) or \(4, 6\), got \(6,\)": lambda: constrained(signs_in=jnp.ones(6)),
    "signs_in: must be 1 .* -1 .* or 0": lambda: constrained(signs_in=jnp.full(4, 2)),
    r"bounds = \(2.0, 1.0\): must be two numbers, the lower": lambda: constrained(bounds=(2.0, 1.0)),
    r"bounds = \(0.5, 1.0\): must hold 0": lambda: constrained(bounds=(0.5, 1.0)),
    "frozen = 'w_on': must be one of": lambda: constrained(frozen=("w_on",)),
    "frozen = 'w_rec:quick': population = 'quick': must be one of fast, slow": lambda: constrained(
        frozen=("w_rec:quick",)
    ),
    "frozen = 'bias': this layer has no bias": lambda: constrained(frozen=("bias",), bias=False),
    "frozen = 'tail': must be one of readout, embedding": lambda: Network(
        (constrained(),), read(constrained()).readout, frozen=("tail",)
    ),
    "population 'x': constant 'n_refractory': LIF has one": lambda: constrained(
        LIF(), (Population("x", N, constants={"n_refractory": 3.0}),), frozen=()
    ),
    "population 'x': constant 'tau_a': LIF has none": lambda: constrained(
        LIF(), (Population("x", N, constants={"tau_a": 3.0}),), frozen=()
    ),
    "population 'x': tau_m = -3.0: must be above 0": lambda: constrained(
        LIF(), (Population("x", N, constants={"tau_m": -3.0}),), frozen=()
    ),
    "population 'x': sign = 'bad': must be one of": lambda: Population("x", 2, sign="bad"),
    "population 'x': size = 0: must be at least 1": lambda: Population("x", 0),
    "two populations are called 'x'": lambda: constrained(n=(Population("x", 3), Population("x", 3)), frozen=()),
    "rewiring: all synapses exist": lambda: constrained(density=1, rewiring=Rewiring()),
    "rewiring: a synapse onto this neuron has 4 weights": lambda: constrained(
        LSTM(), N, frozen=(), rewiring=Rewiring()
    ),
    "l1 = -1.0: must be 0 or above": lambda: Rewiring(l1=-1.0),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_named(message):
    with pytest.raises(InvalidSetting, match=message):
        BAD[message]()


@pytest.mark.slow
def test_constraints_hold_for_any_model():
    """Dale's law on rate units, and on the four weights of each synapse of an LSTM."""
    parts = (Population("i", 2, sign="inhibitory"), Population("e", N - 2, sign="excitatory"))
    for neuron in (Rate(tau_m=3.0), LSTM()):
        layer = constrained(neuron, parts, frozen=())
        state = Learner(EProp1(), optax.adam(0.05), squared).init(read(layer), BATCH)
        learner = Learner(EProp1(), optax.adam(0.05), squared)
        for _ in range(5):
            state, _, _ = learner.step(state, inputs(), targets())
        w = state.network.layers[0].w_rec
        assert float(w[:2].max()) <= 0 <= float(w[2:].min()) and not bool((w == layer.w_rec).all())


# the program

FILE = """
[fast]
neurons = 4
sign = "inhibitory"
tau_m = 10.0
[slow]
neurons = 8
sign = "excitatory"
delay = 2
"""

BAD_SETTINGS = {
    "density = 0.0: must be above 0": {"density": 0.0},
    "inhibitory = 1.5: must be from 0 to 1": {"inhibitory": 1.5},
    "inhibitory = 0.001: makes none of 100 neurons": {"inhibitory": 0.001},
    "delays = -1: must be 0 or above": {"delays": -1},
    "freeze = 'w_on': must be one of": {"freeze": ("w_on",)},
    "frozen = 'w_rec:quick': this layer has no populations": {"freeze": ("w_rec:quick",)},
    "rewire = 0.0: with a density of 1": {"rewire": 0.0},
    "rewire_noise = 1.0: without rewire": {"rewire_noise": 1.0},
    "populations = none.toml: cannot be read": {"populations": "none.toml"},
    "neurons = 100: the populations have 2 together": {"populations": '{"a": {"neurons": 2}}'},
    "population 'a': says no number of neurons": {"populations": '{"a": {"tau_m": 2.0}}'},
    "population 'a': tau_m = 'long': must be a number": {"populations": '{"a": {"neurons": 100, "tau_m": "long"}}'},
    "signs_rec: .* takes no recurrent currents": {"neuron": "lru", "inhibitory": 0.2},
    "maps = norm: stand between neurons and readout": {"maps": ("norm",)},
    "maps: dense and glu stand at one place": {"maps": ("dense", "glu"), "tau_out": None},
}


@pytest.mark.parametrize("message", BAD_SETTINGS)
def test_settings_that_do_not_fit_are_named(message):
    with pytest.raises(InvalidSetting, match=message):
        check_network(NetworkSettings(**BAD_SETTINGS[message]))


@pytest.mark.slow
def test_a_resumed_run_is_the_unbroken_one_and_needs_no_file(tmp_path):
    (tmp_path / "parts.toml").write_text(FILE)
    options = ["store-recall", "--neurons", "12", "--populations", str(tmp_path / "parts.toml"), "--density", "0.4"]
    options += ["--rewire", "1e-3", "--freeze", "w_in:fast,readout", "--batch", "2", "--evaluate-every", "2"]
    main(["train", *options, "--iterations", "4", "--out", str(tmp_path / "whole")])
    main(["train", *options, "--iterations", "2", "--out", str(tmp_path / "broken")])
    (tmp_path / "parts.toml").unlink()
    main(["resume", str(tmp_path / "broken"), "--iterations", "4"])
    whole, broken = (load_run(tmp_path / name) for name in ("whole", "broken"))
    assert all(map(np.array_equal, *map(jax.tree.leaves, (whole.state, broken.state))))
    first, last = whole.trainer.network(whole.trainer.init()), whole.network
    assert np.array_equal(first.readout.weight, last.readout.weight)
    assert np.array_equal(first.layers[0].w_in[..., :4], last.layers[0].w_in[..., :4])
    assert not np.array_equal(first.layers[0].w_in, last.layers[0].w_in)
