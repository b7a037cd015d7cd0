"""A rule is switched by one argument: with any head, carry and window it does what it says, or it is refused."""

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
    Broadcast,
    EProp1,
    EProp3,
    Filtered,
    InvalidSetting,
    Learner,
    Network,
    Neuron,
    Readout,
    Recurrent,
    TruncatedBPTT,
    make_rule,
    partition,
    value_and_grad,
)
from eprop.eligibility import stepwise
from eprop.learning_signals import Feedback
from eprop.neurons import MinGRU
from eprop.rules import EligibilityOnly, require_rule
from models import BATCH, N_IN, N_OUT, N, difference, inputs, make, targets

pytestmark = pytest.mark.usefixtures("compiled_quickly")
KEY = jax.random.key(0)


def squared(y, target, mask):
    return 0.5 * jnp.sum(mask[..., None] * (y - target) ** 2)


@eqx.filter_jit
def gradient(network, rule, x, target, **run):
    return value_and_grad(lambda n: squared(n(x, rule, **run).y, target, jnp.ones(x.shape[:2])), rule)(network)[1]


def test_rules_with_windows_honour_them_wherever_they_run():
    """On 0.1.0 both were plain BPTT, but in one learner. Held against the stepwise twin, window by window."""
    network, x, target = make("lstm"), inputs(10), targets(10)
    layer, readout = network.layers[0], network.readout
    found = gradient(network, EligibilityOnly(4), x, target)
    assert difference(found, gradient(network, BPTT(), x, target)) > 1e-3
    assert difference(found, gradient(network, TruncatedBPTT(4), x, target)) > 1e-3
    carry = layer.start(BATCH)
    carry = carry._replace(traces=stepwise.dense_zero_traces(layer.neuron, carry.state, layer.synapses().presynaptic))
    total = None
    for part in (slice(0, 4), slice(4, 8), slice(8, 10)):

        def loss(layer, part=part, carry=carry):
            weights = (readout.weight, readout.weight)
            run = stepwise.unroll(layer.neuron, layer.synapses(), x[part], carry, recurrence="kept", read=weights)
            return squared(run[1] + readout.bias, target[part], jnp.ones((len(x[part]), BATCH))), run[2]

        of_window, carry = eqx.filter_jit(eqx.filter_grad(loss, has_aux=True))(layer)
        carry = jax.lax.stop_gradient(carry)
        total = of_window if total is None else jax.tree.map(jnp.add, total, of_window)
    assert difference((found.layers[0].w_in, found.layers[0].w_rec), (total.w_in, total.w_rec)) < 1e-10


def test_a_synthetic_gradient_is_handed_in_or_the_rule_is_refused():
    network, x, target = make("lstm"), inputs(8), targets(8)
    with pytest.raises(InvalidSetting, match="eprop3:4.*longer than a window of 4 steps.*future"):
        network(x, EProp3(4))
    with pytest.raises(InvalidSetting, match="has no use for one"):
        network(x, BPTT(), future=(lambda s, z: (s, z),))
    silent = lambda state, z: jax.tree.map(jnp.zeros_like, (state, z))  # noqa: E731
    found = gradient(network, EProp3(4), x, target, future=(silent,))
    assert difference(found, gradient(network, EligibilityOnly(4), x, target)) < 1e-12
    assert difference(gradient(network, EProp3(8), x, target), gradient(network, BPTT(), x, target)) < 1e-10


