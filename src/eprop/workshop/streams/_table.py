"""From lines to numbers: the columns that are used, and what is wrong with a row."""

import csv
import math
from typing import NamedTuple

import numpy as np

from eprop.errors import InvalidSetting, require, suggestion
from eprop.workshop.streams._settings import StreamSettings, column_names


class Position(NamedTuple):
    """How far a table has been read."""

    byte: int = 0
    line: int = 0
    row: int = 0
    skipped: int = 0


class Rows(NamedTuple):
    """Rows that have been read and wait to be learnt from."""

    numbers: np.ndarray  # [row], counted from 1 in the table
    values: np.ndarray  # [row, column], of the columns used

    def __len__(self) -> int:
        return len(self.numbers)

    def first(self, count: int) -> "Rows":
        return Rows(self.numbers[:count], self.values[:count])

    def after(self, count: int) -> "Rows":
        return Rows(self.numbers[count:], self.values[count:])

    def and_then(self, more: "Rows") -> "Rows":
        return Rows(np.concatenate([self.numbers, more.numbers]), np.concatenate([self.values, more.values]))


class BadRow(InvalidSetting):
    """A row that cannot be read."""


class Table:
    """The used columns of a table, inputs first, and the row that comes next.

    Args:
        settings: which columns.
        names: all columns of the table.
        position: where reading goes on.
        skip: count bad rows instead of stopping at the first.

    Raises:
        InvalidSetting: if a column is named that the table does not have.
    """

    def __init__(self, settings: StreamSettings, names: list[str], position: Position, skip: bool) -> None:
        self.source: str = settings.csv
        self.separator: str = settings.separator
        self.skip: bool = skip
        self.names: list[str] = names
        self.position: Position = position
        self.targets: list[str] = column_names(settings.targets)
        self.inputs: list[str] = names if settings.inputs is None else column_names(settings.inputs)
        for what, chosen in (("targets", self.targets), ("inputs", self.inputs)):
            for name in chosen:
                known = f"{suggestion(name, names)} (columns: {', '.join(names)})"
                require(name in names, f"{what}: {settings.csv} has no column {name!r}{known}")
        self.used: list[str] = list(dict.fromkeys([*self.inputs, *self.targets]))
        self._columns = [names.index(name) for name in self.used]
        self.input_columns: list[int] = [self.used.index(name) for name in self.inputs]
        self.target_columns: list[int] = [self.used.index(name) for name in self.targets]

    def empty(self) -> Rows:
        return Rows(np.zeros(0, np.int64), np.zeros((0, len(self.used))))

    def is_header(self, line: bytes) -> bool:
        """Whether a line names the columns again."""
        try:
            return [cell.strip() for cell in split_line(line, self.separator)] == self.names
        except BadRow:
            return False

    def parse(self, lines: list[bytes]) -> tuple[Rows, BadRow | None]:
        """The rows in `lines` up to the first bad one, and what is wrong with that; the position moves behind them."""
        byte, line, row, skipped = self.position
        numbers, values, problem = [], [], None
        for text in lines:
            if not text.strip():
                byte, line = byte + len(text), line + 1
                continue
            try:
                values.append(self._numbers(text))
                numbers.append(row + 1)
            except BadRow as error:
                if not self.skip:
                    problem = BadRow(f"csv = {self.source}: row {row + 1} (line {line + 1}): {error}")
                    break
                skipped += 1
            byte, line, row = byte + len(text), line + 1, row + 1
        self.position = Position(byte, line, row, skipped)
        return Rows(np.array(numbers, np.int64), np.array(values).reshape(-1, len(self.used))), problem

    def _numbers(self, text: bytes) -> list[float]:
        cells = split_line(text, self.separator)
        if len(cells) != len(self.names):
            raise BadRow(f"has {len(cells)} cells, and the table {len(self.names)} columns")
        try:
            numbers = [float(cells[i]) for i in self._columns]
        except ValueError:
            numbers = []
        if numbers and all(map(math.isfinite, numbers)) and b"_" not in text:
            return numbers
        return [self._number(name, cells[i]) for name, i in zip(self.used, self._columns, strict=True)]

    def _number(self, name: str, cell: str) -> float:
        """One cell, or what is wrong with it."""
        if not cell.strip():
            raise BadRow(f"column {name!r} is empty")
        try:
            number = float(cell) if "_" not in cell else math.nan
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise BadRow(f"column {name!r} is {cell.strip()[:40]!r}, not a finite number")
        return number


def read_names(settings: StreamSettings, first: bytes) -> tuple[list[str], bool]:
    """The columns' names, and whether `first` is a header rather than a row.

    Raises:
        InvalidSetting: for a header without names or with one twice, or a first line that is not text.
    """
    try:
        cells = [cell.strip() for cell in split_line(first, settings.separator)]
    except BadRow as error:
        raise InvalidSetting(f"csv = {settings.csv}: line 1: {error}") from None
    if not settings.header:
        return [str(i + 1) for i in range(len(cells))], False
    nameless = next((i + 1 for i, cell in enumerate(cells) if not cell), None)
    require(nameless is None, f"csv = {settings.csv}: column {nameless} has no name in the first line")
    twice = next((name for name in cells if cells.count(name) > 1), None)
    require(twice is None, f"csv = {settings.csv}: two columns are called {twice!r}")
    numeric = all(_is_number(cell) for cell in cells)
    require(not numeric, f"csv = {settings.csv}: the first line holds numbers, not names (use --no-header)")
    return cells, True


def split_line(text: bytes, separator: str) -> list[str]:
    try:
        line = text.decode().removeprefix("\ufeff").rstrip("\r\n")
    except UnicodeDecodeError:
        raise BadRow("is not text (UTF-8)") from None
    if "\0" in line:
        raise BadRow("is not text (it holds a zero byte)")
    if '"' in line:
        try:
            return next(csv.reader([line], delimiter=separator))
        except csv.Error as error:
            raise BadRow(f"cannot be read ({error})") from None
    return line.split(separator)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
