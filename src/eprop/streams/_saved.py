"""What a stream leaves on disk: lines that are appended, and the state that says how many of them count."""

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from eprop.errors import RunFailed
from eprop.training import write_bytes


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
    buffer = io.BytesIO()
    np.savez(buffer, facts=np.array(json.dumps(facts)), **{str(i): a for i, a in enumerate(arrays)})  # pyright: ignore
    write_bytes(path, buffer.getbuffer())


def load_state(path: Path) -> tuple[dict[str, Any], list[np.ndarray]] | None:
    """What `save_state` wrote; None if nothing was saved yet.

    Raises:
        RunFailed: if the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes())) as found:
            facts = json.loads(str(found["facts"]))
            return facts, [found[str(i)] for i in range(len(found.files) - 1)]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
        raise RunFailed(f"{path}: is damaged; start again with --overwrite") from None
