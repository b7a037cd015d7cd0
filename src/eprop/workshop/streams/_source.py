"""Complete lines from a file or from standard input, as they come."""

import os
import select
import sys

from eprop.errors import InvalidSetting

BLOCK, LONGEST_LINE = 1 << 16, 1 << 20


class Source:
    """Lines of a table.

    Args:
        path: a file, or "-" for standard input.
        position: byte of the file to begin at, the start of a line.
        follow: the end of the file is not the end of the stream.

    Raises:
        InvalidSetting: for a file that cannot be read, or is shorter than `position`.
    """

    def __init__(self, path: str, position: int = 0, follow: bool = False) -> None:
        self.path, self.standard = path, path == "-"
        self.follow = follow and not self.standard
        self._part = b""  # of a line whose end has not come
        self._fresh = position == 0
        self.size: int | None = None
        if self.standard:
            self._file = sys.stdin.fileno()
            return
        try:
            self._file = os.open(path, os.O_RDONLY)
            size = os.fstat(self._file).st_size
            os.lseek(self._file, position, os.SEEK_SET)
            os.pread(self._file, 1, 0)
        except OSError as error:
            raise InvalidSetting(f"csv = {path}: cannot be read ({error.strerror})") from None
        if size < position:
            raise InvalidSetting(f"csv = {path}: is shorter ({size} bytes) than what was read of it ({position} bytes)")
        self._position = position
        self.size = None if follow else size

    def read(self, wait: float = 0.2) -> list[bytes] | None:
        """The complete lines that have come, each with its newline; none if none came within `wait` seconds.

        Returns None at the end. Then `rest` is what stands in a file behind its last newline; the end of standard input
        ends its last line.
        """
        if self.standard and not select.select([self._file], [], [], wait)[0]:
            return []
        block = os.read(self._file, BLOCK)
        if not block:
            if self.standard and self._part:
                line, self._part = self._part + b"\n", b""
                return [line]
            if not self.follow:
                return None
            self._check_length()
            select.select([], [], [], wait)
            return []
        if not self.standard:
            self._position += len(block)
        *lines, self._part = (self._part + block).split(b"\n")
        binary = self._fresh and b"\0" in (lines[0] if lines else self._part)
        self._fresh = False
        if binary or len(self._part) > LONGEST_LINE:
            raise InvalidSetting(f"csv = {self.path}: is not a table of text")
        return [line + b"\n" for line in lines]

    @property
    def rest(self) -> bytes:
        return self._part

    def close(self) -> None:
        if not self.standard:
            os.close(self._file)

    def _check_length(self) -> None:
        size = os.fstat(self._file).st_size
        if size < self._position:
            raise InvalidSetting(f"csv = {self.path}: became shorter ({size} bytes) while it was followed")
