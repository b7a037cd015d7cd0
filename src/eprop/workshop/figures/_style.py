"""Colours, sizes, and files written whole or not at all."""

import warnings
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, LogLocator, NullFormatter

from eprop.files import write_whole

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
    """Write a PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    as_it_is(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # names in a script that the font lacks
        return write_whole(path, lambda temporary: FigureCanvasAgg(figure).print_png(temporary))


def as_it_is(figure: Figure) -> None:
    """No text is read as a formula, but for matplotlib's own on logarithmic axes: names come from files."""
    axes = [axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)]
    for axis in axes:
        axis.get_majorticklabels()  # made now
    powers = [axis for axis in axes if isinstance(axis.get_major_formatter(), LogFormatter)]
    own = {id(text) for axis in powers for text in axis.findobj(Text)}
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if id(text) not in own:
            text.set_parse_math(False)
