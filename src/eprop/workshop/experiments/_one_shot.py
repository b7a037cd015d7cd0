"""One-shot learning by e-prop 2 (Bellec et al. 2019), beside what one update of other rules does."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray
from rich.table import Table

from eprop.errors import InvalidSetting, require
from eprop.workshop.experiments._reproduction import REPRODUCTIONS, Reproduction
from eprop.workshop.settings import NetworkSettings, OneShotSettings, OptimiserSettings, RunSettings
from eprop.workshop.tasks import Arm, Sinusoids
from eprop.workshop.training import (
    Learnt,
    OneShotExperiment,
    OneShotTrainer,
    RunFolder,
    purpose_key,
    restore_newest,
    settings_to_json,
    train,
    write_json,
)

SEARCH, COMPARED, PREDICTED = range(32, 35)
"""Streams of random numbers: tasks that step sizes are chosen on, that rows are compared on, of the mean movement."""

STEPS = tuple(10.0 ** (k / 4 - 4) for k in range(19))
"""Step sizes tried beside the trained one, as the norm of the mean weight change over the weights': 1e-4 to 3."""


@dataclasses.dataclass(frozen=True)
class OneShotReproduction(OneShotExperiment):
    """The settings of `eprop reproduce`: the experiment, and how much its baselines may take."""

    compared_tasks: int = 512
    """Held-out tasks that the rows of the table are compared on."""
    baseline_iterations: int | None = None
    """Outer iterations for e-prop 1's own initial weights; 0: leave that row out; None: as many as e-prop 2's."""

    def __post_init__(self) -> None:
        require(self.compared_tasks >= 2, f"compared_tasks = {self.compared_tasks}: must be at least 2")
        iterations = self.baseline_iterations
        require(iterations is None or iterations >= 0, f"baseline_iterations = {iterations}: must be 0 or above")


@dataclasses.dataclass(frozen=True)
class OneShotArm(OneShotReproduction):
    """With the family's own type, from which the command line is made."""

    task: Arm


@dataclasses.dataclass(frozen=True)
class OneShotSinusoids(OneShotReproduction):
    """With the family's own type, from which the command line is made."""

    task: Sinusoids


def run_one_shot(folder: RunFolder, settings: OneShotReproduction) -> Table:
    """Train e-prop 2 and e-prop 1's own weights, or go on with it; compare one update of each; write `results.json`."""
    trainer = OneShotTrainer(settings)
    learnt = _trained(folder, "eprop2", trainer)
    rows = [_mean_movement(trainer, settings)]
    keys = task_keys(trainer, COMPARED, settings.compared_tasks)
    before, after = _errors(trainer, learnt, keys)
    rows += [_row("no update", before), _row("e-prop 2, one update", after, float(jnp.exp(learnt.log_learning_rate)))]
    for signal, name in (("random", "e-prop 1 (random feedback)"), ("bptt", "BPTT")):
        other, tuned = _with_best_step(trainer, learnt, signal)
        _, after = _errors(other, tuned, keys)
        rows.append(_row(f"{name}, one update from the same weights", after, float(jnp.exp(tuned.log_learning_rate))))
    if settings.baseline_iterations != 0:
        own, tuned = _own_eprop1(folder, settings, trainer)
        before, after = _errors(own, tuned, keys)
        rows.append(_row("no update, weights trained for e-prop 1", before))
        name = "e-prop 1 (random feedback), one update from weights trained for it"
        rows.append(_row(name, after, float(jnp.exp(tuned.log_learning_rate))))
    results = {"metric": trainer.task.metric_name, "tasks": settings.compared_tasks, "rows": rows}
    write_json(folder.path / "results.json", results)
    return one_shot_table(results)


