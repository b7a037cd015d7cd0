"""The benchmark: what it measures is right, what is wrong it refuses, and its tables, files and pictures."""

import json
import sys
from dataclasses import replace

import equinox as eqx
import jax
import pytest

from eprop import InvalidSetting
from eprop.workshop.bench import BenchSettings, Case
from eprop.workshop.bench import _measure as measure
from eprop.workshop.bench._measure import PATHS
from eprop.workshop.bench._peers import measure_peers
from eprop.workshop.bench._problem import make_network, make_problem
from eprop.workshop.bench._ratios import ratios_of
from eprop.workshop.bench._reference import largest_error, reference_gradient
from eprop.workshop.bench._report import milliseconds
from eprop.workshop.bench._run import _windows
from eprop.workshop.bench._stream_memory import measure_stream
from eprop.workshop.bench._ways import candidate_windows
from eprop.workshop.cli import main

slow = pytest.mark.slow

TINY = ("--quick", "--neurons", "12", "--batch", "2", "--memory-steps", "0")


def run(*arguments):
    main([str(a) for a in arguments])


def entry(seconds, model="alif", neurons=400, steps=300, batch=32):
    paths = [{"path": path, "median_s": value, "refused": None} for path, value in seconds.items()]
    return {"case": {"model": model, "neurons": neurons, "steps": steps, "batch": batch}, "paths": paths}


def test_every_path_is_measured_and_its_gradient_is_right(compiled_quickly):
    """One tiny case in this process: each way to the gradient runs, and agrees with its reference."""
    rate, rows = measure.measure_case(Case("alif", 6, 12, 2), 1, windows=(6,))
    assert 0.002 < rate < 0.4 and [row.path for row in rows] == list(PATHS)
    for row in rows:
        assert len(row.seconds) == 1 and row.seconds[0] > 0 and row.bytes > 0 and row.refused is None
        assert (row.error is None) == (row.path in ("products", "forward"))
        assert row.error is None or 0 <= row.error < 1e-5
        assert row.window == (6 if row.path == "streaming" else None)


@slow
def test_it_ends_after_the_size_at_which_its_time_is_over_and_goes_on(tmp_path, capsys):
    out = tmp_path / "bench"
    sizes = (
        "bench --model lif --neurons 8,9 --steps 12 --batch 1 --paths bptt --rounds 1 --memory-steps 0 --out".split()
    )
    with pytest.raises(SystemExit) as stop:
        run(*sizes, out, "--stop-after", "0")
    measured = lambda: [e["case"]["neurons"] for e in json.loads((out / "bench.json").read_text())["cases"]]  # noqa: E731
    assert stop.value.code == 75 and measured() == [8]
    run("resume", out)
    assert measured() == [8, 9]


@slow
def test_tables_files_and_pictures(tmp_path, capsys):
    out = tmp_path / "bench"
    run("bench", *TINY, "--model", "alif", "--steps", "20", "--out", out)
    said = capsys.readouterr().out
    assert "times and peak memory" in said and "e-prop, stepwise" in said
    bench = json.loads((out / "bench.json").read_text())
    assert [e["case"]["steps"] for e in bench["cases"]] == [20]
    for case in bench["cases"]:
        assert 0.002 < case["mean_output"] < 0.4  # the network spikes
        assert [row["path"] for row in case["paths"]] == list(PATHS)
        for row in case["paths"]:
            assert len(row["seconds"]) == 3 and min(row["seconds"]) > 0 and row["bytes"] > 0
            assert (row["error"] is None) == (row["path"] in ("products", "forward"))
            assert row["error"] is None or 0 <= row["error"] < 1e-5
            assert (row["window"] is None) == (row["path"] != "streaming")
    assert all(figure["verdict"] == "" for figure in bench["ratios"])  # a tiny network proves nothing
    written = (out / "bench.md").read_text()
    assert "eprop bench --model alif" in written and "| ALIF N=12 T=20 B=2 | BPTT |" in written and "jax 0." in written
    for name in ("time.png", "memory.png"):
        assert (out / name).stat().st_size > 10_000
        (out / name).unlink()
    # What was measured stands: resuming measures nothing again, plotting draws again.
    run("resume", out)
    assert json.loads((out / "bench.json").read_text()) == bench
    assert (out / "time.png").is_file()


def test_a_wrong_gradient_is_refused(monkeypatch, compiled_quickly):
    spoil_whole(monkeypatch)
    _, (bptt, refused) = measure.measure_case(Case("alif", 6, 12, 2), 1, ("bptt", "whole"))
    assert bptt.seconds and bptt.refused is None
    assert refused.seconds == [] and refused.median is None and refused.error > 1e-4
    assert "its gradient is wrong" in refused.refused


def spoil_whole(monkeypatch):
    """e-prop's whole-sequence gradient, a tenth of a percent off in the recurrent weights."""
    right = measure.whole_ways()
    whole = next(path for path in right if path.name == "whole")

    def wrong(network, inputs, targets):
        loss, gradient = whole.function(network, inputs, targets)
        recurrent = lambda g: g.layers[0].w_rec  # noqa: E731
        return loss, eqx.tree_at(recurrent, gradient, 1.001 * recurrent(gradient))

    monkeypatch.setattr(measure, "whole_ways", lambda: [whole._replace(function=wrong), right[1]])


