"""Axonal delays: of neurons and of synapses, in gradients, windows and streams."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eprop import (
    ALIF,
    BPTT,
    LRU,
    EProp1,
    EProp3,
    Filtered,
    InvalidSetting,
    Learner,
    Network,
    Population,
    Readout,
    Recurrent,
    make_rule,
    value_and_grad,
)
from eprop.eligibility import stepwise, unroll, with_traces
from eprop.learning_signals import boundary, boundary_loss, with_boundary
from eprop.neurons import readout_output, recurrent_output
from models import BATCH, N_IN, N_OUT, N, check_alive, difference, inputs, targets

pytestmark = pytest.mark.usefixtures("compiled_quickly")

TIME = 10
random = np.random.default_rng(0)
AXONAL = {"delays_in": np.array([0, 3, 1, 0]), "delays_rec": np.array([2, 0, 1, 4, 0, 3])}
SYNAPTIC = {"delays_in": random.choice([0, 2, 5], (N_IN, N)), "delays_rec": random.choice([1, 4], (N, N))}


def delayed(delays, neuron=None):
    neuron = Filtered(ALIF(tau_a=30.0, beta=0.2, n_refractory=2), tau_out=9.0) if neuron is None else neuron
    layer = Recurrent(neuron, N_IN, N, key=jax.random.key(3), dtype=jnp.float64, bias=True, **delays)
    return Network((layer,), Readout(N, N_OUT, key=jax.random.key(4), dtype=jnp.float64))


def x_and_target():
    return 2.0 * inputs(TIME), targets(TIME)


def matrix(delays, n_pre):
    """The delay of each synapse."""
    return np.broadcast_to(delays[:, None], (n_pre, N)) if delays.ndim == 1 else delays


def plain_gradient(network, delays, x, target, cut):
    """Every synapse looks up its own place in a list of the past."""
    d_in, d_rec = matrix(delays["delays_in"], N_IN), matrix(delays["delays_rec"], N)
    neuron = network.layers[0].neuron

    def loss(weights):
        w_in, w_rec, bias, w_out, b_out = weights
        state, z, total = neuron.init((BATCH, N), x.dtype), [jnp.zeros((BATCH, N))], 0.0
        for t in range(TIME):
            current = jnp.zeros((BATCH, N)) + bias[0]
            for d in (d for d in np.unique(d_in) if d <= t):
                current = current + x[t - d] @ (w_in[:, 0] * (d_in == d))
            for d in (d for d in np.unique(d_rec) if d <= t):
                seen = jax.lax.stop_gradient(z[t - d]) if cut else z[t - d]
                current = current + seen @ (w_rec[:, 0] * (d_rec == d) * (1 - np.eye(N)))
            last = jax.lax.stop_gradient(z[t]) if cut else z[t]
            state, outputs = neuron.step(state, (current,), last)
            z.append(recurrent_output(outputs))
            total = total + 0.5 * jnp.sum((readout_output(outputs) @ w_out + b_out - target[t]) ** 2)
        return total

    layer, out = network.layers[0], network.readout
    return jax.jit(jax.grad(loss))((layer.w_in, layer.w_rec, layer.bias, out.weight, out.bias))


def parts(g):
    return g.layers[0].w_in, g.layers[0].w_rec, g.layers[0].bias, g.readout.weight, g.readout.bias


def squared(y, target, mask=None):
    return 0.5 * jnp.sum((y - target) ** 2)


@eqx.filter_jit
def found_gradient(network, rule, x, target):
    value = lambda n: squared(n(x, rule).y, target)  # noqa: E731
    return parts(value_and_grad(value, rule)(network)[1])


CASES = {"axonal": AXONAL, "synaptic": SYNAPTIC}
one_fast = pytest.mark.parametrize("name", ["axonal", pytest.param("synaptic", marks=pytest.mark.slow)])


RULES = [("axonal", "eprop1"), ("axonal", "bptt"), ("synaptic", "eprop1")]
SLOW = [(n, r) for n in CASES for r in ("eprop1", "bptt", "rtrl", "eligibility_only:10") if (n, r) not in RULES]


@pytest.mark.parametrize(("name", "rule"), [*RULES, *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)])
def test_gradients_are_those_of_a_plain_loop(name, rule):
    network, (x, target) = delayed(CASES[name]), x_and_target()
    expected = plain_gradient(network, CASES[name], x, target, rule == "eprop1")
    check_alive(network(x, BPTT()).z[0], expected)
    assert difference(found_gradient(network, make_rule(rule), x, target), expected) < 1e-10
    assert float(jnp.abs(expected[1]).max()) > 1e-3


@one_fast
def test_chunks_of_the_backward_pass_and_the_paper_s_loops_agree(name, monkeypatch):
    network, (x, target) = delayed(CASES[name]), x_and_target()
    layer = network.layers[0]

    def gradient(run, recurrence, traces):
        def loss(synapses, arriving, past):
            begin = layer.start(BATCH)
            carry = begin._replace(line=begin.line._replace(past=past), waiting=None)
            if traces:
                held = (
                    with_traces(layer.neuron, synapses, carry)
                    if run is unroll
                    else carry._replace(
                        traces=stepwise.dense_zero_traces(layer.neuron, carry.state, synapses.presynaptic)
                    )
                )
                carry = jax.lax.stop_gradient(held)._replace(line=carry.line)
            outputs, _, last = run(layer.neuron, synapses, arriving, carry, recurrence=recurrence)
            seed = 0.3 * jnp.sum(last.line.past**2) + jnp.sum(jnp.sin(last.z)) if recurrence == "kept" else 0.0
            return squared(readout_output(outputs) @ network.readout.weight, target) + seed

        past = 0.5 * jax.random.normal(jax.random.key(8), layer.start(BATCH).line.past.shape, jnp.float64)
        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(layer.synapses(), layer.arriving(x), past)

    for recurrence, traces in (("cut", False), ("kept", False), ("kept", True)):
        expected = gradient(stepwise.unroll, recurrence, traces)
        whole = gradient(unroll, recurrence, traces)
        monkeypatch.setattr("eprop.eligibility._unroll._chunk", lambda time, batch, columns: 5)
        chunks = gradient(unroll, recurrence, traces)
        monkeypatch.undo()
        assert float(jnp.abs(expected[0].w_rec).max()) > 1e-3
        assert (float(jnp.abs(expected[2]).max()) > 1e-6) == (recurrence == "kept")
        assert difference(whole, expected) < 1e-10 and difference(chunks, expected) < 1e-10


@one_fast
def test_windows_of_a_stream_add_up_to_the_whole_sequence(name):
    network, (x, target), rule = delayed(CASES[name]), x_and_target(), EProp1("random")
    learner = Learner(rule, optax.sgd(1.0), squared, update_every=None)
    state, t, shown = learner.init(network, BATCH), 0, []
    for length in (1, 2, 4, 3):
        state, y, _ = learner.step(state, x[t : t + length], target[t : t + length])
        t += length
        shown.append(y)
    assert difference(parts(state.gradient), found_gradient(network, rule, x, target)) < 1e-10
    assert difference(jnp.concatenate(shown), network(x, rule).y) < 1e-10


def test_eprop_3_with_the_true_boundary_is_bptt():
    """What is on its way at a window's end is part of the boundary."""
    network, (x, target), rule = delayed(AXONAL), x_and_target(), EProp3(5)
    first, second = (x[:5], target[:5]), (x[5:], target[5:])

    @jax.jit
    def summed():
        begin = network.start(BATCH, traces=True)
        carry = network(first[0], rule, begin).carry

        def after(network, pair):
            held = jax.lax.stop_gradient(carry[0])
            return squared(network(second[0], rule, (with_boundary(held, pair),)).y, second[1])

        later, seed = value_and_grad_of_both(after, rule)(network, boundary(carry[0]))

        def before(network):
            result = network(first[0], rule, begin)
            return squared(result.y, first[1]) + boundary_loss(result.carry[0], seed)

        earlier = value_and_grad(before, rule)(network)[1]
        return jax.tree.map(jnp.add, parts(earlier), parts(later)), seed

    def value_and_grad_of_both(loss, rule):
        def of(network, pair):
            later = value_and_grad(lambda n: loss(n, pair), rule)(network)[1]
            return later, jax.grad(lambda p: loss(network, p))(pair)

        return of

    found, seed = summed()
    assert max(float(jnp.abs(p).max()) for p in seed[0][1]) > 1e-3
    assert difference(found, found_gradient(network, BPTT(), x, target)) < 1e-10


