"""The picture of what the traces are, beside plasticity experiments."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from eprop.errors import require
from eprop.workshop.figures._style import FAINT, INK, colour, new_figure, save, tidy
from eprop.workshop.training import RunFolder, read_json

ORDER = ("LIF", "ALIF", "STDP-LIF", "STDP-ALIF", "Izhikevich")
"""Models in the order of their colours."""

EXPERIMENT = {"color": INK, "ls": "--", "lw": 1.2}
"""How the curves of experiment are drawn."""


def draw_plasticity(folder: RunFolder) -> list[Path]:
    """Five questions in six panels: pairs, rates, triplets, voltage, delay, third factor."""
    measured = folder.path / "plasticity.json"
    require(measured.is_file(), f"{folder.path}: nothing measured yet; go on with 'eprop resume {folder.path}'")
    found = read_json(measured)
    figure = new_figure(14.0, 8.6)
    panels = figure.subplots(2, 3)
    _pairs(panels[0, 0], found["pairing"])
    _rates(panels[0, 1], found["repeated"])
    _triplets(panels[0, 2], found["repeated"])
    _voltage(panels[1, 0], found["voltage"])
    _delay(panels[1, 1], found["delay"])
    _third_factor(panels[1, 2], found["third_factor"])
    figure.supxlabel(found["missing"], fontsize=10, color=INK, wrap=True)
    return [save(figure, folder.path / "plasticity.png")]


def _shade(model: str) -> str:
    return colour(ORDER.index(model))


def _scaled(values: Any, by: float | None = None) -> np.ndarray:
    values = np.asarray(values)
    return values / (np.abs(values).max() if by is None else by)


def _zero(axes: Axes, across: bool = False) -> None:
    axes.axhline(0, color=FAINT, lw=0.8, zorder=0)
    if across:
        axes.axvline(0, color=FAINT, lw=0.8, zorder=0)


def _pairs(axes: Axes, found: dict[str, Any]) -> None:
    interval = np.array(found["post_minus_pre_ms"])
    _zero(axes, across=True)
    axes.plot(interval, found["experiment"], label="experiment's exponentials", **EXPERIMENT)
    width = {"LIF": 4.0, "ALIF": 2.0, "STDP-LIF": 1.4, "STDP-ALIF": 1.4, "Izhikevich": 1.4}
    for name, change in found["change"].items():
        axes.plot(interval, _scaled(change), color=_shade(name), lw=width[name], alpha=0.9, label=name)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    tidy(axes, "post − pre, ms", "change / its largest", "a  one pair of spikes")


def _rates(axes: Axes, found: dict[str, Any]) -> None:
    rates, n = found["rates_hz"], len(found["rates_hz"])
    _zero(axes)
    for name, change in found["change"].items():
        after, before = np.array(change[:n]), np.array(change[n : 2 * n])
        style: dict[str, Any] = {**EXPERIMENT} if name == "triplet rule" else {"color": _shade(name), "lw": 1.4}
        style.pop("ls", None)
        axes.plot(rates, after / after[-1], ls="-", marker="o", ms=3, label=name, **style)
        axes.plot(rates, before / after[-1], ls=":", marker="s", ms=3, **style)
    axes.plot([], [], color=INK, ls="-", marker="o", ms=3, label="post after pre")
    axes.plot([], [], color=INK, ls=":", marker="s", ms=3, label="pre after post")
    axes.legend(fontsize=8, frameon=False, ncols=2)
    axes.set_ylim(top=1.75)
    axes.set_xlim(left=0)
    tidy(axes, "pairs a second, Hz", "change / that of post after pre at the last rate", "b  many pairs, 10 ms apart")


def _triplets(axes: Axes, found: dict[str, Any]) -> None:
    places = [i for i, name in enumerate(found["protocols"]) if "ms" in name]
    names = [found["protocols"][i] for i in places]
    _zero(axes)
    shown = [(name, c) for name, c in found["change"].items() if name in ("LIF", "STDP-LIF", "triplet rule")]
    for j, (name, change) in enumerate(shown):
        shade = INK if name == "triplet rule" else _shade(name)
        axes.bar(
            np.arange(len(names)) + 0.27 * (j - 1), _scaled(np.array(change)[places]), 0.25, color=shade, label=name
        )
    axes.set_xticks(range(len(names)), [name.rsplit(" ", 3)[1].rstrip(",") + ", " + name.split()[-2] for name in names])
    for middle, kind in ((1.5, "pre-post-pre"), (5.5, "post-pre-post")):
        axes.text(middle, -1.32, kind, ha="center", fontsize=9, color=INK)
    axes.axvline(3.5, color=FAINT, lw=0.8)
    axes.set_ylim(-1.45, 1.6)
    axes.legend(fontsize=8, frameon=False, ncols=3, loc="upper left")
    tidy(axes, "intervals, ms", "change / its largest", "b  many triplets, 1 a second")


def _voltage(axes: Axes, found: dict[str, Any]) -> None:
    v = np.array(found["v"])
    _zero(axes)
    shades = {"LIF, ALIF": "LIF", "ALIF after a spike": "ALIF", "STDP-LIF, refractory": "STDP-LIF"}
    for name, change in found["change"].items():
        axes.plot(v, change, color=_shade(shades[name]), lw=1.6, label=name)
    rule, height = np.array(found["voltage_rule"]), np.max(found["change"]["LIF, ALIF"])
    axes.plot(v, rule * 0.35 * height / -rule.min(), label="voltage rule, height arbitrary", **EXPERIMENT)
    axes.set_ylim(-1.15 * height, 1.9 * height)
    axes.set_xlim(v[0], v[-1])
    u = found["u_mv"]
    slope = (u[-1] - u[0]) / (v[-1] - v[0])
    functions = (lambda x: u[0] + slope * (x - v[0]), lambda y: v[0] + (y - u[0]) / slope)
    above = axes.secondary_xaxis("top", functions=functions)
    above.tick_params(labelsize=8)
    above.set_xlabel("voltage rule's membrane, mV", fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    tidy(axes, "membrane v when the presynaptic spike comes, unit of the currents", "change (psi)")
    axes.set_title("c  held membrane", loc="left", fontsize=10)


def _delay(axes: Axes, found: dict[str, Any]) -> None:
    delays = found["delays_ms"]
    axes.axvspan(*found["band_ms"], color=FAINT, alpha=0.35, lw=0)
    for i, tau in enumerate(found["time_constants_ms"]):
        readout, adaptation = found["tau_out"]["change"][i], found["tau_a"]["of_adaptation"][i]
        axes.plot(delays, _scaled(readout), color=colour(i), lw=2.8, alpha=0.45)
        axes.plot(delays, _scaled(np.abs(adaptation)), color=colour(i), lw=1.2, ls="--")
        axes.plot([], [], color=colour(i), lw=2, label=f"{tau:g} ms")
    axes.plot([], [], color=INK, lw=2.8, alpha=0.45, label="readout, tau_out")
    axes.plot([], [], color=INK, lw=1.2, ls="--", label="adaptation, tau_a; opposite sign")
    axes.set_xscale("log")
    axes.set_ylim(0, 1.75)
    axes.text(np.sqrt(np.prod(found["band_ms"])), 1.08, "dopamine", ha="center", fontsize=8, color=INK)
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper left")
    tidy(axes, "delay of the learning signal, ms", "size of change / its largest", "d  one late learning signal")


def _third_factor(axes: Axes, found: dict[str, Any]) -> None:
    _zero(axes, across=True)
    for name, change in found["change"].items():
        model, interval = name.split(", ")
        style = "-" if interval.startswith("+") else ":"
        width, label = 3.0 if name == "LIF, +10 ms" else 1.6, f"{model}, post − pre {interval.replace('-', '−')}"
        axes.plot(found["learning_signal"], change, color=_shade(model), ls=style, lw=width, alpha=0.9, label=label)
    axes.legend(fontsize=8, frameon=False)
    tidy(axes, "learning signal L (dE/dz)", "change at learning rate 1", "e  third factor's sign and size")
