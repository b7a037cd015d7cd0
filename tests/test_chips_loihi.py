"""Loihi: every register of every step, against a plain twin and against numbers recorded from Intel's open models."""

import json
from dataclasses import asdict

import jax
import numpy as np
import pytest

from eprop import InvalidSetting
from eprop.chips import loihi
from eprop.chips.loihi import Connection, Draws, LearningRule, Loihi, LoihiLIF, Variant, parse, write
from loihi_twin import Twin
from vectors import recorded

pytestmark = pytest.mark.usefixtures("compiled_quickly")
TRACES = ("x1", "x2", "y1", "y2", "y3")


def random_product(rng):
    """A product inside the grammar."""
    one = lambda *values: values[rng.integers(len(values))]  # noqa: E731
    names = ["x1", "x1", "x2", "y1", "y2", "y3", "w", "t", "d", "x0", "y0"]
    factors = []
    for name in rng.choice(names, rng.integers(0, 4)):
        constant = int(rng.integers(-130, 130)) * int(rng.random() < 0.4)
        if name in ("x0", "y0"):
            factors.append(name)
        elif name in ("w", "t", "d") and rng.random() < 0.3:
            factors.append(f"sgn({name}{constant:+d})" if constant else f"sgn({name})")
        else:
            factors.append(f"({name}{constant:+d})" if constant else str(name))
    mantissa, exponent = int(rng.integers(1, 8)), int(rng.integers(-7, 3 if factors else 8))
    return "*".join([f"{mantissa}*2^{exponent}", one("x0", "y0", "u0"), *factors])


def random_rule(rng, three):
    text = lambda: "".join(f"{rng.choice(['+', '-'])} {random_product(rng)} " for _ in range(rng.integers(1, 4)))  # noqa: E731
    constants = {f"{trace}_impulse": float(rng.choice([0, 16, 20.3, 60.6, 127])) for trace in TRACES}
    constants |= {f"{trace}_tau": float(rng.choice([0, 0.3, 4, 10, 100])) for trace in TRACES}
    return LearningRule(
        dw=text(), dt=text() if rng.random() < 0.7 else None, dd=text() if rng.random() < 0.5 else None,
        factors=3 if three else 2, t_epoch=int(rng.choice([1, 1, 2, 3, 5])), rng_seed=int(rng.integers(1000)),
        rounding=str(rng.choice(["stochastic", "stochastic", "off"])), **constants,
    )  # fmt: skip


def random_chip(seed):
    """Settings with every option at stake; the even seeds follow the default variant."""
    rng = np.random.default_rng(seed)
    n_in, n = (int(size) for size in rng.integers(2, 6, 2))
    variant = Variant()
    if seed % 2:
        options = {f: v.__args__ for f, v in Variant.__annotations__.items()}
        variant = Variant(**{name: str(rng.choice(values)) for name, values in options.items()})
    lif = LoihiLIF(
        du=int(rng.choice([0, 2, 900, 4095])), dv=int(rng.choice([0, 40, 500, 4095])),
        vth=int(rng.choice([90, 700, 131071])), bias_mant=tuple(int(b) for b in rng.integers(-4096, 4096, n)),
        bias_exp=tuple(int(e) for e in rng.integers(-3, 5, n)),
    )  # fmt: skip
    connection = lambda rule: Connection(  # noqa: E731
        weight_exp=int(rng.choice([-3, 0, 1, 7])), num_weight_bits=int(rng.integers(1, 9)),
        sign_mode=str(rng.choice(["mixed", "mixed", "excitatory", "inhibitory"])), rule=rule,
    )  # fmt: skip
    three = bool(rng.random() < 0.5)
    dense = connection(random_rule(rng, three) if rng.random() < 0.9 else None)
    rec = connection(random_rule(rng, three) if rng.random() < 0.5 else None) if rng.random() < 0.6 else None
    return Loihi(n_in, n, lif, dense, rec, variant)


def listed(factor):
    return [factor.name, factor.constant, factor.sign]


