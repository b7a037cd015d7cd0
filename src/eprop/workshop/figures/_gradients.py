"""The picture of gradient alignment: cosine and ratio of norms, for each weight matrix."""

import numpy as np
from matplotlib.figure import Figure

from eprop.workshop.figures._style import FAINT, colour, new_figure, tidy
from eprop.workshop.training import RunFolder


def alignment_figure(folder: RunFolder) -> Figure:
    """A column a weight matrix, a colour a rule; above the cosine with BPTT's gradient, below the ratio of norms."""
    lines = [line for line in folder.metrics() if "alignment" in line]
    iterations = [line["iteration"] for line in lines]
    rules = list(lines[0]["alignment"])
    weights = list(lines[0]["alignment"][rules[0]])
    figure = new_figure(2.6 * len(weights) + 1, 5.0)
    panels = figure.subplots(2, len(weights), sharex=True, sharey="row", squeeze=False)
    panels[1, 0].set_yscale("log")  # of the whole row
    for column, name in enumerate(weights):
        for i, rule in enumerate(rules):
            pairs = np.array([line["alignment"][rule][name] for line in lines])
            for row in (0, 1):
                panels[row, column].plot(iterations, pairs[:, row], color=colour(i), lw=1.5, label=rule)
        for row in (0, 1):
            panels[row, column].axhline(1, color=FAINT, lw=0.8, zorder=0)
            tidy(panels[row, column], "iteration" if row else "", "", "" if row else name)
    panels[0, 0].set_ylabel("cosine with BPTT")
    panels[1, 0].set_ylabel("norm / norm of BPTT")
    panels[0, 0].axhline(0, color=FAINT, lw=0.8, zorder=0)
    panels[0, -1].legend(fontsize=8, frameon=False)
    return figure