def one_shot_table(results: dict[str, Any]) -> Table:
    """The table that a reproduction ends with."""
    table = Table(title=f"{results['metric']} on {results['tasks']} held-out tasks (lower is better)")
    for column in ("one update by", "mean", "std", "median", "share", "step size"):
        table.add_column(column, justify="left" if column == "one update by" else "right")
    reference = next(row["mean"] for row in results["rows"] if row["name"] == "no update")
    for row in results["rows"]:
        step = "" if row["step_size"] is None else f"{row['step_size']:.2g}"
        share = f"{100 * row['mean'] / reference:.1f} %"
        table.add_row(row["name"], *(f"{row[key]:.5f}" for key in ("mean", "std", "median")), share, step)
    return table


def task_keys(trainer: OneShotTrainer, which: int, tasks: int) -> PRNGKeyArray:
    """Keys of so many held-out tasks, for one purpose."""
    return jax.random.split(purpose_key(trainer.key, which), tasks)


def load_learnt(folder: RunFolder, trainer: OneShotTrainer) -> Learnt:
    """The contents of a run's newest checkpoint.

    Raises:
        InvalidSetting: if there is none yet.
    """
    checkpoints = folder.checkpoints()
    try:
        newest = restore_newest(checkpoints, trainer.init())
        if newest is None:
            raise InvalidSetting(f"{folder.path}: has no checkpoint yet")
        return trainer.learnt(newest[0])
    finally:
        checkpoints.close()


def part_folder(folder: RunFolder, name: str, experiment: OneShotExperiment | None = None) -> RunFolder:
    """The run folder of one outer loop, made at the first call."""
    path = folder.path / name
    if experiment is None:
        return RunFolder.open(path)
    return RunFolder.open_or_create(path, lambda: {"command": "part", "settings": settings_to_json(experiment)})


def _trained(folder: RunFolder, name: str, trainer: OneShotTrainer) -> Learnt:
    run = part_folder(folder, name, trainer.experiment)
    train(trainer.experiment, run, task=folder.config["name"], trainer=trainer)
    return load_learnt(run, trainer)


def _own_eprop1(
    folder: RunFolder, settings: OneShotReproduction, trainer: OneShotTrainer
) -> tuple[OneShotTrainer, Learnt]:
    """e-prop 1 with initial weights and step size trained for it, from the best step size of untrained weights."""
    initial = trainer.learnt(trainer.init())
    tuned = _with_best_step(trainer, initial, "random")[1]
    one_shot = dataclasses.replace(
        settings.one_shot,
        learning_signal="random",
        inner_learning_rate=float(jnp.exp(tuned.log_learning_rate)),
        train_inner_learning_rate=True,
    )
    iterations = settings.baseline_iterations or settings.run.iterations
    run = dataclasses.replace(settings.run, iterations=iterations)
    own = OneShotTrainer(dataclasses.replace(settings, one_shot=one_shot, run=run))
    return _with_best_step(own, _trained(folder, "eprop1-random", own), "random")


def _errors(trainer: OneShotTrainer, learnt: Learnt, keys: PRNGKeyArray) -> tuple[np.ndarray, np.ndarray]:
    """Each task's error before and after the update."""
    size = _at_once(trainer)
    pieces = [trainer.compare(learnt, keys[i : i + size]) for i in range(0, len(keys), size)]
    before, after = (np.concatenate([np.asarray(piece[i], float) for piece in pieces]) for i in (0, 1))
    return before, after


def _with_best_step(trainer: OneShotTrainer, learnt: Learnt, signal: str) -> tuple[OneShotTrainer, Learnt]:
    """The same weights taught by another signal, with the step size that does best on tasks of its own."""
    other = trainer
    if signal != trainer.settings.learning_signal:
        one_shot = dataclasses.replace(trainer.settings, learning_signal=signal)
        other = OneShotTrainer(dataclasses.replace(trainer.experiment, one_shot=one_shot))
    learnt = Learnt(learnt.network, None, learnt.log_learning_rate)
    keys = task_keys(trainer, SEARCH, _at_once(trainer))
    gradient = jax.jit(other.first_gradient)(learnt, keys)
    norms = jnp.sqrt(sum(jnp.sum(g**2, axis=range(1, g.ndim)) for g in jax.tree.leaves(gradient)))
    unit = optax.tree.norm(learnt.layer.synapses()) / norms.mean()  # weights would change by their size
    rates = [learnt.log_learning_rate, *(jnp.log(step * unit) for step in STEPS)]
    after = [_errors(other, Learnt(learnt.network, None, rate), keys)[1].mean() for rate in rates]
    best = rates[int(np.argmin(np.where(np.isfinite(after), after, np.inf)))]
    return other, Learnt(learnt.network, None, best)


