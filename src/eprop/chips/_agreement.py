"""How near a chip's updates in integers are to e-prop's in float, given the same spikes and signals."""

from typing import Literal, NamedTuple

import numpy as np

from eprop.chips import loihi, reckon
from eprop.errors import require_choice, require_positive


class Agreement(NamedTuple):
    """Of all input weights, updates summed up to each step.

    cosine: `<d, g> / (|d| |g|)` of the change `d` in integers and the float update `g`, `[step]`; 0 where either is 0.
    size: `<d, g> / <g, g>`, with `g` in units of the weights: 1 where nothing is lost.
    nothing: share of the updates, of synapses and steps where `g` changed, that changed no weight.
    """

    cosine: np.ndarray
    size: np.ndarray
    nothing: float


def reckon_agreement(
    chip: reckon.ReckOn | None = None, steps: int = 400, rate: float = 0.05, seed: int = 0
) -> Agreement:
    """ReckOn on random input, learning at every tick: its input weights against e-prop's update in float.

        g_ij = sum_t L_j^t h_j^t xbar_i^t 2^(lr_p - lr_r - 32),   L_j = sum_k err_k w_out[j,k] 2^(ls_scale - 12)

    Error, pseudo-derivative and output weights are the core's own; trace, learning signal and sum are float.

    Args:
        chip: the configuration; by default the bench's, without regularisation of rates, which is no part of `g`.
        steps: ticks.
        rate: probability of an input spike a tick.
        seed: of weights and input.
    """
    require_positive(steps=steps, rate=rate)
    chip = reckon.ReckOn(regul_mode=0) if chip is None else chip
    rng = np.random.default_rng(seed)
    inputs = rng.random((steps + 1, chip.n_in)) < rate
    begin = reckon.initial(chip, seed)
    _, _, found = reckon.run(chip, begin, inputs, 0, np.ones(steps + 1, bool), record=True)
    assert found is not None
    alpha = np.repeat(chip.per_pair("alpha"), 2)[: chip.n_in] / 2**15
    err, h = np.asarray(found.signals.err, float), np.asarray(found.signals.h, float)
    w_in = np.concatenate([np.asarray(begin.weights.w_in)[None], np.asarray(found.weights[0])]).astype(int)
    w_out = np.concatenate([np.asarray(begin.weights.w_out)[None], np.asarray(found.weights[2])[:-1]]).astype(float)
    signal = np.einsum("tk,tjk->tj", err, w_out) * 2.0 ** (chip.ls_scale - 12)
    trace, updates = np.zeros(chip.n_in), []
    for t in range(steps):
        trace = alpha * (trace + 8 * inputs[t])  # after this tick's decay, without its spikes
        updates.append(np.outer(trace, signal[t] * h[t]) * 2.0 ** (chip.lr_p_winp - chip.lr_r_winp - 32))
    return _compared(np.diff(w_in, axis=0), np.array(updates))


def loihi_agreement(
    kind: Literal["lif", "alif"] = "lif",
    exponent: int = -5,
    steps: int = 400,
    rate: float = 0.05,
    seed: int = 0,
    variant: loihi.Variant | None = None,
) -> Agreement:
    """e-prop's rule on Loihi, on random spikes, pseudo-derivatives and signals, against the same in float.

    LIF: `g_ij = c sum_t y_j^t xbar_i^{t-1}`. ALIF: with the eligibility vector eps, tau_a 64 steps and beta 0.25.
    20 inputs, 10 neurons; psi is 0 for two thirds of neurons and steps; y = -L psi fills the 7 bits it is sent in.
    """
    require_choice("kind", kind, ("lif", "alif"))
    require_positive(steps=steps, rate=rate)
    rng = np.random.default_rng(seed)
    dv, beta, tau_a, psi_unit, y_unit = 128, 0.25, 64, 1 / 64, 1 / 32
    psi = np.maximum(0, 1 - np.abs(rng.normal(0, 2.3, (steps, 10))))
    y = psi * np.clip(rng.standard_normal((steps, 10)), -1.9, 1.9)
    x = rng.random((steps, 20)) < rate
    if kind == "lif":
        made = loihi.eprop_lif(dv, exponent=exponent)
    else:
        made = loihi.eprop_alif(dv, tau_a, beta, psi_unit, exponent=exponent)
    lif, connection = loihi.LoihiLIF(dv=dv), loihi.Connection(rule=made.rule)
    chip = loihi.Loihi(20, 10, lif, connection, variant=loihi.Variant() if variant is None else variant)
    sent = np.zeros((steps, 3, 10), int)
    sent[:, 1], sent[:, 2] = np.rint(psi / psi_unit), np.rint(64 + y / y_unit)
    _, found = loihi.run(chip, loihi.start(chip, np.zeros((20, 10), int)), x, sent, record=True)
    assert found.dense is not None
    trace, eps, updates = np.zeros(20), np.zeros((20, 10)), []
    alpha, rho = 1 - dv / 4096, 1 - 1 / tau_a
    for t in range(steps):
        seen = alpha * trace[:, None] - (beta * eps if kind == "alif" else 0)
        updates.append(made.weight * y[t] / y_unit * seen)
        eps = rho * eps + psi[t] * seen
        trace = alpha * trace + x[t]
    w = np.concatenate([np.zeros((1, 20, 10), int), np.asarray(found.dense.synapses.w)])
    return _compared(np.diff(w, axis=0), np.array(updates))


def _compared(moved: np.ndarray, updates: np.ndarray) -> Agreement:
    """Both `[step, pre, post]`, a step each."""
    d, g = (np.cumsum(part, axis=0).reshape(len(part), -1) for part in (moved, updates))
    product, d_norm, g_norm = (d * g).sum(1), np.linalg.norm(d, axis=1), np.linalg.norm(g, axis=1)
    cosine = np.where(d_norm * g_norm > 0, product / np.maximum(d_norm * g_norm, 1e-300), 0.0)
    wanted = updates != 0
    nothing = float((moved[wanted] == 0).mean()) if wanted.any() else 0.0
    return Agreement(cosine, product / np.maximum(g_norm**2, 1e-300), nothing)
