"""Pictures of one run: learning curve, activity, eligibility traces."""

from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eprop.errors import require
from eprop.workshop.figures._sample import Sample, draw_sample, synapse_traces
from eprop.workshop.figures._style import FAINT, INK, TARGET, colour, new_figure, tidy
from eprop.workshop.training import LoadedRun, RunFolder


def columns(lines: list[dict], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Iterations, and a quantity as `[iteration, seed]`.

    Raises:
        InvalidSetting: for lines without it, or of different numbers of seeds.
    """
    values = [np.atleast_1d(line.get(name, ())) for line in lines]
    alike = all(each.shape == values[0].shape and each.size > 0 for each in values)
    require(alike and all("iteration" in line for line in lines), f"metrics.jsonl: not every line has {name} alike")
    return np.array([line["iteration"] for line in lines]), np.array(values, float)


def plot_spread(axes: Axes, iterations: np.ndarray, values: np.ndarray, label: str, shade: str) -> None:
    """Mean over seeds, and the range they span."""
    axes.plot(iterations, np.nanmean(values, 1), color=shade, label=label, lw=1.8)
    if values.shape[1] > 1:
        axes.fill_between(iterations, np.nanmin(values, 1), np.nanmax(values, 1), color=shade, alpha=0.18, lw=0)


def learning_figure(folder: RunFolder, spiking: bool) -> Figure:
    """Loss, metric and mean activity over iterations."""
    lines, summary = folder.metrics(), folder.summary
    metric = "metric" if summary is None else summary.get("metric", "metric")
    panels = [("loss", "training loss"), ("metric", metric)]
    panels.append(("activity", "firing rate, Hz" if spiking else "mean output"))
    figure = new_figure(10.0, 3.0)
    for i, (axes, (name, label)) in enumerate(zip(figure.subplots(1, 3), panels, strict=True)):
        iterations, values = columns(lines, name)
        plot_spread(axes, iterations, values * (1000.0 if name == "activity" and spiking else 1.0), label, colour(i))
        if name != "activity" and np.nanmin(values) > 0 and np.nanmax(values) / np.nanmin(values) > 10:
            axes.set_yscale("log")
        tidy(axes, "iteration", label)
    return figure


def activity_figure(run: LoadedRun, sample: Sample) -> Figure:
    """Inputs, neurons, membrane and threshold, outputs against targets, of one held-out sample."""
    figure = new_figure(8.5, 10.0)
    axes = figure.subplots(4, 1, sharex=True, gridspec_kw={"height_ratios": [1, 1.4, 1.2, 1.4]})
    frame = sample.layer.frame
    time = np.arange(frame * sample.batch.inputs.shape[0])
    _activity(axes[0], np.repeat(np.asarray(sample.batch.inputs[:, 0]), frame, 0), None)
    tidy(axes[0], "", "input", f"{run.folder.path.name}: one held-out sample")
    z = np.asarray(sample.result.z[-1][:, 0])
    _activity(axes[1], z, _adaptive(run, z.shape[1]))
    tidy(axes[1], "", "neuron")
    _membranes(axes[2], sample, z, run.trainer.spiking)
    _outputs(axes[3], sample, time, frame)
    axes[3].set_xlabel("time, steps (ms)")
    axes[3].set_xlim(0, len(time))
    return figure


def _activity(axes: Axes, values: np.ndarray, adaptive: np.ndarray | None) -> None:
    """A raster where values are spikes, else an image."""
    if not np.isin(values, (0.0, 1.0)).all():
        limit = np.abs(values).max() or 1.0
        axes.imshow(values.T, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        return
    for chosen, shade, label in _groups(values.shape[1], adaptive):
        t, i = np.nonzero(values[:, chosen])
        axes.scatter(t, chosen[i], s=1.5, c=shade, marker="|", linewidths=0.8, label=label)
    axes.set_ylim(-0.5, values.shape[1] - 0.5)
    if adaptive is not None and adaptive.any() and not adaptive.all():
        axes.legend(loc="upper right", fontsize=8, markerscale=6, framealpha=0.9)


def _groups(n: int, adaptive: np.ndarray | None) -> list[tuple[np.ndarray, str, str]]:
    if adaptive is None:
        return [(np.arange(n), INK, "")]
    return [(np.flatnonzero(~adaptive), INK, "LIF"), (np.flatnonzero(adaptive), colour(0), "adaptive")]


def _adaptive(run: LoadedRun, n: int) -> np.ndarray | None:
    if run.experiment.network.neuron != "lsnn" or run.experiment.network.bidirectional:
        return None
    neuron: Any = run.network.layers[-1].neuron  # pyright: ignore[reportAttributeAccessIssue]
    return np.asarray(getattr(neuron, "neuron", neuron).beta) > 0


def _membranes(axes: Axes, sample: Sample, z: np.ndarray, spiking: bool) -> None:
    """Membrane against threshold of three neurons, one above the other; the state where there is no threshold."""
    name = "v" if "v" in sample.observed else next(iter(sample.observed))
    v, threshold = sample.observed[name], sample.observed.get("threshold")
    score = z[:, : v.shape[1]].sum(0) if spiking else v.std(0)
    chosen = np.argsort(-score)[[0, len(score) // 4, len(score) // 2]]
    height = 1.1 * max(np.ptp(v[:, chosen]), 1e-9)
    for row, j in enumerate(chosen):
        axes.plot(v[:, j] + row * height, color=colour(row), lw=0.9)
        if threshold is not None:
            axes.plot(
                threshold[:, j] + row * height, color=INK, lw=0.8, ls="--", label="threshold" if not row else None
            )
        axes.text(1.0, row * height, f" {j}", transform=axes.get_yaxis_transform(), color=colour(row), fontsize=8)
    axes.set_yticks([])
    if threshold is not None:
        axes.legend(loc="upper right", fontsize=8)
    tidy(axes, "", "membrane of 3 neurons" if threshold is not None else f"state {name} of 3 neurons")


def _outputs(axes: Axes, sample: Sample, time: np.ndarray, frame: int) -> None:
    of_sample = lambda x: np.repeat(np.asarray(x[:, 0]), frame, 0)  # noqa: E731
    y, mask, targets = (of_sample(x) for x in (sample.result.y, sample.batch.mask, sample.batch.targets))
    if targets.ndim == 2:
        for k, target in enumerate(targets.T):
            axes.plot(time, target, color=TARGET, lw=1.2, ls="--", label="target" if k == 0 else None)
            axes.plot(time, np.asarray(y[:, k]), color=colour(k), lw=1.4, label=f"output {k}")
        tidy(axes, "", "output")
    else:
        probabilities, target = np.asarray(jax.nn.softmax(y)), targets
        shown = np.unique(target[mask]) if probabilities.shape[1] > 4 else np.arange(probabilities.shape[1])
        for k in shown:
            axes.plot(time, probabilities[:, k], color=colour(int(k)), lw=1.4, label=f"class {k}")
            right = mask & (target == k)
            axes.fill_between(time, 1.04, 1.1, where=right, color=colour(int(k)), lw=0, step="mid")
        axes.fill_between(time, 0, 1.1, where=mask, color=FAINT, alpha=0.3, lw=0, step="mid")
        tidy(axes, "", "probability (bar: target)")
    axes.legend(loc="upper left", fontsize=8, ncols=4, framealpha=0.9)


def eligibility_figure(run: LoadedRun, sample: Sample) -> Figure:
    """Presynaptic activity, eligibility trace, learning signal, and their running product, of three synapses."""
    found = synapse_traces(run, sample)
    figure = new_figure(8.5, 8.0)
    axes = figure.subplots(4, 1, sharex=True)
    for j, name in enumerate(found.names):
        spikes = np.isin(found.presynaptic, (0.0, 1.0)).all()
        if spikes:
            t = np.flatnonzero(found.presynaptic[:, j])
            axes[0].scatter(t, np.full(len(t), j), marker="|", s=60, color=colour(j), lw=0.9)
        else:
            axes[0].plot(found.presynaptic[:, j], color=colour(j), lw=1)
        axes[1].plot(found.trace[:, j], color=colour(j), lw=1, label=name)
        axes[2].plot(found.signal[:, j], color=colour(j), lw=1)
        axes[3].plot(np.cumsum(found.trace[:, j] * found.signal[:, j]), color=colour(j), lw=1.3)
    axes[0].set_yticks([])
    axes[1].legend(fontsize=8, loc="upper left", framealpha=0.9)
    filtered = run.trainer.rule.recurrence == "cut" and run.experiment.network.tau_out is not None
    labels = (
        "presynaptic\nactivity",
        "filtered eligibility\ntrace" if filtered else "eligibility trace",
        "learning signal",
        "gradient so far\n(sum of products)",
    )
    for panel, label in zip(axes, labels, strict=True):
        panel.axhline(0, color=FAINT, lw=0.6, zorder=0)
        tidy(panel, "", label)
    axes[0].set_title(f"{run.trainer.rule.label}: three synapses", loc="left", fontsize=10)
    axes[3].set_xlabel("time, steps (ms)")
    axes[3].set_xlim(0, len(found.trace))
    return figure


def sample_figures(run: LoadedRun) -> dict[str, Figure]:
    """The pictures that need the trained network: of layers that the readout sees as they are, without maps."""
    if run.experiment.network.maps:
        return {}
    sample = draw_sample(run)
    return {"activity": activity_figure(run, sample), "eligibility": eligibility_figure(run, sample)}
