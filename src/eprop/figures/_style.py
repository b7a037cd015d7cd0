"""Colours, sizes, and files written whole or not at all."""

import os
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")
"""Okabe and Ito's colours, told apart by colour-blind readers too."""

TARGET, INK, FAINT = "#222222", "#333333", "#BBBBBB"


def colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def new_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def tidy(axes: Axes, xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    """Labels, plain numbers on logarithmic axes, and no frame where nothing is read."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    if title:
        axes.set_title(title, loc="left", fontsize=10)
    axes.tick_params(which="both", labelsize=8)
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if axis.get_scale() == "log":
            if 10 * low <= high < 1000 * low:
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("{x:g}" if high < 10 * low else NullFormatter())


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    FigureCanvasAgg(figure).print_png(temporary)
    os.replace(temporary, path)
    return path
