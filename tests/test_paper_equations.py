"""The spiking network of Bellec et al. 2020 and the LSTM, written as NumPy loops, against the library."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eprop import ALIF, LSTM, EProp1, Filtered, Network, Readout, Recurrent, trainable
from eprop.eligibility import eligibility_traces, record
from eprop.learning_signals import firing_rate_loss

pytestmark = pytest.mark.usefixtures("compiled_quickly")

N_IN, N, N_OUT, TIME, BATCH, WINDOW = 3, 5, 2, 40, 2, 12
TAU_M, TAU_A, TAU_OUT, V_TH, N_REF, GAMMA = 20.0, 60.0, 12.0, 0.6, 3, 0.3
BETA = np.array([0.0, 0.2, 0.0, 0.4, 0.1])

VARIANTS = {
    "2020": {},
    "input gain": {"input_gain": "one-minus-alpha"},
    "adaptation gain": {"adaptation_gain": "one-minus-rho"},
    "adaptive divisor": {"threshold_scaling": "adaptive"},
    "psi without v_th": {"pseudo_derivative_scaling": "none"},
    "psi while refractory": {"pseudo_derivative_in_refractory": True},
    "adaptation by crossings": {"adaptation_masked": False},
}


def paper(x, w_in, w_rec, c, options):
    """Spikes, membranes, eligibility traces (unfiltered, filtered) of EligALIF, one sample, in loops.

    The vectors follow the released code: eps_v belongs to the presynaptic neuron, eps_a to the synapse;
    b_t is updated before the threshold is taken, from the spike of the step before.
    """
    alpha, rho, kappa = (np.exp(-1.0 / tau) for tau in (TAU_M, TAU_A, TAU_OUT))
    g_in = 1 - alpha if options.get("input_gain") else 1.0
    g_b = 1 - rho if options.get("adaptation_gain") else 1.0
    unmasked, crossings = options.get("pseudo_derivative_in_refractory"), options.get("adaptation_masked") is False
    n_pre = N_IN + N
    v, b, z, r, counted = np.zeros(N), np.zeros(N), np.zeros(N), np.zeros(N), np.zeros(N)
    eps_v, eps_a, e_bar = np.zeros(n_pre), np.zeros((n_pre, N)), np.zeros((n_pre, N))
    psi_b, d_b = np.zeros(N), np.zeros(N)
    out = {"z": [], "v": [], "e": [], "e_bar": []}
    for t in range(TIME):
        pre = np.concatenate([x[t], z])
        b = rho * b + g_b * counted
        v = alpha * v + g_in * (x[t] @ w_in + z @ w_rec) - z * V_TH
        threshold = V_TH + BETA * b
        divisor = threshold if options.get("threshold_scaling") else V_TH
        v_scaled = (v - threshold) / divisor
        crossing = (v_scaled > 0).astype(float)
        # eps_a first, with psi and eps_v of the step before
        eps_a = (rho + g_b * d_b) * eps_a + g_b * psi_b * eps_v[:, None]
        eps_v = alpha * eps_v + g_in * pre
        bump = GAMMA * np.maximum(0.0, 1.0 - np.abs(v_scaled))
        if options.get("pseudo_derivative_scaling"):
            bump = bump * V_TH
        allowed = r <= 0
        psi = bump / divisor  # d crossing / d v
        slope = -bump * BETA / divisor  # d crossing / d b
        if options.get("threshold_scaling"):  # the divisor depends on b too
            slope = -bump * BETA * v / divisor**2
        shown = 1.0 if unmasked else allowed
        z = crossing * allowed
        e = shown * (psi * eps_v[:, None] + slope * eps_a)
        through = 1.0 if crossings else shown
        psi_b, d_b, counted = through * psi, through * slope, crossing if crossings else z
        r = np.clip(r + N_REF * z - 1, 0, N_REF)
        e_bar = kappa * e_bar + c * e
        for name, value in (("z", z), ("v", v), ("e", e), ("e_bar", e_bar)):
            out[name].append(value.copy())
    return {name: np.stack(values) for name, values in out.items()}


def network_of(options, gain):
    neuron = Filtered(ALIF(tau_m=TAU_M, tau_a=TAU_A, beta=jnp.asarray(BETA), v_th=V_TH, n_refractory=N_REF, **options),
                      tau_out=TAU_OUT, gain=gain)  # fmt: skip
    layer = Recurrent(neuron, N_IN, N, key=jax.random.key(3), dtype=jnp.float64)
    return Network((layer,), Readout(N, N_OUT, key=jax.random.key(4), dtype=jnp.float64))


def inputs_for(options, probability=0.4):
    scale = 3.0 if options.get("input_gain") else 0.6
    spikes = jax.random.bernoulli(jax.random.key(1), probability, (TIME, BATCH, N_IN)).astype(jnp.float64)
    return scale * spikes


def weights(network):
    layer = network.layers[0]
    return np.asarray(layer.w_in[:, 0]), np.asarray(layer.w_rec[:, 0]) * (1 - np.eye(N))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("gain", ["one", "one-minus-kappa"])
def test_spikes_membranes_and_traces_are_the_papers(variant, gain):
    options = VARIANTS[variant]
    network, x = network_of(options, gain), inputs_for(options)
    c = 1 - np.exp(-1 / TAU_OUT) if gain == "one-minus-kappa" else 1.0
    layer = network.layers[0]
    (z, _), trajectory = record(layer.neuron, layer.synapses(), x, layer.start(BATCH))
    e, e_bar = (np.asarray(a[:, :, :-1, 0]) for a in eligibility_traces(layer.neuron, trajectory))
    assert float(z.sum()) > 15
    suppressed = 0.0
    for sample in range(BATCH):
        expected = paper(np.asarray(x[:, sample]), *weights(network), c, options)
        assert np.array_equal(z[:, sample], expected["z"])
        for found, name in ((e, "e"), (e_bar, "e_bar")):
            scale = np.abs(expected[name]).max()
            assert scale > 1e-3
            assert np.abs(found[:, sample] - expected[name]).max() < 1e-10 * scale
        intervals = [np.diff(np.flatnonzero(train)) for train in expected["z"].T]
        assert min(i.min() for i in intervals if len(i)) >= N_REF
        suppressed += (expected["v"] > V_TH).sum() - expected["z"].sum()
    assert suppressed > 0  # refractoriness mattered


def softmax(y):
    e = np.exp(y - y.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("loss", "feedback", "rate"),
    list(itertools.product(["regression", "classification"], ["symmetric", "random"], [0.0, 5.0])),
)
def test_gradients_are_the_papers(loss, feedback, rate):
    """dE/dW = sum_t L ebar, L = B (y - y*) or B (pi - pi*) / (batch * window); regularisation on unfiltered traces."""
    network, x = network_of({}, "one"), inputs_for({})
    target = np.asarray(jax.random.normal(jax.random.key(2), (TIME, BATCH, N_OUT), jnp.float64))
    chosen, rest = eqx.partition(network, trainable(network, EProp1(feedback)))

    def library_loss(chosen):
        result = eqx.combine(chosen, rest)(x, EProp1(feedback))
        regularised = firing_rate_loss(result.z[0], 0.01, rate)
        if loss == "regression":
            return 0.5 * jnp.sum((result.y - target) ** 2) + regularised
        log_p = jax.nn.log_softmax(result.y)[-WINDOW:]
        return -jnp.mean(log_p[..., 0]) + regularised  # class 0 is right

    found = jax.grad(library_loss)(chosen)
    w_out = np.asarray(network.readout.weight)
    feedback_weights = w_out if feedback == "symmetric" else np.asarray(network.readout.feedback_weights)
    samples = [paper(np.asarray(x[:, b]), *weights(network), 1.0, {}) for b in range(BATCH)]
    rates = np.mean([s["z"].mean(0) for s in samples], 0)
    kappa = np.exp(-1 / TAU_OUT)
    synapses, readout = np.zeros((N_IN + N, N)), np.zeros((N, N_OUT))
    for b, s in enumerate(samples):
        z_bar = np.zeros(N)
        for t in range(TIME):
            z_bar = kappa * z_bar + s["z"][t]
            y = z_bar @ w_out
            error = y - target[t, b]
            if loss == "classification":
                error = (softmax(y) - np.array([1.0, 0.0])) / (BATCH * WINDOW) * (t >= TIME - WINDOW)
            synapses += (feedback_weights @ error) * s["e_bar"][t]
            synapses += 2 * rate * (rates - 0.01) * s["e"][t] / (BATCH * TIME)
            readout += np.outer(z_bar, error)
    for i in range(N):
        synapses[N_IN + i, i] = 0.0  # no autapses
    assert np.abs(synapses).max() > 1e-4
    whole = np.concatenate([found.layers[0].w_in[:, 0], found.layers[0].w_rec[:, 0]])
    assert np.abs(whole - synapses).max() < 1e-10 * np.abs(synapses).max()
    assert np.abs(found.readout.weight - readout).max() < 1e-10 * np.abs(readout).max()


def test_lstm_traces_are_the_papers():
    """eps_i = f eps_i + i(1-i) g x; eps_g = f eps_g + i(1-g^2) x; eps_f = f eps_f + f(1-f) c x; e_o has no memory."""
    layer = Recurrent(LSTM(), N_IN, N, key=jax.random.key(0), bias=True, dtype=jnp.float64)
    x = jax.random.normal(jax.random.key(1), (TIME, 1, N_IN), jnp.float64)
    h, trajectory = record(layer.neuron, layer.synapses(), x, layer.start(1))
    (traces,) = eligibility_traces(layer.neuron, trajectory)
    w = np.concatenate([layer.w_in, layer.w_rec, layer.bias[None]])  # [pre, gate, neuron]
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    c, m, eps = np.zeros(N), np.zeros(N), np.zeros((3, N_IN + N + 1, N))
    for t in range(TIME):
        pre = np.concatenate([x[t, 0], m, [1.0]])
        a_i, a_g, a_f, a_o = np.einsum("i,iqj->qj", pre, w)
        i, g, f, o = sigmoid(a_i), np.tanh(a_g), sigmoid(a_f + 1), sigmoid(a_o)
        direct = np.stack([i * (1 - i) * g, i * (1 - g**2), f * (1 - f) * c])
        eps = f * eps + direct[:, None] * pre[:, None]
        c = f * c + i * g
        m = o * np.tanh(c)
        e_o = o * (1 - o) * np.tanh(c) * pre[:, None]
        expected = np.stack([*(o * (1 - np.tanh(c) ** 2) * eps), e_o], axis=1)
        assert np.allclose(h[t, 0], m, atol=1e-12)
        assert np.abs(traces[t, 0] - expected).max() < 1e-10 * np.abs(expected).max()
