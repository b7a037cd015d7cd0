"""A live progress bar on a terminal; nothing where there is none."""

from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

Line = TypeVar("Line", bound="LiveLine")


class LiveLine:
    """A line that lives while its `with` lasts; nothing where there is no terminal."""

    def __init__(self, *columns: ProgressColumn, console: Console | None = None) -> None:
        console = Console(stderr=True) if console is None else console
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)

    def __enter__(self: Line) -> Line:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()


class ProgressBar(LiveLine):
    """Loss, metric, steps a second and time left, while a run lasts."""

    def __init__(self, label: str, total: int, done: int, metric_name: str, console: Console | None = None) -> None:
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeRemainingColumn(),
            console=console,
        )
        self._metric_name = metric_name
        self._task = self._bar.add_task(label, total=total, completed=done, numbers="compiling")

    def update(
        self, iteration: int, loss: float, metric: float | None, steps_per_second: float, status: str = ""
    ) -> None:
        shown = "" if metric is None else f"  {self._metric_name} {metric:.4g}"
        status = f"  {status}" if status else ""
        numbers = f"loss {loss:.4g}{shown}{status}  {steps_per_second:.1f} steps/s"
        self._bar.update(self._task, completed=iteration, numbers=numbers)
