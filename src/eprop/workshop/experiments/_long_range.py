"""How far a window sees, with traces and without: `eprop reproduce long-range`."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray
from rich.table import Table

from eprop.errors import require, require_positive
from eprop.networks import Network, Readout, Recurrent
from eprop.neurons import LRU, LSTM, RTU, Neuron
from eprop.workshop.experiments._reproduction import REPRODUCTIONS, Reproduction
from eprop.workshop.settings import Experiment, NetworkSettings, OptimiserSettings, RuleSettings, RunSettings
from eprop.workshop.tasks import Adding, CopyMemory, Task
from eprop.workshop.training import (
    Interrupted,
    RunFolder,
    SequenceTrainer,
    TrainState,
    restore_newest,
    settings_to_json,
    stop_signals,
    write_json,
)

TaskName = Literal["copy-memory", "adding"]
ModelName = Literal["lstm", "lru", "rtu"]


@dataclasses.dataclass(frozen=True)
class LongRangeSettings:
    """Tasks, models, windows, and how each pair of them is trained."""

    tasks: tuple[TaskName, ...] = ("copy-memory",)
    """Tasks."""
    models: tuple[ModelName, ...] = ("lstm", "rtu")
    """Networks: lstm, one recurrent layer; lru and rtu, stacks of layers without recurrent weights."""
    windows: tuple[int, ...] = (1, 10, 100)
    """Steps a window, for online learning with traces and for truncated BPTT."""
    delays: tuple[int, ...] = (10, 30, 100, 300)
    """Delays of copy memory, and lengths of the adding problem, one after the other: each begins with the weights that
    solved the one before."""
    seeds: int = 3
    """Seeds, from 0; they run side by side."""
    iterations: int = 500
    """Updates a delay, at most."""
    check_every: int = 50
    """Updates between two looks at whether it is solved."""
    batch: int = 16
    """Sequences an update."""
    neurons: int = 32
    """Units a layer."""
    layers: int = 2
    """Layers of the stacks."""
    learning_rate: float = 0.005
    """Learning rate (Adam; gradients clipped to norm 1)."""
    alphabet: int = 4
    """Letters of copy memory."""
    symbols: int = 1
    """Letters to remember."""
    solved_error: float = 0.05
    """Copy memory is solved below this share of wrong letters."""
    solved_squared_error: float = 0.02
    """The adding problem is solved below this squared error (always saying 1: 0.167)."""
    longest_memory: float = 0.9
    """Largest radius of the stacks' eigenvalues at the start; at 0.9 a unit forgets nine tenths within 22 steps."""

    def __post_init__(self) -> None:
        for name, kind in (("tasks", TaskName), ("models", ModelName)):
            values = getattr(self, name)
            require(bool(values) and set(values) <= set(get_args(kind)), f"{name} = {values}: of {get_args(kind)}")
        require(min(self.windows, default=0) >= 1, f"windows = {self.windows}: each must be at least 1 step")
        ordered = list(self.delays) == sorted(set(self.delays)) and min(self.delays, default=0) >= 2
        require(ordered, f"delays = {self.delays}: must rise, from 2 or above")
        require_positive(seeds=self.seeds, iterations=self.iterations, check_every=self.check_every, batch=self.batch)
        require_positive(neurons=self.neurons, layers=self.layers, learning_rate=self.learning_rate)
        require_positive(solved_error=self.solved_error, solved_squared_error=self.solved_squared_error)
        require(0 < self.longest_memory < 1, f"longest_memory = {self.longest_memory}: must be above 0 and below 1")
        self.task(self.tasks[0], self.delays[0])

    @property
    def rules(self) -> tuple[str, ...]:
        """Online with traces and truncated BPTT of every window, and full BPTT."""
        pairs = (f"{rule}:{window}" for rule in ("eligibility_only", "truncated_bptt") for window in self.windows)
        return (*pairs, "bptt")

    @property
    def cells(self) -> list[tuple[TaskName, ModelName, str]]:
        """All runs: task, model, rule."""
        return [(task, model, rule) for task in self.tasks for model in self.models for rule in self.rules]

    def task(self, name: TaskName, delay: int) -> Task:
        """The task at one delay."""
        return CopyMemory(self.alphabet, self.symbols, delay) if name == "copy-memory" else Adding(delay)

    def solved(self, name: TaskName, metric: np.ndarray) -> np.ndarray:
        """Which seeds have solved a task."""
        return metric < (self.solved_error if name == "copy-memory" else self.solved_squared_error)

    def experiment(self, name: TaskName, rule: str, delay: int) -> Experiment[Any]:
        """One delay's experiment."""
        return Experiment(
            task=self.task(name, delay),
            network=NetworkSettings(neuron="lstm", neurons=self.neurons, tau_out=None, bias=True),
            optimiser=OptimiserSettings(learning_rate=self.learning_rate, clip=1.0),
            run=RunSettings(iterations=self.iterations, batch=self.batch, evaluation_batch=256),
            rule=RuleSettings(rule=rule),
        )


class LongRangeTrainer(SequenceTrainer):
    """A trainer of whole sequences whose network may be a stack of layers without recurrent weights."""

    def __init__(self, settings: LongRangeSettings, model: ModelName, experiment: Experiment[Any]) -> None:
        self.settings = settings
        self.model: ModelName = model
        super().__init__(experiment, range(settings.seeds))

    def _network(self, key: PRNGKeyArray) -> Network:
        s, size = self.settings, self.task.n_in
        key_readout, *keys = jax.random.split(key, 1 + (1 if self.model == "lstm" else s.layers))
        layers = []
        for key_layer in keys:
            key_ring, key_weights = jax.random.split(key_layer)
            neuron, constants = units(self.model, s.neurons, s.longest_memory, key_ring)
            layers.append(Recurrent(neuron, size, s.neurons, key=key_weights, bias=True, trainable=constants))
            size = s.neurons
        return Network(tuple(layers), Readout(size, self.task.n_out, key=key_readout))


