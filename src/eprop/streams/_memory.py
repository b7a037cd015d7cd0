"""How much memory this process holds now."""

import resource
import sys
from pathlib import Path


def resident_megabytes() -> float:
    """Resident memory now, MB; where the system does not tell, the most there was."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
