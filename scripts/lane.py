"""Run a part of the tests with other versions than those of `.venv`, in an environment of their own; print the time.

    python scripts/lane.py lowest     every lower bound that pyproject.toml declares, on the lowest Python
    python scripts/lane.py newest     the newest that can be had, on the newest Python found

Where no such Python is found, the lane says so and ends with status 0. Environments are kept (`.venv-lowest`,
`.venv-newest`) until `pyproject.toml` changes. The part of the tests is every Nth, so that it touches every file.
"""

import argparse
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from lowest import lowest
from pythons import newest

ROOT = Path(__file__).parent.parent
EXTRAS = ["train", "speech", "examples", "test"]
LOWEST, NEWEST = (3, 11), (3, 13)
"""The Pythons that `pyproject.toml` names."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lane", choices=["lowest", "newest"])
    parser.add_argument("--every", type=int, default=20, help="run every Nth of the fast tests")
    parser.add_argument("tests", nargs="*", default=["tests"], help="files or folders of tests")
    options = parser.parse_args()
    lane = options.lane
    python = newest(LOWEST, LOWEST) if lane == "lowest" else newest((3, 12), NEWEST)
    if python is None:
        wanted = "3.11" if lane == "lowest" else "3.12 or 3.13"
        print(f"test-{lane}: skipped, no Python {wanted} is found on this machine")
        return 0
    begin = time.monotonic()
    inside = environment(lane, python)
    installed, before = time.monotonic(), os.times()
    print(f"test-{lane}: {versions(inside)}; every {options.every}th of the fast tests", flush=True)
    asked = [inside, "-m", "pytest", "-n", "2", "-q", "-m", "not slow", "--every", str(options.every), *options.tests]
    if lane == "lowest":  # old versions of others' packages warn of newer ones that they need: not our concern
        asked += ["-W", "default::DeprecationWarning"]
    status = subprocess.run(asked, cwd=ROOT).returncode
    end = time.monotonic()
    spent = os.times()
    processor = spent.children_user + spent.children_system - before.children_user - before.children_system
    parts = f"installing {installed - begin:.0f} s, tests {end - installed:.0f} s, {processor:.0f} s of processor time"
    print(f"test-{lane}: {end - begin:.0f} s ({parts})")
    return status


def environment(lane: str, python: Path) -> Path:
    """The interpreter of the lane's environment, made anew where `pyproject.toml` is newer."""
    folder = ROOT / f".venv-{lane}"
    inside = folder / "bin/python"
    stamp = folder / "installed"
    declared = (ROOT / "pyproject.toml").read_text()
    if stamp.is_file() and stamp.read_text() == declared:
        return inside
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if lane == "lowest":
        subprocess.run([*pip, *lowest(tomllib.loads(declared)["project"], EXTRAS)], check=True)
        subprocess.run([*pip, "--no-deps", "-e", "."], check=True, cwd=ROOT)
        subprocess.run([inside, "-m", "pip", "check", "--disable-pip-version-check"], check=True)
    else:
        subprocess.run([*pip, "-e", f".[{','.join(EXTRAS)}]"], check=True, cwd=ROOT)
    stamp.write_text(declared)
    return inside


def versions(python: Path) -> str:
    asked = (
        "import importlib.metadata as m, platform; print('Python ' + platform.python_version() + ', ' + "
        "', '.join(f'{name} {m.version(name)}' for name in ('jax', 'jaxlib', 'equinox', 'numpy', 'optax')))"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [python, "-c", asked], capture_output=True, text=True, check=True, env=environment
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
