"""A benchmark in a folder: size after size, each written down as soon as it is measured."""

import dataclasses
import datetime
import math
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from eprop.errors import InvalidSetting, RunFailed
from eprop.files import read_json, write_json, write_text
from eprop.workshop.bench._measure import Measurement, measure_case
from eprop.workshop.bench._peers import measure_peers
from eprop.workshop.bench._problem import Case, make_network
from eprop.workshop.bench._ratios import ratios_of
from eprop.workshop.bench._report import markdown
from eprop.workshop.bench._settings import RIVAL, BenchSettings
from eprop.workshop.bench._stream_memory import measure_stream
from eprop.workshop.bench._ways import candidate_windows
from eprop.workshop.training import Interrupted, RunFolder, Stop, versions


def start_bench(settings: BenchSettings, out: Path, overwrite: bool = False, go_on: bool = False) -> RunFolder:
    """A new benchmark's folder: settings written down, nothing measured yet."""
    settings.check()
    config = {"command": "bench", "settings": dataclasses.asdict(settings)}
    return RunFolder.create(out, config, overwrite, go_on)


def run_bench(folder: RunFolder, say: Callable[[str], None] = lambda said: None) -> dict[str, Any]:
    """Measure, or go on with, what a folder's configuration says; `bench.json` and `bench.md` grow with every size.

    All ways at one size are measured in one process. What was measured before an interruption stands.

    Raises:
        Interrupted: once the time of `stop_after` is over, if a size is left to measure.
    """
    settings = settings_of(folder)
    path = folder.path / "bench.json"
    bench = read_json(path) if path.is_file() else {"machine": machine(), "versions": versions(), "cases": []}
    done = [entry["case"] for entry in bench["cases"]]
    stop, left = Stop(), [case for case in settings.cases() if dataclasses.asdict(case) not in done]
    for case in left:
        windows = _windows(case, settings, bench["cases"])
        bench["cases"].append(_measure(case, settings, windows, say))
        bench["ratios"] = [figure for entry in bench["cases"] for figure in ratios_of(entry)]
        write_json(path, bench)
        write_text(folder.path / "bench.md", markdown(bench, _command(settings)))
        if stop.requested and case != left[-1]:
            raise Interrupted(stop.status)
    return bench


def settings_of(folder: RunFolder) -> BenchSettings:
    """The settings that a folder's configuration names.

    Raises:
        InvalidSetting: for a setting that this version does not know.
    """
    try:
        return BenchSettings(**folder.config["settings"])
    except TypeError as error:
        raise InvalidSetting(f"{folder.path}: settings of another version of eprop ({error})") from None


def check_not_refused(bench: dict[str, Any]) -> None:
    """Raise `RunFailed` if a path's gradient was wrong."""
    refused = [
        f"{_case(entry)}: {row['path']} refused: {row['refused']}"
        for entry in bench["cases"]
        for row in entry["paths"]
        if row["refused"]
    ]
    if refused:
        raise RunFailed("bench: " + "; ".join(refused))


def machine() -> dict[str, Any]:
    """Where and when."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = jax.devices()[0]
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "cores": cores,
        "device": f"{device.platform} ({device.device_kind})",
        "system": platform.system(),
    }


def _windows(case: Case, settings: BenchSettings, measured: list[dict[str, Any]]) -> list[int]:
    """Windows that divide every length of this network, so that its streams differ in length alone.

    The window found best at the first length is that of all the others.
    """
    of_network = lambda c: (c.model, c.neurons, c.batch)  # noqa: E731
    for entry in measured:
        chosen = next((row["window"] for row in entry["paths"] if row["window"]), None)
        if of_network(_case(entry)) == of_network(case) and chosen and case.steps % chosen == 0:
            return [chosen]
    common = math.gcd(*(c.steps for c in settings.cases() if of_network(c) == of_network(case)))
    windows = candidate_windows(make_network(case.model, case.neurons), common, case.batch)
    return [] if windows == [1] else windows  # lengths that share no window: each its own


def _measure(case: Case, settings: BenchSettings, windows: list[int], say: Callable[[str], None]) -> dict[str, Any]:
    paths = settings.chosen_paths()
    if case == RIVAL and settings.peers and not settings.steps:
        paths = [name for name in paths if name != "stepwise"]  # measured at the smaller sizes, and slow
    load = os.getloadavg()[0]
    rate, rows = measure_case(case, 3 if settings.quick else settings.rounds, paths, say, windows)
    entry = {
        "case": dataclasses.asdict(case),
        "mean_output": rate,
        "load_before": load,
        "paths": [_as_json(row) for row in rows],
    }
    streamed = next((row for row in rows if row.path == "streaming" and row.seconds), None)
    if settings.memory_steps and streamed and case == _first_of_size(case, settings):
        assert streamed.window is not None
        window = min(streamed.window, settings.memory_steps // 10)
        sizes = (case.model, case.neurons, case.batch, window)
        say(f"{case}: peak memory of a stream, in a process of its own")
        entry["stream_memory"] = measure_stream(*sizes, settings.memory_steps)
    if settings.peers and case.steps >= _longest_peer(case, settings):
        entry["peers"] = measure_peers(case, settings.interpreters(), Path(settings.peer_scripts), settings.rounds, say)
    return entry


def _first_of_size(case: Case, settings: BenchSettings) -> Case:
    """The first case with these neurons: a stream's memory does not know the sequence's length."""
    return next(c for c in settings.cases() if (c.model, c.neurons) == (case.model, case.neurons))


def _longest_peer(case: Case, settings: BenchSettings) -> int:
    """Peers are measured at each model's and network's first length alone, and where the rival is."""
    return 0 if case in (_first_of_size(case, settings), RIVAL) else case.steps + 1


def _as_json(row: Measurement) -> dict[str, Any]:
    return dataclasses.asdict(row) | {"median_s": row.median}


def _case(entry: dict[str, Any]) -> Case:
    return Case(**entry["case"])


def _command(settings: BenchSettings) -> str:
    """The command that measures this again."""
    default, words = BenchSettings(), []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value != getattr(default, field.name):
            flag = f"--{field.name.replace('_', '-')}"
            words.append(flag if value is True else f"{flag} {value}")
    return " ".join(["eprop bench", *words, "--out DIR"])


def _processor() -> str:
    """The processor's name, where the system tells it."""
    told = Path("/proc/cpuinfo")
    if told.is_file():
        for line in told.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
