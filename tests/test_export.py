"""`eprop export`: a trained run goes out, is read back with the same numbers, or is refused in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eprop import ALIF, BPTT, LIF, LSTM, EProp1, Filtered, InvalidSetting, Network, Readout, Recurrent
from eprop.chips import loihi
from eprop.interop import from_nir, from_npz, from_safetensors, named_arrays, to_loihi_rule, to_nir
from eprop.workshop.cli import main
from eprop.workshop.settings import Experiment, NetworkSettings, RunSettings
from eprop.workshop.tasks import PatternGeneration
from eprop.workshop.training import RunFolder, experiment_to_json, load_run, train

nir = pytest.importorskip("nir")
pytest.importorskip("safetensors")
pytestmark = pytest.mark.usefixtures("compiled_quickly")


def trained(path, seeds=None, **network):
    """A run of one update."""
    experiment = Experiment(
        PatternGeneration(duration=40, inputs=5, input_rate=400.0),
        NetworkSettings(neuron="lif", neurons=6, n_refractory=1, **network),
        run=RunSettings(iterations=1),
    )
    config = {"command": "train", "task": "pattern-generation", "experiment": experiment_to_json(experiment)}
    config |= {"seeds": seeds} if seeds else {}
    train(experiment, RunFolder.create(path, config), task="pattern-generation", seeds=seeds)
    return path


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "hard", seeds=[3, 4], reset="hard")


@pytest.fixture(scope="module")
def soft(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "soft")


def test_a_run_goes_out_in_every_form_and_comes_back(hard, tmp_path, capsys):
    files = {form: tmp_path / f"x.{form}" for form in ("nir", "npz", "safetensors")}
    for form, file in files.items():
        main(["export", str(hard), "--to", form, "--seed", "4", str(file)])
    assert [line for line in capsys.readouterr().out.splitlines()] == [str(file) for file in files.values()]
    run = load_run(hard)
    network = run.trainer.network(run.state, 1)
    other = jax.tree.map(lambda x: x + 1 if hasattr(x, "dtype") else x, network)
    for back in (from_npz(other, files["npz"]), from_safetensors(other, files["safetensors"])):
        for name, array in named_arrays(network).items():
            assert np.array_equal(named_arrays(back)[name], array), name
    x = (jax.random.uniform(jax.random.key(0), (60, 2, 5)) < 0.4).astype(jnp.float32)
    ours, theirs = (n(x, EProp1()) for n in (network, from_nir(nir.read(files["nir"]))))
    assert np.asarray(ours.z[0]).any() and np.array_equal(ours.z[0], theirs.z[0])
    assert np.allclose(ours.y, theirs.y, atol=1e-5)


def test_approximate_says_the_share_and_the_rule_says_itself(soft, tmp_path, capsys):
    main(["export", str(soft), "--to", "nir", "--approximate", str(tmp_path / "x.nir")])
    assert "% of the spikes differ" in capsys.readouterr().out
    main(["export", str(soft), "--to", "loihi-rule", "--exponent", "-3", str(tmp_path / "rule.txt")])
    assert "dw = 2^-3*u0*x1*(y3-64) - 2^-2*x0*(y3-64)" in capsys.readouterr().out
    text = (tmp_path / "rule.txt").read_text()
    read = loihi.rule_from_text(text)
    assert read == loihi.eprop_lif(200, exponent=-3).rule and "dv = 200 of 4096 (wanted 199.76)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "nir", "x.nir"], "reset: NIR's LIF sets the membrane to 0"),
        (["--to", "onnx", "x"], "to = 'onnx': must be one of nir, safetensors, npz, loihi-rule"),
        (["--to", "npz", "--approximate", "x"], "approximate: goes with --to nir alone"),
        (["--to", "npz", "--exponent", "3", "x"], "exponent: goes with --to loihi-rule alone"),
        (["--to", "loihi-rule", "--exponent", "9", "x"], "exponent = 9: must be from -7 to 8"),
        (["--to", "npz", "--sed", "3", "x"], "unknown option --sed (did you mean '--seed'?)"),
        (["--to", "npz"], "export: name a run folder, a form and a file"),
        (["--to", "npz", "--seed", "7", "x"], "seed = 7: the run has 0"),
        (["--to", "npz", "nowhere/x"], "nowhere/x: there is no folder nowhere"),
        (["--to", "npz", "there"], "there: stands there already; --overwrite replaces it"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line_and_nothing_is_written(
    soft, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        main(["export", str(soft), *arguments])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and message in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there"] and (tmp_path / "there").read_text() == "mine"


def test_a_run_of_several_seeds_asks_which(hard, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["export", str(hard), "--to", "npz", str(tmp_path / "x.npz")])
    assert capsys.readouterr().err == "eprop: seed: the run has 3, 4; name one with --seed\n"


def population(neuron):
    key = jax.random.key(0)
    return Network((Recurrent(Filtered(neuron, 20.0), 3, 4, key=key),), Readout(4, 2, key=key))


def test_an_alif_populations_rule_is_written_and_read(tmp_path):
    network = population(ALIF(tau_m=20.0, tau_a=64.0, beta=0.1, v_th=0.6))
    made = to_loihi_rule(network, tmp_path / "rule.txt", rule=EProp1("random"))
    assert loihi.rule_from_text((tmp_path / "rule.txt").read_text()) == made.rule
    assert made.rule.dt is not None and made.psi == 2**-7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: to_loihi_rule(population(LSTM()), path), "LSTM: rules are written for LIF and ALIF"),
        (lambda path: to_loihi_rule(population(LIF()), path, rule=BPTT()), "rule 'bptt': is no sum of products"),
        (lambda path: to_loihi_rule(population(LIF(reset="hard")), path), "reset = 'hard': wipes each neuron's"),
        (lambda path: to_loihi_rule(population(ALIF(beta=jnp.arange(4.0))), path), "beta: 4 values, and a rule"),
        (lambda path: to_loihi_rule(population(ALIF(tau_a=2000.0)), path), "tau_a: needs the constant 0.0005"),
        (lambda path: loihi.rule_from_text("dw = u0*x1*y3\nfactor = 3"), "line 2: unknown setting 'factor'"),
        (lambda path: loihi.rule_from_text("dw"), "line 1: expected 'name = value'"),
        (lambda path: loihi.rule_from_text("dw = x1*y3"), "needs a dependency"),
        (lambda path: loihi.rule_from_text("dw = u0*x1\nx1_tau = a"), "line 2: x1_tau = 'a': must be a number"),
    ],
)
def test_a_rule_that_cannot_be_said_is_refused_by_name(make, message, tmp_path):
    with pytest.raises(InvalidSetting, match=message):
        make(tmp_path / "rule.txt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [to_nir, lambda network: to_loihi_rule(network, "rule.txt")])
def test_axonal_delays_are_not_left_out_unsaid(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = jax.random.key(0)
    layer = Recurrent(LIF(reset="hard"), 3, 4, key=key, delays_rec=[0, 1, 0, 1])
    with pytest.raises(InvalidSetting, match=r"layers\[0\]\.delays_rec: axonal delays are not written"):
        write(Network((layer,), Readout(4, 2, key=key)))
    assert not list(tmp_path.iterdir())
