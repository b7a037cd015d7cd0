"""Published figures, each reproduced by one command: `eprop reproduce NAME --out DIR`."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.console import RenderableType

from eprop.errors import require
from eprop.workshop.training import RunFolder, settings_from_json, settings_to_json

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Reproduction(Generic[T]):
    """A published figure: settings by preset, and how to run it. How it is drawn stands in `eprop.workshop.figures`.

    Args:
        summary: one line on what the figure shows.
        presets: settings (a frozen dataclass) by name, the first the default.
        run: runs, or goes on with, what a folder's configuration says, and returns the table it ends with.
    """

    summary: str
    presets: dict[str, T]
    run: Callable[[RunFolder, T], RenderableType]


REPRODUCTIONS: dict[str, Reproduction[Any]] = {}
"""Every figure that can be reproduced, by name."""


def start_reproduction(name: str, settings: Any, out: Path, overwrite: bool = False, go_on: bool = False) -> RunFolder:
    """A new reproduction's folder: settings written down, nothing run yet."""
    config = {"command": "reproduce", "name": name, "settings": settings_to_json(settings)}
    return RunFolder.create(out, config, overwrite, go_on)


def reproduction_of(folder: RunFolder) -> tuple[Reproduction[Any], Any]:
    """The figure and the settings that a folder's configuration names.

    Raises:
        InvalidSetting: for a figure or a setting that this version does not know.
    """
    name = folder.config["name"]
    require(name in REPRODUCTIONS, f"{folder.path}: unknown reproduction {name!r} (known: {', '.join(REPRODUCTIONS)})")
    reproduction = REPRODUCTIONS[name]
    kind = type(next(iter(reproduction.presets.values())))
    return reproduction, settings_from_json({"settings": kind}, folder.config, folder.path)["settings"]
