"""Pictures of speech: one utterance as the network hears it, and which phones are taken for which."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eprop.workshop.experiments import Timed, Transcript, confusion, rule_folder, transcribe_test_utterance
from eprop.workshop.figures._comparison import plot_final
from eprop.workshop.figures._run import columns, plot_spread
from eprop.workshop.figures._style import INK, PALETTE, colour, new_figure, save, tidy
from eprop.workshop.training import RunFolder, load_run, read_json

SILENCES = ("sil", "h#", "pau", "epi")
RIGHT, WRONG, SILENT = "#CFE3F2", "#F6C7B0", "#EEEEEE"


def utterance_figure(transcript: Transcript) -> Figure:
    """Mel bands, spikes (or outputs), probabilities of phones, predicted and true phones, one time axis."""
    t = transcript
    rows = 4 if t.true is None else 5
    figure = new_figure(11.0, 8.0 if t.true is None else 8.4)
    heights = [1.2, 1.6, 1.6, 0.22, 0.22][:rows]
    panels = figure.subplots(rows, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    panels[0].imshow(
        t.bands.T, aspect="auto", origin="lower", cmap="magma", extent=(0.0025, len(t.bands) / 100 + 0.0025, 0, 40)
    )
    tidy(panels[0], "", "mel band", t.name)
    _activity(panels[1], t)
    _probabilities(panels[2], t)
    _strip(panels[3], t.predicted, "heard", t.true)
    if t.true is not None:
        _strip(panels[4], t.true, "true", None)
    for panel in panels[:-1]:
        panel.tick_params(axis="x", bottom=False)
    panels[-1].set_xlabel("time, s")
    panels[-1].set_xlim(0, t.seconds)
    return figure


def _activity(axes: Axes, t: Transcript) -> None:
    steps, n = t.z.shape
    step = t.seconds / steps
    if t.spiking:
        time, neuron = np.nonzero(t.z)
        shade = np.where(neuron < t.forward, PALETTE[0], PALETTE[1])
        axes.scatter(time * step, neuron, s=1.2, c=shade, marker="|", linewidths=0.6)
    else:
        axes.imshow(t.z.T, aspect="auto", origin="lower", cmap="RdBu_r", vmin=-1, vmax=1, extent=(0, t.seconds, 0, n))
    axes.set_ylim(0, n)
    if t.forward < n:
        axes.axhline(t.forward, color=INK, lw=0.6)
        for middle, name in ((t.forward / 2, "forwards"), ((t.forward + n) / 2, "backwards")):
            axes.text(1.005, middle, name, transform=axes.get_yaxis_transform(), rotation=270, va="center", fontsize=8)
    tidy(axes, "", "neuron, spikes" if t.spiking else "unit, output")


def _probabilities(axes: Axes, t: Transcript) -> None:
    """Classes that matter somewhere in the utterance, in the order in which they first do."""
    strongest = t.probabilities.argmax(1)
    order = list(dict.fromkeys(int(k) for k in strongest))
    image = t.probabilities[:, order].T
    extent = (0.0075, len(strongest) / 100 + 0.0075, len(order), 0)
    axes.imshow(image, aspect="auto", cmap="Greys", vmin=0, vmax=1, extent=extent)
    axes.set_yticks(np.arange(len(order)) + 0.5, [t.phones[k] or "blank" for k in order])
    tidy(axes, "", "probability")
    axes.tick_params(axis="y", labelsize=6)


def _strip(axes: Axes, phones: list[Timed], label: str, truth: list[Timed] | None) -> None:
    """Phones side by side; where the truth is known, those are red that are another one at their middle."""
    for start, end, name in phones:
        middle = (start + end) / 2
        is_true = truth is None or any(s <= middle < e and name == t for s, e, t in truth)
        shade = WRONG if not is_true else SILENT if name in SILENCES else RIGHT
        axes.axvspan(start, end, color=shade, lw=0)
        axes.axvline(start, color="white", lw=1.2)
        if end - start > 0.018:
            axes.text(middle, 0.5, name, ha="center", va="center", fontsize=6.5, color=INK, clip_on=True)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    tidy(axes, "", label)
    axes.spines["left"].set_visible(False)
    axes.yaxis.label.set(rotation=0, ha="right", va="center")


def confusion_figure(counts: np.ndarray, phones: tuple[str, ...], title: str) -> Figure:
    """Share of each true phone's frames (row) that are taken for each phone (column)."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = new_figure(8.0, 7.6)
    axes = figure.subplots()
    image = axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    ticks = np.arange(len(phones))
    axes.set_xticks(ticks, phones, rotation=90, fontsize=7)
    axes.set_yticks(ticks, phones, fontsize=7)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, ticks=np.sqrt([0, 0.01, 0.05, 0.2, 0.5, 1.0]))
    bar.ax.set_yticklabels(["0", "1 %", "5 %", "20 %", "50 %", "100 %"])
    wrong = 1 - np.trace(counts) / max(counts.sum(), 1)
    tidy(axes, "taken for", "true phone", f"{title}: {counts.sum()} frames, {100 * wrong:.1f} % wrong")
    axes.tick_params(labelsize=7)
    return figure


