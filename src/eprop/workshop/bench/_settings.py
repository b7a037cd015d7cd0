"""The settings of a benchmark: sizes, repetitions, peers."""

import itertools
from dataclasses import dataclass
from pathlib import Path

from eprop.errors import InvalidSetting, require, require_choice
from eprop.workshop.bench._measure import PATHS
from eprop.workshop.bench._problem import Case

SIZES = ((100, 1000, 16), (400, 300, 32))
"""Neurons, steps and batch of the figures to reach, for each model."""
LENGTHS = (100, 300, 3000)
"""Further lengths at the smaller size: with 1000 they are the pictures' time axis."""
RIVAL = Case("alif", 400, 1000, 16)
"""Where the closest rival is measured."""
QUICK = (20, 64, 2)


@dataclass(frozen=True)
class BenchSettings:
    """Models and sizes. Without sizes: those of the figures to reach, and lengths from 100 to 3000 steps."""

    model: str = "alif,lstm"
    """Models, separated by commas: lif, alif, lstm, gru."""
    neurons: str = ""
    """Numbers of neurons, separated by commas; every combination with --steps and --batch is measured."""
    steps: str = ""
    """Lengths of the sequence, steps."""
    batch: str = ""
    """Batch sizes."""
    paths: str = ",".join(PATHS)
    """Ways to measure, separated by commas."""
    rounds: int = 7
    """Repetitions; in each, every way has one turn."""
    memory_steps: int = 10_000
    """Length of a stream whose peak memory is measured in its own process, after a tenth and at the end; 0: none."""
    peers: str = ""
    """Python interpreters in which to look for peers (braintrace, torch, sparxml), separated by commas."""
    peer_scripts: str = "benchmarks/peers"
    """Folder of the peers' scripts: it is in the repository, not in the installed package."""
    quick: bool = False
    """A tiny network and three rounds: seconds, and no figure worth quoting."""

    def cases(self) -> list[Case]:
        """Every size to measure.

        Raises:
            InvalidSetting: for a size, a model or a path that is none.
        """
        models, fields = _listed(self.model), (self.neurons, self.steps, self.batch)
        require(bool(models), "model: name at least one, as in --model alif,lstm")
        if any(fields) or self.quick:
            sizes = list(itertools.product(*map(self._numbers, ("neurons", "steps", "batch"))))
            return [Case(model, *size) for model in models for size in sizes]
        lengths = [(SIZES[0][0], steps, SIZES[0][2]) for steps in LENGTHS]
        cases = [Case(model, *size) for size in (*SIZES, *lengths) for model in models]
        return [*cases, RIVAL] if self.peers and RIVAL.model in models else cases

    def chosen_paths(self) -> list[str]:
        """The paths to measure, in the order in which they are shown."""
        names = _listed(self.paths)
        require(bool(names), f"paths: name at least one of {', '.join(PATHS)}")
        for name in names:
            require_choice("paths", name, PATHS)
        return [name for name in PATHS if name in names]

    def interpreters(self) -> list[str]:
        return _listed(self.peers)

    def check(self) -> None:
        """Fail before anything is run.

        Raises:
            InvalidSetting: for a setting out of range.
        """
        require(self.rounds >= 1, f"rounds = {self.rounds}: must be at least 1")
        wanted = self.memory_steps == 0 or self.memory_steps >= 10
        require(wanted, f"memory-steps = {self.memory_steps}: must be 0 (none) or at least 10")
        there = not self.peers or (Path(self.peer_scripts) / "torch_peer.py").is_file()
        require(
            there, f"peer-scripts = {self.peer_scripts}: no scripts there (the repository has them in benchmarks/peers)"
        )
        for make in (self.cases, self.chosen_paths):
            make()

    def _numbers(self, name: str) -> list[int]:
        """The numbers of one flag; where it is not given, that of the smaller size."""
        listed = _listed(getattr(self, name))
        position = ("neurons", "steps", "batch").index(name)
        if not listed:
            return [(QUICK if self.quick else SIZES[0])[position]]
        try:
            return [int(value) for value in listed]
        except ValueError:
            raise InvalidSetting(f"{name} = {getattr(self, name)!r}: must be numbers separated by commas") from None


def _listed(values: str) -> list[str]:
    return list(dict.fromkeys(value.strip() for value in values.split(",") if value.strip()))