def _at_once(trainer: OneShotTrainer) -> int:
    """Tasks evaluated at once."""
    return trainer.experiment.run.evaluation_batch or trainer.experiment.run.batch


def _mean_movement(trainer: OneShotTrainer, settings: OneShotReproduction) -> dict[str, Any]:
    """The cost of answering every task with the mean movement of others."""
    family = trainer.task
    draw = jax.jit(jax.vmap(lambda key: family.target(family.sample_task(jax.random.fold_in(key, 0)))))
    mean = draw(task_keys(trainer, PREDICTED, 4096)).mean(0)
    errors = ((draw(task_keys(trainer, COMPARED, settings.compared_tasks)) - mean[None]) ** 2).mean((1, 2))
    return _row("mean movement of 4096 other tasks", np.asarray(errors, float))


def _row(name: str, errors: np.ndarray, step_size: float | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "mean": float(errors.mean()),
        "std": float(errors.std(ddof=1)),
        "median": float(np.median(errors)),
        "step_size": step_size,
        "values": [float(e) for e in errors],
    }


_NETWORK = NetworkSettings(
    neuron="lif",
    neurons=400,
    v_th=0.4,
    n_refractory=5,
    readout_scale=0.05 / 20,  # 0.05 / sqrt(neurons)
    pseudo_derivative_scaling="none",
    pseudo_derivative_in_refractory=True,
)

REPRODUCTIONS["one-shot-arm"] = Reproduction(
    summary="a two-joint arm repeats a movement that it saw once (e-prop 2; Bellec et al. 2019)",
    presets={
        "quick": OneShotArm(
            task=Arm(dt=5.0, velocity_weight=2.5e-4),
            network=dataclasses.replace(_NETWORK, neurons=100, v_th=0.8, n_refractory=2),
            one_shot=OneShotSettings(module_neurons=100, inner_learning_rate=1e-3, train_inner_learning_rate=True),
            optimiser=OptimiserSettings(learning_rate=3e-3, clip=1.0, cosine_decay=True, rate_strength=1.0),
            run=RunSettings(iterations=12_000, batch=20, evaluate_every=100, evaluation_batch=128),
        ),
        "paper": OneShotArm(
            task=Arm(),
            network=_NETWORK,
            one_shot=OneShotSettings(micro_batch=10),  # ten tasks' own weights stay in the cache: twice as fast
            optimiser=OptimiserSettings(learning_rate=1e-3, rate_strength=100.0),
            run=RunSettings(iterations=20000, batch=100, evaluate_every=50, evaluation_batch=100),
        ),
    },
    run=run_one_shot,
)

REPRODUCTIONS["one-shot-sinusoids"] = Reproduction(
    summary="a sinusoid is repeated after one presentation (e-prop 2 on a lighter family of tasks)",
    presets={
        "quick": OneShotSinusoids(
            task=Sinusoids(dt=5.0),
            network=dataclasses.replace(_NETWORK, neurons=60, v_th=0.8, n_refractory=2),
            one_shot=OneShotSettings(module_neurons=60, inner_learning_rate=1e-3, train_inner_learning_rate=True),
            optimiser=OptimiserSettings(learning_rate=3e-3, clip=1.0, cosine_decay=True, rate_strength=0.3),
            run=RunSettings(iterations=3000, batch=20, evaluate_every=50, evaluation_batch=128),
        ),
    },
    run=run_one_shot,
)
