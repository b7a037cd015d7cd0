"""The run of a stream: rows in, predictions out, state saved, until the rows end or a signal comes."""

import json
import signal
import sys
import time
from typing import Any

import numpy as np

from eprop.errors import InvalidSetting, RunFailed, require
from eprop.workshop.memory import resident_bytes
from eprop.workshop.settings import NetworkSettings, OptimiserSettings
from eprop.workshop.streams._forecaster import Forecaster, Forecasts
from eprop.workshop.streams._progress import StreamProgress
from eprop.workshop.streams._saved import Appended, load_state, save_state
from eprop.workshop.streams._score import Score
from eprop.workshop.streams._settings import HandlingSettings, StreamSettings
from eprop.workshop.streams._source import Source
from eprop.workshop.streams._table import BadRow, Position, Rows, Table, read_names
from eprop.workshop.training import (
    Interrupted,
    RunFolder,
    cannot_write,
    settings_from_json,
    stop_signals,
    versions,
    writing,
)


def run_stream(folder: RunFolder) -> dict[str, Any]:
    """Learn from the table that the folder's configuration names, from its beginning or where the saved state stands.

    Returns:
        The summary, also written to `summary.json`.

    Raises:
        InvalidSetting: for a table or row that cannot be read; what was learnt before it is saved.
        RunFailed: if a forecast stops being finite, or the folder's files are damaged.
        Interrupted: after Ctrl-C (unless the file is followed: then that is the end), SIGTERM or SIGHUP, or once the
            time of `stop_after` is over; all is saved.
    """
    parts = {
        "stream": StreamSettings,
        "network": NetworkSettings,
        "optimiser": OptimiserSettings,
        "handling": HandlingSettings,
    }
    try:
        with writing(folder.path):
            folder.begin()
            running = _Stream(folder, **settings_from_json(parts, folder.config, folder.path))
            try:
                return running.run()
            finally:
                running.close()
    except OSError as error:
        raise cannot_write(folder.path, error) from None