def twin_part(connection, variant, weights, steps):
    """A connection as the twin takes it."""
    part = dict(
        w=weights.tolist(), t=np.zeros_like(weights).tolist(), d=np.zeros_like(weights).tolist(), rule=None,
        sign_mode=connection.sign_mode, bits=connection.num_weight_bits, exp=connection.weight_exp,
    )  # fmt: skip
    rule = connection.rule
    if rule is not None:
        products = {
            name: [
                (p.dependency, p.mantissa, p.exponent, p.k, [(f.name, f.constant, f.sign) for f in p.factors])
                for p in ps
            ]
            for name, ps in rule.products.items()
        }
        part["rule"] = dict(
            factors=rule.factors, t_epoch=rule.t_epoch, products=products,
            **{f"{side}_decay": rule.decay(side, variant) for side in "xy"},
            **{f"{side}_impulse": rule.impulses(side, variant) for side in "xy"},
        )  # fmt: skip
        draws = loihi.draw(rule, steps, variant) if rule.rounding == "stochastic" else loihi.never(steps)
        part["draws"] = draws._asdict()
    return part


def assert_equal_to_twin(seed, steps):
    """One run, cut in two on our side."""
    chip = random_chip(seed)
    rng = np.random.default_rng(seed)
    draw = lambda connection, pre: rng.integers(-256, 256, (pre, chip.n)).clip(*connection.range)  # noqa: E731
    w_in, w_rec = draw(chip.dense, chip.n_in), None if chip.rec is None else draw(chip.rec, chip.n)
    inputs = (rng.random((steps, chip.n_in)) < 0.3).astype(int)
    sent = rng.integers(-140, 140, (steps, 3, chip.n)) * rng.choice([1, 1, 1, 50], (steps, 1, 1))
    parts = [twin_part(chip.dense, chip.variant, w_in, steps)]
    if chip.rec is not None:
        parts.append(twin_part(chip.rec, chip.variant, w_rec, steps))
    lif = {k: v if isinstance(v, int) else list(v) for k, v in asdict(chip.lif).items()}
    twin = Twin(lif, asdict(chip.variant), chip.n, parts)
    state = loihi.start(chip, w_in, w_rec)
    cut = steps // 2  # the second half draws its numbers from there on
    state, first = loihi.run(chip, state, inputs[:cut], sent[:cut], record=True)
    state, second = loihi.run(chip, state, inputs[cut:], sent[cut:], record=True)
    assert int(state.step) == steps
    found = jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second)
    rows = []
    for t in range(steps):
        a, z = twin.step(inputs[t].tolist(), sent[t].tolist())
        rows.append(dict(a=a, z=z, u=list(twin.u), v=list(twin.volt), parts=[
            {k: json.loads(json.dumps(c[k])) for k in ("w", "t", "d", "x", "y")} for c in parts]))  # fmt: skip
    for name in ("a", "u", "v", "z"):
        assert np.array_equal(getattr(found, name), [row[name] for row in rows]), name
    for n, part in enumerate(("dense", "rec")):
        one = getattr(found, part)
        if one is not None:
            for name in ("w", "t", "d"):
                assert np.array_equal(getattr(one.synapses, name), [r["parts"][n][name] for r in rows]), (part, name)
            for name in ("x", "y"):
                assert np.array_equal(getattr(one, name), [r["parts"][n][name] for r in rows]), (part, name)
    return found


