"""`eprop tasks`, `train`, `compare` and `gradients`."""

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from eprop.errors import require
from eprop.workshop.cli._execute import run_in, seconds_of, set_precision
from eprop.workshop.cli._parse import choose, missing, parse, split_commas, take_option, wants_help
from eprop.workshop.settings import Experiment, NetworkSettings, OptimiserSettings, RuleSettings, RunSettings
from eprop.workshop.tasks import TASKS

if TYPE_CHECKING:
    from eprop.workshop.training import RunFolder

EXAMPLES = {
    "train": """\
examples:
  eprop train store-recall --out runs/store                       the published settings, e-prop 1, symmetric feedback
  eprop train store-recall --neuron lif --out runs/control        without adaptation
  eprop train pattern-generation --preset tutorial --rule bptt --out runs/bptt
  eprop train arrays --data FILE.npz --neuron lstm --out runs/mine   your own arrays (see 'eprop train arrays --help')
""",
    "compare": """\
examples:
  eprop compare pattern-generation --preset tutorial --seeds 5 --out runs/pattern
  eprop compare evidence-accumulation --rules eprop1:random,eprop1:uniform --seeds 3 --out runs/evidence
""",
    "gradients": """\
examples:
  eprop gradients pattern-generation --preset tutorial --rules eprop1:symmetric,eprop1:random --out runs/gradients
""",
}

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class TrainOptions(Generic[T]):
    out: Path
    """Folder for the run: config.json, metrics.jsonl, checkpoints/, summary.json, figures/."""
    rule: RuleSettings
    run: RunSettings
    network: NetworkSettings
    optimiser: OptimiserSettings
    task: T
    tensorboard: bool = False
    """Write scalars for TensorBoard too."""
    overwrite: bool = False
    """Replace the run that the folder holds: what a run wrote is removed, by name, if there is nothing else."""
    continue_or_start: bool = False
    """Start, go on with the run in the folder (the same settings), or do nothing if it has ended: for job queues."""
    stop_after: str = ""
    """End by itself after this time (55m, 11.5h), to be continued: with a checkpoint, and status 75."""


@dataclasses.dataclass(frozen=True)
class CompareOptions(Generic[T]):
    out: Path
    """Folder for the comparison: comparison.json, comparison.png, and a run folder for each rule."""
    run: RunSettings
    network: NetworkSettings
    optimiser: OptimiserSettings
    task: T
    rules: tuple[str, ...] = ("bptt", "eprop1:symmetric", "eprop1:random", "eprop1:adaptive")
    """Rules to compare, separated by commas or spaces; with options, as eprop1:random or truncated_bptt:20."""
    seeds: int = 3
    """Number of seeds, counted up from --seed; they run side by side."""
    tensorboard: bool = False
    """Write scalars for TensorBoard too."""
    overwrite: bool = False
    """Replace the run that the folder holds: what a run wrote is removed, by name, if there is nothing else."""
    continue_or_start: bool = False
    """Start, go on with the run in the folder (the same settings), or do nothing if it has ended: for job queues."""
    stop_after: str = ""
    """End by itself after this time (55m, 11.5h), to be continued: with a checkpoint, and status 75."""


@dataclasses.dataclass(frozen=True)
class GradientsOptions(Generic[T]):
    out: Path
    """Folder for the measurement: metrics.jsonl with cosines and norm ratios, and a picture."""
    rule: RuleSettings
    run: RunSettings
    network: NetworkSettings
    optimiser: OptimiserSettings
    task: T
    rules: tuple[str, ...] = ("eprop1:symmetric", "eprop1:random", "eprop1:adaptive", "eprop1:uniform")
    """Rules whose gradients are held against BPTT's, at the weights that --rule has trained so far."""
    overwrite: bool = False
    """Replace the run that the folder holds: what a run wrote is removed, by name, if there is nothing else."""
    continue_or_start: bool = False
    """Start, go on with the run in the folder (the same settings), or do nothing if it has ended: for job queues."""
    stop_after: str = ""
    """End by itself after this time (55m, 11.5h), to be continued: with a checkpoint, and status 75."""


