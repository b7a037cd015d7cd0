"""e-prop 3 and what it is made of, at one window: `eprop reproduce copy-repeat` and `eprop reproduce words`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from eprop.errors import require, require_positive
from eprop.rules import make_rule
from eprop.workshop.experiments._reproduction import REPRODUCTIONS, Reproduction
from eprop.workshop.settings import Experiment, RuleSettings
from eprop.workshop.tasks import TASKS
from eprop.workshop.training import RunFolder, experiment_to_json, train

RULES = ("truncated_bptt", "synthetic_gradients", "eligibility_only", "eprop3")


@dataclasses.dataclass(frozen=True)
class WindowsSettings:
    """The settings that both figures share. Every rule gets the same network, data, windows and number of updates."""

    rules: tuple[str, ...] = RULES
    """Rules to compare."""
    window: int = 4
    """Steps a window."""
    seeds: int = 3
    """Seeds, from 0; they run side by side."""
    iterations: int = 40_000
    """Windows, with an update of the weights each."""
    batch: int = 32
    """Samples a window."""
    neurons: int = 64
    """LSTM units."""
    learning_rates: tuple[float, ...] = (0.003, 0.003, 0.01, 0.003)
    """Learning rate (Adam) of each rule, in the rules' order; a single one holds for all."""
    synthesiser_learning_rate: float = 0.0003
    """Learning rate (Adam) of the synthetic-gradient module."""
    synthesiser_discount: float = 1.0
    """Synthetic gradients are multiplied by this where they enter a window."""
    evaluate_every: int = 400
    """Windows between two points of the picture."""

    def __post_init__(self) -> None:
        for rule in self.labels:
            make_rule(rule)
        require(len(self.rules) >= 1, "rules: name at least one")
        require(
            len(self.learning_rates) in (1, len(self.rules)),
            f"learning_rates = {self.learning_rates}: give one, or one for each of {len(self.rules)} rules",
        )
        require_positive(seeds=self.seeds, iterations=self.iterations, batch=self.batch, neurons=self.neurons,
                         evaluate_every=self.evaluate_every)  # fmt: skip

    @property
    def labels(self) -> tuple[str, ...]:
        """The rules with their window."""
        return tuple(f"{rule}:{self.window}" for rule in self.rules)

    def experiments(self, default: Experiment[Any]) -> dict[str, Experiment[Any]]:
        """One experiment a rule, from a task's preset."""
        rates = self.learning_rates * (len(self.rules) if len(self.learning_rates) == 1 else 1)
        return {
            rule: dataclasses.replace(
                default,
                network=dataclasses.replace(default.network, neurons=self.neurons),
                optimiser=dataclasses.replace(
                    default.optimiser,
                    learning_rate=rate,
                    synthesiser_learning_rate=self.synthesiser_learning_rate,
                    synthesiser_discount=self.synthesiser_discount,
                ),
                run=dataclasses.replace(
                    default.run, iterations=self.iterations, batch=self.batch, evaluate_every=self.evaluate_every
                ),
                rule=RuleSettings(rule=rule),
            )
            for rule, rate in zip(self.labels, rates, strict=True)
        }


@dataclasses.dataclass(frozen=True)
class CopyRepeatFigure(WindowsSettings):
    """Longest copy-repeat sequence solved against windows."""


@dataclasses.dataclass(frozen=True)
class WordsFigure(WindowsSettings):
    """Perplexity against windows."""

    text: Path | None = None
    """Text file, or a folder with Penn Treebank's three files; None: Python's reference manual."""
    vocabulary: int = 2000
    """Words at most."""
    embedding: int = 64
    """Width of the embedding."""

    def experiments(self, default: Experiment[Any]) -> dict[str, Experiment[Any]]:
        task = dataclasses.replace(default.task, text=self.text, vocabulary=self.vocabulary)
        network = dataclasses.replace(default.network, embedding=self.embedding)
        return super().experiments(dataclasses.replace(default, task=task, network=network))


