"""The picture of a comparison: learning curves, final values, and what each rule learnt to produce."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eprop.workshop.experiments import better, rule_folder
from eprop.workshop.figures._run import columns, plot_spread
from eprop.workshop.figures._sample import draw_sample
from eprop.workshop.figures._style import TARGET, colour, new_figure, tidy
from eprop.workshop.tasks import StreamTask
from eprop.workshop.training import RunFolder, load_run


def comparison_figure(folder: RunFolder, comparison: dict[str, Any]) -> Figure:
    """Metric over iterations and at the end, a colour a rule; for regression also output against target."""
    rows, rules = comparison["rows"], folder.config["rules"]
    runs = [rule_folder(folder, rule) for rule in rules]
    loaded = load_run(runs[0].path)
    task = loaded.experiment.task
    regression = not isinstance(task, StreamTask) and draw_sample(loaded).batch.targets.ndim == 3
    samples = [draw_sample(load_run(run.path)) for run in runs] if regression else []
    figure = new_figure(11.0, 4.0 + (1.3 * len(rows) if regression else 0.0))
    top = bottom = figure
    if regression:
        top, bottom = figure.subfigures(2, 1, height_ratios=[4, 1.3 * len(rows)])  # pyright: ignore[reportGeneralTypeIssues]
    curves, final = top.subplots(1, 2, gridspec_kw={"width_ratios": [2, 1]})
    metric = comparison["metric"]
    for i, (row, run) in enumerate(zip(rows, runs, strict=True)):
        iterations, values = columns(run.metrics(), "metric")
        plot_spread(curves, iterations, values, row["rule"], colour(i))
    low, high = curves.get_ylim()
    if regression and low > 0 or high > 20 * min(row["mean"] for row in rows) > 0:
        curves.set_yscale("log")
    curves.legend(fontsize=9, frameon=False)
    seeds = len(comparison["seeds"])
    spread = f", mean and range over {seeds} seeds" if seeds > 1 else ""
    tidy(curves, "iteration", metric, f"{comparison['task']}, {comparison['neuron']}{spread}")
    plot_final(final, rows, f"final {metric} ({better(task.lower_is_better)})")
    if regression:
        panels = np.atleast_1d(bottom.subplots(len(rows), 1, sharex=True))
        for i, (axes, sample) in enumerate(zip(panels, samples, strict=True)):
            _output(axes, np.asarray(sample.result.y[:, 0]), np.asarray(sample.batch.targets[:, 0]), colour(i))
            tidy(axes, "", rows[i]["rule"].replace(":", "\n"), "" if i else "output, and target (dashed), first seed")
        panels[-1].set_xlabel("time, steps (ms)")
    return figure


def plot_final(axes: Axes, rows: list[dict[str, Any]], label: str) -> None:
    """Each seed a point, their mean a bar."""
    for i, row in enumerate(rows):
        axes.barh(i, row["mean"], color=colour(i), alpha=0.35, height=0.6)
        offsets = np.linspace(-0.18, 0.18, len(row["values"])) if len(row["values"]) > 1 else [0.0]
        axes.scatter(row["values"], i + np.asarray(offsets), color=colour(i), s=16, zorder=3)
    axes.set_yticks(range(len(rows)), [row["rule"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    tidy(axes, label, "")


def _output(axes: Axes, y: np.ndarray, target: np.ndarray, shade: str) -> None:
    axes.plot(target, color=TARGET, lw=1, ls="--")
    axes.plot(y, color=shade, lw=1.4)
