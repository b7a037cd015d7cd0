"""What experiments on plasticity were summed up by: the curves that e-prop's traces are drawn beside.

The constants are those of NEST's code (`stdp_triplet_synapse`, `clopath_synapse`); the papers were not read.
"""

import numpy as np

TAU_PLUS, TAU_MINUS = 16.8, 33.7
"""Time constants of pair STDP, ms: post after pre, pre after post."""

TAU_X, TAU_Y = 101.0, 125.0
"""Time constants of the triplet terms, ms: of the presynaptic and of the postsynaptic spikes before."""

A2_PLUS, A3_PLUS, A2_MINUS, A3_MINUS = 5e-10, 6.2e-3, 7e-3, 2.3e-4
"""Amplitudes of the triplet rule: pairs and triplets that strengthen, pairs and triplets that weaken."""

THETA_MINUS, THETA_PLUS, A_LTD, A_LTP = -70.6, -45.3, 14e-5, 8e-5
"""The voltage rule: thresholds of depression and potentiation, mV; amplitudes, 1/mV and 1/mV^2."""

DOPAMINE_BAND = 300.0, 2000.0
"""Dopamine acted when it came so late after glutamate, ms (Yagishita et al. 2014, abstract)."""


def pair_rule(interval: np.ndarray) -> np.ndarray:
    """`exp(-D/tau_plus)` for post after pre (D >= 0, ms), `-exp(D/tau_minus)` for pre after post; heights arbitrary."""
    return np.where(interval >= 0, np.exp(-np.abs(interval) / TAU_PLUS), -np.exp(-np.abs(interval) / TAU_MINUS))


def triplet_rule(pre: list[int], post: list[int]) -> float:
    """The weight's change after spikes at the given times (ms), by the triplet rule, all spikes counted.

        at a presynaptic spike:    w -= o1 (A2- + A3- r2)
        at a postsynaptic spike:   w += r1 (A2+ + A3+ o2)

    `r1`, `r2` jump by 1 at presynaptic spikes and fall with tau_plus, tau_x; `o1`, `o2` at postsynaptic ones, with
    tau_minus, tau_y. A spike meets the values before its own jump (Pfister & Gerstner 2006).
    """
    change, last = 0.0, 0
    traces = np.zeros(4)  # r1, r2, o1, o2
    decay = np.array([TAU_PLUS, TAU_X, TAU_MINUS, TAU_Y])
    for time, is_post in sorted([(t, False) for t in pre] + [(t, True) for t in post]):
        traces *= np.exp(-(time - last) / decay)
        r1, r2, o1, o2 = traces
        change += r1 * (A2_PLUS + A3_PLUS * o2) if is_post else -o1 * (A2_MINUS + A3_MINUS * r2)
        traces[2:] += is_post
        traces[:2] += not is_post
        last = time
    return change


def voltage_rule(u: np.ndarray) -> np.ndarray:
    """Change by one presynaptic spike while the membrane is held at `u` (mV), after Clopath et al. 2010.

    `A_LTP (u - theta_plus)+ (u - theta_minus)+ - A_LTD (u - theta_minus)+`: at a held membrane its filtered copies
    equal it, and the filtered presynaptic spike has the integral 1.
    """
    above = np.maximum(u - THETA_MINUS, 0.0)
    return A_LTP * np.maximum(u - THETA_PLUS, 0.0) * above - A_LTD * above