def run_rules(
    folder: RunFolder, task: str, experiments: dict[str, Experiment[Any]], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Run, or go on with, one run folder a rule; their summaries, in the rules' order."""
    summaries = []
    for rule, experiment in experiments.items():
        config = {"command": "train", "task": task, "experiment": experiment_to_json(experiment), "seeds": list(seeds)}
        run = RunFolder.open_or_create(rule_path(folder, rule), lambda config=config: config)
        summaries.append(train(experiment, run, task=task, seeds=seeds))
    return summaries


def rule_path(folder: RunFolder, rule: str) -> Path:
    return folder.path / rule.replace(":", "-")


def windows_until(lines: list[dict[str, Any]], length: int) -> list[int | None]:
    """For each seed, the first evaluation at which a sequence of that length was solved."""
    first: list[int | None] = [None] * len(lines[0]["metric"])
    for line in reversed(lines):
        first = [line["iteration"] if m >= length else f for m, f in zip(line["metric"], first, strict=True)]
    return first


def _run_copy_repeat(folder: RunFolder, settings: CopyRepeatFigure) -> Table:
    experiments = settings.experiments(TASKS["copy-repeat"]["published"])
    summaries = run_rules(folder, "copy-repeat", experiments, range(settings.seeds))
    metrics = [RunFolder.open(rule_path(folder, rule)).metrics() for rule in experiments]
    reached = max(max(summary["value"]) for summary in summaries)
    marks = [length for length in (9, 12, 15, 19, 23, 28, 33, 39, 45, 52, 59, 67, 75, 84) if length <= reached][-3:]
    table = Table(title=f"copy-repeat, windows of {settings.window}: longest sequence solved, steps (higher is better)")
    for column in ("rule", "mean", "seeds", *(f"windows to {m}" for m in marks), "ms a window"):
        table.add_column(column, justify="left" if column == "rule" else "right", no_wrap=column == "rule")
    for rule, summary, lines in zip(experiments, summaries, metrics, strict=True):
        until = [" ".join("-" if w is None else str(w) for w in windows_until(lines, m)) for m in marks]
        values = " ".join(f"{v:.0f}" for v in summary["value"])
        table.add_row(rule, f"{np.mean(summary['value']):.1f}", values, *until, _speed(summary, settings.seeds))
    return table


def _run_words(folder: RunFolder, settings: WordsFigure) -> Table:
    experiments = settings.experiments(TASKS["words"]["default"])
    summaries = run_rules(folder, "words", experiments, range(settings.seeds))
    title = f"words, windows of {settings.window}: perplexity on the test part (lower is better)"
    table = Table(title=title)
    for column in ("rule", "mean", "std", "seeds", "ms a window"):
        table.add_column(column, justify="left" if column == "rule" else "right", no_wrap=column == "rule")
    for rule, summary in zip(experiments, summaries, strict=True):
        values = np.asarray(summary["value"])
        std = values.std(ddof=1) if len(values) > 1 else 0.0
        shown = " ".join(f"{v:.2f}" for v in values)
        table.add_row(rule, f"{values.mean():.2f}", f"{std:.2f}", shown, _speed(summary, settings.seeds))
    return table


def _speed(summary: dict[str, Any], seeds: int) -> str:
    """Wall time a window and seed, evaluations included."""
    return f"{1000 * summary['wall_s'] / np.max(summary['iterations']) / seeds:.1f}"


REPRODUCTIONS["copy-repeat"] = Reproduction(
    summary="e-prop 3 solves longer sequences than its parts (arXiv 1901.09049, task 3.1)",
    presets={
        "quick": CopyRepeatFigure(synthesiser_discount=0.9),
        "paper": CopyRepeatFigure(
            iterations=200_000, batch=100, neurons=100, synthesiser_discount=0.9, evaluate_every=1000
        ),
    },
    run=_run_copy_repeat,
)
REPRODUCTIONS["words"] = Reproduction(
    summary="word prediction with e-prop 3 and its parts (arXiv 1901.09049, task 3.2, on any text)",
    presets={
        "quick": WordsFigure(
            iterations=4000,
            batch=20,
            neurons=64,
            learning_rates=(0.003,),
            synthesiser_discount=0.1,
            evaluate_every=500,
        ),
        "paper": WordsFigure(
            iterations=100_000,
            batch=20,
            neurons=200,
            vocabulary=10_000,
            embedding=200,
            learning_rates=(0.001,),
            synthesiser_discount=0.1,
            evaluate_every=5000,
        ),
    },
    run=_run_words,
)
