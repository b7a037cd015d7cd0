"""Pictures of one-shot learning: a lesson, learning to learn, the rows of the table, the arm as it moves."""

from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from eprop.files import write_whole
from eprop.workshop.experiments import COMPARED, load_learnt, part_folder, reproduction_of, task_keys
from eprop.workshop.figures._style import FAINT, INK, TARGET, colour, new_figure, save, tidy
from eprop.workshop.tasks import Arm
from eprop.workshop.training import Lesson, OneShotTrainer, RunFolder, read_json


class Shown(NamedTuple):
    """One held-out task's lesson, as arrays."""

    trainer: OneShotTrainer
    lesson: Lesson  # of this task alone
    change: np.ndarray  # of recurrent weights, [presynaptic, postsynaptic]
    time: np.ndarray  # ms


def draw_one_shot(folder: RunFolder) -> list[Path]:
    """Draw what the folder holds so far, and return the paths."""
    trainer = OneShotTrainer(reproduction_of(folder)[1])
    written = []
    runs = [RunFolder(path) for name in ("eprop2", "eprop1-random") if (path := folder.path / name).is_dir()]
    if runs and runs[0].metrics():
        written.append(save(learning_figure(runs), folder.figures / "learning.png"))
    if runs and any((runs[0].path / "checkpoints").glob("[0-9]*")):
        shown = typical_lesson(trainer, part_folder(folder, "eprop2"))
        written.append(save(lesson_figure(shown), folder.figures / "lesson.png"))
        if isinstance(trainer.task, Arm):
            written.append(animate_arm(shown, trainer.task, folder.figures / "arm.gif"))
    if (folder.path / "results.json").is_file():
        results = read_json(folder.path / "results.json")
        written.append(save(rows_figure(results), folder.figures / "comparison.png"))
    return written


