"""Check the wheel and the source package in `dist/`, and use them from empty environments; print the time of each part.

    python scripts/check_dist.py           what continuous integration runs: the extra `train` and none, on this Python
    python scripts/check_dist.py --full    every extra alone and none, on the lowest and the newest Python found

Environments are made in a temporary folder, and every command runs in an empty folder outside the checkout.
"""

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path

from pythons import newest

ROOT = Path(__file__).parent.parent
TRAIN = "train pattern-generation --preset tutorial --duration 60 --neurons 8 --iterations 4 --out run".split()
COMMANDS = ("tasks", "train", "compare", "gradients", "stream", "reproduce", "data", "transcribe", "bench", "resume",
            "plot", "completion")  # fmt: skip
SOURCE = ("src/eprop/__init__.py", "tests/conftest.py", "docs/notation.md", "examples", "benchmarks", "scripts/lane.py",
          "Makefile", ".ci/run", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "RELEASING.md", "DEVELOPMENT.md",
          "LICENSE", "CITATION.cff", "pyproject.toml")  # fmt: skip
"""What the source package must hold."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all extras, on the lowest and the newest Python")
    full = parser.parse_args().full
    (wheel,), (source,) = (ROOT / "dist").glob("*.whl"), (ROOT / "dist").glob("*.tar.gz")
    begin = time.monotonic()
    with timed("metadata and contents"):
        run([sys.executable, "-m", "twine", "check", "--strict", wheel, source])
        check_wheel(wheel)
        check_source(source)
    extras: list[str] = ["", "train"]
    pythons = [Path(sys.executable)]
    if full:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = ["", *(extra for extra in project["optional-dependencies"] if extra != "cuda")]
        found = (newest((3, 11), (3, 11)), newest((3, 12), (3, 13)))
        pythons = [python for python in found if python]
    for python in pythons:
        for extra in extras:
            with timed(f"wheel{f'[{extra}]' if extra else ''} on {version(python)}"), empty(python) as (inside, folder):
                install(inside, f"eprop{f'[{extra}]' if extra else ''} @ {wheel.as_uri()}")
                check_installed(inside, folder)
                if extra in ("train", "all"):
                    check_training(inside, folder)
                else:
                    check_refusals(inside, folder)
        if full:
            with timed(f"wheel[cuda] on {version(python)}: what would be installed"), empty(python) as (inside, folder):
                said = run([inside, "-m", "pip", "install", "--dry-run", f"eprop[cuda] @ {wheel.as_uri()}"], folder)
                check("jax-cuda12-plugin" in said, "the extra cuda brings jax's plugin for NVIDIA cards", said)
    with timed(f"source package on {version(pythons[-1])}"), empty(pythons[-1]) as (inside, folder):
        check_source_tests_itself(inside, folder, source)
    print(f"check-dist: {time.monotonic() - begin:.0f} s")


# parts


def check_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    check(all(name.startswith(("eprop/", "eprop-")) for name in names), "a wheel of the package alone", names)
    check("eprop/py.typed" in names, "py.typed is in the wheel", names)
    check(any(name.endswith("licenses/LICENSE") for name in names), "the licence is in the wheel", names)
    page = metadata.partition("\n\n")[2]
    check(len(page) > 1000, "the package's page is the README", page)
    links = re.findall(r"\]\(((?!https?://)[^)]*)\)", page)
    check(not links and "![" not in page and "!`" not in page, "no picture and no link that needs the checkout", links)


def check_source(source: Path) -> None:
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = {str(parent) for name in names for parent in Path(name).parents}
    missing = [name for name in SOURCE if name not in names | folders]
    check(not missing, "the source package holds all that its tests need", missing)


def check_installed(python: Path, folder: Path) -> None:
    """What works whatever the extra: the program's help, its version, and the library."""
    program = python.parent / "eprop"
    said = run([program, "--help"], folder)
    check(said == run([python, "-m", "eprop"], folder), "'eprop --help' is 'python -m eprop'", said)
    said = run([python, "-c", readme_example()], folder)
    check("site-packages" in said, "the installed package is used", said)
    check("gradient is finite: True" in said, "README's first example", said)


