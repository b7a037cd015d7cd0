"""A readout that sees frames of several steps, and networks of which not all weights are trained."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eprop import (
    ALIF,
    BPTT,
    Bidirectional,
    EProp1,
    Filtered,
    InvalidSetting,
    Network,
    Readout,
    Recurrent,
    make_rule,
    partition,
)
from eprop.eligibility import record, stepwise_gradient, unroll, with_traces
from eprop.networks import hold
from eprop.neurons import readout_output
from models import MIXED_BETA, N_IN, N_OUT, N, check_alive, difference, inputs

pytestmark = pytest.mark.usefixtures("compiled_quickly")
slow = pytest.mark.slow

FRAMES, FRAME, BATCH = 7, 3, 2
NEURON = Filtered(ALIF(n_refractory=2, tau_a=30.0, beta=MIXED_BETA), tau_out=9.0, frame=FRAME)


def layer(seed=3, neuron=NEURON):
    return Recurrent(neuron, N_IN, N, key=jax.random.key(seed), dtype=jnp.float64)


def both_ways(neuron=NEURON):
    both = Bidirectional(layer(3, neuron), layer(5, neuron))
    return Network((both,), Readout(2 * N, N_OUT, key=jax.random.key(4), dtype=jnp.float64))


run = eqx.filter_jit(lambda model, *arguments: model(*arguments))


def filtered_means(z):
    """The authors' arithmetic: the mean over a frame, then a filter, `kappa = exp(-1/3)` a frame, in NumPy."""
    means = np.asarray(z).reshape(-1, FRAME, *z.shape[1:]).mean(1)
    filtered, last = [], np.zeros_like(means[0])
    for mean in means:
        last = np.exp(-1 / 3) * last + mean
        filtered.append(last)
    return np.stack(filtered)


def test_the_readout_sees_the_filtered_mean_of_a_frame():
    x = inputs(FRAMES)
    network = Network((layer(),), Readout(N, N_OUT, key=jax.random.key(4), dtype=jnp.float64))
    result = run(network, x, BPTT())
    (z,) = result.z
    assert z.shape == (FRAMES * FRAME, BATCH, N) and result.y.shape == (FRAMES, BATCH, N_OUT) and float(z.sum()) > 5
    assert difference(result.y, filtered_means(z) @ network.readout.weight) < 1e-12
    plain = run(layer(neuron=NEURON.neuron), hold(x, FRAME), BPTT()).z
    assert difference(z, plain) < 1e-12


def test_a_backward_layers_frames_begin_at_each_samples_own_end():
    network, x, lengths = both_ways(), inputs(FRAMES), jnp.array([4, FRAMES])
    y = run(network, x, BPTT(), None, lengths).y
    for b, length in enumerate((4, FRAMES)):
        alone = run(network, x[:length, b : b + 1], BPTT()).y
        assert difference(y[:length, b], alone[:, 0]) < 1e-12
    assert difference(run(network, x.at[4:, 0].set(5.0), BPTT(), None, lengths).y[:4], y[:4]) < 1e-12


@pytest.mark.parametrize("feedback", ["random", pytest.param("symmetric", marks=slow)])
def test_eprop_through_frames_is_autodiff_of_the_detached_network(feedback):
    """The detached network is written out here: spikes, then mean and filter outside of it."""
    x, target = inputs(FRAMES), jax.random.normal(jax.random.key(2), (FRAMES, BATCH, N_OUT), jnp.float64)
    network = Network((layer(),), Readout(N, N_OUT, key=jax.random.key(4), dtype=jnp.float64))
    neuron = NEURON.neuron

    def plain(layer):
        synapses = layer.synapses()

        def step(carry, x):
            state, z = carry
            z = jax.lax.stop_gradient(z)
            state, z = neuron.step(state, (x @ synapses.w_in[:, 0] + z @ synapses.w_rec[:, 0],), z)
            return (state, z), z

        start = neuron.init((BATCH, N), jnp.float64), jnp.zeros((BATCH, N))
        _, z = jax.lax.scan(step, start, hold(x, FRAME))
        means = z.reshape(FRAMES, FRAME, BATCH, N).mean(1)
        decay = jnp.tril(jnp.exp(-jnp.subtract.outer(jnp.arange(FRAMES), jnp.arange(FRAMES)) / 3))
        z_bar = jnp.einsum("fg,gbn->fbn", decay, means)
        weight, back = network.readout.weight, network.readout.feedback_weights
        if feedback == "symmetric":
            return jnp.sum((z_bar @ weight - target) ** 2)
        return jnp.sum(z_bar * jax.lax.stop_gradient(2 * (z_bar @ weight - target) @ back.T))

    expected = eqx.filter_jit(eqx.filter_grad(plain))(network.layers[0])

    def loss(network):
        result = network(x, EProp1(feedback))
        return jnp.sum((result.y - target) ** 2), result.z[0]

    found, z = eqx.filter_jit(eqx.filter_grad(loss, has_aux=True))(network)
    found = found.layers[0]
    check_alive(z, (expected.w_in, expected.w_rec))
    assert difference((found.w_in, found.w_rec), (expected.w_in, expected.w_rec)) < 1e-10


