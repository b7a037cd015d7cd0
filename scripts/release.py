"""Make a version: `python scripts/release.py 0.2.0`, called by `make release` (see RELEASING.md)."""

import argparse
import datetime
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


class Refused(Exception):
    """Why no version is made."""


def prepare(root: Path, version: str, day: str) -> None:
    """Write the version and the day into the files that name them.

    Raises:
        Refused: for a version that isn't one or isn't higher than the last, and for an empty change log.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise Refused(f"VERSION = {version!r}: must be three numbers, as in 0.2.0")
    log = (root / "CHANGELOG.md").read_text()
    last = re.search(r"^## \[(\d+\.\d+\.\d+)\]", log, re.MULTILINE)
    if last and numbers(version) <= numbers(last[1]):
        raise Refused(f"VERSION = {version!r}: must be above {last[1]}, the last one in CHANGELOG.md")
    waiting = re.search(r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)", log, re.MULTILINE | re.DOTALL)
    if not waiting or "\n- " not in waiting[1]:
        raise Refused("CHANGELOG.md: the section Unreleased says nothing")
    said = re.sub(r"\A\nThis will be .*\n", "", waiting[1])
    log = log.replace(waiting[0], f"## [Unreleased]\n\n## [{version}] - {day}\n{said}")
    (root / "CHANGELOG.md").write_text(log)
    write(root / "src/eprop/__init__.py", r'^__version__ = ".*"$', f'__version__ = "{version}"')
    write(root / "CITATION.cff", r"^version: .*$", f"version: {version}")


def write(path: Path, pattern: str, line: str) -> None:
    """Put `line` where the one line that fits `pattern` stands."""
    text, count = re.subn(pattern, line, path.read_text(), flags=re.MULTILINE)
    if count != 1:
        raise Refused(f"{path}: has {count} lines of the form {pattern}, expected 1")
    path.write_text(text)


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", nargs="?", default="", help="as 0.2.0")
    version = parser.parse_args().version
    try:
        if git("status", "--porcelain"):
            raise Refused("the work tree has changes: commit them first")
        prepare(ROOT, version, datetime.date.today().isoformat())
    except Refused as refused:
        sys.exit(f"release: {refused}")
    subprocess.run(["make", "check-dist", "FULL=1"], cwd=ROOT, check=True)
    git("commit", "--all", "--message", f"Version {version}")
    git("tag", "--annotate", f"v{version}", "--message", f"Version {version}")
    print(f"dist/ holds version {version}; the commit has the tag v{version}. Next: RELEASING.md, 'Then, by hand'")


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
