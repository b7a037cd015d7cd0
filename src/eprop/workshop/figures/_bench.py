"""The pictures of a benchmark: time against steps, and memory against steps, one curve a path."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from eprop.workshop.bench import TITLES
from eprop.workshop.figures._style import colour, new_figure, tidy

QUANTITIES = {"time": ("median_s", 1e3, "time, ms"), "memory": ("bytes", 1e-6, "peak memory, MB")}


def bench_figure(bench: dict[str, Any], quantity: str) -> Figure:
    """One panel for each model, size of network and batch.

    Args:
        bench: what `bench.json` holds.
        quantity: `"time"` or `"memory"`.
    """
    field, unit, label = QUANTITIES[quantity]
    panels = _panels(bench)
    across = min(len(panels), 3)
    down = -(-len(panels) // across)
    figure = new_figure(1.5 + 3.6 * across, 0.8 + 3.2 * down)
    grid = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    shown: dict[str, Any] = {}
    for axes, ((model, neurons, batch), entries) in zip(grid, panels.items(), strict=False):
        for i, path in enumerate(TITLES):
            if path == "products" and quantity == "memory":
                continue  # its operands are made beforehand: what they take says nothing
            points = sorted(
                (entry["case"]["steps"], unit * row[field])
                for entry in entries
                for row in entry["paths"]
                if row["path"] == path and not row["refused"]
            )
            if points:
                style = "--" if path in ("products", "forward") else "-"
                (line,) = axes.plot(*zip(*points, strict=True), color=colour(i), ls=style, marker="o", ms=3.5, lw=1.5)
                shown.setdefault(TITLES[path], line)
        axes.set_xscale("log")
        axes.set_yscale("log")
        tidy(axes, "steps T", "", f"{model.upper()}, {neurons} neurons, batch {batch}")
        steps = sorted({entry["case"]["steps"] for entry in entries})
        axes.set_xticks(steps)
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
        axes.grid(axis="y", color="#EEEEEE", lw=0.8)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[::across]:
        axes.set_ylabel(label)
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _panels(bench: dict[str, Any]) -> dict[tuple[str, int, int], list[dict[str, Any]]]:
    """Entries by model, neurons and batch: where there are several lengths, only those panels."""
    panels: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for entry in bench["cases"]:
        case = entry["case"]
        panels.setdefault((case["model"], case["neurons"], case["batch"]), []).append(entry)
    curves = {key: entries for key, entries in panels.items() if len(entries) > 1}
    return curves or panels
