"""Networks: connectivity, stacks, two directions, feedback; and what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eprop import (
    ALIF,
    BPTT,
    LIF,
    LSTM,
    RTRL,
    Bidirectional,
    EProp1,
    Filtered,
    InvalidSetting,
    Network,
    Rate,
    Readout,
    Recurrent,
    TruncatedBPTT,
    kolen_pollack_decay,
    make_rule,
    trainable,
)
from eprop.eligibility import Carry, unroll
from eprop.learning_signals import as_feedback, broadcast_readout
from eprop.neurons import SURROGATES, readout_output, spike
from models import BATCH, N_IN, N_OUT, TIME, N, difference, inputs, make, targets

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def layer_of(neuron, n_in=N_IN, seed=0, **options):
    return Recurrent(neuron, n_in, N, key=jax.random.key(seed), dtype=jnp.float64, **options)


def readout_of(n=N, n_out=N_OUT):
    return Readout(n, n_out, key=jax.random.key(9), dtype=jnp.float64)


def test_spiking_models_have_no_autapses_and_masks_hold_in_gradients():
    assert not np.diagonal(layer_of(LIF()).synapses().w_rec[:, 0]).any()
    assert np.diagonal(layer_of(LSTM()).synapses().w_rec[:, 0]).all()
    mask_in = jax.random.bernoulli(jax.random.key(1), 0.5, (N_IN, N))
    mask_rec = jax.random.bernoulli(jax.random.key(2), 0.5, (N, N))
    network = Network((layer_of(Rate(tau_m=3.0), mask_in=mask_in, mask_rec=mask_rec),), readout_of())
    gradient = eqx.filter_grad(lambda n: jnp.sum(n(inputs(), EProp1()).y ** 2))(network).layers[0]
    assert np.array_equal(np.asarray(gradient.w_in[:, 0] != 0), np.asarray(mask_in))
    assert np.array_equal(np.asarray(gradient.w_rec[:, 0] != 0), np.asarray(mask_rec))


def test_a_stack_hands_the_lower_layer_its_signal_through_neurons_not_through_recurrence():
    lower, upper = layer_of(Rate(tau_m=4.0), seed=1), layer_of(Filtered(LSTM(), tau_out=5.0), N, seed=2)
    network, target = Network((lower, upper), readout_of()), targets()

    def plain(network):  # recurrent signals detached in each layer, everything else differentiated
        below = inputs()
        for layer in network.layers:
            s = layer.synapses()

            def step(carry, x, layer=layer, s=s):
                state, z = carry
                z = jax.lax.stop_gradient(z)
                currents = [x @ s.w_in[:, q] + z @ s.w_rec[:, q] for q in range(layer.neuron.num_currents)]
                state, outputs = layer.neuron.step(state, tuple(currents), z)
                return (state, jax.tree.leaves(outputs)[0]), outputs

            _, outputs = jax.lax.scan(step, layer.start(BATCH)[:2], below)
            below = jax.tree.leaves(outputs)[0]
        return jnp.sum((jax.tree.leaves(outputs)[-1] @ network.readout.weight - target) ** 2)

    expected = eqx.filter_grad(plain)(network).layers
    found = eqx.filter_grad(lambda n: jnp.sum((n(inputs(), EProp1()).y - target) ** 2))(network).layers
    assert float(jnp.abs(expected[0].w_rec).max()) > 1e-6
    assert difference([(g.w_in, g.w_rec) for g in found], [(g.w_in, g.w_rec) for g in expected]) < 1e-10


def test_a_bidirectional_layer_reads_each_sample_from_its_own_end():
    both = Bidirectional(layer_of(LSTM(), seed=1), layer_of(LSTM(), seed=2))
    x, lengths = inputs(), jnp.array([9, TIME])
    out = both(x, BPTT(), None, lengths).z
    assert out.shape == (TIME, BATCH, 2 * N)
    for b, length in enumerate((9, TIME)):
        alone = x[:length, b : b + 1]
        expected = jnp.concatenate([both.forward(alone, BPTT()).z, both.backward(alone[::-1], BPTT()).z[::-1]], axis=-1)
        assert difference(out[:length, b], expected[:, 0]) < 1e-12
    padded = both(x.at[9:, 0].set(5.0), BPTT(), None, lengths).z
    assert difference(padded[:9, 0], out[:9, 0]) < 1e-12


class ReadOutside(EProp1):
    """e-prop 1 whose layers are read behind the unroll."""

    def run(self, neuron, synapses, inputs, carry, read=None, future=None):
        outputs, _, carry = super().run(neuron, synapses, inputs, carry, None, future)
        weight, back = read
        feedback = as_feedback("symmetric" if self.feedback.is_chain_rule else "adaptive")
        return outputs, broadcast_readout(readout_output(outputs), weight, back, feedback), carry


READ = {
    "filter taken off": lambda: Network((layer_of(Filtered(ALIF(tau_a=30.0), tau_out=9.0)),), readout_of()),
    "1 - kappa": lambda: Network((layer_of(Filtered(LSTM(), tau_out=4.0, gain="one-minus-kappa")),), readout_of()),
    "filter trained": lambda: Network(
        (layer_of(Filtered(ALIF(), tau_out=9.0), trainable=("tau_out", "tau_a")),), readout_of()
    ),
    "spikes read": lambda: Network((layer_of(LIF()),), readout_of()),
    "no filter": lambda: Network((layer_of(LSTM()),), readout_of()),
    "all layers read": lambda: Network(
        (layer_of(Filtered(LIF(), tau_out=9.0)), layer_of(LSTM(), N, seed=1)), readout_of(2 * N), read_all=True
    ),
    "last layer read": lambda: Network((layer_of(LIF()), layer_of(Filtered(LIF()), N, seed=1)), readout_of()),
    "both directions, frames": lambda: Network(
        (Bidirectional(*(layer_of(Filtered(ALIF(), tau_out=9.0, frame=3), seed=i) for i in (0, 1))),), readout_of(2 * N)
    ),
}
READ_FAST = ("1 - kappa", "filter trained", "all layers read", "both directions, frames")


@pytest.mark.parametrize(
    ("name", "feedback"),
    [pytest.param(name, "adaptive", marks=() if name in READ_FAST else pytest.mark.slow) for name in READ]
    + [("filter taken off", kind) for kind in ("symmetric", "random")]
    + [pytest.param("filter taken off", "uniform", marks=pytest.mark.slow)],
)
def test_a_readout_in_the_engine_is_the_readout_behind_it(name, feedback, monkeypatch):
    """Outputs, gradients, the carry handed on, and what is learnt after it; backwards in chunks of 5 and a rest."""
    monkeypatch.setattr("eprop.eligibility._unroll._chunk", lambda time, batch, columns: 5)
    network, target = READ[name](), targets()
    lengths = jnp.array([9, TIME]) if "directions" in name else None

    start = network.start(BATCH, traces=True)

    def loss(network, rule, carry, more):
        result = network(2 * inputs(), rule, carry, lengths)
        total = jnp.sum((result.y - target) ** 2) + sum(jnp.mean(z) ** 2 for z in result.z)  # rates: at every output
        if more:
            result = network(2 * inputs(seed=3), rule, result.carry)
            total = total + jnp.sum((result.y - target) ** 2)
        return total, result._replace(carry=[(c.state, c.z) for c in jax.tree.leaves(result.carry, is_leaf=is_carry)])

    is_carry = lambda c: isinstance(c, Carry)  # noqa: E731
    of = eqx.filter_jit(lambda rule, carry, more=False: eqx.filter_grad(loss, has_aux=True)(network, rule, carry, more))
    (found, result), (expected, plain) = of(EProp1(feedback), None), of(ReadOutside(feedback), start)
    assert (
        all(float(z.sum()) != 0 for z in plain.z) and float(jnp.abs(jax.tree.leaves(expected.layers)[0]).max()) > 1e-3
    )
    assert difference(result, plain) < 1e-12
    assert difference(found, expected) < 1e-10
    if lengths is None:
        assert difference(of(EProp1(feedback), start, True), of(ReadOutside(feedback), start, True)) < 1e-10


@pytest.mark.parametrize("gain", ["one", "one-minus-kappa"])
@pytest.mark.parametrize("frame", [1, 3])
def test_the_filter_over_time_is_the_filter_step_by_step(gain, frame):
    neuron = Filtered(LIF(), tau_out=7.0, gain=gain, frame=frame)
    z = jax.random.normal(jax.random.key(0), (12, 2, 3), jnp.float64)
    z_bar, steps = jnp.zeros_like(z[0]), []
    for t in range(len(z)):
        z_bar = neuron.filter(z_bar, z[t], None if frame == 1 else jnp.full((2, 3), t % frame))
        steps.append(z_bar)
    assert difference(neuron.over_time(z), jnp.stack(steps)[frame - 1 :: frame]) < 1e-12


@pytest.mark.parametrize("feedback", ["symmetric", "random", "adaptive", "uniform"])
def test_feedback_replaces_the_backward_weights_and_nothing_else(feedback):
    keys = jax.random.split(jax.random.key(0), 4)
    z = jax.random.normal(keys[0], (TIME, BATCH, N))
    w, b = jax.random.normal(keys[1], (N, N_OUT)), jax.random.normal(keys[2], (N, N_OUT))
    error = jax.random.normal(keys[3], (TIME, BATCH, N_OUT))
    y, pullback = jax.vjp(lambda *a: broadcast_readout(*a, as_feedback(feedback)), z, w, b)
    into_z, into_w, into_b = pullback(error)
    assert difference(y, z @ w) < 1e-12
    backward = {"symmetric": w, "uniform": jnp.full_like(w, N_OUT**-0.5)}.get(feedback, b)
    assert difference(into_z, error @ backward.T) < 1e-12
    outer = jnp.einsum("tbj,tbk->jk", z, error)
    assert difference(into_w, outer) < 1e-12
    assert difference(into_b, outer if feedback == "adaptive" else jnp.zeros_like(b)) < 1e-12


def test_what_is_trained_depends_on_marks_and_feedback():
    network = Network((layer_of(Filtered(ALIF(), tau_out=9.0), trainable=("tau_a", "tau_out")),), readout_of())
    for rule in (BPTT(), EProp1("random"), EProp1("adaptive")):
        chosen = eqx.filter(network, trainable(network, rule))
        neuron = chosen.layers[0].neuron
        assert neuron.tau_out.shape == neuron.neuron.tau_a.shape == (N,)
        assert (chosen.readout.feedback_weights is not None) == rule.feedback.adapts
    decayed = kolen_pollack_decay(network, 0.1).readout
    assert difference(decayed.weight, 0.9 * network.readout.weight) < 1e-12
    assert difference(decayed.feedback_weights, 0.9 * network.readout.feedback_weights) < 1e-12


def test_the_contraction_is_differentiable():
    """e-prop 2's need: the gradient of a function of dW, with respect to learning signals and currents."""
    layer = make("lstm").layers[0]
    x = inputs(7)

    def outer(signals, x):
        of = lambda s: unroll(layer.neuron, s, x, layer.start(BATCH))[0]  # noqa: E731
        gradient = jax.vjp(of, layer.synapses())[1](signals)[0]
        return sum(jnp.sum(jnp.sin(g)) for g in gradient)

    signals = jax.random.normal(jax.random.key(1), (7, BATCH, N), jnp.float64)
    gradients = jax.grad(outer, argnums=(0, 1))(signals, x)
    for which, g in enumerate(gradients):
        direction = jax.random.normal(jax.random.key(2), g.shape, jnp.float64)

        def along(h, which=which, direction=direction):
            moved = [signals, x]
            moved[which] = moved[which] + h * direction
            return float(outer(*moved))

        slope = (along(1e-5) - along(-1e-5)) / 2e-5
        assert abs(slope) > 1e-3
        assert float(jnp.sum(g * direction)) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("name", SURROGATES)