def test_feedback_that_a_head_cannot_carry_is_refused_or_given_one():
    """On 0.1.0 random feedback behind a user's own head was symmetric, unsaid."""
    layer, x = make("alif").layers[0], inputs(6)
    linear = eqx.nn.Linear(N, N_OUT, key=KEY, dtype=jnp.float64)
    head = lambda z: jax.vmap(jax.vmap(linear))(z)  # noqa: E731
    with pytest.raises(InvalidSetting, match="eprop1:random.*belong to a head"):
        layer(x, EProp1("random"))
    for feedback in ("random", "adaptive", "uniform"):
        with pytest.raises(InvalidSetting, match="has no feedback weights.*Broadcast"):
            Network((layer,), head)(x, EProp1(feedback))
    assert difference(Network((layer,), head)(x, EProp1()).y, head(layer(x, BPTT()).z_bar)) < 1e-12
    with pytest.raises(InvalidSetting, match="adaptive.*Readout"):
        Network((layer,), Broadcast(linear, N, N_OUT, key=KEY))(x, EProp1("adaptive"))


def test_broadcast_around_a_linear_head_is_the_readout():
    readout = make("alif").readout
    layer, x, target = make("alif").layers[0], inputs(9), targets(9)
    linear = eqx.nn.Linear(N, N_OUT, key=KEY, dtype=jnp.float64)
    linear = eqx.tree_at(lambda m: (m.weight, m.bias), linear, (readout.weight.T, readout.bias))
    around = Broadcast(linear, N, N_OUT, key=KEY, dtype=jnp.float64)
    around = eqx.tree_at(lambda m: m.feedback_weights, around, readout.feedback_weights)
    for feedback in ("symmetric", "random"):
        expected = gradient(Network((layer,), readout), EProp1(feedback), x, target)
        found = gradient(Network((layer,), around), EProp1(feedback), x, target)
        assert float(jnp.abs(expected.layers[0].w_in).max()) > 0
        assert difference(found.layers, expected.layers) < 1e-10
        assert difference(found.readout.head.weight.T, expected.readout.weight) < 1e-10


class Negative(Feedback):
    """A kind of feedback of a user's own."""

    name = "negative"

    def weights(self, weight, feedback_weights):
        return -jax.lax.stop_gradient(weight)


def test_a_users_own_feedback_goes_through_the_engine():
    network, x, target = make("alif"), inputs(9), targets(9)
    symmetric, negative = (gradient(network, EProp1(f), x, target) for f in ("symmetric", Negative()))
    flip = lambda tree: jax.tree.map(jnp.negative, tree)  # noqa: E731
    assert difference(negative.layers, flip(symmetric.layers)) < 1e-10
    assert difference(negative.readout, eqx.tree_at(lambda r: r, symmetric.readout, symmetric.readout)) < 1e-10


def test_what_is_not_trained_gets_no_gradient():
    """On 0.1.0 filter_grad alone moved an LSNN's beta, and adamw shrank fixed feedback weights."""
    beta = jnp.array([0.0, 0.3] * 3)
    layer = Recurrent(Filtered(ALIF(beta=beta, v_th=0.3)), N_IN, N, key=KEY, dtype=jnp.float64)
    network, x, target = Network((layer,), Readout(N, N_OUT, key=KEY, dtype=jnp.float64)), inputs(), targets()
    found = gradient(network, EProp1("random"), x, target)
    assert found.layers[0].neuron.neuron.beta is None and found.readout.feedback_weights is None
    plain = eqx.filter_jit(eqx.filter_grad(lambda n: jnp.sum(n(x, EProp1("random")).y ** 2)))(network)
    assert float(jnp.abs(plain.layers[0].w_in).max()) > 0
    assert not plain.layers[0].neuron.neuron.beta.any() and not plain.readout.feedback_weights.any()
    optimiser = optax.adamw(0.1)
    parameters, _ = partition(network, EProp1("random"))
    updates, _ = optimiser.update(found, optimiser.init(parameters), parameters)
    moved = eqx.apply_updates(network, updates)
    assert difference(moved.readout.feedback_weights, network.readout.feedback_weights) == 0.0
    assert difference(moved.layers[0].w_in, network.layers[0].w_in) > 0


class Lateral(LIF):
    """Not a neuron model: each neuron is held down by the mean of all."""

    def step(self, state, currents, z_prev):
        return super().step(state, (currents[0] - 0.1 * currents[0].mean(-1, keepdims=True),), z_prev)


