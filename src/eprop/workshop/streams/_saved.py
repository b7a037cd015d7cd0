"""The files of a stream: lines that are appended, and the state that says how many of them count."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from eprop.errors import RunFailed
from eprop.files import DamagedFile, parse_json, read_npz, write_npz


class Appended:
    """A file of lines. What lies behind `length` was written after the state was saved, and goes.

    Raises:
        RunFailed: if the file is shorter than `length`.
    """

    def __init__(self, path: Path, length: int) -> None:
        self._file = open(path, "ab")
        size = os.fstat(self._file.fileno()).st_size
        if size < length:
            raise RunFailed(f"{path}: is shorter ({size} bytes) than when the state was saved ({length} bytes)")
        self._file.truncate(length)
        self.length = length

    def write(self, text: str) -> None:
        """Hand lines to the operating system: readers see them at once."""
        data = text.encode()
        self._file.write(data)
        self._file.flush()
        self.length += len(data)

    def sync(self) -> None:
        """Make sure that they are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def save_state(path: Path, facts: dict[str, Any], arrays: list[np.ndarray]) -> None:
    """Write the state whole or not at all."""
    write_npz(path, {"facts": np.array(json.dumps(facts)), **{str(i): a for i, a in enumerate(arrays)}})


def load_state(path: Path) -> tuple[dict[str, Any], list[np.ndarray]] | None:
    """The state that `save_state` wrote; None if nothing was saved yet.

    Raises:
        RunFailed: if the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        found = read_npz(path)
        facts = parse_json(str(found.pop("facts")))
        arrays = [found[str(i)] for i in range(len(found))]
    except (OSError, DamagedFile, KeyError):
        facts, arrays = {}, []
    if not _is_state(facts) or len(arrays) < 2:
        raise RunFailed(f"{path}: is damaged; start again with --overwrite")
    return facts, arrays


def _is_state(facts: Any) -> bool:
    """Whether what was read says all that a stream needs to go on."""
    if not isinstance(facts, dict):
        return False
    counts = [facts.get(name) for name in ("learnt", "since_report", "predictions", "metrics")]
    position, names = facts.get("position"), facts.get("names")
    counts += position if isinstance(position, list) and len(position) == 4 else [None]
    right = all(type(count) is int and 0 <= count < 2**63 for count in counts) and _are(str, names)
    for name in ("total", "recent"):
        sums: Any = facts.get(name)
        right = right and isinstance(sums, list) and [_are(float, s) for s in sums] == [True] * 3
        right = right and len({len(s) for s in sums}) == 1
    return right and type(facts.get("wall_s")) in (int, float)


def _are(kind: type, values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values) and bool(values)
