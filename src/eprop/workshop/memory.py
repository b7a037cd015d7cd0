"""How much memory this process holds, and in which pages."""

import os
import sys
from pathlib import Path

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""Where Linux says to whom it gives pages of 2 MB: to all (always), to those that ask (madvise), or to none (never)."""


def peak_resident_bytes() -> int:
    """This process' largest resident size so far.

    Linux's `ru_maxrss` starts from the parent's, so that a small child of a large process looks large; `VmHWM` doesn't.
    """
    return _status("VmHWM") or _most()


def resident_bytes() -> int:
    """This process' resident size now; where the system does not tell, the largest so far."""
    return _status("VmRSS") or _most()


def _status(name: str) -> int | None:
    """A number that Linux keeps of this process."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


def _most() -> int:
    """The largest size, where only the system's accounts tell it; 0 where there are none (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    return (1 if sys.platform == "darwin" else 1024) * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def restart_with_huge_pages() -> None:
    """Start this program anew with pages of 2 MB for large arrays, where Linux gives them to those that ask.

    XLA asks the system for a computation's working memory at every call and gives it back afterwards; in pages of 4 kB
    that takes up to a third of the time of an update. Only glibc's `GLIBC_TUNABLES` asks for larger ones, and it is
    read when a process starts. Where that is set already (to whatever) nothing is done.
    """
    if "GLIBC_TUNABLES" in os.environ or not sys.executable or not HUGE_PAGES.is_file():
        return
    if "[madvise]" in HUGE_PAGES.read_text():
        environment = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
