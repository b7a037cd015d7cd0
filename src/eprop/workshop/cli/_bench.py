"""`eprop bench`: times and peak memory of every way to a gradient."""

import dataclasses
from pathlib import Path

from eprop.workshop.bench import BenchSettings, start_bench
from eprop.workshop.cli._execute import run_in, seconds_of
from eprop.workshop.cli._parse import missing, parse

DESCRIPTION = """\
Times and peak memory, in one process and in turns: the forward pass, its matrix products alone, BPTT, e-prop over the
whole sequence, over a stream in windows, and step by step. Ends with tables, bench.json, bench.md and two pictures.

A path whose gradient differs from that of plain differentiation isn't reported, and the command ends with status 1.

examples:
  eprop bench --out runs/bench                                   the sizes of the figures to reach: minutes
  eprop bench --quick --out runs/quick                           a tiny network: seconds
  eprop bench --model lstm --neurons 200 --steps 100,1000 --batch 8 --out runs/mine
  eprop bench --peers .venv/bin/python,OTHER/bin/python --out runs/peers   beside braintrace, torch and sparxml
"""


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    out: Path
    """Folder for bench.json, bench.md, time.png and memory.png."""
    settings: BenchSettings
    overwrite: bool = False
    """Replace the run that the folder holds: what a run wrote is removed, by name, if there is nothing else."""
    continue_or_start: bool = False
    """Start, go on with the run in the folder (the same settings), or do nothing if it has ended: for job queues."""
    stop_after: str = ""
    """End by itself after this time (55m, 11.5h), to be continued, when a size has been measured: with status 75."""


def bench(arguments: list[str]) -> None:
    options = parse(
        BenchOptions,
        arguments,
        prog="eprop bench",
        description=DESCRIPTION,
        default=BenchOptions(out=missing(), settings=BenchSettings()),
    )
    go_on = options.continue_or_start
    limit = seconds_of(options.stop_after)
    run_in(lambda: start_bench(options.settings, options.out, options.overwrite, go_on), limit, go_on)
