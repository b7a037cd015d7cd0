"""Write docs/combinations.md from the tables that the tests draw whole experiments from (tests/combinations.py)."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import jax  # noqa: E402

jax.config.update("jax_enable_x64", True)  # some models of the tests are of float64
from combinations import AXES, REFUSED, reasons  # noqa: E402  # pyright: ignore[reportMissingImports]

INTRODUCTION = """\
# What goes together

Made from the code by `python scripts/combinations_page.py`; `tests/test_combinations.py` holds that it is up to date.

Each pair below is *tested* or *refused by name*; there is no third kind.

- **tested**: whole experiments are drawn at random from these parts (10 in `make test`, 100 in CI), and the gradient is
  that of plain loops and automatic differentiation, which share no code with the engine: to 1e-10 of the largest entry
  in float64, to 2e-3 in float32.
- **refused by name**: `InvalidSetting` names the setting and the rule, and nothing has been written. The test draws
  these too, and looks for the words that stand here.

Settings of the program are drawn as well (task, rule, network, optimiser, windows): `eprop train` trains with them, or
refuses them in one line before a folder is made.

## Parts of an experiment

"""


def page() -> str:
    """The page: parts, what is refused, and a table of each two parts between which something is."""
    rows = [f"| {axis} | {', '.join(values)} |" for axis, values in AXES.items()]
    parts = "\n".join(["| part | what it can be |", "| --- | --- |", *rows])
    refusals = [f"| {_said(parts, 0)} | {_said(parts, 1)} | {why.replace('.*', '...')} |" for parts, why in REFUSED]
    refused = "\n".join(["| this | with this | what the message says |", "| --- | --- | --- |", *refusals])
    axes = list(AXES)
    pairs = [(a, b) for i, a in enumerate(axes) for b in axes[i + 1 :]]
    free = [pair for pair in pairs if not any(_reasons(*pair, v, w) for v in AXES[pair[0]] for w in AXES[pair[1]])]
    tables = "\n\n".join(_table(a, b) for a, b in pairs if (a, b) not in free)
    by_axis = [(a, [b for x, b in free if x == a]) for a in axes]
    all_tested = "\n".join(f"- {a} with {', '.join(others)}" for a, others in by_axis if others)
    return (
        f"{INTRODUCTION}{parts}\n\n## What is refused\n\n{refused}\n\n## Pairs that are tested throughout\n\n"
        f"{all_tested}\n\n## The other pairs, value by value\n\n{tables}\n"
    )


def _said(parts: dict[str, tuple[str, ...]], place: int) -> str:
    axis = list(parts)[place]
    return f"{axis}: {', '.join(parts[axis])}"


def _reasons(a: str, b: str, of_a: str, of_b: str) -> list[str]:
    return reasons({a: of_a, b: of_b})


def _table(a: str, b: str) -> str:
    """Values of one part against values of another."""
    if len(AXES[b]) > len(AXES[a]):
        a, b = b, a
    lines = [f"| {a} \\ {b} | {' | '.join(AXES[b])} |", "| --- |" + " --- |" * len(AXES[b])]
    for of_a in AXES[a]:
        cells = ["refused" if _reasons(a, b, of_a, of_b) else "tested" for of_b in AXES[b]]
        lines.append(f"| {of_a} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    file = ROOT / "docs" / "combinations.md"
    file.write_text(page())
    print(file)