def test_frames_are_carried_over_windows_that_cut_them():
    """Windows of 4, 7 and 10 steps on frames of 3: states, phases and traces are carried; one answer, the loops'."""
    recurrent, x = layer(), hold(inputs(FRAMES), FRAME)
    synapses, start = recurrent.synapses(), recurrent.start(BATCH)
    signals = jax.random.normal(jax.random.key(8), (FRAMES * FRAME, BATCH, N), jnp.float64)

    def total(synapses, pieces):
        carry, sum_ = with_traces(NEURON, synapses, start), 0.0
        for piece in pieces:
            outputs, _, carry = unroll(NEURON, synapses, x[piece], carry)
            sum_ = sum_ + jnp.sum(readout_output(outputs) * signals[piece])
        return sum_

    gradient = lambda *pieces: jax.jit(jax.grad(lambda s: total(s, pieces)))(synapses)  # noqa: E731
    whole = gradient(slice(0, None))
    cut = gradient(slice(0, 4), slice(4, 11), slice(11, None))
    assert difference(cut, whole) < 1e-10

    @jax.jit
    def by_steps(synapses):
        outputs, trajectory = record(NEURON, synapses, x, start)
        return outputs[0], stepwise_gradient(NEURON, trajectory, (jnp.zeros_like(signals), signals))[0]

    z, loops = by_steps(synapses)
    check_alive(z, (whole.w_in, whole.w_rec))
    off = 1.0 - jnp.eye(N)[:, None]
    assert difference(loops[N_IN:-1] * off, whole.w_rec * off) < 1e-10 and difference(loops[:N_IN], whole.w_in) < 1e-10


def test_a_frame_needs_a_filter_and_one_length():
    with pytest.raises(InvalidSetting, match="frame = 0: must be at least 1"):
        Filtered(ALIF(), frame=0)
    upper = Recurrent(Filtered(ALIF(), frame=2), N, N, key=jax.random.key(0), dtype=jnp.float64)
    with pytest.raises(InvalidSetting, match=r"one length of a frame, got \[2, 3\]"):
        Network((layer(), upper), Readout(N, N_OUT, key=jax.random.key(4), dtype=jnp.float64))


@pytest.mark.parametrize(
    ("rule", "moves"),
    [
        ("fixed:layers", ()),
        ("fixed:recurrent_random", ("w_in",)),
        pytest.param("fixed:recurrent", ("w_in",), marks=slow),
    ],
)
def test_controls_train_only_what_they_say(rule, moves):
    network, x = both_ways(), inputs(FRAMES)
    chosen, rest = partition(network, make_rule(rule))
    loss = lambda c, rule: jnp.sum(eqx.combine(c, rest)(x, rule).y ** 2)  # noqa: E731
    of = eqx.filter_jit(eqx.filter_grad(loss))
    gradient = of(chosen, make_rule(rule))
    for direction in ("forward", "backward"):
        part = getattr(gradient.layers[0], direction)
        assert part.w_rec is None and (part.w_in is not None) == ("w_in" in moves)
    assert float(jnp.abs(gradient.readout.weight).max()) > 0
    if moves:
        exact = of(chosen, EProp1(make_rule(rule).feedback))
        assert difference(gradient.layers[0].forward.w_in, exact.layers[0].forward.w_in) < 1e-12
    assert make_rule(rule).label == rule
