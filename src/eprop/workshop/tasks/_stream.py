"""A task that is learnt window by window: sequences of any length, or one that does not end."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Array, Bool, Float, PRNGKeyArray

from eprop.workshop.tasks._base import Batch, Task

Run = Callable[[Array, Any], tuple[Array, Any]]
"""Runs the network over inputs from a carry: outputs, and the last carry."""


class Window(NamedTuple):
    """A few steps of a stream."""

    batch: Batch
    first: Bool[Array, "batch"]  # noqa: F821  # a sequence starts with this window
    ended: Bool[Array, "batch"]  # noqa: F821  # a sequence ends within this window: what follows is another


@dataclass(frozen=True)
class StreamTask(Task):
    """A task whose data come window by window. Where training stands in it is a pytree, the *place*, kept in
    the training state: a resumed run goes on at the same place."""

    shared_data: ClassVar[bool] = True

    @abc.abstractmethod
    def check_window(self, window: int, size: int) -> None:
        """Raise `InvalidSetting` where windows of so many steps, or so many samples, do not fit."""

    @abc.abstractmethod
    def place(self) -> Any:
        """The place where training starts: a pytree of scalars."""

    @abc.abstractmethod
    def window(self, data: Any, key: PRNGKeyArray, place: Any, size: int, steps: int) -> Window:
        """The window that begins at a place; the same key and place give the same window."""

    @abc.abstractmethod
    def move(self, place: Any, y: Float[Array, "time batch output"], window: Window) -> Any:
        """The place of the next window, after outputs `y`."""

    @abc.abstractmethod
    def measure(
        self, data: Any, key: PRNGKeyArray, place: Any, run: Run, start: Callable[[int], Any], test: bool
    ) -> Array:
        """The metric. `start(size)` is a first carry of so many samples."""

    @abc.abstractmethod
    def details(self, place: Any) -> dict[str, Array]:
        """Named numbers that say where training stands."""

    @abc.abstractmethod
    def status(self, details: dict[str, Any]) -> str:
        """The same in a few characters, for the progress bar; a number each, the mean over seeds."""