@pytest.mark.slow
def test_eprop_3_learns_its_boundary_in_a_stream():
    learner = Learner(EProp3(5), optax.adam(1e-3), squared, synthesiser_optimiser=optax.adam(1e-2))
    state = learner.init(delayed(AXONAL), BATCH)
    for _ in range(4):
        state, _, metrics = learner.step(state, *(a[:5] for a in x_and_target()))
    assert np.isfinite(float(metrics.loss)) and float(jnp.abs(state.synthesisers.modules[0].weight).max()) > 0


def test_a_sequence_s_end_forgets_what_is_on_its_way():
    network, (x, target) = delayed(AXONAL), x_and_target()
    learner = Learner(EProp1(), optax.sgd(0.0), squared)
    state = learner.init(network, BATCH)
    state, before, _ = learner.step(state, x, target, ended=jnp.array([True, False]))
    state, after, _ = learner.step(state, x, target)
    assert difference(after[:, 0], before[:, 0]) < 1e-12 and difference(after[:, 1], before[:, 1]) > 1e-3


def test_no_delay_costs_nothing_and_populations_say_theirs():
    layer = Recurrent(ALIF(), 2, 3, key=jax.random.key(0), delays_rec=np.zeros(3))
    assert layer.delays_rec is None and layer.start(1).line is None
    parts = (Population("near", 2), Population("far", 1, delay=4))
    assert Recurrent(ALIF(), 2, parts, key=jax.random.key(0)).delays_rec.columns.tolist() == [0, 0, 4]


BAD = {
    r"delays_rec\[1\] = -1: must be a whole number of steps, 0 or above": {"delays_rec": np.array([0, -1, 0, 0, 0, 0])},
    r"delays_rec\[1\] = 0.5: must be a whole number of steps": {"delays_rec": np.array([0, 0.5, 0, 0, 0, 0])},
    r"delays_in: expected shape \(4,\) or \(4, 6\), got \(6,\)": {"delays_in": np.zeros(6)},
    r"delays_rec: LRU takes no recurrent": {"delays_rec": np.ones(6), "neuron": LRU()},
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_named(message):
    options = dict(BAD[message])
    with pytest.raises(InvalidSetting, match=message):
        Recurrent(options.pop("neuron", ALIF()), N_IN, N, key=jax.random.key(0), **options)


def test_a_carry_of_another_layer_is_refused():
    network, (x, _) = delayed(AXONAL), x_and_target()
    with pytest.raises(InvalidSetting, match="carry: is of a layer with other delays"):
        delayed({})(x, BPTT(), network.start(BATCH))