def tasks(arguments: list[str]) -> None:
    if wants_help(arguments, "usage: eprop tasks\n\nWhat can be trained, with the presets of each.\n"):
        return
    require(not arguments, f"tasks: takes no argument, got {' '.join(arguments)!r}")
    width = max(map(len, TASKS))
    for name, presets in TASKS.items():
        task = next(iter(presets.values())).task
        summary = (type(task).__doc__ or "").strip().splitlines()[0]
        print(f"{name:{width}}  {summary}  [presets: {', '.join(presets)}]")


def train(arguments: list[str]) -> None:
    from eprop.workshop.training import RunFolder, experiment_to_json, make_trainer

    chosen = _parse("train", arguments, TrainOptions)
    if chosen is None:
        return
    task, options, experiment = chosen
    _check(experiment)
    make_trainer(experiment, [experiment.run.seed]).rehearse()
    config = {"command": "train", "task": task, "experiment": experiment_to_json(experiment)}
    _run(options, lambda *how: RunFolder.create(options.out, config | {"tensorboard": options.tensorboard}, *how))


def compare(arguments: list[str]) -> None:
    from eprop.workshop.experiments import start_comparison
    from eprop.workshop.training import make_trainer

    chosen = _parse("compare", arguments, CompareOptions)
    if chosen is None:
        return
    task, options, experiment = chosen
    _check(experiment)
    rules, seeds, out = options.rules, options.seeds, options.out
    for rule in rules:
        make_trainer(dataclasses.replace(experiment, rule=RuleSettings(rule=rule)), [experiment.run.seed]).rehearse()
    _run(options, lambda *how: start_comparison(task, experiment, rules, seeds, out, options.tensorboard, *how))


def gradients(arguments: list[str]) -> None:
    from eprop.rules import make_rule
    from eprop.workshop.training import RunFolder, SequenceTrainer, experiment_to_json, make_trainer

    chosen = _parse("gradients", arguments, GradientsOptions)
    if chosen is None:
        return
    task, options, experiment = chosen
    _check(experiment)
    rules = options.rules
    require(len(rules) >= 1, "rules: name at least one, as in --rules eprop1:symmetric,eprop1:random")
    make_trainer(experiment, [experiment.run.seed]).rehearse()
    for rule in rules:
        SequenceTrainer(experiment, [experiment.run.seed], make_rule(rule)).rehearse()
    config = {"command": "gradients", "task": task, "experiment": experiment_to_json(experiment), "rules": list(rules)}
    _run(options, lambda *how: RunFolder.create(options.out, config, *how))


def _run(options: Any, make: "Callable[[bool, bool], RunFolder]") -> None:
    """Make the folder with what `--overwrite` and `--continue-or-start` say, and run in it."""
    limit = seconds_of(options.stop_after)
    run_in(lambda: make(options.overwrite, options.continue_or_start), limit, options.continue_or_start)


def _check(experiment: Experiment[Any]) -> None:
    """Fail before a folder is made, on what only the data can tell."""
    task = experiment.task
    _ = task.n_in, task.n_out
    set_precision(experiment.network.precision)


def _parse(command: str, arguments: list[str], options: Any) -> tuple[str, Any, Experiment] | None:
    """TASK, --preset and all settings."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: eprop {command} TASK [--preset NAME] [options]\n\ntasks:")
        tasks([])
        print(f"\n'eprop {command} TASK --help' lists all options, with their defaults.\n\n{EXAMPLES[command]}", end="")
        return None
    task, *rest = arguments
    presets = TASKS[choose("task", task, TASKS)]
    preset, rest = take_option(rest, "preset", next(iter(presets)))
    require(preset in presets, f"preset = {preset!r}: {task} has {', '.join(presets)}")
    default: Experiment[Any] = presets[preset]
    settings = {name: getattr(default, name) for name in ("task", "network", "optimiser", "run", "rule")}
    shown = {name: value for name, value in settings.items() if name in options.__dataclass_fields__}
    description = inspect.cleandoc(type(default.task).__doc__ or "")
    description += f"\n\nPreset: {preset} (--preset NAME, one of {', '.join(presets)}).\n\n{EXAMPLES[command]}"
    chosen = parse(
        options[type(default.task)],
        split_commas(split_commas(split_commas(rest, "rules"), "freeze"), "maps"),
        prog=f"eprop {command} {task}",
        description=description,
        default=options(out=missing(), **shown),
    )
    return task, chosen, dataclasses.replace(default, **{name: getattr(chosen, name) for name in shown})