class WinnerTakesAll(LIF):
    def step(self, state, currents, z_prev):
        state, z = super().step(state, currents, z_prev)
        return state, z * (state.v == state.v.max(-1, keepdims=True))


class AcrossSamples(LSTM):
    def step(self, state, currents, z_prev):
        state, z = super().step(state, currents, z_prev)
        return state._replace(c=state.c - state.c.mean(0)), z


class Weighted(Neuron):
    matrix: jax.Array

    def init(self, shape, dtype=jnp.float32):
        return jnp.zeros(shape, dtype)

    def step(self, state, currents, z_prev):
        return state @ self.matrix, currents[0]


@pytest.mark.parametrize("neuron", [Lateral(), WinnerTakesAll(), AcrossSamples()], ids=lambda n: type(n).__name__)
def test_a_step_that_is_not_elementwise_is_refused(neuron):
    layer = Recurrent(neuron, N_IN, N, key=KEY)
    with pytest.raises(InvalidSetting, match=f"step of {type(neuron).__name__} is not elementwise"):
        layer(jnp.ones((3, 2, N_IN)), BPTT())


class Fading(LIF):
    """A membrane whose decay depends on the refractory count, written as a product."""

    def step(self, state, currents, z_prev):
        new, z = super().step(state, currents, z_prev)
        kept = 0.5 ** (state.r > 0).astype(new.v.dtype)
        return new._replace(v=new.v * kept), z


def test_a_decay_that_depends_on_a_count_has_a_trace_for_every_synapse():
    layer = Recurrent(Fading(n_refractory=4, v_th=0.3), N_IN, N, key=KEY, dtype=jnp.float64)
    network, x, target = Network((layer,), Readout(N, N_OUT, key=KEY, dtype=jnp.float64)), inputs(), targets()
    expected = gradient(network, EProp1(), x, target)
    learner = Learner(EProp1(), optax.sgd(0.0), squared, update_every=None)
    state, _, _ = learner.run(learner.init(network, BATCH), x, target, jnp.ones(x.shape[:2]), window=1)
    assert float(jnp.abs(expected.layers[0].w_in).max()) > 0
    assert difference(state.gradient.layers[0].w_in, expected.layers[0].w_in) < 1e-10


def test_carries_that_do_not_fit_a_rule_are_refused():
    network, x = make("lstm"), inputs(4)
    with pytest.raises(InvalidSetting, match=r"no eligibility vectors.*start\(batch, traces=True\)"):
        network(x, EProp1(), network.start(BATCH))
    with pytest.raises(InvalidSetting, match="holds eligibility vectors, and rule 'bptt' has none"):
        network(x, BPTT(), network.start(BATCH, traces=True))
    with pytest.raises(InvalidSetting, match=r"carry: expected \[batch, neuron\] = \(2, 6\), got \(3, 6\)"):
        network(x, BPTT(), network.start(3))
    with pytest.raises(InvalidSetting, match="rule = 'eprop1': must be a rule"):
        require_rule("eprop1")
    with pytest.raises(InvalidSetting, match="at least one step"):
        network(x[:0], BPTT())


def test_options_that_a_rule_has_none_of_are_refused():
    with pytest.raises(InvalidSetting, match="feedback = 'random': rule 'bptt' has none"):
        make_rule("bptt", feedback="random")
    with pytest.raises(InvalidSetting, match="window = 7: rule 'eprop1' has none"):
        make_rule("eprop1", window=7)
    with pytest.raises(InvalidSetting, match="feedback = 'random': rule 'eprop1:adaptive' says 'adaptive'"):
        make_rule("eprop1:adaptive", feedback="random")
    assert make_rule("eprop1", feedback="random").label == "eprop1:random"
    with pytest.raises(InvalidSetting, match="bptt.*does not learn from a stream.*truncated_bptt does"):
        Learner(BPTT(), optax.sgd(0.1), squared).init(make("lstm"))


