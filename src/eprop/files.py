"""Files: written whole or not at all; read with nothing unpickled and no more memory than this machine has."""

import io
import json
import math
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from eprop.errors import InvalidSetting

LARGEST_JSON = 1 << 26
"""Bytes of a JSON file that is read at most."""

TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+")
"""The name of a file until it is whole: `.NAME.PROCESS`."""


class DamagedFile(ValueError):
    """A file that does not hold what its name says: the message is the reason."""


def write_whole(path: Path, write: Callable[[Path], None]) -> Path:
    """Have `write` make a file under a temporary name beside `path`; then it takes its place in one rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole or not at all."""
    write_whole(path, lambda temporary: _write(temporary, data))


def _write(path: Path, data: bytes | memoryview) -> None:
    path.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def read_json(path: Path, nan: bool = True) -> Any:
    """The value that a JSON file holds.

    Args:
        path: the file.
        nan: NaN may stand for a number.

    Raises:
        InvalidSetting: if it cannot be read, is too large, or is no JSON.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_JSON:
            raise InvalidSetting(f"{path}: has {size} bytes, too many for a file of this kind")
        return parse_json(path.read_text(encoding="utf-8"), nan)
    except (OSError, DamagedFile) as error:
        reason = error.strerror if isinstance(error, OSError) else f"is not JSON ({error})"
        raise InvalidSetting(f"{path}: {reason}") from None
    except UnicodeDecodeError:
        raise InvalidSetting(f"{path}: is not JSON (no text in UTF-8)") from None


def parse_json(text: str, nan: bool = True) -> Any:
    """JSON as Python values.

    Raises:
        DamagedFile: with the reason.
    """

    def constant(name: str) -> float:
        return _refuse("NaN is no value") if name == "NaN" and not nan else float(name)

    try:
        return json.loads(text, parse_constant=constant)
    except RecursionError:
        raise DamagedFile("nested too deep") from None
    except DamagedFile:
        raise
    except ValueError as error:
        raise DamagedFile(str(error)) from None


def _refuse(reason: str) -> NoReturn:
    raise DamagedFile(reason)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays whole or not at all, as `numpy.savez` does.

    They are put together in memory first: NumPy leaves its file open where the disk is full.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    write_bytes(path, buffer.getbuffer())


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that `numpy.savez` wrote. Nothing is unpickled.

    Raises:
        FileNotFoundError: if there is none.
        DamagedFile: if it is no such file, or would not fit into this machine's memory.
    """
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            members = archive.infolist()
            _check_size(sum(member.file_size for member in members))
            return {member.filename.removesuffix(".npy"): _read_array(archive, member) for member in members}
    except (FileNotFoundError, DamagedFile):
        raise
    except MemoryError:
        raise DamagedFile("an array in it says that it is larger than memory") from None
    except Exception as error:  # zipfile, zlib and numpy raise whatever they stumble over in bytes of any kind
        raise DamagedFile(str(error) or type(error).__name__) from None


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if not member.filename.endswith(".npy"):
        raise DamagedFile(f"{member.filename!r} in it is no array")
    with archive.open(member) as file:
        shape, dtype = _header(file)
        if dtype.hasobject or dtype.itemsize == 0 or min(shape, default=1) < 0:
            raise DamagedFile(f"{member.filename!r} in it holds no numbers and no text")
        if math.prod(shape) * dtype.itemsize > member.file_size or math.prod(s for s in shape if s) > 2**62:
            raise DamagedFile(f"{member.filename!r} in it says that it is larger than it is")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise DamagedFile("an array in it is of a format that is not read")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _check_size(size: int) -> None:
    memory = physical_memory()
    if memory is not None and size > memory // 2:
        raise DamagedFile(f"its arrays take {size / 1e9:.1f} GB, and this machine has {memory / 1e9:.1f} GB of memory")


def physical_memory() -> int | None:
    """Bytes of memory that this machine has; None where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def process_lives(process: int) -> bool:
    """Whether there is a process of this number here; True where that cannot be asked."""
    if os.name != "posix":
        return True  # elsewhere `os.kill` ends it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def printable(text: str) -> str:
    """Text from a file, fit for a terminal: what is not printable (its control sequences, too) is spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
