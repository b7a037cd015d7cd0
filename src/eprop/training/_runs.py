"""Trained runs, read back from their folders."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eprop.errors import InvalidSetting
from eprop.networks import Network
from eprop.settings import Experiment
from eprop.tasks import Task
from eprop.training._folder import RunFolder, experiment_from_json
from eprop.training._loop import make_trainer, restore_newest
from eprop.training._trainer import NetworkTrainer


@dataclass(frozen=True)
class LoadedRun:
    """A run as its last checkpoint has it."""

    folder: RunFolder
    experiment: Experiment
    trainer: NetworkTrainer
    state: Any
    iteration: int

    @property
    def network(self) -> Network:
        """The trained network (of the first seed)."""
        return self.trainer.network(self.state)


def load_run(path: Path, task: Task | None = None) -> LoadedRun:
    """The run in a folder, with its newest weights.

    Args:
        path: the folder.
        task: stands in for the configuration's, where that needs data which are not at hand.

    Raises:
        InvalidSetting: if the folder holds no run, or none that has a checkpoint yet.
        RunFailed: if no checkpoint can be read.
    """
    folder = RunFolder.open(path)
    config = folder.config
    experiment = experiment_from_json(config["task"], config["experiment"], folder.path)
    experiment = experiment if task is None else dataclasses.replace(experiment, task=task)
    trainer = make_trainer(experiment, config.get("seeds") or [experiment.run.seed])
    if task is None:
        folder.keep_facts(trainer.facts())
    checkpoints = folder.checkpoints()
    try:
        newest = restore_newest(checkpoints, trainer.init())
    finally:
        checkpoints.close()
    if newest is None:
        raise InvalidSetting(f"{path}: has no checkpoint yet")
    return LoadedRun(folder, experiment, trainer, *newest)
