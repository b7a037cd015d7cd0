"""The streaming learner: equal to the whole-sequence gradient, in constant memory, for every model."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

from eprop import (
    ALIF,
    BPTT,
    LSTM,
    RTRL,
    Bidirectional,
    EProp1,
    Filtered,
    InvalidSetting,
    Learner,
    Network,
    Readout,
    Recurrent,
    trainable,
    value_and_grad,
)
from models import BATCH, MODELS, TIME, check_alive, difference, inputs, make, targets

pytestmark = pytest.mark.usefixtures("compiled_quickly")

EXACT = 1e-10
CORE = ("alif",)  # the models that `make test` has
WINDOWS = [(1, 7, 15), (TIME,)]


def squared(y, target, mask):
    return 0.5 * jnp.sum(mask[..., None] * (y - target) ** 2)


def frozen(rule=None, **settings):
    """A learner that adds gradients up and never changes a weight."""
    return Learner(EProp1() if rule is None else rule, optax.sgd(1.0), squared, update_every=None, **settings)


@eqx.filter_jit
def whole_gradient(network, x, target, mask, rule):
    return value_and_grad(lambda n: squared(n(x, rule).y, target, mask), rule)(network)[1]


@eqx.filter_jit
def outputs_of(network, x):
    """What the network does, whatever the rule: `y` and `z`."""
    result = network(x, BPTT())
    return result.y, result.z[0]


def fed(learner, network, x, target, mask, lengths):
    state, t, shown, losses = learner.init(network, x.shape[1]), 0, [], 0.0
    for length in lengths:
        part = slice(t, t + length)
        state, y, metrics = learner.step(state, x[part], target[part], mask[part])
        t, losses = t + length, losses + metrics.loss
        shown.append(y)
    return state, jnp.concatenate(shown), losses


@pytest.mark.parametrize("name", [n if n in CORE else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
@pytest.mark.parametrize("lengths", WINDOWS, ids=len)
def test_gradients_summed_over_windows_are_those_of_the_whole_sequence(name, lengths):
    network, x, target = make(name), inputs(), targets()
    mask = jax.random.bernoulli(jax.random.key(7), 0.6, x.shape[:2]).astype(x.dtype)
    expected = whole_gradient(network, x, target, mask, EProp1("random"))
    check_alive(outputs_of(network, x)[1], expected)
    state, y, loss = fed(frozen(EProp1("random")), network, x, target, mask, lengths)
    assert difference(state.gradient, expected) < EXACT
    assert difference(y, outputs_of(network, x)[0]) < EXACT
    assert float(loss) == pytest.approx(float(squared(y, target, mask)), rel=1e-12)


@pytest.mark.parametrize("name", ["alif", "lstm"])
def test_steps_without_targets_carry_the_traces_on(name):
    network, x, target = make(name), inputs(), targets()
    mask = jnp.ones(x.shape[:2]).at[5:12].set(0.0)
    expected = whole_gradient(network, x, target, mask, EProp1())
    learner = frozen()
    state = learner.init(network, BATCH)
    state, _, _ = learner.step(state, x[:5], target[:5])
    state, y, metrics = learner.step(state, x[5:12])
    assert y.shape == (7, *target.shape[1:]) and float(metrics.loss) == 0.0
    state, _, _ = learner.step(state, x[12:], target[12:])
    assert difference(state.gradient, expected) < EXACT


@pytest.mark.parametrize(
    "name, delay, window",
    [
        ("alif", 5, 4),
        ("lstm", 3, 1),
        pytest.param("alif", 4, 4, marks=pytest.mark.slow),
        pytest.param("lstm", 2, 6, marks=pytest.mark.slow),
    ],
)
def test_late_targets_give_the_gradient_of_the_steps_they_belong_to(name, delay, window):
    network, x, target = make(name), inputs(24), targets(24)
    learner, late = frozen(delay=delay), jnp.roll(target, delay, axis=0)
    known = (jnp.arange(24) >= delay).astype(x.dtype)[:, None] * jnp.ones((1, BATCH))
    state, y, _ = fed(learner, network, x, late, known, (window,) * (24 // window))
    learnt = 24 - -(-delay // window) * window
    expected = whole_gradient(network, x[:learnt], target[:learnt], jnp.ones((learnt, BATCH)), EProp1())
    assert difference(state.gradient, expected) < EXACT
    assert difference(y, outputs_of(network, x)[0]) < EXACT  # predictions are at the newest step


def test_updates_come_each_window_each_n_windows_or_on_demand(getkey):
    x, target = inputs(12), targets(12)
    ones = jnp.ones(x.shape[:2])

    def weights_after(update_every, windows):
        learner = Learner(EProp1(), optax.sgd(0.1), squared, update_every=update_every)
        state, _, _ = fed(learner, make("lstm"), x, target, ones, windows)
        return learner, state

    _, each = weights_after(1, (6, 6))
    _, second = weights_after(2, (6, 6))
    learner, demand = weights_after(None, (6, 6))
    assert difference(demand.network, make("lstm")) == 0.0
    assert difference(second.network, learner.update(demand).network) < EXACT
    assert difference(second.gradient, jax.tree.map(jnp.zeros_like, second.gradient)) == 0.0
    assert difference(each.network, second.network) > 1e-6
    # by hand: two whole-sequence gradients, the second from the weights after the first
    first = whole_gradient(make("lstm"), x[:6], target[:6], ones[:6], EProp1())
    by_hand = eqx.apply_updates(make("lstm"), jax.tree.map(lambda g: -0.1 * g, first))
    _, alone = weights_after(1, (6,))
    assert difference(alone.network, by_hand) < EXACT


def test_adaptive_feedback_decays_and_learns_with_the_readout():
    network, x, target = make("alif"), inputs(), targets()
    learner = Learner(EProp1("adaptive"), optax.sgd(0.01), squared, kolen_pollack=0.3)
    state = learner.init(network, BATCH)
    gap = lambda n: float(jnp.abs(n.readout.weight - n.readout.feedback_weights).max())  # noqa: E731
    before = gap(state.network)
    for _ in range(10):
        state, _, _ = learner.step(state, x, target)
    assert gap(state.network) == pytest.approx(0.7**10 * before, rel=1e-6)


def test_running_rates_and_their_regularisation():
    network, x, target = make("lif"), inputs(), targets()
    nothing = jnp.zeros(x.shape[:2])
    pushed = frozen(rate_strength=4.0, rate_target=0.3, rate_window=50.0)
    state, _, _ = fed(pushed, network, x, target, nothing, (TIME,))
    assert float(jnp.abs(state.gradient.layers[0].w_in).max()) == 0.0  # the running rate started at its target
    rates, z = state.rates[0], outputs_of(network, x)[1]
    keep = jnp.exp(-TIME / 50.0)
    assert difference(rates, keep * 0.3 + (1 - keep) * z.mean((0, 1))) < EXACT
    fresh = pushed.init(network, BATCH)._replace(rates=(jnp.array(rates),))  # the learner donates its state
    state, _, _ = pushed.step(fresh, x, target, nothing)
    chosen, rest = eqx.partition(network, trainable(network, EProp1()))
    error = 2 * 4.0 * (rates - 0.3)
    of_rate = lambda c: jnp.sum(error * eqx.combine(c, rest)(x, EProp1()).z[0].mean((0, 1)))  # noqa: E731
    expected = jax.grad(of_rate)(chosen).layers
    assert float(jnp.abs(expected[0].w_in).max()) > 0
    assert difference(state.gradient.layers, expected) < EXACT


def test_the_state_is_saved_and_restored_as_a_pytree(tmp_path):
    network, x, target = make("alif"), inputs(), targets()
    learner = Learner(EProp1("random"), optax.adam(0.01), squared)
    state, _, _ = learner.step(learner.init(network, BATCH), x[:9], target[:9])
    eqx.tree_serialise_leaves(tmp_path / "state.eqx", state)
    straight, y, _ = learner.step(state, x[9:], target[9:])
    restored = eqx.tree_deserialise_leaves(tmp_path / "state.eqx", learner.init(network, BATCH))
    again, y_again, _ = learner.step(restored, x[9:], target[9:])
    assert (y == y_again).all()
    assert difference(again, straight) == 0.0


def test_a_window_length_is_compiled_once(getkey):
    network, x, target = make("lstm", jnp.float32), inputs(dtype=jnp.float32), targets(dtype=jnp.float32)
    traces = []

    def counted(y, target, mask):
        traces.append(y.shape[0])
        return squared(y, target, mask)

    learner = Learner(EProp1(), optax.adam(1e-3), counted)
    state = learner.init(network, BATCH)
    for _ in range(5):
        for length in (4, 1):
            state, _, _ = learner.step(state, x[:length], target[:length])
    assert sorted(traces) == [1, 4]


def test_what_cannot_stream_is_refused():
    key = jax.random.key(0)
    half = Recurrent(LSTM(), 2, 3, key=key)
    both = Network((Bidirectional(half, half),), Readout(6, 1, key=key))
    with pytest.raises(InvalidSetting, match="bidirectional"):
        frozen().init(both)
    with pytest.raises(InvalidSetting, match="rtrl.*does not learn from a stream"):
        frozen(RTRL()).init(make("lstm"))
    with pytest.raises(InvalidSetting, match="delay = -1"):
        frozen(delay=-1)
    with pytest.raises(InvalidSetting, match="update_every = 0"):
        Learner(EProp1(), optax.sgd(1.0), squared, update_every=0)
    learner, network = frozen(delay=3), make("lstm")
    state, _, _ = learner.step(learner.init(network, BATCH), inputs(4), targets(4))
    with pytest.raises(InvalidSetting, match="windows of one length, got one of 3"):
        learner.step(state, inputs(3), targets(3))
    network = make("alif")
    with pytest.raises(InvalidSetting, match="use equinox.filter_jit"):
        jax.jit(lambda n, carry: n(inputs(4), EProp1(), carry).y)(network, network.start(BATCH, traces=True))


def test_two_layers_learn_from_a_stream():
    key = jax.random.key(1)
    layers = (Recurrent(Filtered(ALIF(), 20.0), 3, 8, key=key), Recurrent(Filtered(LSTM(), 5.0), 8, 8, key=key))
    learner = Learner(EProp1(), optax.adam(0.01), squared)
    state = learner.init(Network(layers, Readout(8, 1, key=key)))
    x = 2.0 * jax.random.normal(jax.random.key(2), (20, 1, 3), jnp.float32)
    losses = []
    for _ in range(60):
        state, _, metrics = learner.step(state, x, jnp.ones((20, 1, 1), jnp.float32))
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.3 * losses[0]
