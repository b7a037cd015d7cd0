"""Print each lower bound that `pyproject.toml` declares as an exact version, for `pip install`.

python scripts/lowest.py train test      the package's own dependencies and those of two extras
python scripts/lowest.py                 the package's own alone
"""

import re
import sys
import tomllib
from pathlib import Path

BOUND = re.compile(r"^(?P<name>[A-Za-z0-9_.-]+(\[[^\]]*\])?)\s*(>=|==)\s*(?P<version>[0-9][0-9A-Za-z.]*)$")


def lowest(project: dict[str, object], extras: list[str]) -> list[str]:
    """`name==version` for each requirement.

    Raises:
        ValueError: for a requirement that has no lower bound, or an extra that isn't declared.
    """
    optional: dict[str, list[str]] = project["optional-dependencies"]  # type: ignore[assignment]
    requirements: list[str] = list(project["dependencies"])  # type: ignore[call-overload]
    for extra in extras:
        if extra not in optional:
            raise ValueError(f"extra {extra!r} is not declared (declared: {', '.join(optional)})")
        requirements += optional[extra]
    pins = []
    for requirement in requirements:
        found = BOUND.match(requirement)
        if found is None:
            raise ValueError(f"{requirement!r}: has no lower bound of the form NAME>=VERSION")
        pins.append(f"{found['name']}=={found['version']}")
    return pins


if __name__ == "__main__":
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    print("\n".join(lowest(tomllib.loads(text)["project"], sys.argv[1:])))
