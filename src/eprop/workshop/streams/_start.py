"""A stream's folder, its default settings, and the table it ends with."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table as TextTable
from rich.text import Text

from eprop.errors import require
from eprop.files import printable
from eprop.workshop.settings import NetworkSettings, OptimiserSettings
from eprop.workshop.streams._settings import HandlingSettings, StreamSettings
from eprop.workshop.streams._source import Source
from eprop.workshop.streams._table import Position, Table, read_names
from eprop.workshop.training import RunFolder, build_optimiser, cannot_write, check_network, writing

DEFAULT_NETWORK = NetworkSettings(neuron="lstm", neurons=64, tau_out=None, bias=True, readout_scale=0.1)
DEFAULT_OPTIMISER = OptimiserSettings(learning_rate=0.003)


def start_stream(
    out: Path,
    stream: StreamSettings,
    network: NetworkSettings,
    optimiser: OptimiserSettings,
    handling: HandlingSettings,
    overwrite: bool = False,
) -> RunFolder:
    """The stream's folder, new or as an earlier process left it (its handling may have changed since).

    Raises:
        InvalidSetting: for a table that cannot be read or lacks a column, settings that a stream has no use for, or a
            folder that holds another run.
    """
    require(optimiser.weight_penalty == 0, f"weight_penalty = {optimiser.weight_penalty}: a stream has none")
    build_optimiser(optimiser)  # refuses a decay towards an end
    check_network(network)
    require(not network.bidirectional, "bidirectional: a stream cannot be read backwards")
    if stream.csv != "-":
        stream = dataclasses.replace(stream, csv=str(Path(stream.csv).absolute()))
        _check_columns(stream, handling)
    parts = {"stream": stream, "network": network, "optimiser": optimiser, "handling": handling}
    config = {"command": "stream"} | {name: dataclasses.asdict(part) for name, part in parts.items()}
    config = json.loads(json.dumps(config))
    if overwrite or not (Path(out) / "config.json").is_file():
        return RunFolder.create(out, config, overwrite)
    folder = RunFolder.open(out)
    _check_same(folder, config)
    try:
        with writing(folder.path):
            folder.set_config(config)
    except OSError as error:
        raise cannot_write(folder.path, error) from None
    return folder


def stream_table(summary: dict[str, Any]) -> Group:
    """The values, and errors of the whole stream, a row a target."""
    title = f"{summary['rows']:,} rows, {summary['horizon']} ahead"
    if summary["rows_per_s"]:
        title += f", {summary['rows_per_s']:,.0f} rows/s"
    if summary["skipped"]:
        title += f", {summary['skipped']:,} bad rows skipped"
    table = TextTable()
    for column in ("target", "rms error", "naive", "error / naive"):
        table.add_column(column, justify="left" if column == "target" else "right")
    for name, error in summary["rmse"].items():
        naive = summary["naive_rmse"][name]
        known = error is not None
        ratio = f"{error / naive:.3f}" if known and naive else "-"
        table.add_row(Text(printable(name)), *((f"{error:.5g}", f"{naive:.5g}") if known else ("-", "-")), ratio)
    return Group(title, table)


def _check_columns(stream: StreamSettings, handling: HandlingSettings) -> None:
    """Fail before a folder is made, on what the table's first line can tell."""
    source = Source(stream.csv, follow=handling.follow)
    try:
        lines = source.read(wait=0.0) or []
        first = lines[0] if lines else source.rest
        require(bool(first.strip()) or handling.follow, f"csv = {stream.csv}: is empty")
        if lines:
            Table(stream, read_names(stream, first)[0], Position(), skip=False)
    finally:
        source.close()


def _check_same(folder: RunFolder, config: dict[str, Any]) -> None:
    held = folder.config
    is_stream = held.get("command") == "stream"
    require(is_stream, f"out = {folder.path}: holds another run; name another folder, or replace it with --overwrite")
    kinds = (StreamSettings, NetworkSettings, OptimiserSettings)
    defaults = {f.name: f.default for kind in kinds for f in dataclasses.fields(kind)}
    defaults = json.loads(json.dumps(defaults, default=str))
    for part in ("stream", "network", "optimiser"):
        for name, value in config[part].items():
            there = held[part].get(name, defaults.get(name))  # an older version did not know it
            require(
                there == value,
                f"{name} = {value!r}: the stream in {folder.path} has {there!r}; a stream goes on with the settings it "
                "began with (or begins anew with --overwrite)",
            )
