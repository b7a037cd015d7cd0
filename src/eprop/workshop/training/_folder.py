"""The run folder: mark, configuration, metrics, checkpoints, summary. Everything in it is written atomically."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from eprop.errors import InvalidSetting, RunFailed, require
from eprop.files import DamagedFile, parse_json, read_json, write_json, write_text
from eprop.rules import WINDOWED
from eprop.workshop.settings import Experiment, NetworkSettings, OptimiserSettings, RuleSettings, RunSettings
from eprop.workshop.tasks import TASKS
from eprop.workshop.training._checkpoints import Checkpoints
from eprop.workshop.training._contents import (
    CONFIG,
    FORMAT,
    MARK,
    VERSION,
    check_clear,
    check_links,
    checked_config,
    clear,
    is_ours,
    occupied,
    read_mark,
)
from eprop.workshop.training._lock import writing
from eprop.workshop.training._made import differences, made_with

SESSIONS = 50
"""So many of the processes that went on with a run, and differed from the one before, are kept in its mark."""

_said: set[str] = set()


class RunFolder:
    """A folder with `eprop.json`, `config.json`, `metrics.jsonl`, `checkpoints/`, `summary.json` and `figures/`.

    `eprop.json` marks it as ours: format and version, the configuration as it was used, and what it was made with.
    """

    def __init__(self, path: Path) -> None:
        self.path: Path = Path(path)

    @classmethod
    def create(cls, path: Path, config: dict[str, Any], overwrite: bool = False, go_on: bool = False) -> "RunFolder":
        """A new folder with its configuration.

        Args:
            path: where.
            config: what `config.json` is to hold: the command, and its settings.
            overwrite: remove what an earlier run wrote there, by name, if there is nothing else.
            go_on: take the run that is there, if it has the same configuration.

        Raises:
            InvalidSetting: if there is a run in it already, or something else stands there; if another process
                writes there; if it cannot be written.
        """
        path = Path(path)
        require(not (overwrite and go_on), "overwrite: not together with continue_or_start; choose one of the two")
        _check_free(path, overwrite, go_on)
        try:
            path.mkdir(parents=True, exist_ok=True)
            with writing(path):
                _check_free(path, overwrite, go_on)
                folder = cls(path)
                if go_on and folder.holds_run:
                    folder._check_same(config)
                    return folder
                replaces = overwrite and is_ours(path)
                mark = {"format": FORMAT, "version": VERSION, "finished": False}
                write_json(path / MARK, mark | {"config": config, "made_with": [made_with()]})
                if replaces:
                    clear(path)
                write_json(path / CONFIG, config)
        except OSError as error:
            raise InvalidSetting(f"out = {path}: cannot be written ({error.strerror})") from None
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run.

        Raises:
            InvalidSetting: if there is none, or the folder is not one of ours.
        """
        path = Path(path)
        require((path / CONFIG).is_file(), f"{path}: no run there (it has no config.json)")
        check_links(path)
        folder = cls(path)
        _ = folder.config
        return folder

    @classmethod
    def open_or_create(cls, path: Path, config: Callable[[], dict[str, Any]]) -> "RunFolder":
        """The run at `path`, to go on with; or, where none was begun, a new one with that configuration."""
        return cls.open(path) if cls(path).holds_run else cls.create(path, config())

    @property
    def holds_run(self) -> bool:
        return (self.path / CONFIG).is_file()

    @property
    def config(self) -> dict[str, Any]:
        config = read_json(self.path / CONFIG, nan=False)
        return checked_config(self.path, config, exact=read_mark(self.path) is None)

    @property
    def summary(self) -> dict[str, Any] | None:
        """The summary, once the run has ended."""
        path = self.path / "summary.json"
        if not path.is_file():
            return None
        summary = read_json(path)
        right = isinstance(summary, dict) and isinstance(summary.get("metric", ""), str)
        require(right, f"{path}: is not a summary that a run writes")
        return summary

    @property
    def figures(self) -> Path:
        path = self.path / "figures"
        path.mkdir(exist_ok=True)
        return path

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`; a last line that a kill cut short does not count.

        Raises:
            InvalidSetting: for a line that no run writes.
        """
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        lines = path.read_text(errors="replace").split("\n")[:-1]
        return [_metrics_line(path, number, line) for number, line in enumerate(lines, 1)]

    def add_metrics(self, line: dict[str, Any]) -> None:
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def forget_after(self, iteration: int) -> None:
        """Drop metrics of iterations that the last checkpoint has not seen: they will be computed again."""
        kept = [line for line in self.metrics() if line["iteration"] <= iteration]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))

    def keep_facts(self, facts: dict[str, Any] | None) -> None:
        """Write down what the run's data are, or find them unchanged.

        Raises:
            InvalidSetting: if they have changed since the run began.
        """
        if facts is not None and self.facts is None:
            write_json(self.path / "data.json", facts)
        self.check_facts(facts)

    def check_facts(self, facts: dict[str, Any] | None) -> None:
        """Raise `InvalidSetting` if the data are others than when the run began; the message says what changed."""
        kept = self.facts
        if facts is None or kept is None:
            return
        now = json.loads(json.dumps(facts))
        changed = [_change(name, kept[name], now.get(name)) for name in kept if kept[name] != now.get(name)]
        what = "; ".join(changed[:4]) + (f"; and {len(changed) - 4} more" if len(changed) > 4 else "")
        require(not changed, f"{self.path}: its data have changed since the run began: {what} (see data.json there)")

    @property
    def facts(self) -> dict[str, Any] | None:
        """The facts about the run's data when it began; None if nothing was kept."""
        path = self.path / "data.json"
        if not path.is_file():
            return None
        facts = read_json(path)
        require(isinstance(facts, dict), f"{path}: does not say what the data were")
        return facts

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_json(self.path / "summary.json", summary)

    def checkpoints(self) -> Checkpoints:
        """The checkpoints; a step is an iteration."""
        return Checkpoints(self.path)

    @property
    def finished(self) -> bool:
        """Whether the run has ended, its pictures drawn."""
        mark = read_mark(self.path)
        return self.summary is not None if mark is None else bool(mark.get("finished"))

    def finish(self) -> None:
        """Write down that nothing is left to do."""
        mark = read_mark(self.path)
        if mark is not None and not mark.get("finished"):
            write_json(self.path / MARK, mark | {"finished": True})

    def begin(self) -> None:
        """Go on with the run: write down with what, and say on stderr what differs from when it began."""
        self.say_what_differs()
        config, made = self.config, made_with()
        mark = read_mark(self.path) or {"format": FORMAT, "version": VERSION, "finished": self.summary is not None}
        changed = _changes(mark.get("config"), config)
        if changed and (mark.get("finished") or self.summary is not None):
            self._say(
                f"config.json was edited since the run ended ({changed}); that changes nothing in it. 'eprop resume "
                f"{self.path} --iterations N' trains it further"
            )
            return
        if changed:
            self._say(f"config.json was edited since the run began ({changed}); the run goes on with that")
        sessions = [m for m in mark.get("made_with") or [] if isinstance(m, dict)]
        if not sessions or differences(sessions[-1], made):
            sessions = [*sessions[: SESSIONS - 1], made]
        new = mark | {"config": config, "made_with": sessions}
        if new != mark:
            write_json(self.path / MARK, new)

    def say_what_differs(self) -> None:
        """Say on stderr, in one line, what the run was made with that this process hasn't."""
        mark = read_mark(self.path)
        sessions = [m for m in (mark or {}).get("made_with") or [] if isinstance(m, dict)]
        different = differences(sessions[-1], made_with()) if sessions else []
        if different:
            self._say(f"was made with {', '.join(different)}")

    def extend(self, iterations: int) -> None:
        """Train on, up to so many iterations, though the run has ended.

        Raises:
            InvalidSetting: for a run that cannot be trained further, or not by that.
        """
        config = self.config
        kinds = ("train", "gradients", "compare")
        require(
            config["command"] in kinds,
            f"iterations = {iterations}: {self.path} is of 'eprop {config['command']}'; only train, compare and "
            "gradients can be trained further",
        )
        experiment = experiment_from_json(config["task"], config["experiment"], self.path)
        before, name = experiment.run.iterations, f"iterations = {iterations}"
        done = self._most_done()
        require(iterations >= max(done, 1), f"{name}: the run in {self.path} has {done} already")
        require(
            not experiment.optimiser.cosine_decay or iterations == before,
            f"{name}: not with cosine_decay, whose learning rate falls to zero by iteration {before}; start a run anew",
        )
        parts = [self]
        if config["command"] == "compare":
            parts += [RunFolder(p) for p in sorted(self.path.iterdir()) if (p / CONFIG).is_file() and is_ours(p)]
        for part in parts:
            summary = part.summary
            counts = [] if summary is None else summary.get("iterations")
            stopped = experiment.run.stop_below is not None and min(_listed(counts), default=before) < before
            require(not stopped, f"{name}: the run in {part.path} was ended by stop_below; it goes no further")
        try:
            with writing(self.path):
                for part in reversed(parts):
                    part._set_iterations(iterations)
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def _most_done(self) -> int:
        summary = self.summary or {}
        return max([self.checkpoints().latest_step() or 0, *_listed(summary.get("iterations", 0))])

    def _set_iterations(self, iterations: int) -> None:
        config = self.config
        config["experiment"]["run"]["iterations"] = iterations
        mark = read_mark(self.path) or {"format": FORMAT, "version": VERSION, "made_with": []}
        write_json(self.path / MARK, mark | {"config": config, "finished": False})
        write_json(self.path / CONFIG, config)
        if max(_listed((self.summary or {}).get("iterations", iterations))) < iterations:
            (self.path / "summary.json").unlink(missing_ok=True)

    def set_config(self, config: dict[str, Any]) -> None:
        """Go on with another configuration."""
        mark = read_mark(self.path) or {"format": FORMAT, "version": VERSION, "finished": False, "made_with": []}
        write_json(self.path / MARK, mark | {"config": config})
        write_json(self.path / CONFIG, config)

    def _check_same(self, config: dict[str, Any]) -> None:
        changed = _changes(self.config, json.loads(json.dumps(config, default=str)))
        require(
            not changed,
            f"out = {self.path}: holds a run with other settings ({changed} now); --continue-or-start goes on with the "
            "same ones alone",
        )

    def _say(self, text: str) -> None:
        if text not in _said:
            _said.add(text)
            print(f"eprop: {self.path}: {text}", file=sys.stderr)


def cannot_write(path: Path, error: OSError) -> RunFailed:
    """The error that ends a run whose folder can no longer be written."""
    try:
        if not Path(path).is_dir():
            return RunFailed(f"{path}: was removed while a run wrote there")
        kept = "the last checkpoint is whole" if Checkpoints(path).all_steps() else "there is no checkpoint yet"
    except OSError:  # not even that may be looked at
        kept = "what checkpoints it holds cannot be seen"
    what = f"{error.filename}: " if isinstance(error.filename, str) else ""
    return RunFailed(
        f"{path}: cannot be written ({what}{error.strerror or error}); {kept}: once it can, "
        f"'eprop resume {path}' goes on"
    )


def _check_free(path: Path, overwrite: bool, go_on: bool) -> None:
    """Raise `InvalidSetting` unless a run can be begun at `path`."""
    require(not path.exists() or path.is_dir(), f"out = {path}: is a file, not a folder")
    if not path.is_dir():
        return
    if not is_ours(path):
        names = occupied(path)
        require(
            not names,
            f"out = {path}: holds {', '.join(names[:5])}, and not of a run of eprop; name another folder",
        )
        return
    if overwrite:
        return check_clear(path)
    require(
        go_on or not RunFolder(path).holds_run,
        f"out = {path}: holds a run already; continue it with 'eprop resume {path}', replace it with "
        "--overwrite, or name another folder",
    )


def _metrics_line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = parse_json(line)
    except DamagedFile as error:
        raise InvalidSetting(f"{path}: line {number} is not JSON ({error})") from None
    right = isinstance(found, dict) and type(found.get("iteration", found.get("row"))) is int
    right = right and all(_is_measure(found[name]) for name in ("loss", "metric", "activity") if name in found)
    right = right and isinstance(found.get("wall_s", 0.0), (int, float))
    require(right, f"{path}: line {number} is not one that a run writes")
    return found


def _is_measure(value: Any) -> bool:
    """A number, or one for each seed."""
    return all(isinstance(x, (int, float)) for x in (value if isinstance(value, list) else [value])) and value != []


def _listed(value: Any) -> list[int]:
    return [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int)]


def _change(name: str, then: Any, now: Any) -> str:
    """`name was 3, is 4`; of nested values the names alone that differ."""
    if isinstance(then, dict) and isinstance(now, dict):
        inner = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        return f"{name} ({', '.join(inner)})"
    short = lambda value: text if len(text := json.dumps(value)) <= 40 else text[:37] + "..."  # noqa: E731
    return f"{name} was {short(then)}, is {short(now)}"


def _changes(then: Any, now: dict[str, Any]) -> str:
    """Differences between two configurations, as `learning_rate was 0.1, is 0.2`; nothing where `then` is unknown."""
    if not isinstance(then, dict):
        return ""
    found: list[str] = []

    def compare(then: dict[str, Any], now: dict[str, Any]) -> None:
        for name in {**then, **now}:
            a, b = then.get(name), now.get(name)
            if isinstance(a, dict) and isinstance(b, dict):
                compare(a, b)
            elif a != b:
                found.append(_change(name, a, b))

    compare(then, json.loads(json.dumps(now, default=str)))
    return "; ".join(found[:4]) + (f"; and {len(found) - 4} more" if len(found) > 4 else "")


def experiment_to_json(experiment: Experiment[Any]) -> dict[str, Any]:
    return settings_to_json(experiment)


def settings_to_json(settings: Any) -> dict[str, Any]:
    """A dataclass as JSON has it. Paths are absolute: a run goes on from any folder."""
    return json.loads(json.dumps(dataclasses.asdict(settings), default=_as_text))


def _as_text(value: Any) -> str:
    return str(value.absolute()) if isinstance(value, Path) else str(value)


def experiment_from_json(task: str, config: dict[str, Any], path: Path) -> Experiment[Any]:
    """The experiment that `experiment_to_json` wrote.

    Raises:
        InvalidSetting: for a task or a setting that this version does not know.
    """
    require(task in TASKS, f"{path}: unknown task {task!r} (known: {', '.join(TASKS)})")
    default = next(iter(TASKS[task].values())).task
    parts = {
        "task": type(default),
        "network": NetworkSettings,
        "optimiser": OptimiserSettings,
        "run": RunSettings,
        "rule": RuleSettings,
    }
    rule = config.get("rule")
    config = config | {"rule": _own_options(rule)} if isinstance(rule, dict) else config
    return Experiment(**settings_from_json(parts, config, path))


def _own_options(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule's settings, without those that eprop 0.1.0 wrote down for every rule though few rules have them."""
    base, _, option = str(rule.get("rule")).partition(":")
    taken = {"feedback": base == "eprop1" and not option, "window": base in WINDOWED and not option}
    both = rule.get("feedback") is not None and rule.get("window") is not None  # no rule has both
    return {name: None if both and not taken.get(name, True) else value for name, value in rule.items()}


def settings_from_json(parts: dict[str, type], config: dict[str, Any], path: Path) -> dict[str, Any]:
    """Settings dataclasses, by name, from what JSON made of them.

    Raises:
        InvalidSetting: for settings that this version does not know.
    """
    made = {}
    for name, kind in parts.items():
        held: Any = config.get(name)
        require(isinstance(held, dict), f"{path}: settings of another version of eprop (no {name})")
        try:
            made[name] = _from_json(kind, held)
        except TypeError as error:
            raise InvalidSetting(f"{path}: settings of another version of eprop ({error})") from None
        except InvalidSetting as error:
            raise InvalidSetting(f"{path / CONFIG}: {error}") from None
    return made


def _from_json(kind: Any, values: dict[str, Any]) -> Any:
    """A dataclass from what JSON made of it: lists to tuples, paths to paths, dictionaries to dataclasses."""
    types = get_type_hints(kind)
    made = {}
    for name, value in values.items():
        field = types.get(name)
        if isinstance(field, type) and dataclasses.is_dataclass(field) and isinstance(value, dict):
            value = _from_json(field, value)
        elif isinstance(value, list):
            value = tuple(value)
        elif isinstance(value, str) and Path in (field, *get_args(field)):
            value = Path(value)
        if field is not None and not _fits(value, field):
            shown = json.dumps(values[name], default=str)[:40]
            raise InvalidSetting(f"{name} = {shown}: is not of the kind that the setting has")
        made[name] = value
    return kind(**made)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of the kind that a setting's annotation names."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if kind in (int, float):
        number = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
        return number or (kind is float and isinstance(value, float))
    if kind in (None, NoneType):
        return value is None
    return not isinstance(kind, type) or isinstance(kind, TypeVar) or isinstance(value, kind)
