"""`eprop stream`: causal, exact after any interruption, plain about bad rows, in constant memory."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eprop import EProp1, Learner, partition
from eprop.workshop.cli import main
from eprop.workshop.memory import resident_bytes
from eprop.workshop.settings import NetworkSettings, OptimiserSettings
from eprop.workshop.streams import Forecaster, StreamSettings
from eprop.workshop.streams._scale import Moments, follow_moments
from eprop.workshop.streams._source import Source
from eprop.workshop.streams._table import Position, Table
from eprop.workshop.training import build_network
from models import difference

pytestmark = pytest.mark.usefixtures("compiled_quickly")
slow = pytest.mark.slow

SMALL = "--neurons 4 --targets y --report-every 50".split()


def rows_of(count, seed=0):
    """x wanders, y follows it one row later."""
    random = np.random.default_rng(seed)
    x = np.cumsum(random.normal(size=count)) * 0.1
    return np.stack([x, np.r_[0.0, x[:-1]] + 0.01 * random.normal(size=count)], axis=1)


def lines_of(rows):
    return [f"{x:.6f},{y:.6f}\n" for x, y in rows]


def write_table(path, rows, header="x,y\n", extra=""):
    path.write_text(header + "".join(lines_of(rows)) + extra)
    return path


def run(*arguments):
    main([str(a) for a in arguments])


def refused(capsys, *arguments, status=2):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    said = capsys.readouterr().err
    assert stop.value.code == status and said.startswith("eprop: ") and len(said.strip().splitlines()) == 1
    return said


def predictions(out):
    with open(out / "predictions.csv") as file:
        return list(csv.DictReader(file))


def test_every_row_gets_a_line_with_its_value_and_the_forecasts_of_it_and_from_it(tmp_path, capsys):
    rows, out = rows_of(103), tmp_path / "out"
    table = write_table(tmp_path / "t.csv", rows)
    run("stream", "--csv", table, *SMALL, "--horizon", 3, "--window", 5, "--out", out)
    assert "103 rows, 3 ahead" in capsys.readouterr().out
    lines = predictions(out)
    assert list(lines[0]) == ["row", "y", "y_forecast", "y_naive", "y_ahead"]
    assert [int(line["row"]) for line in lines] == list(range(1, 104))  # the last three do not fill a window
    y = [f"{value:.6f}" for value in rows[:, 1]]
    assert [float(line["y"]) for line in lines] == [float(value) for value in y]
    assert all(line["y_forecast"] == line["y_naive"] == "" for line in lines[:3])
    assert [line["y_forecast"] for line in lines[3:]] == [line["y_ahead"] for line in lines[:-3]]
    assert [line["y_naive"] for line in lines[3:]] == [line["y"] for line in lines[:-3]]
    reports = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [report["row"] for report in reports] == [50, 100]
    known = lines[50:100]
    for kind, name in (("rmse", "y_forecast"), ("naive_rmse", "y_naive")):
        error = np.sqrt(np.mean([(float(line[name]) - float(line["y"])) ** 2 for line in known]))
        assert reports[1][kind]["y"] == pytest.approx(error, rel=1e-9)
    assert sorted(p.name for p in (out / "figures").iterdir()) == ["error.png", "forecast.png"]
    (out / "figures" / "error.png").unlink()
    run("plot", out)
    assert (out / "figures" / "error.png").is_file()


def test_a_forecast_depends_on_no_later_row_and_goes_on_where_the_table_ended(tmp_path, capsys):
    rows, other = rows_of(90), rows_of(90)
    other[60:] += 100.0
    for name, table in (("a", rows), ("b", other)):
        write_table(tmp_path / f"{name}.csv", table)
        run("stream", "--csv", tmp_path / f"{name}.csv", *SMALL, "--out", tmp_path / name)
    first, second = (predictions(tmp_path / name) for name in "ab")
    assert first[:60] == second[:60] and first[60:] != second[60:]
    # the table grows; the same command goes on, and no row is read or written twice
    write_table(tmp_path / "c.csv", rows[:37], extra=lines_of(rows)[37][:-3])  # its last line is not complete
    command = ("stream", "--csv", tmp_path / "c.csv", *SMALL, "--out", tmp_path / "c")
    run(*command)
    assert len(predictions(tmp_path / "c")) == 38
    write_table(tmp_path / "c.csv", rows)
    run(*command)
    assert (tmp_path / "c" / "predictions.csv").read_bytes() == (tmp_path / "a" / "predictions.csv").read_bytes()
    run("resume", tmp_path / "c")
    assert (tmp_path / "c" / "predictions.csv").read_bytes() == (tmp_path / "a" / "predictions.csv").read_bytes()
    capsys.readouterr()
    said = refused(capsys, *command, "--horizon", 2)
    assert "horizon = 2" in said and "has 1" in said
    write_table(tmp_path / "c.csv", rows[:5])
    assert "is shorter" in refused(capsys, *command)


@pytest.mark.parametrize("forecast", ["change", pytest.param("level", marks=slow)])
def test_the_gradient_is_that_of_scaled_rows_and_their_late_targets(forecast):
    horizon, values, rate = 2, rows_of(40), 1e-7
    settings = StreamSettings(csv="t.csv", targets="y", horizon=horizon, memory=None, forecast=forecast, seed=3)
    network = NetworkSettings(neuron="lstm", neurons=5, tau_out=None, bias=True, precision="float64")
    optimiser = OptimiserSettings(optimiser="sgd", learning_rate=rate)
    table = Table(settings, ["x", "y"], Position(), skip=False)
    forecaster = Forecaster(settings, network, optimiser, table)
    ahead = np.concatenate([forecaster.learn(part).ahead for part in (values[:13], values[13:])])
    # by hand: moments of all rows so far, and one gradient of the whole sequence
    so_far = lambda x, f: np.array([f(x[: t + 1]) for t in range(len(x))])  # noqa: E731
    mean, spread = so_far(values, lambda x: x.mean(0)), so_far(values, lambda x: x.std(0))
    x = np.where(spread > 0, values - mean, 0.0) / np.where(spread > 0, spread, 1.0)
    y = values[:, 1:]
    changes = [np.zeros(0)] * horizon + [y[horizon : t + 1] - y[: t + 1 - horizon] for t in range(horizon, len(y))]
    base = y if forecast == "change" else mean[:, 1:]
    scale = np.array([c.std() if len(c) else 0.0 for c in changes])[:, None] if forecast == "change" else spread[:, 1:]
    known = scale[:-horizon] > 1e-12
    wanted = (y[horizon:] - base[:-horizon]) / np.where(known, scale[:-horizon], 1.0)
    before = build_network(network, 2, 1, jax.random.key(3))
    rule = EProp1()
    chosen, rest = partition(before, rule)

    def loss(chosen):
        out = eqx.combine(chosen, rest)(jnp.asarray(x)[:, None], rule).y[:-horizon, 0]
        return 0.5 * jnp.sum(known * (out - np.clip(wanted, -8, 8)) ** 2)

    expected = jax.jit(jax.grad(loss))(chosen)
    moved = jax.tree.map(lambda a, b: (b - a) / rate, forecaster._state.network, before)
    moved, _ = partition(moved, rule)
    assert difference(moved, expected) < 1e-4  # weights move a little while the gradient is summed
    hand = base[:, 0] + scale[:, 0] * np.asarray(before(jnp.asarray(x)[:, None], rule).y[:, 0, 0])
    assert np.abs(ahead[:, 0] - hand).max() < 1e-4


@slow
@pytest.mark.parametrize("rule", ["eligibility_only:5", "truncated_bptt:5", "eprop1:random"])
def test_other_rules_that_learn_piece_by_piece_forecast_too(tmp_path, rule):
    table = write_table(tmp_path / "t.csv", rows_of(400))
    for name in ("one", "two"):
        run("stream", "--csv", table, *SMALL, "--window", 5, "--rule", rule, "--out", tmp_path / name)
    first, second = (predictions(tmp_path / name) for name in ("one", "two"))
    assert first == second and len(first) == 400
    reports = [json.loads(line) for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    assert reports[-1]["rmse"]["y"] < reports[0]["rmse"]["y"]


def test_running_moments_are_those_of_the_rows_so_far():
    values = np.random.default_rng(0).normal(5.0, 3.0, size=(50, 2))
    values[:2] = np.nan
    moments, mean, spread = follow_moments(Moments.none(2), values, None)
    again, first, _ = follow_moments(Moments.none(2), values[:20], None)
    again, second, _ = follow_moments(again, values[20:], None)
    assert (np.r_[first, second] == mean).all() and (again.variance == moments.variance).all()
    assert mean[-1] == pytest.approx(values[2:].mean(0)) and spread[-1] == pytest.approx(values[2:].std(0))
    _, mean, _ = follow_moments(moments, np.full((2000, 2), 7.0), 100)
    assert mean[-1] == pytest.approx([7.0, 7.0], abs=1e-6)  # rows long ago are forgotten


AS_HERE = {"JAX_ENABLE_X64": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
"""How this process compiles: another way of it rounds otherwise."""


class Process:
    """`eprop stream` in a process of its own."""

    def __init__(self, *arguments, **options):
        command = [sys.executable, "-m", "eprop", "stream", *map(str, arguments)]
        self.out = arguments[-1]
        self.process = subprocess.Popen(command, env=os.environ | AS_HERE, text=True, **options)

    def wait_for(self, reached):
        deadline = time.monotonic() + 120
        while not reached():
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)

    def written(self):
        path = self.out / "predictions.csv"
        return path.read_bytes().count(b"\n") - 1 if path.is_file() else 0

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(60)


@slow
def test_killed_and_resumed_while_the_table_grows_it_predicts_the_same(tmp_path, capsys):
    """kill -9 in the middle of a followed file, then Ctrl-C: byte for byte what an unbroken run writes."""
    rows = rows_of(6000)
    lines, table, out = lines_of(rows), tmp_path / "t.csv", tmp_path / "live"
    write_table(table, rows[:4000])
    follow = ("--csv", table, *SMALL, "--follow", "--save-seconds", 1e9, "--save-rows", 700, "--out", out)
    killed = Process(*follow)
    killed.wait_for(lambda: killed.written() > 1500)
    assert killed.end(signal.SIGKILL) == -signal.SIGKILL
    assert (out / "state.npz").is_file()
    live = Process(*follow, stdout=subprocess.DEVNULL)
    live.wait_for(lambda: live.written() >= 4000)
    with open(table, "a") as file:
        for text in ("".join(lines[4000:4999]), lines[4999][:5]):
            file.write(text)
            file.flush()
        live.wait_for(lambda: live.written() >= 4999)
        time.sleep(0.5)
        assert live.written() == 4999  # a line that has not ended is no row
        file.write(lines[4999][5:] + "".join(lines[5000:]))
        file.flush()
        live.wait_for(lambda: live.written() >= 6000)
    assert live.end(signal.SIGINT) == 0  # Ctrl-C is the end of a followed file
    assert (out / "summary.json").is_file() and (out / "figures" / "error.png").is_file()
    run("stream", "--csv", table, *SMALL, "--out", tmp_path / "unbroken")
    assert (out / "predictions.csv").read_bytes() == (tmp_path / "unbroken" / "predictions.csv").read_bytes()
    strip = lambda path: [  # noqa: E731
        {k: v for k, v in json.loads(line).items() if k in ("row", "naive_rmse", "rmse")}
        for line in (path / "metrics.jsonl").read_text().splitlines()
    ]
    live_lines, unbroken_lines = strip(out), strip(tmp_path / "unbroken")
    assert [line["row"] for line in live_lines] == [line["row"] for line in unbroken_lines] == list(range(50, 6001, 50))
    assert live_lines[-1]["rmse"]["y"] == pytest.approx(unbroken_lines[-1]["rmse"]["y"], rel=1e-9)
    capsys.readouterr()


@slow
def test_standard_input_goes_on_with_the_rows_that_come(tmp_path, capsys, monkeypatch):
    lines, out = lines_of(rows_of(90)), tmp_path / "out"

    def feed(text):
        path = tmp_path / "pipe"
        path.write_text(text)
        with open(path) as file:
            monkeypatch.setattr(sys, "stdin", file)
            run("stream", "--csv", "-", *SMALL, "--window", 4, "--echo", "--out", out)

    feed("x,y\n" + "".join(lines[:30]))
    feed("x,y\n" + "".join(lines[30:])[:-1])  # the header comes again; the last line has no end
    header, *echoed = capsys.readouterr().out.splitlines()
    assert echoed.count(header) == 1  # each process' own
    echoed.remove(header)
    write_table(tmp_path / "t.csv", rows_of(90))
    run("stream", "--csv", tmp_path / "t.csv", *SMALL, "--window", 4, "--out", tmp_path / "file")
    expected = (tmp_path / "file" / "predictions.csv").read_bytes()
    assert (out / "predictions.csv").read_bytes() == expected
    head, *whole = expected.decode().splitlines()
    assert header == head and echoed[-1] == whole[-1] and set(echoed) == set(whole)


@slow
def test_sigterm_saves_and_says_how_to_go_on(tmp_path):
    running = Process("--csv", "-", *SMALL, "--out", tmp_path / "out", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    running.process.stdin.write("x,y\n" + "".join(lines_of(rows_of(60))))
    running.process.stdin.flush()
    running.wait_for(lambda: running.written() >= 60)
    assert running.end(signal.SIGTERM) == 143
    assert f"eprop resume {tmp_path / 'out'}" in running.process.stderr.read()
    assert json.loads(str(np.load(tmp_path / "out" / "state.npz")["facts"]))["learnt"] == 60
    running.process.stdin.close()
    running.process.stderr.close()


BAD = {
    "1.0,": "row 4 (line 5): column 'y' is empty",
    "1.0": "row 4 (line 5): has 1 cells, and the table 2 columns",
    "1.0,2.0,3.0": "row 4 (line 5): has 3 cells",
    "1.0,two": "row 4 (line 5): column 'y' is 'two', not a finite number",
    "nan,1.0": "row 4 (line 5): column 'x' is 'nan', not a finite number",
    "1.0,-inf": "row 4 (line 5): column 'y' is '-inf'",
    "1.0,1_000": "row 4 (line 5): column 'y' is '1_000'",
    "1.0,\ufffd\0": "is not text",
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_row_ends_the_stream_with_one_line(tmp_path, capsys, bad):
    lines = lines_of(rows_of(8))
    table = tmp_path / "t.csv"
    table.write_text("x,y\n" + "".join(lines[:3]) + bad + "\n" + "".join(lines[3:]))
    command = ("stream", "--csv", table, *SMALL, "--window", 100, "--out", tmp_path / "out")
    assert BAD[bad] in refused(capsys, *command)
    assert BAD[bad] in refused(capsys, *command)  # what was read is saved, and the row is met again


@slow
def test_bad_rows_are_skipped_and_counted_if_asked_for(tmp_path, capsys):
    lines, table, out = lines_of(rows_of(60)), tmp_path / "t.csv", tmp_path / "out"
    table.write_text("x,y\r\n" + "".join(lines[:30]) + "1.0,\n\n1.0,two\n" + "".join(lines[30:]))
    command = ("stream", "--csv", table, *SMALL, "--out", out)
    assert "row 31 (line 32)" in refused(capsys, *command)
    assert len(predictions(out)) == 30
    run(*command, "--skip-bad-rows")
    assert "60 rows" in (said := capsys.readouterr().out) and "2 bad rows skipped" in said
    assert [int(line["row"]) for line in predictions(out)] == [*range(1, 31), *range(33, 63)]
    assert json.loads((out / "summary.json").read_text())["skipped"] == 2
    run("stream", "--csv", write_table(tmp_path / "good.csv", rows_of(60)), *SMALL, "--out", tmp_path / "good")
    forecasts = [[line["y_forecast"] for line in predictions(folder)] for folder in (out, tmp_path / "good")]
    assert forecasts[0] == forecasts[1]  # as if they had not been there


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (b"", [], "is empty"),
        (b"x,y\n", [], "has no rows"),
        (b"\x7fELF\x00\x00\x01\n\x00", [], "is not a table of text"),
        (b"temperature,y\n1,2\n", ["--inputs", "temprature"], "no column 'temprature' (did you mean 'temperature'?)"),
        (b"x,z\n1,2\n", [], "targets: "),
        (b"1,2\n3,4\n", [], "use --no-header"),
        (b"y,y\n3,4\n", [], "two columns are called 'y'"),
        (b"y,\n3,4\n", [], "column 2 has no name"),
        (b"x,y\n1,2\n", ["--horizon", "0"], "horizon = 0"),
        (b"x,y\n1,2\n", ["--window", "0"], "window = 0"),
        (b"x,y\n1,2\n", ["--inputs", "x,x"], "names 'x' twice"),
        (
            b"x,y\n1,2\n",
            ["--rule", "rtrl"],
            "does not learn from a table; eprop1, eligibility_only and truncated_bptt do",
        ),
        (b"x,y\n1,2\n", ["--bidirectional"], "cannot be read backwards"),
        (b"x,y\n1,2\n", ["--weight-penalty", "0.1"], "a stream has none"),
        (b"x,y\n1,2\n", ["--cosine-decay"], "needs to know how many updates"),
        (b"x,y\n1,2\n", ["--horizn", "3"], "--horizn"),
    ],
)
def test_bad_tables_and_settings_get_one_line(tmp_path, capsys, content, arguments, message):
    table = tmp_path / "t.csv"
    table.write_bytes(content)
    assert message in refused(capsys, "stream", "--csv", table, *SMALL, *arguments, "--out", tmp_path / "out")


def test_a_table_without_header_and_with_text_columns_that_are_not_used(tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text("".join(f'"2026-01-01, {i}"\t{x}\t{y}\n' for i, (x, y) in enumerate(rows_of(30))))
    columns = ("--no-header", "--delimiter", "tab", "--inputs", "2,3", "--targets", "3", "--neurons", "4")
    run("stream", "--csv", table, *columns, "--out", tmp_path / "out")
    assert list(predictions(tmp_path / "out")[0]) == ["row", "3", "3_forecast", "3_naive", "3_ahead"]
    assert "missing.csv: cannot be read (No such file" in refused(
        capsys, "stream", "--csv", tmp_path / "missing.csv", *SMALL, "--out", tmp_path / "none"
    )
    assert not (tmp_path / "none").exists()


def test_a_damaged_state_is_told(tmp_path, capsys):
    table, out = write_table(tmp_path / "t.csv", rows_of(20)), tmp_path / "out"
    command = ("stream", "--csv", table, *SMALL, "--window", 50, "--out", out)
    run(*command)
    state = (out / "state.npz").read_bytes()
    (out / "state.npz").write_bytes(state[: len(state) // 2])
    capsys.readouterr()
    assert "state.npz: is damaged" in refused(capsys, *command, status=1)
    run(*command, "--overwrite")
    assert len(predictions(out)) == 20


def test_long_lines_and_lines_in_pieces(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"x" * 100_000 + b"\n" + b"y,z")
    source, lines = Source(str(path)), []
    while (part := source.read(0.0)) is not None:
        lines += part
    source.close()
    assert lines == [b"x" * 100_000 + b"\n"] and source.rest == b"y,z"


@slow
def test_twenty_thousand_steps_in_constant_memory_with_one_compilation():
    network = build_network(NetworkSettings(neuron="lstm", neurons=16, tau_out=None), 3, 1, jax.random.key(0))
    traces = []

    def loss(y, target, mask):
        traces.append(y.shape)
        return 0.5 * jnp.sum(mask[..., None] * (y - target) ** 2)

    learner = Learner(EProp1(), optax.adam(1e-3), loss, delay=2)
    state, random = None, np.random.default_rng(0)
    for block in range(20):
        x = jnp.asarray(random.normal(size=(1000, 1, 3)), jnp.float32)
        if state is None:
            state = learner.init(network, first=(x[:10], x[:10, :, :1]))
        state, y, _ = learner.run(state, x, x[..., :1], jnp.ones(x.shape[:2], jnp.float32), window=10)
        y.block_until_ready()
        if block == 0:
            before, compiled = resident_bytes(), len(traces)
    assert len(traces) == compiled == 1 and int(state.windows) == 2000 - 1
    assert resident_bytes() - before < 16 * 2**20