def draw_speech(folder: RunFolder) -> list[Path]:
    """The reproduction's pictures: errors of all rules; an utterance and the confusions of each kind of network."""
    written = []
    rows = read_json(folder.path / "speech.json")["rows"] if (folder.path / "speech.json").is_file() else []
    kinds = list(dict.fromkeys(row["neuron"] for row in rows))
    if rows:
        written.append(save(errors_figure(folder, rows, kinds), folder.figures / "errors.png"))
    for kind in kinds:
        comparison = RunFolder.open(folder.path / kind)
        chosen = next((r for r in comparison.config["rules"] if r == "eprop1:random"), comparison.config["rules"][-1])
        run = rule_folder(comparison, chosen).path
        written.append(save(utterance_figure(transcribe_test_utterance(run)), folder.figures / f"utterance-{kind}.png"))
        loaded = load_run(run)
        title = f"{kind}, {chosen}, test set"
        figure = confusion_figure(confusion(loaded), loaded.experiment.task.classes.names, title)
        written.append(save(figure, folder.figures / f"confusion-{kind}.png"))
    return written


def errors_figure(folder: RunFolder, rows: list[dict[str, Any]], kinds: list[str]) -> Figure:
    """A row a kind of network: error over iterations (development set), and at the end (test set), a colour a rule."""
    figure = new_figure(11.0, 3.6 * len(kinds))
    panels = figure.subplots(len(kinds), 2, squeeze=False, gridspec_kw={"width_ratios": [1.5, 1]})
    for (curves, final), kind in zip(panels, kinds, strict=True):
        comparison = RunFolder.open(folder.path / kind)
        of_kind = [row for row in rows if row["neuron"] == kind]
        for i, (row, rule) in enumerate(zip(of_kind, comparison.config["rules"], strict=True)):
            iterations, values = columns(rule_folder(comparison, rule).metrics(), "metric")
            plot_spread(curves, iterations, values, row["rule"], colour(i))
            final.text(max(row["values"]), i, f"   {row['mean']:.3f}", va="center", fontsize=8, color=INK)
        curves.set_yscale("log")
        title = f"{kind}: mean and range over {of_kind[0]['seeds']} seeds"
        tidy(curves, "iteration", "frame error, development set", title)
        plot_final(final, of_kind, "frame error, test set (lower is better)")
        for i, name in enumerate(final.get_yticklabels()):  # they are the curves' legend too
            name.set(color=colour(i), weight="bold")
        final.set_xlim(0, 1.15 * max(max(row["values"]) for row in of_kind))
        bptt = next(row["mean"] for row in of_kind if row["rule"] == "bptt")
        final.axvline(bptt, color=INK, lw=0.8, ls=":")
    return figure
