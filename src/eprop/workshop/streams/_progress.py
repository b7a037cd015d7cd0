"""A live line on a terminal: rows, rows a second, error beside the naive forecast's, memory."""

import time

from rich.console import Console
from rich.progress import BarColumn, TextColumn

from eprop.workshop.memory import resident_bytes
from eprop.workshop.streams._table import Position
from eprop.workshop.training import LiveLine


class StreamProgress(LiveLine):
    """Shown while a stream lasts; nothing where there is no terminal.

    Args:
        size: bytes of the file, for the bar; None where the end is not known.
    """

    def __init__(self, size: int | None, console: Console | None = None) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[numbers]}", markup=False),
        )
        super().__init__(*columns, console=console)
        self._task = self._bar.add_task("stream", total=size, numbers="waiting for rows")
        self._shown = 0.0

    def update(self, position: Position, ratio: float | None, rows_per_second: float) -> None:
        if self._bar.disable or time.monotonic() - self._shown < 0.1:
            return
        self._shown = time.monotonic()
        numbers = f"row {position.row:,}  {rows_per_second:,.0f} rows/s"
        if ratio is not None:
            numbers += f"  error {ratio:.3f} of naive"
        if position.skipped:
            numbers += f"  {position.skipped:,} skipped"
        self._bar.update(self._task, completed=position.byte, numbers=f"{numbers}  {resident_bytes() / 2**20:.0f} MB")
