"""The picture of `eprop reproduce chip-bits`: heat maps of the metric, bits of weights against bits of traces."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from eprop.errors import require
from eprop.workshop.experiments import ChipBitsFigure, mean_value, reproduction_of
from eprop.workshop.figures._style import INK, new_figure, save, tidy
from eprop.workshop.training import RunFolder, read_json

BROKEN = 0.05
"""A cell so much above the float network's metric is framed: there it breaks."""


def draw_chip_bits(folder: RunFolder) -> list[Path]:
    """A row of heat maps a task, a map for each rounding and form of update; of an unfinished run, those there are."""
    results = folder.path / "results.json"
    require(results.is_file(), f"{folder.path}: nothing measured yet; go on with 'eprop resume {folder.path}'")
    rows, settings = read_json(results)["rows"], reproduction_of(folder)[1]
    kinds = list(itertools.product(settings.roundings, settings.updates))
    tasks = [task for task in settings.tasks if any(row["task"] == task for row in rows)]
    figure = new_figure(1.4 + 2.6 * len(kinds), 0.5 + 2.5 * len(tasks))
    panels = figure.subplots(len(tasks), len(kinds), squeeze=False)
    for task, line in zip(tasks, panels, strict=True):
        of_task = [row for row in rows if row["task"] == task]
        floats = mean_value(of_task, network="float"), mean_value(of_task, network="bptt")
        scale = min(max(row["value"] for row in of_task), 1.5)
        shown = None
        for (rounding, form), axes in zip(kinds, line, strict=True):
            values = _values(of_task, settings, rounding, form)
            if np.isnan(values).all():
                axes.axis("off")
                continue
            shown = axes.imshow(values, cmap="viridis_r", vmin=0, vmax=scale, aspect="auto", origin="lower")
            _label(axes, values, settings, floats[0], scale)
            tidy(axes, "bits of traces", "bits of weights", f"{task}: {rounding}, {form}")
        label = f"{of_task[0]['metric']}\n(float {floats[0]:.2f}, BPTT {floats[1]:.2f})"
        if shown is not None:
            figure.colorbar(shown, ax=list(line), label=label, pad=0.01)
    return [save(figure, folder.path / "chip-bits.png")]


def _values(rows: list[dict[str, Any]], settings: ChipBitsFigure, rounding: str, form: str) -> np.ndarray:
    what = {"rounding": rounding, "form": form}
    cell = lambda w, t: mean_value(rows, **what, weight_bits=w, trace_bits=t)  # noqa: E731
    return np.array([[cell(w, t) for t in settings.trace_bits] for w in settings.weight_bits])


def _label(axes: Axes, values: np.ndarray, settings: ChipBitsFigure, float_value: float, scale: float) -> None:
    """Each cell's value; framed where it is worse than the float network by more than `BROKEN`."""
    axes.set_xticks(range(len(settings.trace_bits)), map(str, settings.trace_bits))
    axes.set_yticks(range(len(settings.weight_bits)), map(str, settings.weight_bits))
    for (row, column), value in np.ndenumerate(values):
        ink = "white" if value > 0.5 * scale else INK
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink)
        if value > float_value + BROKEN:
            axes.plot([column - 0.42, column + 0.42], [row - 0.4] * 2, color="#D55E00", lw=1.6)