def test_layers_are_built_from_given_weights_and_without_recurrent_ones():
    layer = make("lstm").layers[0]
    again = Recurrent.from_weights(layer.neuron, layer.w_in, layer.w_rec, layer.bias)
    assert difference(again(inputs(3), BPTT()).z, layer(inputs(3), BPTT()).z) == 0.0
    with pytest.raises(InvalidSetting, match=r"w_rec: expected shape \(6, 4, 6\), got \(5, 4, 6\)"):
        Recurrent.from_weights(layer.neuron, layer.w_in, layer.w_rec[:5])
    readout = make("lstm").readout
    built = Readout.from_weights(readout.weight, feedback_weights=readout.feedback_weights)
    assert difference(built, readout) == 0.0
    alone = Recurrent(MinGRU(), N_IN, N, key=KEY, dtype=jnp.float64)
    assert alone.w_rec is None and alone.synapses().w_rec is None
    network = Network((alone,), readout)
    assert difference(*(gradient(network, rule, inputs(), targets()) for rule in (EProp1(), BPTT()))) < 1e-10


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, bool, np.float16])
def test_inputs_of_any_type_are_taken_in_that_of_the_weights(dtype):
    layer = Recurrent(Filtered(LIF()), 5, 8, key=KEY, weight_scale=2.0)
    network = Network((layer,), Readout(8, 1, key=KEY))
    spikes = np.random.default_rng(0).random((40, 1, 5)) < 0.4
    ends = []
    for kind in (np.float32, dtype):
        learner = Learner(EProp1(), optax.adam(1e-3), squared, rate_strength=100.0)
        state = learner.init(network)
        for part in np.split(spikes.astype(kind), 4):
            state, _, metrics = learner.step(state, part, np.zeros((10, 1, 1), np.float32))
        ends.append((state.network, metrics.rate))
    assert float(ends[0][1]) != pytest.approx(0.01, rel=1e-3) and difference(*ends) == 0.0


def test_a_window_that_is_not_finite_is_left_out_and_counted():
    """On 0.1.0 a NaN that spikes hid from the loss spoilt 460 weights."""
    layer = Recurrent(Filtered(ALIF()), 3, 8, key=KEY, weight_scale=3.0)
    learner = Learner(EProp1(), optax.adam(1e-3), squared)
    x = np.random.default_rng(0).normal(size=(3, 10, 1, 3)).astype(np.float32)
    ones = np.ones((10, 1, 1), np.float32)
    x[1, 7, 0, 1] = np.nan

    def after(windows):
        state = learner.init(Network((layer,), Readout(8, 1, key=KEY)))
        losses = []
        for window in windows:
            state, _, metrics = learner.step(state, window, ones)
            losses.append(float(metrics.loss))
        return state, losses, int(metrics.skipped)

    (state, losses, skipped), (plain, _, none) = after(x), after(x[[0, 2]])
    assert np.isnan(losses[1]) and np.isfinite(losses[2]) and (skipped, none) == (1, 0)
    parts = lambda s: eqx.filter((s.network, s.carry, s.optimiser, s.rates), eqx.is_inexact_array)  # noqa: E731
    assert difference(parts(state), parts(plain)) == 0.0


def test_trained_constants_stay_in_their_range():
    layer = Recurrent(LIF(tau_m=2.0), 3, 6, key=KEY, trainable=("tau_m",), weight_scale=2.0)
    learner = Learner(EProp1(), optax.sgd(10.0), squared)
    state = learner.init(Network((layer,), Readout(6, 1, key=KEY)))
    for _ in range(8):
        state, _, _ = learner.step(state, jnp.ones((12, 1, 3)), 3.0 * jnp.ones((12, 1, 1)))
    tau_m = np.asarray(state.network.layers[0].neuron.tau_m)
    assert (tau_m >= 0.1 - 1e-6).all() and np.abs(tau_m - 2.0).max() > 0.5
