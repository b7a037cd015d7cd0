"""ReckOn: every register of every tick, against a plain twin and against numbers recorded from the public design."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from eprop import InvalidSetting
from eprop.chips import reckon
from eprop.chips.reckon import ReckOn, _learn, _lfsr
from reckon_twin import Bits, Core
from vectors import recorded

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def random_configuration(seed):
    """A configuration with every option at stake; sizes small, constants such that registers overflow."""
    rng = np.random.default_rng(seed)
    one = lambda *values: values[rng.integers(len(values))]  # noqa: E731
    whole = lambda low, high: int(rng.integers(low, high + 1))  # noqa: E731
    n_rec = one(16, 18, 20, 34)
    pairs = n_rec // 2
    constants = dict(
        n_in=whole(3, 9), n_rec=n_rec, n_out=whole(2, 5), kappa=one(121, 128, 90, 255), reset_zero=whole(0, 1),
        alpha=one(32751, 0x8000, tuple(int(a) for a in rng.choice([0x7000, 0x7FEF, 0x8000, 0x7C00], pairs))),
        thr=one(614, tuple(whole(100, 20000) for _ in range(pairs))), stoch_round=one(1, 1, 1, 0),
        do_eprop=one(7, 7, 7, 1, 2, 4, 6, 5, 3, 0), force_traces=whole(0, 1), fp_winp=one(3, 5, 7),
        fp_wrec=one(3, 7, 2), fp_wout=one(3, 7), fp_tinp=one(3, 0, 6), fp_trec=one(4, 0, 7), fp_tout=one(6, 3),
        ls_scale=one(5, 12, 15), thr_h=one((205,) * 4, (-300, 0, 300, 20000)), k_mul=one(0, 2, 6),
        h=one((0, 0, 0, 0, 1), (-3, 1, 15, -16, 2)), regul_mode=whole(0, 3), regul_w=whole(0, 3),
        regul_f0=one(160, 0, 8, 40), noise_en=one(0, 0, 1), noise_str=one(3, 0, 8), regression=whole(0, 1),
        no_out_act=whole(0, 1),
    )  # fmt: skip
    for kind in ("inp", "rec"):
        constants |= {f"k_{kind}_p": one(10, 4, 22, 31), f"k_{kind}_r": one(0, 3)}
    for kind in ("winp", "wrec", "wout"):
        constants |= {f"lr_p_{kind}": one(8, 14, 20, 31, 0), f"lr_r_{kind}": one(0, 0, 1, 5)}
    widths = dict(inp=25, rec=25, out=22, neur=30, oneur=15, tinp=30, trec=30, tout=30, noise=17)
    return ReckOn(
        **constants, **{f"seed_{name}": whole(0, 2**bits - 1) | 1 | (bits == 30) << 15 for name, bits in widths.items()}
    )


def random_weights(chip, rng):
    draw = lambda *shape: rng.integers(-128, 128, shape)  # noqa: E731
    return draw(chip.n_in, chip.n_rec), draw(chip.n_rec, chip.n_rec), draw(chip.n_rec, chip.n_out)


def random_sample(chip, ticks, rng):
    inputs = rng.random((ticks, chip.n_in)) < rng.choice([0.05, 0.3])
    numbers = rng.integers(-(2**15), 2**15, (ticks, chip.n_out)) >> rng.integers(0, 8)
    return inputs, numbers if chip.regression else int(rng.integers(chip.n_out)), rng.random(ticks) < 0.6


def assert_equal_to_twin(chip, ticks, seed):
    """Two samples in a row; returns how often things happened."""
    rng = np.random.default_rng(seed)
    weights = random_weights(chip, rng)
    state, core = reckon.start(chip, *weights), Core(asdict(chip), *weights)
    happened = {"spikes": 0, "moved": 0}
    for _ in range(2):
        inputs, target, valid = random_sample(chip, ticks // 2, rng)
        each = target if chip.regression else np.eye(chip.n_out, dtype=int)[[target] * len(inputs)] * 2048
        rows, counts = core.sample(inputs.astype(int).tolist(), each.tolist(), valid)
        state, result, found = reckon.run(chip, state, inputs, target, valid, record=True)
        for name in ("u", "tin", "trec", "tout", "o", "z"):
            assert np.array_equal(getattr(found.S, name), [row[f"{name}_S"] for row in rows]), name
        for name in ("u", "o"):
            assert np.array_equal(getattr(found.P, name), [row[f"{name}_P"] for row in rows]), name
        assert np.array_equal(found.learnt, [row["signals"] is not None for row in rows])
        for n, name in enumerate(("err", "L", "h", "reg")):
            expected = [row["signals"][n] for row in rows if row["signals"]]
            if name == "err" or chip.do_eprop & 3:
                assert np.array_equal(getattr(found.signals, name)[found.learnt], np.array(expected).reshape(-1, len(
                    getattr(found.signals, name)[0]))), name  # fmt: skip
        w = np.concatenate([np.asarray(w).reshape(len(rows), -1) for w in found.weights], axis=1)
        assert np.array_equal(w, [sum(row["w"], []) for row in rows])
        assert result.counts.tolist() == counts
        assert state.generators.seeds() == core.seeds()
        happened["spikes"] += int(found.S.z.sum())
        happened["moved"] += int((np.diff(w.astype(int), axis=0) != 0).sum())
    return happened


def test_every_register_of_a_random_configuration_equals_the_twin():
    assert assert_equal_to_twin(random_configuration(1), 60, 1)["spikes"] > 0


@pytest.mark.slow
def test_neurons_above_their_rate_draw_for_synapses_without_a_trace():
    chip = replace(random_configuration(2), do_eprop=7, regul_mode=3, regul_w=3, regul_f0=0, thr=60, fp_trec=4, n_in=9)
    chip = replace(chip, alpha=0x7000, fp_tinp=6, k_inp_p=20, k_rec_p=20, lr_p_winp=8, lr_p_wrec=8, lr_r_winp=0)
    assert assert_equal_to_twin(chip, 40, 2)["moved"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", (0, 2, 3, *range(100, 112)))
def test_a_thousand_ticks_of_random_configurations_equal_the_twin(seed):
    assert_equal_to_twin(random_configuration(seed), 1000, seed)


@pytest.mark.parametrize("case", ["base_sample0", pytest.param("base_sample1", marks=pytest.mark.slow)])
def test_recorded_samples_of_the_public_design(case):
    data = recorded("reckon")
    array = lambda name: data[f"{case}/{name}"]  # noqa: E731
    chip = ReckOn(**json.loads(str(array("config"))) | json.loads(str(array("lfsr_start"))))
    spikes = lambda name, n: np.unpackbits(array(name), axis=1)[:, :n].astype(bool)  # noqa: E731
    state = reckon.start(chip, *(array(f"{w}_start") for w in ("w_in", "w_rec", "w_out")))
    inputs = spikes("inp", chip.n_in)
    valid = np.arange(len(inputs)) >= array("sup0")
    after, result, found = reckon.run(chip, state, inputs, int(array("label")), valid, record=True)
    assert np.array_equal(found.S.z, spikes("z_S", chip.n_rec)) and found.S.z.any()
    for name in ("u", "tin", "trec", "tout", "o"):
        assert np.array_equal(getattr(found.S, name), array(f"{name}_S")), name
    for name in ("u", "o"):
        assert np.array_equal(getattr(found.P, name), array(f"{name}_P")), name
    for name in ("err", "L", "h", "reg"):
        assert np.array_equal(getattr(found.signals, name)[found.learnt], array(name)), name
    all_weights = [np.concatenate([w[None], r]) for w, r in zip(state.weights, found.weights, strict=True)]
    changes = np.diff(np.concatenate([w.reshape(len(w), -1) for w in all_weights], axis=1).astype(int), axis=0)
    tick, index = np.nonzero(changes)
    assert np.array_equal(tick + 1, array("dw_tick")) and np.array_equal(index, array("dw_index"))
    assert np.array_equal(changes[tick, index], array("dw_value"))
    for name in ("w_in", "w_rec", "w_out"):
        assert np.array_equal(getattr(after.weights, name), array(f"{name}_end")), name
    if case == "base_sample0":  # whose generators go on in the next sample
        begun = json.loads(str(data["base_sample1/lfsr_start"]))
        assert after.generators.seeds() == begun
    assert int(result.decision) == array("decision") and np.array_equal(result.counts, array("counts"))


@pytest.mark.parametrize("use", list(_lfsr.REGISTERS))
def test_generators_equal_a_loop_over_bits(use):
    kind = _lfsr.REGISTERS[use]
    seed = 0x5A5A5 % 2**kind.n | 1
    twin = Bits(kind.n, kind.a, kind.age, seed)
    columns, jumps = _lfsr.words(use, 40), _lfsr.jumps(use, 40)
    offered, registers = [], []
    for _ in range(41):
        registers.append(twin.seed())
        offered += twin.offered(kind.width, kind.words)
        twin.advance(kind.width * kind.words)
    register = np.uint32(seed)
    assert _lfsr.draw(columns, register).tolist() == offered[: 40 * kind.words]
    assert _lfsr.draw(jumps, register).tolist() == registers


@pytest.mark.parametrize("mode", range(4))
def test_update_probabilities_wrap_and_underflow_as_37_bits_do(mode):
    """Sums of 37 bits, their wrong test for underflow included, against Python's integers; large numbers."""
    rng = np.random.default_rng(mode)
    chip = ReckOn(n_in=16, n_rec=16, regul_mode=mode, k_inp_p=18, k_mul=2)
    L, f, h = (rng.integers(low, high + 1, 16) for low, high in ((-32768, 32767), (0, 4095), (-16, 15)))
    reg = rng.choice((0, 0, 3, 40, 4095), 16)
    found = _learn.Signals(np.zeros(2, np.int32), *(x.astype(np.int32) for x in (L, h, reg)))
    ours = np.asarray(_learn._probability(chip, f.astype(np.int32), found, True, chip.k_inp_p, 0))
    wrapped = lambda x: (int(x) + 2**31) % 2**32 - 2**31  # noqa: E731
    fired = 0
    for i in range(16):
        for j in range(16):
            E, m = wrapped(int(L[j]) * int(f[i]) * int(h[j])), int(reg[j]) >> 2
            K = E * (max(0, 16 - m) if mode & 1 and E >= 0 else 16)
            P = wrapped((K >> 4) - (int(reg[j]) * 2**18 % 2**32 if mode & 2 else 0))
            wrong = P >= 0 and K >> 31 & 1
            fired += wrong and E > 0
            assert ours[i, j] == (-(2**31) if wrong else P)
    assert fired > 0