def units(model: ModelName, size: int, r_max: float, key: PRNGKeyArray) -> tuple[Neuron, tuple[str, ...]]:
    """A layer's units, and which of their constants are trained."""
    if model == "lstm":
        return LSTM(), ()
    if model == "lru":
        return LRU.ring(key, size, r_max=r_max, max_phase=0.5), ("nu", "theta")
    return RTU.ring(key, size, r_max=r_max, max_phase=0.5, activation="tanh", recurrence="linear"), ("nu", "theta")


def run_cell(folder: RunFolder, settings: LongRangeSettings, cell: tuple[TaskName, ModelName, str]) -> list[dict]:
    """One task, model and rule: delay after delay, as long as a seed solves it; goes on with what is in the folder.

    Returns:
        A line a delay: for each seed whether it was solved, after how many updates, and the last metric.

    Raises:
        Interrupted: on a signal; the delays that have ended are kept.
    """
    name, model, rule = cell
    part = _part(folder, settings, cell)
    first = LongRangeTrainer(settings, model, settings.experiment(name, rule, settings.delays[0]))
    state, done = first.init(), 0
    newest = restore_newest(part.checkpoints(), state, mend=True)
    if newest is not None:
        state, done = newest
    part.forget_after(done)
    for index, delay in enumerate(settings.delays[done:], done + 1):
        if not bool(state.active.any()):
            break
        trainer = first if index == 1 else LongRangeTrainer(settings, model, settings.experiment(name, rule, delay))
        state, line = _one_delay(trainer, state, name, settings)
        part.add_metrics({"iteration": index, "delay": delay} | line)
        part.checkpoints().save(index, state)
        shown = " ".join("-" if u is None else str(u) for u in line["updates"])
        print(f"{name} {model} {rule}, delay {delay}: solved after {shown} updates", file=sys.stderr, flush=True)
    return part.metrics()


def _one_delay(
    trainer: LongRangeTrainer, state: TrainState, name: TaskName, settings: LongRangeSettings
) -> tuple[TrainState, dict[str, Any]]:
    """Train until all seeds that are in the race have solved it, or time is up; who has not is out of it."""
    racing, began = np.asarray(state.active), time.monotonic()
    updates: list[int | None] = [None] * settings.seeds
    metric = np.full(settings.seeds, np.nan)
    with stop_signals() as stop:
        for iteration in range(1, settings.iterations + 1):
            state, _ = trainer.update(state, trainer.data, jnp.asarray(iteration))
            if stop.requested:
                raise Interrupted(stop.status)
            if iteration % settings.check_every and iteration != settings.iterations:
                continue
            metric = np.asarray(trainer.evaluate(state, trainer.data, jnp.asarray(iteration)).metric)
            for seed in np.flatnonzero(settings.solved(name, metric) & np.asarray(state.active)):
                updates[seed] = iteration
            resting = np.array([u is None for u in updates]) & racing
            state = state._replace(active=jnp.asarray(resting))
            if not resting.any():
                break
    solved = [u is not None for u in updates]
    line = {"solved": solved, "updates": updates, "error": metric.tolist()}
    return state._replace(active=jnp.asarray(solved)), line | {"wall_s": round(time.monotonic() - began, 1)}


def part_path(folder: RunFolder, cell: tuple[str, str, str]) -> Path:
    """The folder of one run within the reproduction's."""
    return folder.path / "-".join(cell).replace(":", "-")


def _part(folder: RunFolder, settings: LongRangeSettings, cell: tuple[str, str, str]) -> RunFolder:
    config = {"command": "part", "settings": settings_to_json(settings)}
    return RunFolder.open_or_create(part_path(folder, cell), lambda: config)


def longest(lines: list[dict[str, Any]], seeds: int) -> list[int]:
    """The longest delay that each seed has solved; 0 for none."""
    return [max((line["delay"] for line in lines if line["solved"][seed]), default=0) for seed in range(seeds)]


def _run_long_range(folder: RunFolder, settings: LongRangeSettings) -> Table:
    rows = []
    for cell in settings.cells:
        lines = run_cell(folder, settings, cell)
        task, model, rule = cell
        rows.append({"task": task, "model": model, "rule": rule, "solved": longest(lines, settings.seeds)})
        write_json(folder.path / "long-range.json", {"delays": list(settings.delays), "rows": rows})
    title = f"longest delay solved, of {', '.join(map(str, settings.delays))} steps (higher is better); seeds"
    table = Table(title=title)
    for column in ("task", "network", "rule", "solved"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(row["task"], row["model"], row["rule"], "  ".join(map(str, row["solved"])))
    return table


REPRODUCTIONS["long-range"] = Reproduction(
    summary="copy memory and adding: online learning with traces against truncated BPTT of the same windows",
    presets={
        "quick": LongRangeSettings(),
        "adding": LongRangeSettings(tasks=("adding",), delays=(10, 30, 100), iterations=2000),
        "paper": LongRangeSettings(
            tasks=("copy-memory", "adding"),
            models=("lstm", "lru", "rtu"),
            delays=(10, 30, 100, 300, 1000, 3000),
            iterations=10_000,
            batch=32,
            neurons=128,
            learning_rate=0.001,
            alphabet=8,
            symbols=10,
        ),
    },
    run=_run_long_range,
)