@slow
def test_after_a_wrong_gradient_the_command_fails(tmp_path, capsys, monkeypatch):
    spoil_whole(monkeypatch)
    with pytest.raises(SystemExit) as stop:
        run("bench", *TINY, "--model", "alif", "--steps", "20", "--paths", "bptt,whole", "--out", tmp_path / "b")
    said = capsys.readouterr()
    assert stop.value.code == 1
    assert "whole refused: its gradient is wrong" in said.err and len(said.err.strip().splitlines()) == 1
    bptt, refused = json.loads((tmp_path / "b" / "bench.json").read_text())["cases"][0]["paths"]
    assert bptt["seconds"] and bptt["refused"] is None
    assert refused["seconds"] == [] and refused["median_s"] is None and refused["error"] > 1e-4
    assert "refused" in (tmp_path / "b" / "bench.md").read_text()


@slow
@pytest.mark.parametrize("model", ["lstm", "alif"])
def test_the_two_references_differ_and_an_error_is_that_of_the_worst_weight(model):
    problem = make_problem(Case(model, 10, 30, 2))
    eprop, bptt = reference_gradient("eprop", problem), reference_gradient("bptt", problem)
    assert largest_error(eprop, eprop) == 0.0
    assert largest_error(bptt, eprop) > 1e-2
    nan = jax.tree.map(lambda g: g.at[(0,) * g.ndim].set(float("nan")), eprop)
    assert largest_error(nan, eprop) == float("inf")


def test_figures_are_judged_in_their_own_direction():
    seconds = {"products": 1.0, "forward": 1.0, "bptt": 4.0, "whole": 2.0, "streaming": 5.0, "stepwise": 500.0}
    found = {figure["label"]: figure for figure in ratios_of(entry(seconds))}
    assert [(f["value"], f["verdict"]) for f in found.values()] == [
        (2.0, "pass"), (2.0, "pass"), (0.8, "aim"), (100.0, "aim"),
    ]  # fmt: skip
    slower = seconds | {"whole": 4.0, "streaming": 9.0, "stepwise": 90.0}
    assert [f["verdict"] for f in ratios_of(entry(slower))] == ["fail", "fail", "fail", "fail"]
    assert ratios_of(entry(seconds, model="lstm"))[2]["verdict"] == "pass"  # an LSTM's aim is 1
    assert len(ratios_of(entry(seconds, neurons=100, steps=1000, batch=16))) == 3  # stepwise: large networks
    assert {f["verdict"] for f in ratios_of(entry(seconds, neurons=200))} == {""}
    assert ratios_of(entry({"bptt": 1.0})) == []
    flat = entry({"bptt": 1.0}) | {
        "stream_memory": [{"steps": 10, "peak_bytes": 100}, {"steps": 99, "peak_bytes": 106}]
    }
    assert [(f["value"], f["verdict"]) for f in ratios_of(flat)] == [(1.06, "fail")]


def test_windows_divide_the_sequence():
    network = make_network("alif", 100)
    for steps in (300, 1000, 97, 1):
        windows = candidate_windows(network, steps, 4)
        assert windows and all(steps % window == 0 and window in (1, *range(steps // 2 + 1)) for window in windows)


def test_streams_of_all_lengths_of_a_network_have_one_window():
    settings = BenchSettings(model="alif", neurons="100", steps="100,300,1000")
    first, second, _ = settings.cases()
    windows = _windows(first, settings, [])
    assert len(windows) > 1 and all(100 % window == 0 and window < 100 for window in windows)
    measured = entry({}, neurons=100, steps=100, batch=16) | {"paths": [{"window": None}, {"window": 25}]}
    assert _windows(second, settings, [measured]) == [25]
    assert _windows(first, replace(settings, steps="100,97"), []) == []


@slow
def test_a_streams_memory_is_that_of_a_process_of_its_own():
    held = bytearray(700 * 2**20)  # this process is larger than the stream's, which must not show
    held[::4096] = b"x" * len(held[::4096])
    early, late = measure_stream("lstm", 8, 1, 2, 40)
    assert (early["steps"], late["steps"]) == (4, 40)
    assert 5e7 < early["peak_bytes"] <= late["peak_bytes"] < len(held)


def test_peers_that_are_not_there_are_told_in_a_line(tmp_path):
    told = measure_peers(Case("alif", 5, 6, 1), [sys.executable, str(tmp_path / "no-python")], tmp_path, 1)
    assert [peer["name"] for peer in told] == ["torch", "braintrace", "sparxml"]
    assert all("not installed in" in peer["why"] and "median_s" not in peer for peer in told)


def test_sizes_are_every_combination_or_those_of_the_figures():
    default = BenchSettings().cases()
    assert {Case("alif", 100, 1000, 16), Case("lstm", 400, 300, 32), Case("lstm", 100, 3000, 16)} <= set(default)
    assert Case("alif", 400, 1000, 16) not in default
    assert BenchSettings(peers="python").cases()[-1] == Case("alif", 400, 1000, 16)
    chosen = BenchSettings(model="lstm", neurons="10,20", steps="5").cases()
    assert chosen == [Case("lstm", 10, 5, 16), Case("lstm", 20, 5, 16)]
    assert milliseconds(0.0012345) == "1.23" and milliseconds(0.12345) == "123"


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"model": "alf"}, "model = 'alf'.*did you mean 'alif'"),
        ({"neurons": "ten"}, "neurons = 'ten': must be numbers"),
        ({"steps": "0"}, "steps = 0: must be at least 1"),
        ({"paths": "hole"}, "paths = 'hole'.*did you mean 'whole'"),
        ({"rounds": 0}, "rounds = 0"),
        ({"memory_steps": 3}, "memory-steps = 3"),
        ({"peers": "python", "peer_scripts": "nowhere"}, "peer-scripts = nowhere: no scripts there"),
    ],
)
def test_bad_settings_are_named(settings, said):
    with pytest.raises(InvalidSetting, match=said):
        replace(BenchSettings(), **settings).check()