def test_a_sample_run_twice_gives_the_same_bits_and_inference_learns_nothing():
    chip = random_configuration(1)
    rng = np.random.default_rng(1)
    state, sample = reckon.start(chip, *random_weights(chip, rng)), random_sample(chip, 30, rng)
    first, second = (reckon.run(chip, state, *sample, record=True)[0] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first.weights, second.weights, strict=True))
    tested, _, _ = reckon.run(chip.inference(), state, *sample)
    assert all(np.array_equal(a, b) for a, b in zip(tested.weights, state.weights, strict=True))


def test_membranes_saturate_at_each_event_and_wrap_at_reset():
    chip = ReckOn(n_in=2, n_rec=16, fp_winp=7, thr=32767, alpha=0x8000, do_eprop=0, stoch_round=0)
    zeros = np.zeros((16, 16), int)

    def membranes(chip, *inputs):
        state = reckon.start(chip, np.array([[127] * 16, [-128] * 16]), zeros, zeros[:, :2])
        _, _, found = reckon.run(chip, state, np.array([*inputs, [0, 0]]), 0, np.zeros(4, bool), True)
        return found.P.u[:, 0].tolist(), found.S.u[:, 0].tolist()

    assert membranes(chip, [1, 0], [1, 0], [0, 1])[0] == [16256, 32512, 16128]
    assert membranes(chip, [1, 0], [1, 0], [1, 1])[0] == [16256, 32512, 32767 - 16384]  # the first event saturates
    assert membranes(chip, [0, 1], [0, 1], [0, 1])[0] == [-16384, -32768, -32768]
    assert membranes(replace(chip, thr=-32768), [1, 0], [0, 0], [0, 0])[1][0] == 16256 + 32768 - 2**16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(n_rec=258), "n_rec = 258: must be an integer from 2 to 256"),
        (dict(n_rec=99), "n_rec = 99: must be even"),
        (dict(n_in=101), "n_in = 101: must be at most n_rec = 100"),
        (dict(n_out=17), "n_out = 17: must be an integer from 1 to 16"),
        (dict(alpha=0x6FFF), "alpha = 28671: must be from 0x7000"),
        (dict(alpha=(32751,) * 3), "alpha: expected one number, or 50"),
        (dict(kappa=256), "kappa = 256: must be an integer from 0 to 255, its register has 8 bits"),
        (dict(kappa=0.9), "kappa = 0.9: must be an integer"),
        (dict(thr=40000), r"thr\[0\] = 40000: must be an integer from -32768 to 32767"),
        (dict(h=(0, 0, 0, 0, 16)), r"h\[4\] = 16: must be an integer from -16 to 15"),
        (dict(regul_mode=6), "regul_mode = 6: must be an integer from 0 to 3"),
        (dict(lr_p_winp=32), "lr_p_winp = 32: .* its register has 5 bits"),
        (dict(seed_out=0), "seed_out = 0: a generator that starts from 0 stays there"),
        (dict(seed_neur=0x7FFF), "seed_neur = 32767: a generator that starts from 0"),
    ],
)
def test_bad_settings_are_refused_by_name(change, message):
    with pytest.raises(InvalidSetting, match=message):
        ReckOn(**change)


def test_bad_arrays_are_refused_by_name():
    chip = ReckOn(n_in=2, n_rec=16)
    zeros = [np.zeros(shape, int) for shape in ((2, 16), (16, 16), (16, 2))]
    with pytest.raises(InvalidSetting, match="w_in = 0 to 128: must be from -128 to 127"):
        reckon.start(chip, zeros[0] + 128 * np.eye(2, 16, dtype=int), *zeros[1:])
    with pytest.raises(InvalidSetting, match=r"w_rec: expected shape \(16, 16\), got \(16, 15\)"):
        reckon.start(chip, zeros[0], zeros[1][:, 1:], zeros[2])
    with pytest.raises(InvalidSetting, match="w_out: must hold integers, got float64"):
        reckon.start(chip, *zeros[:2], zeros[2] + 0.5)
    state = reckon.start(chip, *zeros)
    with pytest.raises(InvalidSetting, match=r"target = 2: must be an integer from 0 to 1"):
        reckon.run(chip, state, np.zeros((5, 2), int), 2, np.ones(5, bool))
    with pytest.raises(InvalidSetting, match="inputs: expected"):
        reckon.run(chip, state, np.zeros((1, 2), int), 0, np.ones(1, bool))
