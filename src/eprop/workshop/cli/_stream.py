"""`eprop stream`."""

import dataclasses
from pathlib import Path

from eprop.workshop.cli._execute import run_in, seconds_of, set_precision
from eprop.workshop.cli._parse import missing, parse, split_commas
from eprop.workshop.settings import NetworkSettings, OptimiserSettings
from eprop.workshop.streams import DEFAULT_NETWORK, DEFAULT_OPTIMISER, HandlingSettings, StreamSettings, start_stream

DESCRIPTION = """\
Learn online from a table that keeps coming: forecast its targets some rows ahead, and learn from every row as it comes.

Forecasts go to DIR/predictions.csv, a line a row: the row's value, the forecast that was made of it, the naive one (the
last value then known), and the forecast made at this row of the one that is `horizon` rows ahead. The state is saved as
the stream goes; the same command, or 'eprop resume DIR', goes on where it stopped.

examples:
  eprop stream --csv sensors.csv --targets load --horizon 3 --out runs/load
  eprop stream --csv sensors.csv --targets load,flow --inputs load,flow,temperature --window 10 --out runs/both
  eprop stream --csv growing.csv --targets price --follow --out runs/live          until Ctrl-C
  producer | eprop stream --csv - --targets x --echo --out runs/x                  forecasts on standard output, too
"""


@dataclasses.dataclass(frozen=True)
class StreamOptions:
    out: Path
    """Folder for config.json, predictions.csv, metrics.jsonl, state.npz, summary.json, figures/."""
    stream: StreamSettings
    handling: HandlingSettings
    network: NetworkSettings
    optimiser: OptimiserSettings
    overwrite: bool = False
    """Begin anew: what the stream in the folder wrote is removed, by name, if there is nothing else."""
    stop_after: str = ""
    """End by itself after this time (55m, 11.5h), to be continued: with the state saved, and status 75."""


def stream(arguments: list[str]) -> None:
    if not arguments:
        arguments = ["--help"]
    missing_settings = StreamSettings.__new__(StreamSettings)  # csv and targets have no default: not checked yet
    for field in dataclasses.fields(StreamSettings):
        value = missing() if field.default is dataclasses.MISSING else field.default
        object.__setattr__(missing_settings, field.name, value)
    options = parse(
        StreamOptions,
        split_commas(arguments, "freeze"),
        prog="eprop stream",
        description=DESCRIPTION,
        default=StreamOptions(missing(), missing_settings, HandlingSettings(), DEFAULT_NETWORK, DEFAULT_OPTIMISER),
    )
    set_precision(options.network.precision)
    parts = (options.stream, options.network, options.optimiser, options.handling)
    limit = seconds_of(options.stop_after)
    run_in(lambda: start_stream(options.out, *parts, overwrite=options.overwrite), limit)
