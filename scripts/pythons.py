"""Print the newest Python on this machine from one version to another; nothing where there is none.

    python scripts/pythons.py 3.12 3.13

Looked for: `python3.N` on the path, then in the folders where pyenv and uv keep theirs.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


def candidates() -> Iterator[Path]:
    """Interpreters by name; not all of them need run (pyenv puts stand-ins on the path)."""
    for minor in range(30, 10, -1):
        found = shutil.which(f"python3.{minor}")
        if found:
            yield Path(found)
    homes = [
        Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions",
        Path(os.environ.get("UV_PYTHON_INSTALL_DIR", Path.home() / ".local/share/uv/python")),
    ]
    for home in homes:
        yield from sorted(home.glob("*/bin/python3"))


def version(python: Path) -> tuple[int, int] | None:
    """Which version it is, if it runs and can make environments."""
    asked = [python, "-c", "import sys, venv, ensurepip, ssl; print('%d.%d' % sys.version_info[:2])"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True)
    except OSError:
        return None
    numbers = re.fullmatch(r"(\d+)\.(\d+)\s*", said.stdout)
    return (int(numbers[1]), int(numbers[2])) if numbers and said.returncode == 0 else None


def newest(least: tuple[int, int], most: tuple[int, int]) -> Path | None:
    """The newest interpreter between these two versions; both count."""
    found = [(v, python) for python in candidates() if (v := version(python)) and least <= v <= most]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def numbers(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


if __name__ == "__main__":
    python = newest(numbers(sys.argv[1]), numbers(sys.argv[2]))
    if python:
        print(python)
