"""`eprop reproduce`: published figures."""

import dataclasses
from pathlib import Path
from typing import Generic, TypeVar

from eprop.errors import require
from eprop.workshop.cli._execute import run_in, seconds_of
from eprop.workshop.cli._parse import choose, missing, parse, split_commas, take_option
from eprop.workshop.experiments import REPRODUCTIONS, start_reproduction

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class ReproduceOptions(Generic[T]):
    out: Path
    """Folder for all runs, the table and the pictures."""
    settings: T
    overwrite: bool = False
    """Replace the run that the folder holds: what a run wrote is removed, by name, if there is nothing else."""
    continue_or_start: bool = False
    """Start, go on with the run in the folder (the same settings), or do nothing if it has ended: for job queues."""
    stop_after: str = ""
    """End by itself after this time (55m, 11.5h), to be continued: with a checkpoint, and status 75."""


def reproduce(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: eprop reproduce NAME [--preset NAME] --out DIR [options]\n\nfigures:")
        for name, reproduction in REPRODUCTIONS.items():
            print(f"  {name}  {reproduction.summary}  [presets: {', '.join(reproduction.presets)}]")
        print("\n'eprop reproduce NAME --help' lists all options; 'eprop resume DIR' goes on after an interruption.")
        return
    name, *rest = arguments
    reproduction = REPRODUCTIONS[choose("figure", name, REPRODUCTIONS)]
    presets = reproduction.presets
    preset, rest = take_option(rest, "preset", next(iter(presets)))
    require(preset in presets, f"preset = {preset!r}: {name} has {', '.join(presets)}")
    kind = type(presets[preset])
    for field in dataclasses.fields(presets[preset]):
        if isinstance(getattr(presets[preset], field.name), tuple):
            rest = split_commas(rest, field.name.replace("_", "-"))
    options = parse(
        ReproduceOptions[kind],
        rest,
        prog=f"eprop reproduce {name}",
        description=f"{reproduction.summary}\n\nPreset: {preset} (--preset NAME, one of {', '.join(presets)}).",
        default=ReproduceOptions(out=missing(), settings=presets[preset]),
    )
    how = options.overwrite, options.continue_or_start
    limit = seconds_of(options.stop_after)
    run_in(lambda: start_reproduction(name, options.settings, options.out, *how), limit, options.continue_or_start)
