"""One writer at a time: a lock on a folder that names its process and its host."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from eprop.errors import InvalidSetting
from eprop.files import DamagedFile, parse_json, printable, process_lives

LOCK, WRITER = "writer.lock", "writer.json"
"""The file that is locked (it stays), and the one that says who writes (it goes when the writer ends)."""

LOCAL = frozenset("ext2 ext3 ext4 xfs btrfs zfs f2fs bcachefs jfs reiserfs tmpfs ramfs overlay aufs vfat exfat".split())
"""File systems of one machine: whoever writes there is seen by its locks."""

SHARED = frozenset("ceph gpfs gfs2 ocfs2".split())
"""File systems of many machines whose locks hold on all of them."""


@dataclass
class _Held:
    lock: FileLock
    count: int


_held: dict[str, _Held] = {}
_kept: list[ExitStack] = []


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Be the only process that writes in a folder. Again in the same process: counted.

    Args:
        path: the folder; it exists.

    Raises:
        InvalidSetting: if another process writes there, or this host cannot know whether one does.
    """
    key = os.path.realpath(path)
    if key in _held:
        _held[key].count += 1
    else:
        _held[key] = _Held(_acquire(Path(path)), 1)
    if _kept:
        _kept[-1].callback(_release, key)
        yield
        return
    try:
        yield
    finally:
        _release(key)


@contextmanager
def keep_locks() -> Iterator[None]:
    """While this lasts a lock that was taken is kept: nobody comes between making a folder and running in it."""
    with ExitStack() as stack:
        _kept.append(stack)
        try:
            yield
        finally:
            _kept.pop()


def _release(key: str) -> None:
    held = _held[key]
    held.count -= 1
    if held.count == 0:
        del _held[key]
        try:
            Path(key, WRITER).unlink(missing_ok=True)
        finally:
            held.lock.release()


def _acquire(path: Path) -> FileLock:
    lock = FileLock(path / LOCK, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InvalidSetting(f"{path}: is being written by {_name(_writer(path))}; one at a time") from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or "it has no file locks"
        raise InvalidSetting(f"{path}: cannot be locked there for one writer ({reason})") from None
    try:
        _sign(path)
    except BaseException:
        lock.release()
        raise
    return lock


def _sign(path: Path) -> None:
    """Write down who writes; where somebody stands there already, find out whether they still can."""
    left = _read(path / WRITER)
    if left is not None:
        kind, options = file_system(path)
        here = (left.get("host"), left.get("boot")) == (_host(), _boot())
        if not here and not _reaches_all_hosts(kind, options):
            raise InvalidSetting(
                f"{path}: {_name(left)} writes there, or ended without a word: on this file system ({kind}) another "
                f"host's locks cannot be seen from here. If it has ended, remove {path / WRITER}"
            )
        print(f"eprop: {path}: {_name(left)} ended without a word; its lock is free", file=sys.stderr)
        (path / WRITER).unlink(missing_ok=True)
    mine = {"process": os.getpid(), "host": _host(), "boot": _boot(), "command": " ".join(sys.argv)[:500]}
    temporary = path / f".{WRITER}.{os.getpid()}"
    try:
        temporary.write_text(json.dumps(mine) + "\n")
        try:
            os.link(temporary, path / WRITER)  # unlike a rename it fails where there is one
        except (FileExistsError, FileNotFoundError):
            raise
        except OSError:  # no hard links here
            with open(path / WRITER, "x") as file:
                file.write(json.dumps(mine) + "\n")
    except FileExistsError:
        raise InvalidSetting(f"{path}: is being written by {_name(_read(path / WRITER))}; one at a time") from None
    finally:
        temporary.unlink(missing_ok=True)


def _writer(path: Path) -> dict[str, Any] | None:
    """Who holds the lock; it may have taken it a moment ago, and not have said so yet."""
    found = None
    for _ in range(50):
        found = _read(path / WRITER)
        process = (found or {}).get("process")
        if found and (found.get("host") != _host() or type(process) is not int or process_lives(process)):
            return found
        time.sleep(0.02)
    return found


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = parse_json(path.read_text()[:5000])
    except (OSError, DamagedFile, UnicodeDecodeError):
        return {} if path.exists() else None
    return found if isinstance(found, dict) else {}


def _name(writer: dict[str, Any] | None) -> str:
    if not writer:
        return "another process (which has not said its name)"
    return printable(f"process {writer.get('process')} on {writer.get('host')} ({writer.get('command')})")


def _host() -> str:
    return socket.gethostname()


def _boot() -> str | None:
    """A name that tells this machine, since it was started, from all others, but not its containers from it."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.is_file() else None


def _reaches_all_hosts(kind: str, options: str) -> bool:
    """Whether a lock on this file system keeps off every process that can write there."""
    words = options.split(",")
    if kind in ("nfs", "nfs4"):
        return not {"nolock", "local_lock=all", "local_lock=flock"} & set(words)
    return kind in LOCAL or kind in SHARED or (kind == "lustre" and "flock" in words)


def file_system(path: Path) -> tuple[str, str]:
    """Kind and options of the file system that a path is on; `("unknown", "")` where the system does not say."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return "unknown", ""
    place, best = os.path.realpath(path), ("", "unknown", "")
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        point = fields[4].replace("\\040", " ")
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = point, kinds[0], f"{fields[5]},{kinds[-1]}"
    return best[1], best[2]