def test_every_register_of_random_settings_equals_the_twin():
    """Both connections learn, of another model's variant. (Seed 2 follows, below, without 64 bits.)"""
    assert_equal_to_twin(1, 60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", (0, 2, 3, *range(100, 130)))
def test_a_thousand_steps_of_random_settings_equal_the_twin(seed):
    assert_equal_to_twin(seed, 1020)


FAST = ("net", "stdp_epoch", "tag", "extreme")
CASES = (*FAST, "lif_wrap", "stdp", "three", "lif", "lif_exact", "stdp_off", "three_off", "extreme_off")


def of_config(config):
    """The chip of a recorded case."""
    rule = config.get("rule")
    if rule is not None:
        names = ["dw", "dt", "dd", "factors", "t_epoch", "rounding", "rng_seed", "x_decay", "y_decay"]
        names += [f"{trace}_{what}" for trace in TRACES for what in ("impulse", "tau")]
        rule = LearningRule(**{name: rule[name] for name in names})
    rec = Connection(**config["rec"]) if "rec" in config else None
    return Loihi(
        config["n_pre"], config["n_post"], LoihiLIF(**config["lif"]), Connection(**config["dense"], rule=rule), rec
    )


@pytest.mark.parametrize("case", [*FAST, *(pytest.param(case, marks=pytest.mark.slow) for case in CASES[len(FAST) :])])
def test_recorded_runs_of_the_open_models(case):
    data = recorded("loihi")
    array = lambda name: data[f"{case}/{name}"]  # noqa: E731
    has = lambda name: f"{case}/{name}" in data.files  # noqa: E731
    config = json.loads(str(array("config")))
    chip = of_config(config)
    start = [array("w_start").T, array("wrec_start").T if has("wrec_start") else None]
    start += [array("tag1_start").T, array("tag2_start").T] if "rule" in config else []
    state = loihi.start(chip, *start)
    assert np.array_equal(state.dense.synapses.w.T, array("w_used"))
    assert state.rec is None or np.array_equal(state.rec.synapses.w.T, array("wrec_used"))
    inputs = np.unpackbits(array("s_in"), axis=1)[:, : chip.n_in]
    draws = None
    if has("r_w"):
        draws = (Draws(*(array(f"r_{name}") for name in Draws._fields)), None)
        own = loihi.draw(chip.dense.rule, len(inputs))
        assert all(np.array_equal(a, b) for a, b in zip(own, draws[0], strict=True))
    _, found = loihi.run(chip, state, inputs, array("y_in") if has("y_in") else None, draws, record=True)
    assert np.array_equal(found.z, np.unpackbits(array("s"), axis=1)[:, : chip.n].astype(bool)) and found.z.any()
    for name in ("a", "u", "v"):
        assert np.array_equal(getattr(found, name), array(name)), name
    if "rule" not in config:
        return
    length, one = config["rule"]["t_epoch"], found.dense
    for name, side in (("x", chip.n_in), ("y", chip.n)):
        assert np.array_equal(getattr(one, name), array(f"reg_{name}"))
        values = np.asarray(getattr(one, f"{name}_values"))[length - 1 :: length]
        assert np.array_equal(values.reshape(-1, values.shape[2], side), array(f"hist_{name}"))
    for ours, theirs in (("w", "w"), ("t", "tag1"), ("d", "tag2")):
        rows = np.asarray(getattr(one.synapses, ours))[length - 1 :: length]
        assert np.array_equal(rows.transpose(0, 2, 1), array(theirs)), theirs


@pytest.mark.parametrize("case", [case for case in CASES if "lif" not in case and case != "net"])
def test_recorded_rules_are_read_as_they_were(case):
    rule = json.loads(str(recorded("loihi")[f"{case}/config"]))["rule"]
    names = [f"{trace}_{what}" for trace in TRACES for what in ("impulse", "tau")]
    ours = LearningRule(**{name: rule[name] for name in (*names, "dw", "dt", "dd", "factors", "t_epoch")})
    for name, products in rule["products"].items():
        read = [
            dict(dep=p.dependency, mantissa=p.mantissa, shift=p.exponent + 7, factors=[listed(f) for f in p.factors])
            for p in ours.products[name[1]]
        ]
        assert read == products
        assert parse(write(ours.products[name[1]])) == ours.products[name[1]]
    for side in "xy":
        assert [list(pair) for pair in ours.impulses(side, Variant())] == rule[f"{side}_impulse"]


@pytest.mark.parametrize("seed", range(20))
def test_a_written_rule_reads_as_it_was(seed):
    rng = np.random.default_rng(seed)
    text = " - ".join(random_product(rng) for _ in range(3))
    assert write(parse(write(parse(text)))) == write(parse(text)) and parse(write(parse(text))) == parse(text)


def test_literals_multiply_into_mantissa_and_exponent():
    (product,) = parse("-3*2^-5*u0*4*x1*2^1")
    assert (product.mantissa, product.exponent) == (-6, -3)
    assert write((product,)) == "-6*2^-3*u0*x1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x1*y3", r"product 'x1\*y3': needs a dependency, x0, y0 or u0 to u9"),
        ("u0*x1*y4", "'y4' is none of x1, x2"),
        ("u0*x1*(y3*2)", "is not one variable with an integer constant"),
        ("u0*x1*(y3-0.5)", "'.' is not part of the grammar"),
        ("u0*x1/y3", "'/' is not part of the grammar"),
        ("u0*9*x1", "its factor 9 does not fit in -8 to 7"),
        ("u0*2^-8*x1", r"its power of two, 2\^-8, does not fit"),
        ("u0*3^2*x1", "is no integer and no power of two"),
        ("u12*x1", "u12: k must be one digit"),
        ("u0*x1*u0", "u0 stands there beside another dependency"),
        ("u0*x1 + u1*y3", "must have the same k"),
        ("u0*sgn(x1)", "sgn takes w, d or t in brackets"),
        ("u0*(x1", "brackets do not match"),
        ("u0**x1", "a factor is missing"),
        ("u0*(x0-1)", "x0 takes no constant"),
        ("", "needs at least one product"),
    ],
)
def test_a_rule_outside_the_grammar_is_refused_with_the_reason(text, message):
    with pytest.raises(InvalidSetting, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoihiLIF(du=4096), "du = 4096: must be an integer from 0 to 4095"),
        (lambda: LoihiLIF(vth=2**17), "vth = 131072"),
        (lambda: LoihiLIF(bias_mant=4096), r"bias_mant\[0\] = 4096"),
        (lambda: Connection(weight_exp=8), "weight_exp = 8: must be an integer from -8 to 7"),
        (lambda: Connection(num_weight_bits=9), "num_weight_bits = 9"),
        (lambda: Connection(sign_mode="mixd"), r"sign_mode = 'mixd': must be .*\(did you mean 'mixed'"),
        (lambda: Variant(exponent="weight"), "exponent = 'weight': must be one of sum, each-weight"),
        (lambda: LearningRule(), "dw, dt, dd: a rule needs at least one"),
        (lambda: LearningRule(dw="u0*x1", dt="u1*x1"), "all rules of a connection share one k"),
        (lambda: LearningRule(dw="u0*x1", t_epoch=64), "t_epoch = 64"),
        (lambda: LearningRule(dw="u0*x1", x1_impulse=128.0), "x1_impulse = 128.0: must be from 0 to 127"),
        (lambda: LearningRule(dw="u0*x1", x1_tau=-1.0), "x1_tau = -1.0"),
        (lambda: Loihi(513, 4, dense=Connection(weight_exp=7)), "n_in = 513, n = 4: all spikes at once .* above"),
        (lambda: Loihi(2, 3, LoihiLIF(bias_mant=(1, 2))), r"lif.bias_mant: expected one number, or 3"),
        (lambda: loihi.start(Loihi(2, 3), np.full((2, 3), 256)), "w_in = 256 to 256: must be from -256 to 255"),
    ],
)
def test_bad_settings_are_refused_by_name(make, message):
    with pytest.raises(InvalidSetting, match=message):
        make()


