"""Pictures of a stream: errors over rows, and the newest rows beside their forecasts."""

import csv
import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from eprop.errors import InvalidSetting
from eprop.workshop.figures._style import FAINT, TARGET, colour, new_figure, save, tidy
from eprop.workshop.training import RunFolder

STRETCH, MOST_TARGETS = 200, 6


def draw_stream(folder: RunFolder) -> list[Path]:
    """`error.png` once there is a report, `forecast.png` once there is a forecast of a row that has come."""
    written = []
    if folder.metrics():
        written.append(save(error_figure(folder), folder.figures / "error.png"))
    names, rows = newest_predictions(folder.path / "predictions.csv", STRETCH)
    if len(rows):
        written.append(save(forecast_figure(folder, names, rows), folder.figures / "forecast.png"))
    return written


def error_figure(folder: RunFolder) -> Figure:
    """Each target's error between reports, the naive forecast's beside it."""
    lines = folder.metrics()
    rows = [line["row"] for line in lines]
    names = list(lines[0]["rmse"])[:MOST_TARGETS]
    figure = new_figure(9.0, 0.6 + 2.6 * len(names))
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        for i, (kind, label) in enumerate((("naive_rmse", "naive (last value)"), ("rmse", "network"))):
            values = np.array([np.nan if line[kind][name] is None else line[kind][name] for line in lines])
            axes.plot(rows, values, color=("#7F7F7F", colour(0))[i], lw=1.5, label=label, marker="." * (len(rows) < 3))
        tidy(axes, "", f"{name}: rms error")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8, frameon=False, loc="lower right", ncols=2)
    panels[-1].set_xlabel("row")
    horizon = folder.config["stream"]["horizon"]
    panels[0].set_title(f"{folder.path.name}: {_ahead(horizon)}, error over rows", loc="left", fontsize=10)
    return figure


def forecast_figure(folder: RunFolder, names: list[str], rows: np.ndarray) -> Figure:
    """The newest rows: values, the forecasts that were made of them, and the forecasts of rows to come."""
    horizon = folder.config["stream"]["horizon"]
    names = names[:MOST_TARGETS]
    figure = new_figure(9.0, 0.6 + 2.6 * len(names))
    number = rows[:, 0]
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for i, axes in enumerate(panels):
        truth, forecast, _, ahead = rows[:, 1 + 4 * i : 5 + 4 * i].T
        axes.plot(number, truth, color=TARGET, lw=1.2, label="value", marker="." * (len(rows) < 40))
        axes.plot(number, forecast, color=colour(0), lw=1.3, label="forecast")
        axes.plot(number[-horizon:] + horizon, ahead[-horizon:], ".:", color=colour(1), lw=1.3, label="to come")
        axes.axvline(number[-1], color=FAINT, lw=0.8, zorder=0)
        tidy(axes, "", names[i])
        axes.legend(fontsize=8, framealpha=0.9, loc="upper left", ncols=3)
    panels[-1].set_xlabel("row")
    panels[0].set_title(f"{folder.path.name}: the newest rows, {_ahead(horizon)}", loc="left", fontsize=10)
    return figure


def newest_predictions(path: Path, count: int) -> tuple[list[str], np.ndarray]:
    """Targets, and the last `count` lines `[line, column]` of a file of any length.

    Raises:
        InvalidSetting: for lines that no stream writes.
    """
    try:
        return _newest(path, count)
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidSetting(f"{path}: cannot be read, or is not what a stream writes ({error})") from None


def _newest(path: Path, count: int) -> tuple[list[str], np.ndarray]:
    with open(path, "rb") as file:
        header = next(csv.reader([file.readline(1 << 20).decode().rstrip("\n")]), [])
        start = file.tell()
        file.seek(max(start, os.fstat(file.fileno()).st_size - 64 * count * max(len(header), 1)))
        if file.tell() > start:
            file.readline()  # the rest of a line
        lines = [line.decode().rstrip("\n").split(",") for line in file if line.endswith(b"\n")][-count:]
    rows = [[float(cell) if cell else np.nan for cell in line] for line in lines]
    return header[1::4], np.array(rows).reshape(len(rows), len(header))


def _ahead(horizon: int) -> str:
    return f"{horizon} row{'s' * (horizon > 1)} ahead"
