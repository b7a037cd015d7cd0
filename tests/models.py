"""The table of models that the ladder runs over, and the measure of an error."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from eprop import (
    ALIF,
    ELSTM,
    GRU,
    LIF,
    LRU,
    LSTM,
    RTU,
    STDPALIF,
    STDPLIF,
    AdEx,
    CubaLIF,
    Filtered,
    Izhikevich,
    MinGRU,
    Network,
    Neuron,
    Rate,
    Readout,
    Recurrent,
)

N_IN, N, N_OUT, TIME, BATCH = 4, 6, 2, 23, 2


class TwoByTwo(Neuron):
    """A model as a user writes it: two traced state components, two currents."""

    num_currents = 2

    def init(self, shape, dtype=jnp.float32):
        return jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)

    def step(self, state, currents, z_prev):
        (u, w), (drive, gate) = state, currents
        u = 0.8 * u + jax.nn.sigmoid(gate) * drive - 0.2 * w
        w = 0.9 * w + 0.1 * u * jnp.tanh(u)
        return (u, w), jnp.tanh(u + w)


MIXED_BETA = jnp.where(jnp.arange(N) % 2 == 1, 0.3, 0.0)

MODELS = {
    "lif": (Filtered(LIF(n_refractory=3), tau_out=7.0), ("tau_m", "v_th", "tau_out")),
    "lif without filter": (LIF(), ("tau_m",)),
    "lif with hard reset": (
        Filtered(LIF(n_refractory=2, reset="hard", v_reset=-0.1), tau_out=7.0),
        ("tau_m", "v_th", "v_reset"),
    ),
    "alif": (
        Filtered(ALIF(n_refractory=2, tau_a=30.0, beta=MIXED_BETA), tau_out=9.0),
        ("tau_m", "tau_a", "beta", "v_th"),
    ),
    "alif of 2019": (
        ALIF(tau_a=30.0, beta=0.2, input_gain="one-minus-alpha", adaptation_gain="one-minus-rho", v_th=0.05,
             threshold_scaling="adaptive"),
        ("tau_a",),
    ),
    "stdp-lif": (STDPLIF(n_refractory=3), ("tau_m",)),
    "stdp-alif": (
        Filtered(STDPALIF(n_refractory=2, tau_a=30.0, beta=MIXED_BETA), tau_out=9.0),
        ("tau_m", "tau_a", "beta", "v_th"),
    ),
    "cuba-lif": (Filtered(CubaLIF(tau_syn=4.0, n_refractory=2), tau_out=9.0), ("tau_m", "tau_syn", "v_th")),
    "izhikevich": (Filtered(Izhikevich.fast_spiking(input_scale=20.0), tau_out=9.0), ("a", "b", "c", "d")),
    "adex": (Filtered(AdEx(input_scale=2000.0), tau_out=9.0), ("g_l", "e_l", "tau_w", "a", "b", "v_reset")),
    "lstm": (LSTM(), ()),
    "lstm with filter": (Filtered(LSTM(), tau_out=5.0), ()),
    "gru": (GRU(), ()),
    "rate": (Filtered(Rate(tau_m=5.0), tau_out=8.0), ("tau_m", "tau_out")),
    "user's": (TwoByTwo(), ()),
}  # fmt: skip

ELEMENTWISE = {
    "lru": (LRU.ring(jax.random.key(7), N, r_min=0.8, dtype=jnp.float64), ("nu", "theta")),
    "rtu": (RTU.ring(jax.random.key(7), N, r_min=0.8, dtype=jnp.float64, activation="tanh"), ("nu", "theta")),
    "linear rtu": (
        Filtered(
            RTU.ring(jax.random.key(7), N, dtype=jnp.float64, activation="tanh", recurrence="linear"), tau_out=5.0
        ),
        ("nu", "theta"),
    ),
    "min-gru": (MinGRU(), ()),
    "elstm": (ELSTM.random(jax.random.key(7), N, scale=1.0, dtype=jnp.float64), ("w_f", "w_g", "w_o")),
}
"""Models without recurrent weights."""

SMOOTH = ("lstm", "lstm with filter", "gru", "rate", "user's")


def make(name, dtype=jnp.float64, **layer):
    """A network of the model, and inputs that make it spike."""
    neuron, trainable = (MODELS | ELEMENTWISE)[name]
    layer = {"bias": True, "trainable": trainable} | layer
    recurrent = Recurrent(neuron, N_IN, N, key=jax.random.key(3), dtype=dtype, **layer)
    if recurrent.bias is not None:  # not zero, so that every gate matters from the first step
        bias = 0.3 * jax.random.normal(jax.random.key(6), recurrent.bias.shape, dtype)
        recurrent = eqx.tree_at(lambda m: m.bias, recurrent, bias)
    return Network((recurrent,), Readout(N, N_OUT, key=jax.random.key(4), dtype=dtype))


def inputs(time=TIME, batch=BATCH, dtype=jnp.float64, seed=1):
    return 1.5 * jax.random.normal(jax.random.key(seed), (time, batch, N_IN), dtype)


def targets(time=TIME, batch=BATCH, dtype=jnp.float64):
    return jax.random.normal(jax.random.key(2), (time, batch, N_OUT), dtype)


def difference(a, b):
    """Largest error over leaves, each relative to the largest entry of that leaf of `b`."""
    leaves = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert leaves
    errors = []
    for x, y in leaves:
        x, y = np.asarray(x), np.asarray(y)  # nothing here is worth compiling
        scale = float(np.abs(y).max())
        errors.append(float(np.abs(x - y).max()) / (scale if scale > 0 else 1.0))
    return max(errors)


def check_alive(z, gradient):
    """Before a comparison means anything: the network was active, the gradient is finite and not zero."""
    assert float(np.abs(np.asarray(z)).sum()) > 1.0
    leaves = [np.asarray(g) for g in jax.tree.leaves(gradient)]
    assert all(bool(np.isfinite(g).all()) for g in leaves)
    assert all(float(np.abs(g).max()) > 0 for g in leaves)
