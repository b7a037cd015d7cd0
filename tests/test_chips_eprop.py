"""e-prop as a rule of the chip is e-prop; integer updates beside float ones; what a run costs."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eprop import ALIF, LIF, InvalidSetting
from eprop.chips import loihi, loihi_cost, reckon, reckon_cost
from eprop.chips.loihi import Connection, Loihi, LoihiLIF, eprop_alif, eprop_lif

pytestmark = pytest.mark.usefixtures("compiled_quickly")
DV = 128
ALPHA = (4096 - DV) / 4096


def driven(neuron, steps=400, seed=0):
    """Spikes of 5 inputs, and of a neuron model without recurrence: pseudo-derivatives, learning signals, gradient.

    The inputs of the step before feed it. The gradient is automatic differentiation's of `sum L z`, the reset cut.
    """
    rng = np.random.default_rng(seed)
    x = (rng.random((steps, 5)) < 0.1).astype(float)
    w = rng.uniform(0, 0.5, (5, 4))
    L = rng.standard_normal((steps, 4))
    before = np.concatenate([np.zeros((1, 5)), x[:-1]])  # what feeds each step

    def total(w):
        def one(carry, now):
            state, z_prev = carry
            x, L = now
            current = (x @ w)[None]
            z, psi = jax.jvp(lambda c: neuron.step(state, (c,), z_prev)[1], (current,), (jnp.ones_like(current),))
            state, z = neuron.step(state, (current,), jax.lax.stop_gradient(z_prev))
            return (state, z), ((L * z).sum(), z, psi)

        begin = neuron.init((1, 4), jnp.float64), jnp.zeros((1, 4))
        _, (parts, z, psi) = jax.lax.scan(one, begin, (before, L))
        return parts.sum(), (z, psi)

    (_, (z, psi)), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(w)
    return x, np.asarray(psi)[:, 0], L, np.asarray(gradient), np.asarray(z)


def evaluated(made, x, y2, y3):
    """The rule's products in plain float: without rounding or limits, with the factors on products of the chip."""
    rule, alpha = made.rule, ALPHA
    x1, t, w = np.zeros(5), np.zeros((5, 4)), np.zeros((5, 4))
    lost = {1: 0, 2: 3}
    for step in range(len(x)):
        x1 = alpha * x1 + rule.x1_impulse * x[step]
        values = {"x1": x1[:, None], "y2": y2[step][None], "y3": y3[step][None], "t": t}
        change = {}
        for name, products in rule.products.items():
            change[name] = 0.0
            for p in products:
                term = x[step][:, None] if p.dependency == "x0" else 1.0
                for f in p.factors:
                    term = term * (values[f.name] + f.constant)
                shift = 5 if len(p.factors) == 2 and any(f.name == "t" for f in p.factors) else lost[len(p.factors)]
                change[name] = change[name] + p.mantissa * 2.0 ** (p.exponent - shift) * term
        w = w + change["w"]
        t = t + change.get("t", 0.0)
    return w


def test_the_rule_for_lif_neurons_is_eprop():
    """Up to one constant factor, as a number and not as a cosine."""
    tau = loihi._eprop.trace_tau(DV)
    x, psi, L, gradient, z = driven(LIF(tau_m=tau, v_th=0.6))
    assert z.any() and np.abs(gradient).min() > 0
    made = eprop_lif(DV)
    w = evaluated(made, x, 0 * psi, 64 + L * psi)
    np.testing.assert_allclose(w, made.weight * ALPHA * gradient, rtol=1e-9, atol=1e-9)
    two = eprop_lif(DV, sign="two-traces")
    product = L * psi
    w = evaluated(two, x, np.maximum(-product, 0), np.maximum(product, 0))
    np.testing.assert_allclose(w, two.weight * ALPHA * gradient, rtol=1e-9, atol=1e-9)


def test_the_rule_for_alif_neurons_is_eprop():
    """With constants that 3 bits can say: rho = 1 - 2^-6, beta a power of two. The trace that the rule reads is alpha
    times what is wanted: an input gain of alpha, in the float neuron's own vectors."""
    tau, tau_a, beta = loihi._eprop.trace_tau(DV), -1 / np.log1p(-1 / 64), 0.25
    x, psi, L, gradient, z = driven(ALIF(tau_m=tau, tau_a=tau_a, v_th=0.6, beta=beta))
    assert z.any() and np.abs(gradient).min() > 0
    made = eprop_alif(DV, tau_a=64, beta=beta, psi=1 / 64)
    assert made.errors == {}
    w = evaluated(made, x, psi / made.psi, 64 + L * psi)
    np.testing.assert_allclose(w, made.weight * ALPHA * gradient, rtol=1e-9, atol=1e-9)


