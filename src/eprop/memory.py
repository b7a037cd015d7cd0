"""How much memory this process holds."""

import resource
import sys
from pathlib import Path


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
    return (1 if sys.platform == "darwin" else 1024) * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
