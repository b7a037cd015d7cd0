"""What the traces are: the curves of `eprop reproduce plasticity` against closed forms and loops of their own."""

import numpy as np
import pytest

from eprop.errors import InvalidSetting
from eprop.workshop.experiments import PlasticitySettings, reproduction_of, start_reproduction
from eprop.workshop.experiments._plasticity_models import A2_MINUS, A3_PLUS, TAU_MINUS, TAU_PLUS, TAU_Y, triplet_rule
from eprop.workshop.figures import draw
from eprop.workshop.training import RunFolder, read_json

pytestmark = pytest.mark.usefixtures("compiled_quickly")

S = PlasticitySettings(
    tau_m=15.0, v_th=0.8, n_refractory=4, gamma=0.4, tau_a=70.0, beta=0.2, widest=12, pairings=4, periods=(60, 20),
    spacing=8, time_constants=(15.0, 120.0), longest_delay=700,
)  # fmt: skip
PSI, ALPHA, RHO = S.gamma / S.v_th, np.exp(-1 / S.tau_m), np.exp(-1 / S.tau_a)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The command's own folder, with small protocols."""
    folder = start_reproduction("plasticity", S, tmp_path_factory.mktemp("runs") / "plasticity")
    reproduction, settings = reproduction_of(folder)
    reproduction.run(folder, settings)
    return folder


@pytest.fixture(scope="module")
def found(run):
    return read_json(run.path / "plasticity.json")


def traces_added_up(pre, post, steps, *, forgets, adapts):
    """The sum of `e` by the published recursion; the membrane is put just over its threshold where it is to fire."""
    v = b = eps_v = eps_a = total = 0.0
    since = steps
    for t in range(steps):
        since += 1
        refractory = since < S.n_refractory
        wiped = forgets and (refractory or since == 1)
        reset = 0.0 if forgets or since != 1 else S.v_th
        threshold, fires = S.v_th + adapts * S.beta * b, t in post
        v = threshold * (1 + 1e-9) if fires else ALPHA * v * (not wiped) - reset
        eps_v = ALPHA * eps_v * (not wiped) + (t in pre)
        psi = PSI * max(0.0, 1 - abs(v - threshold) / S.v_th)
        if refractory:
            psi = -PSI if forgets else 0.0
        total += psi * (eps_v - adapts * S.beta * eps_a)
        eps_a = psi * eps_v + (RHO - psi * adapts * S.beta) * eps_a
        b = RHO * b + fires
        since = 0 if fires else since
    return total


def test_pairs_have_the_closed_form(found):
    interval = np.array(found["pairing"]["post_minus_pre_ms"])
    causal = np.where(interval >= 0, PSI * ALPHA ** np.abs(interval), 0.0)
    forgetful = np.where((interval < 0) & (interval > -S.n_refractory), -PSI, causal)
    change = found["pairing"]["change"]
    assert np.max(causal) > 0.4
    for name, expected in (("LIF", causal), ("ALIF", causal), ("STDP-LIF", forgetful)):
        assert np.abs(np.array(change[name]) - expected).max() < 1e-6, name
    assert np.all(np.array(change["LIF"])[interval < 0] == 0.0)


def test_pairs_of_an_adaptive_neuron_that_forgets_are_a_loop_of_their_own(found):
    for interval in (-6, -2, 0, 7):
        expected = traces_added_up({20 - interval}, {20}, 60, forgets=True, adapts=True)
        assert found["pairing"]["change"]["STDP-ALIF"][interval + S.widest] == pytest.approx(expected, abs=1e-8)


def izhikevich_traces_added_up(pre, post, steps):
    """The same for regular spiking, two half steps of v and one of u, reset first."""
    v, u, eps_v, eps_u, total = -65.0, -13.0, 0.0, 0.0, 0.0
    for t in range(steps):
        if v > 30:
            v, u, eps_v = -65.0, u + 8.0, 0.0
        for _ in range(2):
            slope = 1 + 0.5 * (0.08 * v + 5)
            v += 0.5 * (0.04 * v * v + 5 * v + 140 - u + 10 * (10.0 if t == post else 0.0))
            eps_v = slope * eps_v - 0.5 * eps_u + 5.0 * (t == pre)
        u, eps_u = u + 0.02 * (0.2 * v - u), eps_u + 0.02 * (0.2 * eps_v - eps_u)
        total += 0.3 * np.exp(min(0.0, (v - 30) / 30)) * eps_v
    return total


def test_izhikevich_pairs_are_a_loop_of_their_own(found):
    t, steps = S.widest + 300, 5 * S.widest + 300
    alone = izhikevich_traces_added_up(t, None, steps)
    for interval in (-9, 0, 3, 10):
        expected = izhikevich_traces_added_up(t - interval, t, steps) - alone
        shown = found["pairing"]["change"]["Izhikevich"][interval + S.widest]
        assert shown == pytest.approx(expected, rel=1e-6), interval


