"""All rules on the same data and initial weights, seeds side by side."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from eprop.errors import require
from eprop.rules import make_rule
from eprop.workshop.settings import Experiment, RuleSettings
from eprop.workshop.training import RunFolder, experiment_from_json, experiment_to_json, train, write_json


def start_comparison(
    task: str,
    experiment: Experiment[Any],
    rules: Sequence[str],
    seeds: int,
    out: Path,
    tensorboard: bool = False,
    overwrite: bool = False,
    go_on: bool = False,
) -> RunFolder:
    """A new comparison's folder: settings checked and written down, nothing run yet.

    Raises:
        InvalidSetting: for an unknown or repeated rule, or a folder that holds a run.
    """
    require(len(rules) >= 1, "rules: name at least one, as in --rules bptt,eprop1:random")
    require(seeds >= 1, f"seeds = {seeds}: must be at least 1")
    labels = [make_rule(rule).label for rule in rules]
    require(len(set(labels)) == len(labels), f"rules = {','.join(rules)}: the same rule stands there twice")
    config = {
        "command": "compare",
        "task": task,
        "experiment": experiment_to_json(experiment),
        "rules": list(rules),
        "seeds": [experiment.run.seed + i for i in range(seeds)],
        "tensorboard": tensorboard,
    }
    return RunFolder.create(out, config, overwrite, go_on)


def run_comparison(folder: RunFolder, done: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
    """Run, or go on with, a comparison: one run folder a rule, then `comparison.json`.

    Args:
        folder: from `start_comparison`, or an interrupted one.
        done: called with each rule's row as it ends.

    Returns:
        The comparison: task, metric, and rows `rule, seeds, mean, std, values`, in the order of the rules.
    """
    config = folder.config
    experiment = experiment_from_json(config["task"], config["experiment"], folder.path)
    rows, summary = [], {}
    for name in config["rules"]:
        rule = make_rule(name)
        chosen = dataclasses.replace(experiment, rule=RuleSettings(rule=name))
        run = rule_folder(folder, name)
        summary = train(chosen, run, task=config["task"], seeds=config["seeds"], tensorboard=config["tensorboard"])
        values = np.asarray(summary["value"], float)
        row = {
            "rule": rule.label,
            "seeds": len(values),
            "mean": float(values.mean()),
            "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
            "values": [float(v) for v in values],
            "iterations": summary["iterations"],
            "wall_s": summary["wall_s"],
        }
        rows.append(row)
        if done is not None:
            done(row)
    comparison = {
        "task": config["task"],
        "neuron": experiment.network.neuron,
        "metric": summary["metric"],
        "lower_is_better": experiment.task.lower_is_better,
        "seeds": config["seeds"],
        "rows": rows,
        "versions": summary["versions"],
    }
    write_json(folder.path / "comparison.json", comparison)
    return comparison


def rule_folder(folder: RunFolder, name: str) -> RunFolder:
    """The run folder of one rule, made at the first call."""
    path = folder.path / make_rule(name).label.replace(":", "-")
    config = folder.config
    settings = config["experiment"] | {"rule": dataclasses.asdict(RuleSettings(rule=name))}
    made = {"command": "train", "task": config["task"], "experiment": settings, "seeds": config["seeds"]}
    return RunFolder.open_or_create(path, lambda: made)


def begun_rule(folder: RunFolder, name: str) -> RunFolder | None:
    """The run folder of one rule; None where it was not begun yet."""
    path = folder.path / make_rule(name).label.replace(":", "-")
    return RunFolder.open(path) if (path / "config.json").is_file() else None


def better(lower: bool) -> str:
    return f"{'lower' if lower else 'higher'} is better"


def comparison_table(comparison: dict[str, Any]) -> Table:
    """The table a comparison ends with."""
    metric = comparison["metric"]
    seeds = len(comparison["seeds"])
    order = better(comparison.get("lower_is_better", True))
    table = Table(title=f"{comparison['task']}, {comparison['neuron']}: {metric} ({order}), {seeds} seed(s)")
    for column in ("rule", "mean", "std", "values", "iterations", "seconds"):
        table.add_column(column, justify="left" if column == "rule" else "right")
    for row in comparison["rows"]:
        values = " ".join(f"{v:.4f}" for v in row["values"])
        iterations = f"{np.mean(row['iterations']):.0f}"
        table.add_row(
            row["rule"], f"{row['mean']:.4f}", f"{row['std']:.4f}", values, iterations, f"{row['wall_s']:.1f}"
        )
    return table