def test_spikes_are_steps_with_the_pseudo_derivative(name):
    surrogate = SURROGATES[name](dampening_factor=0.4)
    v = jnp.linspace(-1.5, 1.5, 31)
    assert np.array_equal(spike(v, surrogate), np.asarray(v) > 0)
    slope = jax.vmap(jax.grad(lambda v: spike(v, surrogate, 2.0)))(v)
    assert difference(slope, 2.0 * surrogate(v)) < 1e-12
    assert float(surrogate(jnp.zeros(()))) == pytest.approx(0.4)
    assert float(jnp.abs(jax.vmap(jax.grad(jax.grad(lambda v: spike(v, surrogate))))(v)).max()) > 0


REFUSED = {
    "tau_m = -1.0: must be above 0": lambda: LIF(tau_m=-1.0),
    "v_th = 0.0: must be above 0": lambda: ALIF(v_th=0.0),
    "n_refractory = 0: must be at least 1": lambda: LIF(n_refractory=0),
    "beta = -0.1: must be 0 or above": lambda: ALIF(beta=-0.1),
    "tau_out = 0.0: must be above 0": lambda: Filtered(LIF(), tau_out=0.0),
    r"mask_rec: expected shape \(6, 6\), got \(5, 6\)": lambda: layer_of(LIF(), mask_rec=jnp.ones((5, 6), bool)),
    "trainable constant 'tau_x': LSTM has none": lambda: layer_of(LSTM(), trainable=("tau_x",)),
    "readout: expected 6 rows": lambda: Network((layer_of(LIF()),), readout_of(7)),
    r"inputs: expected \[time, batch, 4\], got \(23, 2, 5\)": lambda: Network((layer_of(LIF()),), readout_of())(
        jnp.ones((TIME, BATCH, 5)), EProp1()
    ),
    "rule = 'magic': must be one of": lambda: make_rule("magic"),
    "feedback = 'telepathic': must be one of": lambda: make_rule("eprop1:telepathic"),
    "must be a whole number of steps": lambda: make_rule("truncated_bptt:soon"),
    "window = 0: must be at least 1": lambda: TruncatedBPTT(0),
    "bptt takes no option": lambda: make_rule("bptt:2"),
    "rtrl' would need .* GB .*fewer neurons or a smaller batch": lambda: Network(
        (Recurrent(LIF(), N_IN, 400, key=jax.random.key(0)),), Readout(400, 2, key=jax.random.key(0))
    )(inputs(dtype=jnp.float32), RTRL()),
    "rule 'rtrl' trains one recurrent layer": lambda: Network(
        (layer_of(Rate()), layer_of(Rate(), N)), readout_of()
    )(inputs(), RTRL()),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_breaks_a_rule_is_named(message):
    with pytest.raises(InvalidSetting, match=message):
        REFUSED[message]()


@pytest.mark.parametrize("rule", ["eprop1:random", "bptt", "rtrl"])
def test_forward_mode_is_refused(rule):
    network, x = make("lif"), inputs(5)
    of = lambda w: jnp.sum(eqx.tree_at(lambda n: n.layers[0].w_in, network, w)(x, make_rule(rule)).y ** 2)  # noqa: E731
    w = network.layers[0].w_in
    assert jax.vmap(jax.grad(of))(jnp.stack([w, w])).shape == (2, *w.shape)
    for forwards in (lambda: jax.jvp(of, (w,), (w,)), lambda: jax.jacfwd(of)(w)):
        with pytest.raises(InvalidSetting, match=r"no forward-mode derivative .*use jax\.grad"):
            forwards()
    for staged in (lambda: jax.jvp(jax.jit(of), (w,), (w,)), lambda: jax.jit(jax.jacfwd(of))(w)):
        with pytest.raises((InvalidSetting, TypeError), match="forward-mode"):
            staged()
