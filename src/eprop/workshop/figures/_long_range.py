"""The picture of how far a window sees: longest delay solved against the window."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from eprop.errors import require
from eprop.workshop.experiments import LongRangeSettings, reproduction_of
from eprop.workshop.figures._style import FAINT, INK, colour, new_figure, save, tidy
from eprop.workshop.training import RunFolder, read_json

SHOWN = (("eligibility_only", "online, with traces", 0, "o"), ("truncated_bptt", "truncated BPTT", 1, "s"))
"""Rules with a window: name, label, colour, mark."""


def draw_long_range(folder: RunFolder) -> list[Path]:
    """A panel for each task and network; what no seed of a run solved stands at the bottom."""
    measured = folder.path / "long-range.json"
    require(measured.is_file(), f"{folder.path}: nothing measured yet; go on with 'eprop resume {folder.path}'")
    settings: LongRangeSettings = reproduction_of(folder)[1]
    found = {(row["task"], row["model"], row["rule"]): row["solved"] for row in read_json(measured)["rows"]}
    panels = [(task, model) for task in settings.tasks for model in settings.models]
    columns = len(settings.models)
    figure = new_figure(4.8 * columns + 0.6, 3.9 * len(settings.tasks) + 0.5)
    grid = figure.subplots(len(settings.tasks), columns, sharex=True, sharey=True, squeeze=False)
    for i, ((task, model), axes) in enumerate(zip(panels, grid.flat, strict=True)):
        _panel(axes, settings, {rule: found.get((task, model, rule)) for rule in settings.rules})
        last_row, first_column = i >= len(panels) - columns, i % columns == 0
        ylabel = "longest delay solved, steps" if first_column else ""
        tidy(axes, "steps a window" if last_row else "", ylabel, f"{task}, {model}")
        axes.set_yticks([_floor(settings), *settings.delays], ["none", *map(str, settings.delays)])
        axes.set_xticks(settings.windows, list(map(str, settings.windows)))
        axes.minorticks_off()
    figure.legend(
        *grid.flat[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=8, frameon=False
    )
    return [save(figure, folder.path / "long-range.png")]


def _floor(settings: LongRangeSettings) -> float:
    return settings.delays[0] / 2.5


def _panel(axes: Axes, settings: LongRangeSettings, solved: dict[str, list[int] | None]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    floor, top = _floor(settings), settings.delays[-1]
    axes.set_ylim(0.75 * floor, 1.6 * top)
    lowest, highest = min(settings.windows), max(settings.windows)
    axes.set_xlim(lowest / 1.8, highest * 1.8)
    ends = np.array([lowest / 2, highest * 2])
    for factor, label in ((1, "as long as the window"), (10, "10 windows")):
        axes.plot(ends, factor * ends, color=FAINT, lw=1, ls="-" if factor == 1 else ":", label=label, zorder=0)
    whole = solved.get("bptt")
    if whole:
        height = np.maximum(np.mean(whole), floor)
        axes.axhline(height, color=INK, lw=1, ls="--", label="full BPTT, mean")
    for kind, label, shade, mark in SHOWN:
        present = [w for w in settings.windows if solved.get(f"{kind}:{w}")]
        values = np.array([solved[f"{kind}:{w}"] for w in present], float)
        if not len(values):
            continue
        place = np.array(present) * (0.88 if shade else 1.14)
        axes.plot(place, np.maximum(values.mean(1), floor), color=colour(shade), lw=1.6, label=f"{label}, mean")
        for w, seeds in zip(place, np.maximum(values, floor), strict=True):
            nudged = w * np.geomspace(0.93, 1.07, len(seeds))
            axes.scatter(nudged, seeds, color=colour(shade), marker=mark, s=20, alpha=0.8, zorder=3)
