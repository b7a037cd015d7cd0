"""The program `eprop`."""

import contextlib
import dataclasses
import inspect
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax

from eprop.errors import InvalidSetting, require
from eprop.settings import Experiment, NetworkSettings, OptimiserSettings, RuleSettings, RunSettings
from eprop.tasks import TASKS

USAGE = """\
eprop: train recurrent networks online with eligibility propagation, beside BPTT

usage: eprop COMMAND ...

  eprop tasks                    what can be trained
  eprop train TASK --out DIR     train one network
  eprop compare TASK --out DIR   several rules on the same data and initial weights: table and picture
  eprop gradients TASK --out DIR how well each rule's gradient is aligned with BPTT's
  eprop resume DIR               go on with an interrupted run
  eprop plot DIR                 draw a run's pictures again
  eprop COMMAND --help           all options of a command, with their defaults

examples:
  eprop train pattern-generation --rule eprop1:random --seed 0 --out runs/first
  eprop train evidence-accumulation --neuron lsnn --batch 32 --iterations 500 --out runs/evidence
  eprop train arrays --data digits.npz --neuron lstm --out runs/digits
  eprop compare pattern-generation --preset tutorial --rules bptt,eprop1:random --seeds 5 --out runs/pattern
"""

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


@dataclasses.dataclass(frozen=True)
class CompareOptions(Generic[T]):
    out: Path
    """Folder for the comparison: comparison.json, comparison.png, and a run folder for each rule."""
    run: RunSettings
    network: NetworkSettings
    optimiser: OptimiserSettings
    task: T
    rules: str = "bptt,eprop1:symmetric,eprop1:random,eprop1:adaptive"
    """Rules to compare, separated by commas; with options, as eprop1:random or truncated_bptt:20."""
    seeds: int = 3
    """Number of seeds, counted up from --seed; they run side by side."""
    tensorboard: bool = False
    """Write scalars for TensorBoard too."""


@dataclasses.dataclass(frozen=True)
class GradientsOptions(Generic[T]):
    out: Path
    """Folder for the measurement: metrics.jsonl with cosines and norm ratios, and a picture."""
    rule: RuleSettings
    run: RunSettings
    network: NetworkSettings
    optimiser: OptimiserSettings
    task: T
    rules: str = "eprop1:symmetric,eprop1:random,eprop1:adaptive,eprop1:uniform"
    """Rules whose gradients are held against BPTT's, at the weights that --rule has trained so far."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program; bad input ends with one line and status 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _dispatch(arguments)
    except InvalidSetting as error:
        print(f"eprop: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("eprop: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()


def _dispatch(arguments: list[str]) -> None:
    commands: dict[str, Callable[[list[str]], None]] = {
        "tasks": _tasks,
        "train": _train,
        "compare": _compare,
        "gradients": _gradients,
        "resume": _resume,
        "plot": _plot,
    }
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return
    if arguments[0] == "--version":
        import eprop

        print(f"eprop {eprop.__version__}")
        return
    command, *rest = arguments
    require(command in commands, f"unknown command {command!r} (known: {', '.join(commands)}); see 'eprop --help'")
    commands[command](rest)


def _tasks(arguments: list[str]) -> None:
    """eprop tasks: what can be trained"""
    if _wants_help(arguments, "usage: eprop tasks\n\nWhat can be trained, with the presets of each.\n"):
        return
    require(not arguments, f"tasks: takes no argument, got {' '.join(arguments)!r}")
    width = max(map(len, TASKS))
    for name, presets in TASKS.items():
        task = next(iter(presets.values())).task
        summary = (type(task).__doc__ or "").strip().splitlines()[0]
        print(f"{name:{width}}  {summary}  [presets: {', '.join(presets)}]")


def _train(arguments: list[str]) -> None:
    from eprop.training import RunFolder, experiment_to_json

    chosen = _parse("train", arguments, TrainOptions)
    if chosen is None:
        return
    task, options, experiment = chosen
    _check(experiment)
    config = {"command": "train", "task": task, "experiment": experiment_to_json(experiment)}
    _execute(RunFolder.create(options.out, config | {"tensorboard": options.tensorboard}))


def _compare(arguments: list[str]) -> None:
    from eprop.experiments import start_comparison

    chosen = _parse("compare", arguments, CompareOptions)
    if chosen is None:
        return
    task, options, experiment = chosen
    _check(experiment)
    rules = [rule.strip() for rule in options.rules.split(",") if rule.strip()]
    _execute(start_comparison(task, experiment, rules, options.seeds, options.out, options.tensorboard))


def _gradients(arguments: list[str]) -> None:
    from eprop.rules import make_rule
    from eprop.training import RunFolder, experiment_to_json

    chosen = _parse("gradients", arguments, GradientsOptions)
    if chosen is None:
        return
    task, options, experiment = chosen
    _check(experiment)
    rules = [rule.strip() for rule in options.rules.split(",") if rule.strip()]
    require(len(rules) >= 1, "rules: name at least one, as in --rules eprop1:symmetric,eprop1:random")
    for rule in rules:
        make_rule(rule)
    config = {"command": "gradients", "task": task, "experiment": experiment_to_json(experiment), "rules": rules}
    _execute(RunFolder.create(options.out, config))


def _resume(arguments: list[str]) -> None:
    from eprop.training import RunFolder

    usage = "usage: eprop resume DIR\n\nGo on with an interrupted train, compare or gradients, to the same numbers.\n"
    if not _wants_help(arguments, usage):
        _execute(RunFolder.open(_folder("resume", arguments)))


def _plot(arguments: list[str]) -> None:
    from eprop.training import RunFolder

    usage = "usage: eprop plot DIR\n\nDraw the pictures of a run or a comparison again, from what is in its folder.\n"
    if not _wants_help(arguments, usage):
        folder = RunFolder.open(_folder("plot", arguments))
        _set_precision(folder.config["experiment"]["network"]["precision"])
        _draw(folder)


def _execute(folder) -> None:
    """Run, or go on with, what a folder's configuration says; then table and pictures."""
    from eprop.experiments import comparison_table, gradients_table, measure_gradients, run_comparison
    from eprop.training import Interrupted, experiment_from_json, train

    console = _console()
    config = folder.config
    command = config["command"]
    _set_precision(config["experiment"]["network"]["precision"])
    try:
        if command == "compare":
            comparison = run_comparison(folder, lambda row: console.print(f"{row['rule']}: {row['mean']:.4f}"))
            _draw(folder)
            console.print(comparison_table(comparison))
        elif command == "gradients":
            measure_gradients(folder)
            _draw(folder)
            console.print(gradients_table(folder))
        else:
            experiment = experiment_from_json(config["task"], config["experiment"], folder.path)
            summary = train(
                experiment,
                folder,
                task=config["task"],
                seeds=config.get("seeds"),
                tensorboard=config.get("tensorboard", False),
            )
            _draw(folder)
            console.print(f"{summary['metric']}: {summary['value']} after {summary['iterations']} iterations")
    except Interrupted:
        print(f"eprop: stopped; nothing is lost: go on with 'eprop resume {folder.path}'", file=sys.stderr)
        sys.exit(130)


