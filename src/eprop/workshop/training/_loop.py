"""The training loop: updates, evaluations, checkpoints, resume."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax.numpy as jnp
import numpy as np

from eprop.errors import RunFailed
from eprop.workshop.settings import Experiment
from eprop.workshop.tasks import StreamTask
from eprop.workshop.training._checkpoints import restore_newest
from eprop.workshop.training._folder import RunFolder, cannot_write
from eprop.workshop.training._lock import writing
from eprop.workshop.training._made import versions
from eprop.workshop.training._progress import ProgressBar
from eprop.workshop.training._sequences import SequenceTrainer
from eprop.workshop.training._streams import StreamTrainer
from eprop.workshop.training._tensorboard import Scalars
from eprop.workshop.training._trainer import NetworkTrainer, Trainer

CHECKPOINT_SECONDS = 15.0
"""At least so long between two checkpoints, but for the last."""

Observer = Callable[[Any, Any, int], dict[str, Any]]
"""Called at every evaluation; what it returns is added to the line of `metrics.jsonl`."""


STOP_AFTER_STATUS = 75
"""The program's exit status after `--stop-after`: not 0, there is more to do; no failure either (EX_TEMPFAIL)."""


class Interrupted(Exception):
    """The run was stopped from outside; everything computed is in its folder.

    Args:
        status: what the program ends with: 128 and the signal's number, or `STOP_AFTER_STATUS`.
    """

    def __init__(self, status: int = 128 + signal.SIGINT) -> None:
        super().__init__(status)
        self.status = status


def make_trainer(experiment: Experiment[Any], seeds: Sequence[int]) -> NetworkTrainer:
    """The trainer that the task needs: of whole sequences, or of a stream's windows."""
    kind = StreamTrainer if isinstance(experiment.task, StreamTask) else SequenceTrainer
    return kind(experiment, seeds)


def data_facts(task: Any, facts: dict[str, Any] | None) -> dict[str, Any] | None:
    """The facts about the data that a run folder keeps, and the sizes that a network gets from them."""
    return None if facts is None else {**facts, "n_in": task.n_in, "n_out": task.n_out}


def train(
    experiment: Any,
    folder: RunFolder,
    *,
    task: str,
    seeds: Sequence[int] | None = None,
    tensorboard: bool = False,
    observe: Observer | None = None,
    trainer: Trainer | None = None,
) -> dict[str, Any]:
    """Train, or go on training from the folder's last checkpoint, and write the summary.

    Args:
        experiment: all settings: an `Experiment`, or what `trainer` was made of (it has `run` and `optimiser`).
        folder: where the run lives.
        task: the task's name, for the summary.
        seeds: seeds to run side by side (numbers become lists in the results); None: the one in the settings.
        tensorboard: write scalars for TensorBoard too.
        observe: measures something at every evaluation.
        trainer: what is trained, where that is not an `Experiment`.

    Returns:
        The summary.

    Raises:
        InvalidSetting: if another process writes in the folder, or its data are others than when the run began.
        RunFailed: if the loss stops being finite for all seeds (the weights before that are kept), or the folder can
            no longer be written (the last checkpoint is whole).
        Interrupted: after Ctrl-C, SIGTERM or SIGHUP, or once the time of `stop_after` is over; a checkpoint was
            written.
    """
    try:
        with writing(folder.path):
            folder.begin()
            if folder.summary is not None:
                return folder.summary
            loop = _Loop(experiment, folder, task, seeds, tensorboard, observe, trainer)
            try:
                return loop.run()
            finally:
                loop.close()
    except OSError as error:
        raise cannot_write(folder.path, error) from None


