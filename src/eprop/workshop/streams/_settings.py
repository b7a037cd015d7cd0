"""Settings of a stream: what is learnt from the table, and how its rows are handled."""

import csv
from dataclasses import dataclass
from typing import Literal

from eprop.errors import require, require_positive
from eprop.rules import make_rule


@dataclass(frozen=True)
class StreamSettings:
    """The quantity that is learnt."""

    csv: str
    """The table: a file, or - for standard input."""
    targets: str
    """Columns to forecast, separated by commas. Without a header columns are called 1, 2, ..."""
    inputs: str | None = None
    """Columns that the network reads, separated by commas; None: all. Other columns may hold anything."""
    horizon: int = 1
    """Rows ahead of which the targets are forecast."""
    window: int = 1
    """Rows between two updates of the weights. 1: a forecast as soon as a row is there; 10 is several times faster."""
    header: bool = True
    """The first line names the columns."""
    delimiter: str = ","
    """The separator of two cells; "tab" for a tabulator."""
    forecast: Literal["change", "level"] = "change"
    """The meaning of the network's output: the change from the newest value, or the level around the running mean."""
    memory: int | None = 10_000
    """Rows over which running mean and spread forget (exponentially); None: all rows count alike."""
    rule: str = "eprop1"
    """Learning rule, with its option: eprop1:random, eprop1:adaptive; or truncated_bptt, cut at each window."""
    seed: int = 0
    """Random seed of the initial weights."""

    def __post_init__(self) -> None:
        require(self.horizon >= 1, f"horizon = {self.horizon}: must be at least 1")
        require(self.window >= 1, f"window = {self.window}: must be at least 1")
        require(self.memory is None or self.memory >= 2, f"memory = {self.memory}: must be at least 2 rows, or None")
        require(0 <= self.seed < 2**31, f"seed = {self.seed}: must be from 0 to 2^31 - 1")
        require(len(self.separator) == 1, f'delimiter = {self.delimiter!r}: must be one character, or "tab"')
        for name in ("targets", "inputs"):
            value = getattr(self, name)
            if value is not None:
                names = column_names(value)
                require(bool(names) and all(names), f"{name} = {value!r}: name columns, separated by commas")
                twice = next((n for n in names if names.count(n) > 1), None)
                require(twice is None, f"{name} = {value!r}: names {twice!r} twice")
        rule = make_rule(self.rule)
        require(
            rule.streams and not rule.synthesises,
            f"rule = {self.rule!r}: does not learn from a table; eprop1, eligibility_only and truncated_bptt do",
        )

    @property
    def separator(self) -> str:
        return "\t" if self.delimiter == "tab" else self.delimiter


@dataclass(frozen=True)
class HandlingSettings:
    """How rows come and go. May differ when a stream goes on."""

    follow: bool = False
    """At the end of the file wait for more rows, until Ctrl-C."""
    skip_bad_rows: bool = False
    """Leave out rows that cannot be read, and count them; otherwise the first one ends the stream."""
    echo: bool = False
    """Print each line of predictions.csv, too (then all else goes to standard error)."""
    report_every: int = 1000
    """Rows a line of metrics.jsonl."""
    save_seconds: float = 10.0
    """Save the state once so many seconds have passed since it was saved last ..."""
    save_rows: int | None = None
    """... or so many rows; None: by the clock alone."""

    def __post_init__(self) -> None:
        require_positive(save_seconds=self.save_seconds, save_rows=self.save_rows)
        require(self.report_every >= 1, f"report_every = {self.report_every}: must be at least 1")


def column_names(listed: str) -> list[str]:
    """`a,b,"c,d"` as names; none where that is no line of a table."""
    try:
        return [name.strip() for name in next(csv.reader([listed]), [])]
    except csv.Error:
        return []
