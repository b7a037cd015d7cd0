"""The picture of `eprop reproduce chip-evidence`: what each chip decides wrongly, and what it does for that."""

from pathlib import Path

import numpy as np

from eprop.errors import require
from eprop.workshop.experiments import reproduction_of
from eprop.workshop.figures._style import colour, new_figure, save, tidy
from eprop.workshop.training import RunFolder, read_json

SHOWN = ("footprint", "synaptic_operations_effective_acs", "updates")
"""Costs that are drawn, beside the error."""


def draw_chip_evidence(folder: RunFolder) -> list[Path]:
    """Decision error, each seed and the mean, and three costs, a bar a chip."""
    results = folder.path / "results.json"
    require(results.is_file(), f"{folder.path}: nothing measured yet; go on with 'eprop resume {folder.path}'")
    rows, chips = read_json(results)["rows"], reproduction_of(folder)[1].chips
    figure = new_figure(10.5, 1.2 + 0.45 * len(chips))
    errors, *costs = figure.subplots(1, 1 + len(SHOWN))
    for place, chip in enumerate(chips):
        of_chip = [row for row in rows if row["chip"] == chip]
        values = [row["value"] for row in of_chip]
        errors.scatter(values, [place] * len(values), color=colour(place), s=22, zorder=3)
        errors.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color=colour(place), lw=2.5)
        for axes, name in zip(costs, SHOWN, strict=True):
            axes.barh(place, np.mean([row["cost"][name] for row in of_chip]), color=colour(place), height=0.6)
    errors.set_xlim(0, 0.6)
    labels = ("decision error", "bytes", "additions of a weight, a step", "updates computed, a step")
    for axes, label in zip((errors, *costs), labels, strict=True):
        axes.set_yticks(range(len(chips)), chips if axes is errors else [""] * len(chips))
        axes.invert_yaxis()
        tidy(axes, label, "")
    return [save(figure, folder.path / "chip-evidence.png")]