class _Loop:
    def __init__(self, experiment, folder, task, seeds, tensorboard, observe, trainer) -> None:
        self.folder, self.task, self.observe = folder, task, observe
        self.single = seeds is None
        self.trainer = trainer or make_trainer(experiment, [experiment.run.seed] if seeds is None else seeds)
        self.settings = experiment.run
        self.checkpoints = folder.checkpoints()
        self.writer = Scalars(folder.path) if tensorboard else None
        folder.keep_facts(data_facts(self.trainer.task, self.trainer.facts()))
        self.state, self.iteration = self.trainer.init(), 0
        newest = restore_newest(self.checkpoints, self.state, mend=True)
        if newest is None and isinstance(self.trainer, NetworkTrainer):
            self.trainer.check_reach()
        if newest is not None:
            self.state, self.iteration = newest
        folder.forget_after(self.iteration)
        lines = folder.metrics()
        self.wall_before = lines[-1]["wall_s"] if lines else 0.0
        self.last_metric = np.asarray(lines[-1]["metric"]) if lines else None
        self.details = self.trainer.details(self.state)
        self.started = self.saved = time.monotonic()

    def close(self) -> None:
        self.checkpoints.close()
        if self.writer is not None:
            self.writer.close()

    @property
    def wall(self) -> float:
        return self.wall_before + time.monotonic() - self.started

    def run(self) -> dict[str, Any]:
        first, start = self.iteration, time.monotonic()
        total, name = self.settings.iterations, self.trainer.task.metric_name
        with ProgressBar(self.trainer.label, total, first, name) as bar, stop_signals() as stop:
            while self.iteration < total and self.state.active.any():
                loss = self._step()
                if (self.iteration - first) == 1:
                    start = time.monotonic()  # without compilation
                done = max(self.iteration - first - 1, 1)
                metric = None if self.last_metric is None else float(np.mean(self.last_metric))
                speed = done / (time.monotonic() - start + 1e-9)
                bar.update(self.iteration, float(np.nanmean(loss)), metric, speed, self._status())
                if self.iteration % self.settings.evaluate_every == 0 or self.iteration == total:
                    self._evaluate(loss)
                if stop.requested:
                    self._save()
                    raise Interrupted(stop.status)
        self._save()
        return self._finish()

    def _step(self) -> np.ndarray:
        """One update. A seed whose loss is not finite rests with the weights it had before."""
        data = self.trainer.part(self.iteration)
        self.state, loss = self.trainer.update(self.state, data, jnp.asarray(self.iteration))
        loss = np.asarray(loss)
        self.iteration += 1
        broken = ~np.isfinite(loss) & np.asarray(self.state.active)
        if broken.any():
            self.state = self.state._replace(active=self.state.active & ~broken)
            if broken.all():
                self._save()
                raise RunFailed(
                    f"iteration {self.iteration}: loss or gradient is not finite; the weights before it are kept in "
                    f"{self.folder.path / 'checkpoints'}; {self.trainer.remedy} may help"
                )
        return loss

    def _evaluate(self, loss: np.ndarray) -> None:
        measured = self.trainer.evaluate(self.state, self.trainer.data, jnp.asarray(self.iteration))
        self.last_metric = np.asarray(measured.metric)
        self.details = self.trainer.details(self.state)
        line = {
            "iteration": self.iteration,
            "loss": self._number(loss),
            **{name: self._number(values) for name, values in measured._asdict().items()},
            "wall_s": round(self.wall, 3),
        }
        line |= {name: self._chosen(values) for name, values in self.details.items()}
        if self.observe is not None:
            line |= self.observe(self.trainer, self.state, self.iteration)
        self.folder.add_metrics(line)
        if self.writer is not None:
            for name in ("loss", "metric", "activity"):
                self.writer.add_scalar(name, float(np.mean(np.asarray(line[name], float))), self.iteration)
        if self.settings.stop_below is not None:
            reached = jnp.asarray(measured.metric) < self.settings.stop_below
            self.state = self.state._replace(active=self.state.active & ~reached)
        if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            self._save()

    def _chosen(self, values: list) -> Any:
        return values[0] if self.single else values

    def _status(self) -> str:
        """Where a stream's training stands, the mean over seeds."""
        if not self.details:
            return ""
        return self.trainer.task.status({name: float(np.mean(values)) for name, values in self.details.items()})

    def _number(self, values: Any) -> float | list[float]:
        return self._chosen([float(v) for v in np.asarray(values)])

    def _iterations(self, lines: list[dict[str, Any]]) -> int | list[int]:
        """Updates each seed got: up to the evaluation at which it passed `stop_below`, if it did."""
        counts = [self.iteration] * len(self.trainer.seeds)
        for line in reversed(lines):
            for i, metric in enumerate([line["metric"]] if self.single else line["metric"]):
                if self.settings.stop_below is not None and metric < self.settings.stop_below:
                    counts[i] = line["iteration"]
        return counts[0] if self.single else counts

    def _save(self) -> None:
        if self.checkpoints.latest_step() != self.iteration:
            self.checkpoints.save(self.iteration, self.state)
        self.saved = time.monotonic()

    def _finish(self) -> dict[str, Any]:
        measured = self.trainer.evaluate(self.state, self.trainer.data, jnp.asarray(0), test=True)
        lines = self.folder.metrics()
        summary = {
            "task": self.task,
            **self.trainer.description,
            "seed": self.trainer.seeds[0] if self.single else list(self.trainer.seeds),
            "iterations": self._iterations(lines),
            "metric": self.trainer.task.metric_name,
            "value": self._number(measured.metric),
            "wall_s": round(max(self.wall, lines[-1]["wall_s"] if lines else 0.0), 3),
            "versions": versions(),
        }
        self.folder.write_summary(summary)
        return summary


_deadlines: list[float] = []


@contextmanager
def stop_after(seconds: float, began: float) -> Iterator[None]:
    """Training within this ends by itself, as if a signal had come, `seconds` after `began` (`time.monotonic`)."""
    _deadlines.append(began + seconds)
    try:
        yield
    finally:
        _deadlines.pop()


class Stop:
    """Whether a run is to end now, and the status for that."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def requested(self) -> bool:
        return self.signal is not None or any(time.monotonic() >= deadline for deadline in _deadlines)

    @property
    def status(self) -> int:
        return STOP_AFTER_STATUS if self.signal is None else 128 + self.signal


SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a request; a second Ctrl-C stops at once.

    A signal that this process was started to ignore (as by nohup) stays ignored.
    """
    stop = Stop()
    old = {}

    def handle(number, frame):
        if stop.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = number

    try:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                old[number] = signal.signal(number, handle)
    except ValueError:  # not in the main thread: signals are not ours
        pass
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
