"""Trained runs, read back from their folders."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from eprop.errors import InvalidSetting, require
from eprop.networks import Network
from eprop.workshop.settings import Experiment
from eprop.workshop.tasks import Task
from eprop.workshop.training._checkpoints import restore_newest
from eprop.workshop.training._folder import RunFolder, experiment_from_json
from eprop.workshop.training._loop import data_facts, make_trainer
from eprop.workshop.training._trainer import NetworkTrainer

T = TypeVar("T", bound=Task)


@dataclass(frozen=True)
class LoadedRun:
    """A run as its last checkpoint has it."""

    folder: RunFolder
    experiment: Experiment[Any]
    trainer: NetworkTrainer
    state: Any
    iteration: int
    missing: str | None = None
    """Why the data are not at hand; then nothing can be done that needs them."""

    @property
    def network(self) -> Network:
        """The trained network (of the first seed)."""
        return self.trainer.network(self.state)


def load_run(path: Path, task: Task | None = None) -> LoadedRun:
    """The run in a folder, with its newest weights. Nothing is written there.

    Its data need not be at hand: what the network got from them is in the folder.

    Args:
        path: the folder.
        task: stands in for the configuration's.

    Raises:
        InvalidSetting: if the folder holds no run, or none that has a checkpoint yet, or its data have changed.
        RunFailed: if no checkpoint can be read.
    """
    folder = RunFolder.open(path)
    folder.say_what_differs()
    config, missing = folder.config, None
    require("task" in config, f"{path}: is of 'eprop {config['command']}', which holds no network of its own")
    experiment = experiment_from_json(config["task"], config["experiment"], folder.path)
    seeds = config.get("seeds") or [experiment.run.seed]
    facts = folder.facts
    if task is None and facts is not None:
        try:
            folder.check_facts(data_facts_of(experiment.task))
        except MissingData as error:
            require(_has_sizes(facts), str(error))
            task, missing = without_data(experiment.task, facts), str(error)
    experiment = experiment if task is None else dataclasses.replace(experiment, task=task)
    trainer = make_trainer(experiment, seeds)
    checkpoints = folder.checkpoints()
    try:
        newest = restore_newest(checkpoints, trainer.init())
    finally:
        checkpoints.close()
    if newest is None:
        raise InvalidSetting(f"{path}: has no checkpoint yet")
    return LoadedRun(folder, experiment, trainer, *newest, missing)


class MissingData(InvalidSetting):
    """Data that are not at hand."""


def data_facts_of(task: Task) -> dict[str, Any] | None:
    """The facts about a task's data as they are now.

    Raises:
        MissingData: if they cannot be read.
    """
    try:
        return data_facts(task, task.facts())
    except InvalidSetting as error:
        raise MissingData(str(error)) from None


def without_data(task: T, facts: dict[str, Any]) -> T:
    """The task as a run folder remembers it: of the same kind and settings, with sizes that need no data."""
    kind = type(task)
    known = {
        "n_in": facts["n_in"],
        "n_out": facts["n_out"],
        "facts": lambda self: facts,
        "check_window": lambda self, window, size: None,
    }
    stand_in: Any = object.__new__(type(kind.__name__, (kind,), known))
    for field in dataclasses.fields(task):
        object.__setattr__(stand_in, field.name, getattr(task, field.name))
    return stand_in


def _has_sizes(facts: dict[str, Any]) -> bool:
    return all(type(facts.get(name)) is int and facts[name] > 0 for name in ("n_in", "n_out"))
