"""Trained runs, read back from their folders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eprop.errors import require
from eprop.networks import Network
from eprop.settings import Experiment
from eprop.training._folder import RunFolder, experiment_from_json
from eprop.training._loop import AnyLearner, check_data, make_learner, restore_state


@dataclass(frozen=True)
class LoadedRun:
    """A run as its last checkpoint has it."""

    folder: RunFolder
    experiment: Experiment
    learner: AnyLearner
    state: Any
    iteration: int

    @property
    def network(self) -> Network:
        """The trained network (of the first seed)."""
        return self.learner.network(self.state)


def load_run(path: Path) -> LoadedRun:
    """The run in a folder, with its newest weights.

    Raises:
        InvalidSetting: if the folder holds no run, or none that has a checkpoint yet.
    """
    folder = RunFolder.open(path)
    config = folder.config
    experiment = experiment_from_json(config["task"], config["experiment"], folder.path)
    learner = make_learner(experiment, config.get("seeds") or [experiment.run.seed])
    check_data(experiment, folder)
    checkpoints = folder.checkpoints()
    try:
        iteration = checkpoints.latest_step()
        require(iteration is not None, f"{path}: has no checkpoint yet")
        assert iteration is not None
        return LoadedRun(folder, experiment, learner, restore_state(checkpoints, iteration, learner.init()), iteration)
    finally:
        checkpoints.close()