@pytest.mark.parametrize(
    ("name", "forgets", "adapts"),
    [("LIF", False, False), ("ALIF", False, True), ("STDP-LIF", True, False), ("STDP-ALIF", True, True)],
)
def test_rates_and_triplets_are_a_loop_of_their_own(found, name, forgets, adapts):
    t = [30 + i * 20 for i in range(S.pairings)]
    slow = [30 + i * 60 for i in range(S.pairings)]
    protocols = {
        "post after pre, 50 Hz": (t, [x + 8 for x in t]),
        "pre after post, 50 Hz": (t, [x - 8 for x in t]),
        "pre-post-pre 15, 5 ms": ([x - 15 for x in slow] + [x + 5 for x in slow], slow),
        "post-pre-post 5, 15 ms": (slow, [x - 5 for x in slow] + [x + 15 for x in slow]),
    }
    for protocol, (pre, post) in protocols.items():
        expected = traces_added_up(set(pre), set(post), 30 + 60 * S.pairings, forgets=forgets, adapts=adapts)
        shown = found["repeated"]["change"][name][found["repeated"]["protocols"].index(protocol)]
        assert shown == pytest.approx(expected, rel=1e-6, abs=1e-9), protocol


def test_the_trace_of_a_held_membrane_is_the_pseudo_derivative(found):
    v = np.array(found["voltage"]["v"])
    psi = lambda threshold: PSI * np.maximum(0, 1 - np.abs(v - threshold) / S.v_th)  # noqa: E731
    change = found["voltage"]["change"]
    assert np.abs(np.array(change["LIF, ALIF"]) - psi(S.v_th)).max() < 1e-9
    raised = S.v_th + S.beta * RHO ** (S.n_refractory - 1)
    assert np.abs(np.array(change["ALIF after a spike"]) - psi(raised)).max() < 1e-9
    assert np.abs(np.array(change["STDP-LIF, refractory"]) + PSI).max() < 1e-9


def test_a_late_learning_signal_meets_the_neurons_own_time_constants(found):
    delay, taus = found["delay"], np.array(S.time_constants)
    late = np.array(delay["delays_ms"])[None]
    for name in ("tau_out", "tau_a"):
        assert delay[name]["measured_ms"] == pytest.approx(S.time_constants, rel=1e-6)
    of_readout = PSI * ALPHA**5 * np.exp(-late / taus[:, None])
    assert np.abs(np.array(delay["tau_out"]["change"]) - of_readout).max() < 1e-6
    half = 0.5 * PSI * ALPHA**5
    of_adaptation = -half * S.beta * PSI * np.exp(-(late - 1) / taus[:, None])
    assert np.abs(np.array(delay["tau_a"]["of_adaptation"]) - of_adaptation).max() < 1e-8
    assert np.abs(np.array(delay["tau_a"]["change"]) - half * ALPHA**late - of_adaptation).max() < 1e-6


def test_the_third_factor_gives_sign_and_size(found):
    signal, change = np.array(found["third_factor"]["learning_signal"]), found["third_factor"]["change"]
    assert {*np.sign(signal)} == {-1.0, 0.0, 1.0}
    expected = {
        "LIF, +10 ms": -(ALPHA**10),
        "STDP-LIF, +10 ms": -(ALPHA**10),
        "STDP-LIF, -2 ms": 1.0,
        "LIF, -2 ms": 0.0,
    }
    for name, slope in expected.items():
        assert np.abs(np.array(change[name]) - PSI * slope * signal).max() < 1e-6, name


def test_the_triplet_rule_by_hand():
    assert triplet_rule([10], [0]) == pytest.approx(-A2_MINUS * np.exp(-10 / TAU_MINUS))
    strengthens = np.exp(-5 / TAU_PLUS) * A3_PLUS * np.exp(-15 / TAU_Y)
    expected = strengthens - A2_MINUS * np.exp(-10 / TAU_MINUS)
    assert triplet_rule([10], [0, 15]) == pytest.approx(expected, rel=1e-6)


def test_it_is_drawn_and_can_be_replaced(run):
    assert [path.name for path in draw(run)] == ["plasticity.png"]
    RunFolder.create(run.path, run.config, overwrite=True)
    assert not (run.path / "plasticity.json").exists()
    with pytest.raises(InvalidSetting, match="nothing measured yet"):
        draw(RunFolder.open(run.path))


def test_settings_out_of_range_are_refused():
    for wrong in ({"tau_m": 0.0}, {"periods": (4, 1000)}, {"periods": (20,)}, {"time_constants": ()}):
        with pytest.raises(InvalidSetting, match=next(iter(wrong))):
            PlasticitySettings(**wrong)