def _draw(folder) -> None:
    from eprop.figures import draw

    for path in draw(folder):
        print(path)


def _check(experiment) -> None:
    """Fail before a folder is made, on what only the data can tell."""
    task = experiment.task
    _ = task.n_in, task.n_out
    _set_precision(experiment.network.precision)


def _set_precision(precision: str) -> None:
    if precision == "float64":
        jax.config.update("jax_enable_x64", True)


def _console():
    from rich.console import Console

    return Console()


def _folder(command: str, arguments: list[str]) -> Path:
    require(len(arguments) == 1, f"{command}: name one run folder, as in 'eprop {command} runs/first'")
    return Path(arguments[0])


def _wants_help(arguments: list[str], usage: str) -> bool:
    if any(a in ("-h", "--help") for a in arguments):
        print(usage, end="")
        return True
    return False


def _parse(command: str, arguments: list[str], options: Any) -> tuple[str, Any, Experiment] | None:
    """TASK, --preset and all settings, whose flags are made from the dataclasses."""
    import tyro

    if not arguments or arguments[0].startswith("-"):
        if not arguments or arguments[0] in ("-h", "--help"):
            print(f"usage: eprop {command} TASK [--preset NAME] [options]\n\ntasks:")
            _tasks([])
            print(
                f"\n'eprop {command} TASK --help' lists all options, with their defaults.\n\n{EXAMPLES[command]}",
                end="",
            )
            return None
    task, *rest = arguments
    require(task in TASKS, f"unknown task {task!r} (known: {', '.join(TASKS)})")
    presets = TASKS[task]
    preset, rest = _take_preset(task, rest, presets)
    default: Experiment = presets[preset]
    settings = {name: getattr(default, name) for name in ("task", "network", "optimiser", "run", "rule")}
    shown = {name: value for name, value in settings.items() if name in options.__dataclass_fields__}
    description = inspect.cleandoc(type(default.task).__doc__ or "")
    description += f"\n\nPreset: {preset} (--preset NAME, one of {', '.join(presets)}).\n\n{EXAMPLES[command]}"
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            chosen = tyro.cli(
                options[type(default.task)],
                prog=f"eprop {command} {task}",
                description=description,
                args=rest,
                default=options(out=tyro.MISSING, **shown),
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if stop.code:
            raise InvalidSetting(_one_line(complaint.getvalue())) from None
        raise
    return task, chosen, dataclasses.replace(default, **{name: getattr(chosen, name) for name in shown})


def _one_line(box: str) -> str:
    """What tyro says in a box of several lines, as one."""
    lines = [line.strip("\u2502 ") for line in box.splitlines() if line.startswith("\u2502")]
    rule = next((i for i, line in enumerate(lines) if line and set(line) == {"\u2500"}), len(lines))
    said = " ".join(lines[:rule]) or box.strip()
    for prefix in ("task", "network", "optimiser", "run", "rule"):
        said = said.removeprefix(f"Error parsing {prefix}: ")
    return said


def _take_preset(task: str, arguments: list[str], presets: dict[str, Any]) -> tuple[str, list[str]]:
    """The preset's name, and the arguments without it."""
    rest, preset = [], next(iter(presets))
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if name != "--preset":
            rest.append(argument)
            continue
        preset = value if equals else next(remaining, "")
        require(preset in presets, f"preset = {preset!r}: {task} has {', '.join(presets)}")
    return preset, rest
