"""Work spread over processes, results in order, with a progress bar where there is a terminal."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from eprop.errors import RunFailed

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(function: Callable[[T], R], tasks: Iterable[T], fresh: bool = False) -> Iterator[R]:
    """`function` of each task, in the tasks' order, some ahead of what is asked for.

    Args:
        function: a module's function.
        tasks: its arguments; may be endless.
        fresh: a process of its own for each task.

    Raises:
        RunFailed: if a worker dies.
    """
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    remaining = iter(tasks)
    try:
        with _pool(workers, fresh) as pool:
            waiting = deque(pool.submit(function, task) for task in islice(remaining, 3 * workers))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(function, task) for task in islice(remaining, 1))
    except BrokenProcessPool:
        raise RunFailed(
            "a worker process ended by itself (out of memory? or, in a script of your own, it has to be called under "
            "if __name__ == '__main__')"
        ) from None


@contextmanager
def _pool(workers: int, fresh: bool) -> Iterator[ProcessPoolExecutor]:
    """Processes forked off a server that has imported this package, or started anew where there is no fork."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(["eprop.workshop.speech._preload"])
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, max_tasks_per_child=1 if fresh else None)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Ctrl-C is the parent's to handle; where the parent is killed this process ends, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


@contextmanager
def progress_bar(label: str, total: float, unit: str) -> Iterator[Callable[[float], None]]:
    """A function to call with how much is done by now."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[amount]}", markup=False),
    )
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total, amount="")
        yield lambda done: bar.update(task, completed=done, amount=f"{done:.0f} of {total:.0f} {unit}")
