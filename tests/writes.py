"""Every write of this process to a folder, before it happens: what lies there then is what kill -9 would leave."""

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"}

_watched: list[tuple[str, Callable[[], None]]] = []
_installed = False


def _hook(event: str, arguments: tuple) -> None:
    if not _watched or event not in EVENTS or not isinstance(arguments[0], (str, bytes, os.PathLike)):
        return
    root, call = _watched[-1]
    if not os.path.abspath(os.fsdecode(arguments[0])).startswith(root):
        return
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    watched = _watched.pop()  # what `call` does is not watched
    try:
        call()
    finally:
        _watched.append(watched)


@contextmanager
def before_each_write(folder: Path, call: Callable[[], None]):
    """Have `call` called before everything that this process (its Python code) changes in a folder."""
    global _installed
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    _watched.append((os.path.abspath(folder), call))
    try:
        yield
    finally:
        _watched.pop()


@contextmanager
def snapshots(folder: Path, into: Path):
    """What kill -9 at each write would leave of a folder: copies, in a list that grows; the last: at the end."""
    found: list[Path] = []

    def copy() -> None:
        found.append(into / str(len(found)))
        if folder.exists():
            shutil.copytree(folder, found[-1])

    with before_each_write(folder, copy):
        yield found
    copy()