def typical_lesson(trainer: OneShotTrainer, folder: RunFolder) -> Shown:
    """The lesson with the median error after the update, of 25 held-out tasks."""
    learnt = load_learnt(folder, trainer)
    keys = task_keys(trainer, COMPARED, 25)
    after = np.asarray(trainer.compare(learnt, keys)[1])
    key = keys[np.argsort(after)[len(after) // 2]][None]
    first, connected = eqx.filter_jit(trainer.first_gradient)(learnt, key).w_rec, learnt.layer.connected().w_rec
    assert first is not None and connected is not None
    change = -jnp.exp(learnt.log_learning_rate) * first[0]
    lesson = eqx.filter_jit(trainer.lesson)(learnt, key)
    time = np.arange(trainer.task.steps) * trainer.task.dt
    return Shown(trainer, lesson, np.asarray((change * connected)[:, 0]), time)


def lesson_figure(shown: Shown) -> Figure:
    """Rasters, learning signals, weight change and movements, in the training trial (left) and the test trial."""
    family, lesson, time = shown.trainer.task, shown.lesson, shown.time
    coordinates = family.n_coordinates
    plane = coordinates == 2
    heights = [0.5, 1.3, 1.3, 1.3] + [0.9] * coordinates + [2.4] * plane
    figure = new_figure(10.0, 1.35 * sum(heights))
    axes = figure.subplots(len(heights), 2, gridspec_kw={"height_ratios": heights})
    target = np.asarray(family.target(jax.tree.map(lambda x: x[0], lesson.tasks)))
    for column, (title, trial) in enumerate((("training trial", 0), ("test trial, after one update", -1))):
        panels = axes[:, column]
        _raster(panels[0], time, np.asarray(shown.trainer.clock[:, 0]), "clock" * (not column), title)
        _raster(panels[1], time, np.asarray(lesson.z[trial][:, 0]), "network" * (not column))
        produced = np.asarray(family.produced(lesson.y[trial][:, 0]))
        _movement(panels[4:], time, target, produced, plane, show_names=not column)
    if lesson.module_z:
        _raster(axes[2, 0], time, np.asarray(lesson.module_z[0][:, 0]), "error module")
        _signals(figure, axes[3, 0], time, np.asarray(lesson.learning_signals[0][:, 0]))
    _change(figure, axes[2:4, 1], shown.change)
    figure.align_ylabels(list(axes[:, 0]))
    return figure


def _raster(axes: Axes, time: np.ndarray, z: np.ndarray, label: str, title: str = "") -> None:
    t, i = np.nonzero(z)
    axes.scatter(time[t], i, s=4, c=INK, marker="|", linewidths=0.7)
    axes.set_ylim(-0.5, z.shape[1] - 0.5)
    axes.set_xlim(time[0], time[-1])
    tidy(axes, "", label, title)
    axes.set_xticklabels([])


def _signals(figure: Figure, axes: Axes, time: np.ndarray, signals: np.ndarray) -> None:
    limit = float(np.quantile(np.abs(signals), 0.99)) or 1.0
    extent = (time[0], time[-1], -0.5, signals.shape[1] - 0.5)
    image = axes.imshow(signals.T, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, origin="lower", extent=extent)
    figure.colorbar(image, ax=axes, pad=0.01, aspect=12).ax.tick_params(labelsize=7)
    tidy(axes, "", "learning signals\nof the neurons")
    axes.set_xticklabels([])


def _change(figure: Figure, panels: np.ndarray, change: np.ndarray) -> None:
    """The update of the recurrent weights, over the two panels where the test trial has nothing to show."""
    grid = panels[0].get_gridspec()
    rows = slice(panels[0].get_subplotspec().rowspan.start, panels[-1].get_subplotspec().rowspan.stop)
    for axes in panels:
        axes.remove()
    axes = figure.add_subplot(grid[rows, 1])
    limit = float(np.quantile(np.abs(change), 0.995)) or 1.0
    image = axes.imshow(change, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="equal", origin="lower")
    figure.colorbar(image, ax=axes, pad=0.01, aspect=20).ax.tick_params(labelsize=7)
    tidy(axes, "to neuron", "from neuron", "change of the recurrent weights")


def _movement(
    panels: np.ndarray, time: np.ndarray, target: np.ndarray, produced: np.ndarray, plane: bool, show_names: bool
) -> None:
    """Each coordinate in time, and the plane where there are two."""
    names = ("x", "y") if plane else [f"output {k}" for k in range(target.shape[1])]
    for k, name in enumerate(names):
        panels[k].plot(time, target[:, k], color=TARGET, ls="--", lw=1.2, label="target")
        panels[k].plot(time, produced[:, k], color=colour(k), lw=1.6, label="produced")
        panels[k].set_xlim(time[0], time[-1])
        low, high = min(target.min(), -0.2), max(target.max(), 0.2)
        panels[k].set_ylim(low - 0.3, high + 0.3)
        tidy(panels[k], "", name * show_names)
        if k + 1 < len(names):
            panels[k].set_xticklabels([])
    panels[len(names) - 1].set_xlabel("time, ms")
    panels[0].legend(fontsize=7, ncols=2, loc="lower left", framealpha=0.9)
    if plane:
        axes = panels[2]
        axes.plot(*target.T, color=TARGET, ls="--", lw=1.3)
        axes.plot(*produced.T, color=colour(0), lw=1.8)
        axes.scatter(*target[0], color=TARGET, s=22, zorder=3, label="start")
        axes.set_aspect("equal")
        axes.set_xlim(-1.1, 1.1)
        axes.set_ylim(-1.1, 1.1)
        tidy(axes, "x", "y" * show_names)


def learning_figure(runs: list[RunFolder]) -> Figure:
    """Held-out error before and after the inner update, and firing rates, over outer iterations."""
    figure = new_figure(10.0, 3.2)
    error, rate = figure.subplots(1, 2, gridspec_kw={"width_ratios": [2, 1]})
    names = {"eprop2": "e-prop 2", "eprop1-random": "e-prop 1, random feedback"}
    for i, run in enumerate(runs):
        lines = run.metrics()
        if not lines:
            continue
        iterations = [line["iteration"] for line in lines]
        error.plot(iterations, [line["before"] for line in lines], color=colour(i), lw=1, alpha=0.5)
        error.plot(iterations, [line["metric"] for line in lines], color=colour(i), lw=1.8, label=names[run.path.name])
        rate.plot(iterations, [line["activity"] for line in lines], color=colour(i), lw=1.6)
    error.plot([], [], color=FAINT, lw=1, label="thin: before the update")
    error.set_yscale("log")
    error.legend(fontsize=8, frameon=False)
    tidy(error, "outer iteration", "mean squared error (held out)", "after one inner update")
    rate.set_ylim(bottom=0)
    tidy(rate, "outer iteration", "spikes a step and neuron", "activity in the test trial")
    return figure


def rows_figure(results: dict[str, Any]) -> Figure:
    """Every held-out task a point, the mean a bar, for each row of the table."""
    rows = results["rows"]
    figure = new_figure(9.0, 0.62 * len(rows) + 1.0)
    axes = figure.subplots()
    jitter = np.random.default_rng(0).uniform(-0.28, 0.28, results["tasks"])
    for i, row in enumerate(rows):
        axes.scatter(row["values"], i + jitter, s=3, color=colour(i), alpha=0.35, linewidths=0)
        axes.plot([row["mean"]] * 2, [i - 0.38, i + 0.38], color=INK, lw=2)
    axes.set_yticks(range(len(rows)), [row["name"].replace(", ", ",\n", 1) for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    tidy(axes, f"{results['metric']} of a task (a point each; line: mean over {results['tasks']} tasks)", "")
    axes.tick_params(axis="y", labelsize=8)
    return figure


def animate_arm(shown: Shown, family: Arm, path: Path, frames: int = 50) -> Path:
    """The arm in both trials, over the target's arm: a GIF, written whole or not at all."""
    task = jax.tree.map(lambda x: x[0], shown.lesson.tasks)
    target = [np.asarray(x) for x in family.joints(task.velocity)]
    made = [[np.asarray(x) for x in family.joints(shown.lesson.y[k][:, 0])] for k in (0, -1)]
    figure = Figure(figsize=(7.6, 4.1), dpi=90)
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.03, right=0.97, bottom=0.03, top=0.86, wspace=0.06)
    draws = [_arms(axes, family, target, joints) for axes, joints in zip(panels, made, strict=True)]
    panels[0].set_title("training trial", fontsize=10)
    panels[1].set_title("test trial, after one update", fontsize=10)
    clock = figure.suptitle("", fontsize=9)
    pictures = []
    for t in np.linspace(0, family.steps - 1, min(frames, family.steps)).astype(int):
        for draw in draws:
            draw(int(t))
        clock.set_text(f"{shown.time[t]:.0f} ms")
        canvas.draw()
        pictures.append(Image.fromarray(np.array(canvas.buffer_rgba())[..., :3]))
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = pictures
    return write_whole(
        path,
        lambda temporary: first.save(temporary, save_all=True, append_images=others, duration=80, loop=0, format="GIF"),
    )


def _arms(axes: Axes, family: Arm, target: list[np.ndarray], made: list[np.ndarray]):
    """A function that draws both arms, and the paths of their ends, at one step."""
    lines = []
    for joints, shade, style in ((target, TARGET, "--"), (made, colour(0), "-")):
        label = "target" if shade == TARGET else "produced"
        (path,) = axes.plot([], [], color=shade, lw=1.2, ls=style, label=label)
        (arm,) = axes.plot([], [], color=shade, lw=3.5 if style == "-" else 2.5, alpha=0.5, marker="o", ms=5)
        lines.append((joints, path, arm))
    reach = 1.1 * sum(family.links)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(loc="lower left", fontsize=8, frameon=False)

    def draw(t: int) -> None:
        for (elbow, hand), path, arm in lines:
            path.set_data(hand[: t + 1, 0], hand[: t + 1, 1])
            arm.set_data(*np.stack([np.zeros(2), elbow[t], hand[t]], axis=1))

    return draw
