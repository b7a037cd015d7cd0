"""Pictures of e-prop 3 beside its parts: copy-repeat and words."""

from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from eprop.workshop.experiments import WindowsSettings, reproduction_of, rule_path
from eprop.workshop.figures._run import columns, plot_spread
from eprop.workshop.figures._style import colour, new_figure, save, tidy
from eprop.workshop.training import RunFolder


def _draw_rules(folder: RunFolder, settings: WindowsSettings, ylabel: str, title: str, steps: bool) -> list[Path]:
    """The metric against windows, a colour a rule, mean and range over seeds; and each seed's last value."""
    figure = new_figure(9.5, 3.8)
    curves, final = figure.subplots(1, 2, gridspec_kw={"width_ratios": [2.2, 1]})
    named = [(i, rule) for i, rule in enumerate(settings.labels) if rule_path(folder, rule).is_dir()]
    for i, rule in named:
        lines = RunFolder.open(rule_path(folder, rule)).metrics()
        if not lines:
            continue
        iterations, values = columns(lines, "metric")
        plot_spread(curves, iterations, values, rule, colour(i))
        rows = i + np.linspace(-0.15, 0.15, values.shape[1])
        final.scatter(values[-1], rows, color=colour(i), s=22, alpha=0.8, zorder=3)
        final.plot([values[-1].mean()] * 2, [i - 0.3, i + 0.3], color=colour(i), lw=2.5)
    if steps:
        curves.set_ylim(bottom=0)
        curves.yaxis.set_major_locator(MaxNLocator(integer=True))
        final.set_xlim(left=0)
    else:
        curves.set_yscale("log")
    curves.set_xlim(left=0)
    curves.legend(fontsize=8, frameon=False)
    final.set_yticks(range(len(settings.labels)), [label.replace("_", " ") for label in settings.labels], fontsize=8)
    final.invert_yaxis()
    tidy(curves, "windows (updates of the weights)", ylabel, title)
    tidy(final, "at the end: seeds, and their mean", "")
    return [save(figure, folder.path / f"{folder.config['name']}.png")]


def draw_copy_repeat(folder: RunFolder) -> list[Path]:
    settings = reproduction_of(folder)[1]
    title = f"copy-repeat, LSTM of {settings.neurons}, windows of {settings.window}, {settings.seeds} seeds"
    return _draw_rules(folder, settings, "longest sequence solved, steps", title, steps=True)


def draw_words(folder: RunFolder) -> list[Path]:
    settings = reproduction_of(folder)[1]
    title = f"words, LSTM of {settings.neurons}, windows of {settings.window}, {settings.seeds} seeds"
    return _draw_rules(folder, settings, "perplexity, validation", title, steps=False)