def test_without_the_term_at_the_spike_the_rule_is_another():
    tau = loihi._eprop.trace_tau(DV)
    x, psi, L, gradient, _ = driven(LIF(tau_m=tau, v_th=0.6))
    made = eprop_lif(DV)
    first = made._replace(rule=replace(made.rule, dw=made.rule.dw.split(" - ")[0]))
    w = evaluated(first, x, 0 * psi, 64 + L * psi)
    best = (w * gradient).sum() / (gradient**2).sum()
    assert np.abs(w - best * gradient).max() > 0.02 * np.abs(w).max()


def test_constants_that_a_rule_cannot_say_are_named():
    assert set(eprop_alif(DV, tau_a=100, beta=0.25, psi=1 / 64).errors) == {"tau_a"}
    with pytest.raises(InvalidSetting, match="tau_a: needs the constant 0.0005, no m"):
        eprop_alif(DV, tau_a=2000, beta=0.25, psi=1 / 64)
    with pytest.raises(InvalidSetting, match="impulse = 0: must be an integer from 1 to 127"):
        eprop_lif(DV, impulse=0)
    with pytest.raises(InvalidSetting, match="sign = 'two-traces': the ALIF rule needs"):
        eprop_alif(DV, tau_a=64, beta=0.25, psi=1 / 64, sign="two-traces")


def test_costs_of_a_reckon_core_are_what_happened():
    chip = reckon.ReckOn(n_in=4, n_rec=16, regul_mode=0, thr=100)
    rng = np.random.default_rng(0)
    w = rng.integers(-60, 61, (4, 16)), np.zeros((16, 16), int), rng.integers(-9, 9, (16, 2))
    inputs, valid = rng.random((100, 4)) < 0.3, np.arange(100) >= 50
    state = reckon.start(chip, *w)
    after, result, found = reckon.run(chip, state, inputs, 0, valid, record=True)
    cost = reckon_cost(chip, after, result.events, 100)
    spikes = np.asarray(found.S.z[:-1])  # those of the last tick reach nothing
    added = inputs[:-1].sum(0) @ (np.asarray(after.weights.w_in) != 0).sum(1)
    added += spikes.sum(0) @ (
        (np.asarray(after.weights.w_rec) != 0).sum(1) + (np.asarray(after.weights.w_out) != 0).sum(1)
    )
    assert spikes.any() and cost.synaptic_operations_effective_acs == added / 100
    assert cost.synaptic_operations_dense == 4 * 16 + 16 * 16 + 16 * 2
    learnt = np.asarray(found.learnt)
    touched = (
        16 * (np.asarray(found.S.tin)[learnt] >> 3 != 0).sum() + 16 * (np.asarray(found.S.trec)[learnt] >> 4 != 0).sum()
    )
    touched += 2 * (np.asarray(found.S.tout)[learnt] >> 6 != 0).sum()
    assert 0 < cost.synapses_touched < 1
    assert cost.updates == touched / 100
    assert cost.updates_skipped == pytest.approx(1 - touched / (learnt.sum() * 352), abs=1e-12)
    assert cost.footprint == 352 + cost.footprint_state + (4 * 12 + 16 * 22) / 8
    assert cost.activation_sparsity == 1 - spikes.sum() / 1600
    assert "synaptic operations effective acs" in cost.table() and cost.summary()["footprint"] == cost.footprint


def test_costs_of_a_loihi_population_are_what_happened():
    made = eprop_alif(DV, tau_a=64, beta=0.25, psi=1 / 64)
    chip = Loihi(6, 3, LoihiLIF(dv=DV, vth=60), Connection(rule=made.rule), Connection())
    rng = np.random.default_rng(1)
    state = loihi.start(chip, rng.integers(-50, 100, (6, 3)), rng.integers(-50, 50, (3, 3)))
    inputs, sent = rng.random((50, 6)) < 0.3, rng.integers(0, 127, (50, 3, 3))
    state, found = loihi.run(chip, state, inputs, sent, record=True)
    cost = loihi_cost(chip, state, inputs, found)
    assert found.z.any() and cost.updates == 18 and cost.synapses_touched == 1
    assert cost.footprint_weights == (18 * 9 + 9 * 9 + 18 * 9) / 8
    added = inputs.sum(0) @ (np.asarray(state.dense.synapses.w) != 0).sum(1)
    added += np.asarray(found.z).sum(0) @ (np.asarray(state.rec.synapses.w) != 0).sum(1)
    assert cost.synaptic_operations_effective_acs == added / 50
