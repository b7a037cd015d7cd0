"""Evidence accumulation learnt in two chips' integers, and what that costs: `eprop reproduce chip-evidence`."""

import dataclasses
import itertools
import time
from typing import Any, Literal, NamedTuple

import numpy as np
from rich.console import Group
from rich.table import Table

from eprop.chips import Cost, loihi_training_cost, reckon_cost
from eprop.chips.loihi import LoihiTraining, learn_on_loihi
from eprop.chips.reckon import ReckOn, learn
from eprop.errors import require, require_choice, require_positive
from eprop.files import write_json
from eprop.workshop.experiments._reproduction import REPRODUCTIONS, Reproduction
from eprop.workshop.tasks import EvidenceAccumulation
from eprop.workshop.training import Interrupted, RunFolder, stop_signals, versions

Size = Literal["small", "published"]
CHIPS = ("reckon", "loihi-lif", "loihi-alif")
SMALL = EvidenceAccumulation(
    cues=3, slot=30, cue_duration=20, delay=50, recall_duration=20, group=5, cue_rate=100.0
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ChipEvidenceFigure:
    """Evidence accumulation in integers, one sample at a time."""

    chips: tuple[str, ...] = CHIPS
    """Chips, and the neurons on them: reckon, loihi-lif, loihi-alif."""
    size: Size = "small"
    """The task as published, or a small one of 140 steps and 20 inputs."""
    seeds: int = 3
    """Seeds, from 0."""
    samples: int = 800
    """Training samples, one after the other."""
    test: int = 200
    """Test samples."""
    neurons: int = 32
    """Neurons, an even number."""
    reckon_rate: int = 14
    """ReckOn's learning rate for inputs and neurons, 2^(rate - 32) (8 in the chip's bench)."""
    loihi_exponent: int = -7
    """Of the product of Loihi's rule: its learning rate, 2^exponent / 8."""

    def __post_init__(self) -> None:
        require_positive(seeds=self.seeds, samples=self.samples, test=self.test, neurons=self.neurons)
        require(len(set(self.chips)) == len(self.chips) >= 1, f"chips = {','.join(self.chips)}: name each once")
        for chip in self.chips:
            require_choice("chips", chip, CHIPS)
        for chip in self.chips:  # what does not fit is refused before a folder is made
            _ = self.reckon if chip == "reckon" else self.loihi("lif").chip(self.task.n_in)

    @property
    def task(self) -> EvidenceAccumulation:
        return SMALL if self.size == "small" else EvidenceAccumulation()

    @property
    def reckon(self) -> ReckOn:
        rate = self.reckon_rate
        return ReckOn(n_in=self.task.n_in, n_rec=self.neurons, n_out=2, lr_p_winp=rate, lr_p_wrec=rate)

    def loihi(self, kind: Any) -> LoihiTraining:
        return LoihiTraining(kind=kind, n=self.neurons, exponent=self.loihi_exponent, readout_rate=0.005)


class _Done(NamedTuple):
    """What a run on a chip leaves: decision error on test samples, costs, and what else there is to say of learning."""

    value: float
    cost: Cost
    learning: dict[str, float]


def run_chip_evidence(folder: RunFolder, settings: ChipEvidenceFigure) -> Group:
    """All chips and seeds, or those that an earlier call left: a folder with a summary each; then tables."""
    rows = []
    with stop_signals() as stop:
        for chip, seed in itertools.product(settings.chips, range(settings.seeds)):
            rows.append(_one(folder, settings, chip, seed))
            if stop.requested:
                raise Interrupted(stop.status)
    write_json(folder.path / "results.json", {"settings": folder.config["settings"], "rows": rows})
    return Group(*evidence_tables(rows, settings))


def _one(folder: RunFolder, settings: ChipEvidenceFigure, chip: str, seed: int) -> dict[str, Any]:
    """The summary of one chip and seed. A kill loses what it had computed; the same seed computes the same bits."""
    config = {"command": "part", "settings": {"chip": chip, "seed": seed}}
    run = RunFolder.open_or_create(folder.path / f"{chip}-{seed}", lambda: config)
    if run.summary is None:
        began = time.monotonic()
        done = _on_reckon(settings, seed) if chip == "reckon" else _on_loihi(settings, chip, seed)
        summary = {"task": "evidence-accumulation", "chip": chip, "seed": seed, "iterations": settings.samples}
        summary |= {"metric": settings.task.metric_name, "value": done.value, "cost": done.cost.summary()}
        summary |= {"learning": done.learning, "wall_s": round(time.monotonic() - began, 3), "versions": versions()}
        run.write_summary(summary)
    assert run.summary is not None
    return run.summary


def _on_reckon(settings: ChipEvidenceFigure, seed: int) -> _Done:
    chip, task, n = settings.reckon, settings.task, settings.samples
    learnt = learn(chip, task, samples=n, test=settings.test, test_every=n, seed=seed)
    cost = reckon_cost(chip, learnt.state, learnt.events, ticks=n * task.duration)
    last = np.asarray(learnt.correct)[-max(n // 4, 1) :]
    return _Done(1 - learnt.tested[-1][1], cost, {"error in the last quarter of training": 1 - float(last.mean())})


def _on_loihi(settings: ChipEvidenceFigure, chip: str, seed: int) -> _Done:
    training = settings.loihi(chip.removeprefix("loihi-"))
    learnt = learn_on_loihi(settings.task, training, samples=settings.samples, test=settings.test, seed=seed)
    found = learnt.samples
    last = np.asarray(found.correct)[-max(settings.samples // 4, 1) :]
    learning = {
        "error in the last quarter of training": 1 - float(last.mean()),
        "cosine of integer and float update, a sample": float(np.nanmean(found.cosine)),
        "size of the integer update along the float one": float(np.nanmean(found.size)),
        "updates that round to nothing": float(np.nanmean(found.nothing)),
    }
    return _Done(1 - learnt.tested, loihi_training_cost(training, learnt), learning)


def evidence_tables(rows: list[dict[str, Any]], settings: ChipEvidenceFigure) -> list[Table]:
    """Decision errors, how learning went, and what it costs: means over seeds."""
    chosen = {chip: [row for row in rows if row["chip"] == chip] for chip in settings.chips}
    errors = Table(title=f"evidence accumulation in integers: decision error after {settings.samples} samples")
    for column in ("chip", "mean", *(f"seed {seed}" for seed in range(settings.seeds)), "seconds a seed"):
        errors.add_column(column, justify="left" if column == "chip" else "right")
    for chip, of_chip in chosen.items():
        values = [row["value"] for row in of_chip]
        seconds = f"{np.mean([row['wall_s'] for row in of_chip]):.0f}"
        errors.add_row(chip, f"{np.mean(values):.3f}", *(f"{value:.3f}" for value in values), seconds)
    return [
        errors,
        _means("learning", "learning", chosen),
        _means("cost of a core (NeuroBench's names)", "cost", chosen),
    ]


def _means(title: str, part: str, chosen: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table(title=f"{title}, mean over seeds")
    table.add_column("")
    for chip in chosen:
        table.add_column(chip, justify="right")
    names = dict.fromkeys(name for rows in chosen.values() for row in rows for name in row[part])
    for name in names:
        held = [[row[part][name] for row in rows if name in row[part]] for rows in chosen.values()]
        table.add_row(name.replace("_", " "), *(f"{np.mean(values):.6g}" if values else "" for values in held))
    return table


REPRODUCTIONS["chip-evidence"] = Reproduction(
    summary="evidence accumulation learnt in the integers of ReckOn and Loihi, and what it costs there",
    presets={
        "quick": ChipEvidenceFigure(),
        "paper": ChipEvidenceFigure(size="published", samples=500, test=500, neurons=100, reckon_rate=8),
    },
    run=run_chip_evidence,
)