class _Stream:
    def __init__(
        self,
        folder: RunFolder,
        stream: StreamSettings,
        network: NetworkSettings,
        optimiser: OptimiserSettings,
        handling: HandlingSettings,
    ) -> None:
        self.folder, self.settings, self.handling = folder, stream, handling
        self.network, self.optimiser = network, optimiser
        self.state_path = folder.path / "state.npz"
        facts, arrays = load_state(self.state_path) or ({}, [])
        self.before = Position(*facts.get("position", Position()))  # where this process begins
        self.source = Source(stream.csv, self.before.byte, handling.follow)
        self.predictions = Appended(folder.path / "predictions.csv", facts.get("predictions", 0))
        self.metrics = Appended(folder.path / "metrics.jsonl", facts.get("metrics", 0))
        self.table: Table | None = None
        self.problem: BadRow | None = None
        self.learnt, self.since_report = facts.get("learnt", 0), facts.get("since_report", 0)
        if facts:
            self._begin(facts["names"], facts)
            self._restore(arrays)
        self.wall_before = facts.get("wall_s", 0.0)
        self.started = self.saved = time.monotonic()
        self.saved_rows, self.pace = self.learnt, Pace()

    def close(self) -> None:
        self.source.close()
        self.predictions.close()
        self.metrics.close()

    def run(self) -> dict[str, Any]:
        with StreamProgress(self.source.size) as progress, stop_signals() as stop:
            try:
                while not stop.requested and self._advance(progress):
                    pass
            except InvalidSetting:
                self._save()
                raise
            self._save()
        if stop.requested and not (self.handling.follow and stop.signal == signal.SIGINT):
            raise Interrupted(stop.status)
        self._look_ahead()
        return self._finish()

    def _advance(self, progress: StreamProgress) -> bool:
        """Read if there is no whole window of rows, otherwise learn; False at the end of the rows."""
        if self.table is None or len(self.queue) < self.settings.window:
            if self.problem is not None:
                raise self.problem
            lines = self.source.read()
            if lines:
                with self.pace:
                    self._read(lines)
            return lines is not None
        with self.pace:
            rows = self._learn()
        self.pace.add(rows)
        if self.since_report >= self.handling.report_every:
            self._report()
        late = time.monotonic() - self.saved > self.handling.save_seconds
        if late or self.learnt - self.saved_rows >= (self.handling.save_rows or np.inf):
            self._save()
        progress.update(self.table.position, self.recent.errors()["ratio"], self.pace.rows_per_second)
        return True

    def _begin(self, names: list[str], facts: dict[str, Any]) -> None:
        """The columns are known: the network can be made."""
        table = Table(self.settings, names, self.before, self.handling.skip_bad_rows)
        self.queue = table.empty()
        self.forecaster = Forecaster(self.settings, self.network, self.optimiser, table)
        self.total, self.recent = (Score(table.targets, facts.get(name)) for name in ("total", "recent"))
        self.table = table
        kinds = ("", "_forecast", "_naive", "_ahead")
        header = csv_line(["row", *(f"{name}{kind}" for name in table.targets for kind in kinds)])
        if not self.predictions.length:
            self.predictions.write(header)
        self._echo(header)

    def _read(self, lines: list[bytes]) -> None:
        """Put the rows of some lines into the queue."""
        if self.table is None:
            names, is_header = read_names(self.settings, lines[0])
            if is_header:
                self.before = Position(len(lines[0]), 1)
                lines = lines[1:]
            self._begin(names, {})
            assert self.table is not None
        elif self.source.standard and self.table.position == self.before and self.table.is_header(lines[0]):
            lines = lines[1:]  # another process writes its table, header and all
        rows, self.problem = self.table.parse(lines)
        self.queue = self.queue.and_then(rows)

    def _learn(self) -> int:
        """Learn from whole windows of the queue, up to the next report; returns the number of rows."""
        window = self.settings.window
        until_report = -(-(self.handling.report_every - self.since_report) // window) * window
        count = min(len(self.queue) // window * window, self.forecaster.most_rows, until_report)
        rows, self.queue = self.queue.first(count), self.queue.after(count)
        try:
            forecasts = self.forecaster.learn(rows.values)
        except RunFailed as error:
            kept = f"; the state before it is kept in {self.state_path}" if self.state_path.is_file() else ""
            raise RunFailed(f"rows {rows.numbers[0]} to {rows.numbers[-1]}: {error}{kept}") from None
        self._write(rows, forecasts)
        self.total.add(forecasts)
        self.recent.add(forecasts)
        self.learnt, self.since_report = self.learnt + count, self.since_report + count
        return count

    def _write(self, rows: Rows, forecasts: Forecasts) -> None:
        columns = np.stack(forecasts, axis=-1).reshape(len(rows), -1).tolist()
        numbers = rows.numbers.tolist()
        text = "".join(csv_line([number, *values]) for number, values in zip(numbers, columns, strict=True))
        self.predictions.write(text)
        self._echo(text)

    def _echo(self, text: str) -> None:
        if self.handling.echo:
            sys.stdout.write(text)
            sys.stdout.flush()

    def _report(self) -> None:
        """A line of metrics.jsonl: errors since the last line."""
        assert self.table is not None
        line = {
            "row": self.table.position.row - len(self.queue),
            **self.recent.errors(),
            "skipped": self.table.position.skipped,
            "rows_per_s": round(self.pace.rows_per_second, 1),
            "memory_mb": round(resident_bytes() / 2**20, 1),
            "wall_s": round(self._wall(), 3),
        }
        self.metrics.write(json.dumps(line) + "\n")
        self.recent, self.since_report = Score(self.table.targets), 0

    def _save(self) -> None:
        """Save the state, and what of the files belongs to it."""
        if self.table is None:
            return
        self.predictions.sync()
        self.metrics.sync()
        facts = {
            "position": self.table.position,
            "names": self.table.names,
            "learnt": self.learnt,
            "since_report": self.since_report,
            "total": self.total.sums(),
            "recent": self.recent.sums(),
            "predictions": self.predictions.length,
            "metrics": self.metrics.length,
            "wall_s": self._wall(),
        }
        save_state(self.state_path, facts, [*self.queue, *self.forecaster.arrays()])
        self.saved, self.saved_rows = time.monotonic(), self.learnt

    def _restore(self, arrays: list[np.ndarray]) -> None:
        same = self.forecaster.restore(arrays[2:])
        numbers, values = arrays[:2]
        waiting = (
            numbers.dtype == np.int64
            and values.dtype == float
            and values.shape == (*numbers.shape, self.queue.values.shape[1])
        )
        if not (same and waiting and numbers.ndim == 1):
            raise RunFailed(f"{self.state_path}: is of another network than the configuration's")
        self.queue = Rows(numbers, values)

    def _look_ahead(self) -> None:
        """Forecast from the last rows too, fewer than a window: they are not learnt from, nor in the saved state."""
        if self.table is None:
            raise InvalidSetting(f"csv = {self.settings.csv}: {'has no rows' if self.source.rest else 'is empty'}")
        position = self.table.position
        rest, problem = self.table.parse([self.source.rest]) if self.source.rest.strip() else (self.table.empty(), None)
        self.table.position = position
        if problem is not None and not self.handling.follow:
            raise problem
        rows = self.queue.and_then(rest)
        require(self.learnt > 0 or len(rows) > 0, f"csv = {self.settings.csv}: has no rows")
        if len(rows):
            self._write(rows, self.forecaster.peek(rows.values))

    def _finish(self) -> dict[str, Any]:
        assert self.table is not None
        summary = {
            "rows": self.table.position.row - self.table.position.skipped,
            "learnt": self.learnt,
            "skipped": self.table.position.skipped,
            "horizon": self.settings.horizon,
            **self.total.errors(),
            "rows_per_s": round(self.pace.rows_per_second, 1),
            "memory_mb": round(resident_bytes() / 2**20, 1),
            "wall_s": round(self._wall(), 3),
            "versions": versions(),
        }
        self.folder.write_summary(summary)
        return summary

    def _wall(self) -> float:
        return self.wall_before + time.monotonic() - self.started


class Pace:
    """Rows a second of work: neither the first call, which compiles, nor waiting for rows counts."""

    def __init__(self) -> None:
        self.seconds, self.rows, self._since, self._warm = 0.0, 0, 0.0, False

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.seconds += time.monotonic() - self._since

    def add(self, rows: int) -> None:
        if self._warm:
            self.rows += rows
        else:
            self._warm, self.seconds = True, 0.0

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds if self.rows else 0.0


def csv_line(cells: list[Any]) -> str:
    """Numbers so that they read back as they were; nothing where there is none; names quoted where they must be."""
    return ",".join(map(_cell, cells)) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"' if any(c in value for c in ',"\r') else value
    return "" if value != value else repr(value)
