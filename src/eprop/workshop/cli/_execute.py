"""The part that all commands share that make or continue a run folder."""

import contextlib
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from eprop.errors import InvalidSetting, require
from eprop.workshop.training import (
    Interrupted,
    RunFolder,
    cannot_write,
    experiment_from_json,
    keep_locks,
    train,
    writing,
)
from eprop.workshop.training import stop_after as stop_run_after

if TYPE_CHECKING:
    from rich.console import Console


def run_in(make: Callable[[], RunFolder], stop_after: float | None = None, go_on: bool = False) -> None:
    """Make or open a run folder, and run in it; nobody else writes there in between.

    Args:
        make: makes or opens it.
        stop_after: seconds, from now, after which the run ends by itself, to be continued; None: it doesn't.
        go_on: a run that has ended is left as it is.
    """
    limit = contextlib.nullcontext() if stop_after is None else stop_run_after(stop_after, time.monotonic())
    with keep_locks(), limit:
        folder = make()
        if go_on and folder.finished:
            print(f"{folder.path}: has ended already; nothing to do")
            return
        with writing(folder.path):
            try:
                folder.begin()
                execute(folder)
                folder.finish()
            except OSError as error:
                raise cannot_write(folder.path, error) from None


def execute(folder: RunFolder) -> None:
    """Run, or go on with, what a folder's configuration says; then table and pictures."""
    from rich.console import Console

    from eprop.workshop.experiments import (
        comparison_table,
        gradients_table,
        measure_gradients,
        reproduction_of,
        run_comparison,
    )

    console = Console(markup=False, emoji=False)
    config = folder.config
    prepare(config)
    try:
        match config["command"]:
            case "compare":
                comparison = run_comparison(folder, lambda row: console.print(f"{row['rule']}: {row['mean']:.4f}"))
                draw_all(folder)
                console.print(comparison_table(comparison))
            case "gradients":
                measure_gradients(folder)
                draw_all(folder)
                console.print(gradients_table(folder))
            case "reproduce":
                reproduction, settings = reproduction_of(folder)
                table = reproduction.run(folder, settings)
                draw_all(folder)
                console.print(table)
            case "stream":
                learn_stream(folder, console)
            case "bench":
                measure(folder, console)
            case "train":
                experiment = experiment_from_json(config["task"], config["experiment"], folder.path)
                summary = train(
                    experiment,
                    folder,
                    task=config["task"],
                    seeds=config.get("seeds"),
                    tensorboard=config.get("tensorboard", False),
                )
                draw_all(folder)
                console.print(f"{summary['metric']}: {summary['value']} after {summary['iterations']} iterations")
            case part:
                raise InvalidSetting(f"{folder.path}: is a {part} of another run; name that one's folder")
    except Interrupted as stop:
        print(f"eprop: stopped; nothing is lost: go on with 'eprop resume {folder.path}'", file=sys.stderr)
        sys.exit(stop.status)


def measure(folder: RunFolder, console: "Console") -> None:
    """Benchmark; tables and pictures stand before a wrong gradient's error."""
    from rich.console import Console

    from eprop.workshop.bench import bench_tables, check_not_refused, run_bench

    status = Console(stderr=True)
    with status.status("bench") as spinner:
        bench = run_bench(folder, spinner.update)
    for table in bench_tables(bench):
        console.print(table)
    draw_all(folder)
    check_not_refused(bench)


def learn_stream(folder: RunFolder, console: "Console") -> None:
    """Learn from a table until it ends; pictures are drawn after a signal that ends `--follow`, too."""
    from eprop.workshop.streams import run_stream, stream_table

    summary = run_stream(folder)
    echoes = folder.config["handling"]["echo"]  # then standard output is for forecasts alone
    with contextlib.redirect_stdout(sys.stderr) if echoes else contextlib.nullcontext():
        draw_all(folder)
        console.print(stream_table(summary))


def draw_all(folder: RunFolder) -> None:
    """Draw a folder's pictures and print where they are."""
    from eprop.workshop.figures import draw

    for path in draw(folder):
        print(path)


def prepare(config: dict[str, Any]) -> None:
    """Set the floating-point precision that a configuration asks for."""
    network = config.get("experiment", config).get("network")
    set_precision(network.get("precision", "float32") if isinstance(network, dict) else "float32")


def set_precision(precision: str) -> None:
    if precision == "float64":
        jax.config.update("jax_enable_x64", True)


def named_folder(command: str, arguments: list[str]) -> Path:
    """The one folder a command works on."""
    require(len(arguments) == 1, f"{command}: name one run folder, as in 'eprop {command} runs/first'")
    return Path(arguments[0])


def seconds_of(duration: str) -> float | None:
    """`90s`, `55m`, `11.5h`, `2d`, or a number of seconds, in seconds; None for nothing.

    Raises:
        InvalidSetting: for anything else.
    """
    if not duration:
        return None
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", duration)
    if found is None:
        raise InvalidSetting(f"stop_after = {duration!r}: expected a time, as 90s, 55m, 11.5h or 2d")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]
