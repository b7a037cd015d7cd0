"""Published figures, each reproduced by one command: `eprop reproduce NAME --out DIR`."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.console import RenderableType

from eprop.errors import InvalidSetting, require
from eprop.training import RunFolder

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Reproduction(Generic[T]):
    """A published figure: settings by preset, and how to run it. How it is drawn stands in `eprop.figures`.

    Args:
        summary: one line on what the figure shows.
        presets: settings (a frozen dataclass) by name, the first the default.
        run: runs, or goes on with, what a folder's configuration says, and returns the table it ends with.
    """

    summary: str
    presets: dict[str, T]
    run: Callable[[RunFolder, T], RenderableType]


REPRODUCTIONS: dict[str, Reproduction] = {}
"""Every figure that can be reproduced, by name."""


def start_reproduction(name: str, settings: Any, out: Path, overwrite: bool = False) -> RunFolder:
    """A new reproduction's folder: settings written down, nothing run yet."""
    config = {"command": "reproduce", "name": name, "settings": dataclasses.asdict(settings)}
    return RunFolder.create(out, config, overwrite)


def reproduction_of(folder: RunFolder) -> tuple[Reproduction, Any]:
    """The figure and the settings that a folder's configuration names.

    Raises:
        InvalidSetting: for a figure or a setting that this version does not know.
    """
    name, values = folder.config["name"], folder.config["settings"]
    require(name in REPRODUCTIONS, f"{folder.path}: unknown reproduction {name!r} (known: {', '.join(REPRODUCTIONS)})")
    reproduction = REPRODUCTIONS[name]
    like = next(iter(reproduction.presets.values()))
    try:
        return reproduction, _settings_like(like, values)
    except TypeError as error:
        raise InvalidSetting(f"{folder.path}: settings of another version of eprop ({error})") from None


def _settings_like(like: Any, values: dict[str, Any]) -> Any:
    """A dataclass of the type of `like` from what JSON made of one: lists to tuples, dictionaries to dataclasses."""
    made = {}
    for name, value in values.items():
        if isinstance(value, dict):
            value = _settings_like(getattr(like, name, None), value)
        made[name] = tuple(value) if isinstance(value, list) else value
    return type(like)(**made)