def check_refusals(python: Path, folder: Path) -> None:
    """Without the extra `train`, each command says so in one line; the first as a process of its own."""
    ended = subprocess.run([python, "-m", "eprop", "tasks"], capture_output=True, text=True, cwd=folder)
    check(ended.returncode == 2 and not ended.stdout, "'eprop tasks' ends with status 2", ended.stderr)
    for command, line in zip(COMMANDS, run([python, "-c", REFUSALS, *COMMANDS], folder).splitlines(), strict=True):
        fits = line.startswith(f"2 eprop: eprop {command} needs ") and "pip install 'eprop[train]'" in line
        check(fits, f"'eprop {command}' names the extra in one line", line)


REFUSALS = """
import contextlib, io, sys
from eprop.workshop.cli import main

for command in sys.argv[1:]:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            main([command])
    except SystemExit as stop:
        print(stop.code, said.getvalue(), end="")
"""


def check_training(python: Path, folder: Path) -> None:
    program = python.parent / "eprop"
    run([program, *TRAIN], folder)
    made = [name for name in ("config.json", "metrics.jsonl", "summary.json") if (folder / "run" / name).is_file()]
    check(len(made) == 3 and any((folder / "run/figures").glob("*.png")), "a run leaves its files", made)
    check("complete" in run([program, "completion", "bash"], folder), "the shell's completion is printed")


def check_source_tests_itself(python: Path, folder: Path, source: Path) -> None:
    """Unpack, install from there with the tests' extras, and run a part of the tests there."""
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    install(python, f"{unpacked}[train,test]")
    tests = ["tests/test_paper_equations.py", "tests/test_release.py"]
    said = run([python, "-m", "pytest", "-q", "-m", "not slow", "--every", "8", *tests], unpacked)
    print("  " + said.strip().splitlines()[-1])


def readme_example() -> str:
    """README's first example of the library, and a line that looks at what it made."""
    example = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    return example + (
        "leaves = jax.tree.leaves(gradient)\n"
        "import eprop\n"
        "print(eprop.__file__)\n"
        "print('gradient is finite:', bool(leaves) and all(bool(jnp.isfinite(leaf).all()) for leaf in leaves))\n"
    )


# tools


class empty:
    """An environment with nothing but pip, and an empty folder."""

    def __init__(self, python: Path):
        self.python = python

    def __enter__(self) -> tuple[Path, Path]:
        self.temporary = tempfile.TemporaryDirectory(prefix="eprop-check-")
        home = Path(self.temporary.name)
        (home / "empty").mkdir()
        run([self.python, "-m", "venv", home / "venv"])
        return home / "venv/bin/python", home / "empty"

    def __exit__(self, *exception: object) -> None:
        self.temporary.cleanup()


class timed:
    def __init__(self, what: str):
        self.what = what

    def __enter__(self) -> None:
        self.begin = time.monotonic()

    def __exit__(self, kind: object, *exception: object) -> None:
        said = "failed" if kind else "good"
        print(f"check-dist: {self.what}: {said}, {time.monotonic() - self.begin:.0f} s", flush=True)


def install(python: Path, what: str) -> None:
    run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", what])


def version(python: Path) -> str:
    return run([python, "--version"]).strip()


def run(command: list[object], folder: Path | None = None) -> str:
    """What a command prints; its own error and the end of this program where it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    asked = [str(word) for word in command]
    ended = subprocess.run(asked, capture_output=True, text=True, cwd=folder, env=environment)
    if ended.returncode:
        sys.exit(f"{' '.join(asked)[:300]}\nended with status {ended.returncode}\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def check(holds: bool, what: str, seen: object = "") -> None:
    if not holds:
        sys.exit(f"does not hold: {what}\nseen: {seen}")


if __name__ == "__main__":
    main()
