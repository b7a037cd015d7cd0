"""The run folder: configuration, metrics, checkpoints, summary. Everything in it is written atomically."""

import dataclasses
import json
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args, get_type_hints

import orbax.checkpoint as ocp

import eprop
from eprop.errors import InvalidSetting, require
from eprop.settings import Experiment, NetworkSettings, OptimiserSettings, RuleSettings, RunSettings
from eprop.tasks import TASKS


class RunFolder:
    """A folder with `config.json`, `metrics.jsonl`, `checkpoints/`, `summary.json` and `figures/`."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: Path, config: dict[str, Any], overwrite: bool = False) -> "RunFolder":
        """A new folder with its configuration; `overwrite` removes the run that it holds.

        Raises:
            InvalidSetting: if there is a run in it already, or something else stands there.
        """
        path = Path(path)
        holds_run = (path / "config.json").is_file()
        require(
            overwrite or not holds_run,
            f"out = {path}: holds a run already; continue it with 'eprop resume {path}', replace it with "
            "--overwrite, or name another folder",
        )
        if holds_run:
            shutil.rmtree(path)
        require(not path.exists() or path.is_dir(), f"out = {path}: is a file, not a folder")
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_json(path / "config.json", config)
        except OSError as error:
            raise InvalidSetting(f"out = {path}: cannot be written ({error.strerror})") from None
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run.

        Raises:
            InvalidSetting: if there is none.
        """
        path = Path(path)
        require((path / "config.json").is_file(), f"{path}: no run there (it has no config.json)")
        return cls(path)

    @property
    def config(self) -> dict[str, Any]:
        return read_json(self.path / "config.json")

    @property
    def summary(self) -> dict[str, Any] | None:
        """The summary, once the run has ended."""
        path = self.path / "summary.json"
        return read_json(path) if path.is_file() else None

    @property
    def figures(self) -> Path:
        path = self.path / "figures"
        path.mkdir(exist_ok=True)
        return path

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`; a last line that a kill cut short does not count."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.is_file() else []
        return [json.loads(line) for line in lines]

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
        path = self.path / "data.json"
        if facts is not None and not path.is_file():
            write_json(path, facts)
        unchanged = facts is None or read_json(path) == json.loads(json.dumps(facts))
        require(unchanged, f"{self.path}: its data have changed since the run began ({path.name} says what they were)")

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_json(self.path / "summary.json", summary)

    def checkpoints(self) -> ocp.CheckpointManager:
        """Orbax's manager of the two newest checkpoints; a step is an iteration."""
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        path = (self.path / "checkpoints").absolute()
        return ocp.CheckpointManager(path, options=options, item_handlers=ocp.StandardCheckpointHandler())


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InvalidSetting(f"{path}: is not JSON ({error})") from None


def versions() -> dict[str, str]:
    """What a result depends on beside its settings."""
    packages = {name: version(name) for name in ("jax", "jaxlib", "equinox", "optax", "numpy")}
    return {"eprop": eprop.__version__, "python": platform.python_version(), **packages}


def experiment_to_json(experiment: Experiment) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(experiment), default=str))


def experiment_from_json(task: str, config: dict[str, Any], path: Path) -> Experiment:
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
    return Experiment(**settings_from_json(parts, config, path))


def settings_from_json(parts: dict[str, type], config: dict[str, Any], path: Path) -> dict[str, Any]:
    """Settings dataclasses, by name, from what JSON made of them.

    Raises:
        InvalidSetting: for settings that this version does not know.
    """
    try:
        return {name: _from_json(kind, config[name]) for name, kind in parts.items()}
    except (KeyError, TypeError) as error:
        raise InvalidSetting(f"{path}: settings of another version of eprop ({error})") from None


def _from_json(kind: type, values: dict[str, Any]) -> Any:
    """A dataclass from what JSON made of it: lists to tuples, paths to paths, dictionaries to dataclasses."""
    types = get_type_hints(kind)
    made = {}
    for name, value in values.items():
        field = types.get(name)
        if isinstance(field, type) and dataclasses.is_dataclass(field):
            value = _from_json(field, value)
        elif isinstance(value, list):
            value = tuple(value)
        elif value is not None and Path in (field, *get_args(field)):
            value = Path(value)
        made[name] = value
    return kind(**made)
