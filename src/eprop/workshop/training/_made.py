"""The origin of a run: versions, commit, platform, devices, command."""

import datetime
import platform
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

import eprop

COMPARED = ("eprop", "commit", "python", "jax", "jaxlib", "equinox", "optax", "numpy", "platform", "devices")
"""Facts that may differ between the process that began a run and one that opens it."""


def versions() -> dict[str, str]:
    """The facts that a result depends on beside its settings."""
    packages = {name: version(name) for name in ("jax", "jaxlib", "equinox", "optax", "numpy")}
    return {"eprop": eprop.__version__, "python": platform.python_version(), **packages}


def made_with() -> dict[str, Any]:
    """Versions, commit, platform, devices and command of this process."""
    return {
        **versions(),
        "commit": commit(),
        "platform": platform.platform(),
        "devices": devices(),
        "command": " ".join(sys.argv)[:2000],
        "began": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def devices() -> str:
    """Kinds of devices and how many there are of each: `1 x cpu`."""
    kinds = [device.device_kind for device in jax.devices()]
    return ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))


@lru_cache(maxsize=1)
def commit() -> str | None:
    """The commit that this package is of, `+` behind it where its files were changed; None where there is no git."""
    package = Path(eprop.__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # not an environment within somebody's repository
        changed = git("status", "--porcelain", "--untracked-files=no", ".")
        return git("rev-parse", "HEAD")[:12] + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The differences, as `jax 0.9.0 (here 0.10.2)`."""
    known = [name for name in COMPARED if then.get(name) is not None]
    return [f"{name} {then[name]} (here {now.get(name)})" for name in known if then[name] != now.get(name)]