def test_what_neurons_send_is_asked_for_and_bounded():
    chip = Loihi(2, 3, dense=Connection(rule=LearningRule(dw="u0*x1*y3", factors=3)))
    state = loihi.start(chip, np.zeros((2, 3), int))
    with pytest.raises(InvalidSetting, match="sent: a three-factor rule needs what the neurons send"):
        loihi.run(chip, state, np.zeros((4, 2), int))
    with pytest.raises(InvalidSetting, match="sent = 0 to 32768: must be from -32768 to 32767"):
        loihi.run(chip, state, np.zeros((4, 2), int), np.full((4, 3, 3), 2**15) * np.eye(3, dtype=int))


def test_the_current_wraps_once_and_the_voltage_saturates():
    from eprop.chips.loihi._neuron import LIFState, step

    lif, zero = LoihiLIF(du=4095, dv=0, vth=131071), LIFState(np.zeros(5, np.int32), np.zeros(5, np.int32))
    a = np.array([2**17, 2**17 + 1, -(2**17), 2**18, 2**19], np.int32)
    state, z, _ = step(lif, Variant(), zero, a)
    assert state.u.tolist() == [2**23, 64 - 2**23, 2**23, 0, 2**24]
    assert z.tolist() == [True, False, True, False, True]
    assert state.v.tolist() == [0, 64 - 2**23, 0, 0, 0]
    low = LIFState(zero.u, zero.v - 2**23 + 1)
    state, _, _ = step(lif, Variant(), low, np.full(5, -7, np.int32))
    assert state.v.tolist() == [1 - 2**23] * 5
    two, _, _ = step(lif, Variant(current_wrap="twos-complement"), zero, a)
    assert two.u.tolist() == [-(2**23), 64 - 2**23, -(2**23), 0, 0]


@pytest.mark.parametrize("exponent", ["sum", "each-weight"])
def test_the_exponent_shifts_the_sum_or_each_weight(exponent):
    from eprop.chips.loihi._synapse import dendrite

    rng = np.random.default_rng(0)
    w, z = rng.integers(-256, 256, (7, 50)), rng.random(7) < 0.5
    for shift in range(-8, 8):
        a = dendrite(Connection(weight_exp=shift), Variant(exponent=exponent), w.astype(np.int32), z)
        moved = lambda x, shift=shift: x << shift if shift >= 0 else x >> -shift  # noqa: E731
        expected = moved(w[z]).sum(0) if exponent == "each-weight" else moved(w[z].sum(0))
        assert np.array_equal(a, expected), shift


def test_the_two_readings_of_other_models_are_what_they_say():
    """A clipped dendrite differs at -256 and exponent 7 alone; a trace decays by exp(-L/tau) at an epoch's start."""
    from eprop.chips.loihi._synapse import dendrite

    w = np.array([[-256, -255, 255]], np.int32)
    a = dendrite(Connection(weight_exp=7), Variant(dendrite="clipped"), w, np.array([True]))
    assert a.tolist() == [1 - 2**15, -255 * 128, 255 * 128]
    rule = LearningRule(dw="u0*x1", x1_impulse=100.0, x1_tau=4.0, t_epoch=4, rounding="off")
    chip = Loihi(1, 1, dense=Connection(rule=rule), variant=Variant(trace_decay="once-an-epoch"))
    inputs = np.eye(8, 1, -1, dtype=int)  # one spike, in the second step
    _, found = loihi.run(chip, loihi.start(chip, np.zeros((1, 1), int)), inputs, record=True)
    values = np.asarray(found.dense.x_values)[3::4, :, 0, 0].ravel().tolist()
    assert values == [0, 100, 100, 100, 36, 36, 36, 36]  # 100 exp(-1) = 36.8; each step alone: 77, 59, 45, ...
    with pytest.raises(InvalidSetting, match="x_decay: factors of a step; with trace_decay = 'once-an-epoch'"):
        LearningRule(dw="u0*x1", x_decay=((1, 1), (1, 1))).decay("x", Variant(trace_decay="once-an-epoch"))


def test_sums_stop_one_beyond_their_register_below_and_at_it_above():
    rule = LearningRule(dw="-2^3*u0*w", dt="-2^3*u0*w", dd="2^3*u0*w", rounding="off")
    chip = Loihi(2, 1, dense=Connection(rule=rule))
    state, _ = loihi.run(chip, loihi.start(chip, np.array([[254], [-254]])), np.zeros((1, 2), int))
    assert state.dense.synapses.t[:, 0].tolist() == [-257, 255]
    assert state.dense.synapses.w[:, 0].tolist() == [-3, 1]  # from 254 and -254
    assert state.dense.synapses.d[:, 0].tolist() == [255, 0]


def test_integers_need_no_64_bit_mode():
    with jax.enable_x64(False):
        jax.clear_caches()
        assert_equal_to_twin(2, 30)
