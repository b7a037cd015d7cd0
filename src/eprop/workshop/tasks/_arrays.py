"""Your own arrays: any data set of sequences, from a NumPy file."""

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from eprop.errors import InvalidSetting, require, require_positive
from eprop.files import DamagedFile, read_npz
from eprop.workshop.settings import Experiment, NetworkSettings, OptimiserSettings, RunSettings
from eprop.workshop.tasks._base import Batch, Task, cross_entropy, masked_steps, squared_error


class Arrays(NamedTuple):
    """A data set, checked. Axes `[sample, time, ...]`; masks are boolean."""

    inputs: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    n_out: int
    centre: np.ndarray | None
    """Mean target of the test samples' steps in the mask, `[output]`; None for classes, or where all are equal."""


@dataclass(frozen=True)
class ArraysTask(Task):
    """Train on your own arrays: `--data FILE.npz`.

    The file holds
      inputs   [sample, time, channel]   real numbers
      targets  [sample, time, output]    real: regression, squared error, metric nMSE: the squared error over the
                                         targets' squared distance from their mean (MSE if all targets are equal)
               [sample, time]            integers: a class each step, cross-entropy, metric error
               [sample]                  integers: a class a sample, at its last decision-steps steps
      mask     [sample, time]            optional: where the loss is defined
      lengths  [sample]                  optional: steps before padding
      split    [sample]                  optional: "train" or "test" each (otherwise drawn)
    """

    test_samples: ClassVar[int] = 1
    shared_data: ClassVar[bool] = True

    data: Path | None = None
    """The file, made with numpy.savez."""
    test_fraction: float = 0.2
    """Share of samples held out for the metric, where the file has no split."""
    split_seed: int = 0
    """Seed of that draw."""
    decision_steps: int = 1
    """With one class a sample: steps at a sample's end where loss and decision are taken."""
    repeat: int = 1
    """Hold every step of the data for this many steps of the network."""

    def __post_init__(self) -> None:
        require_positive(decision_steps=self.decision_steps, repeat=self.repeat)
        require(0 < self.test_fraction < 1, f"test_fraction = {self.test_fraction}: must be between 0 and 1")

    @property
    def arrays(self) -> Arrays:
        """The checked data set."""
        if self.data is None:
            raise InvalidSetting("data: name the file to train on, as in --data FILE.npz")
        return load_arrays(self.data, self.test_fraction, self.split_seed, self.decision_steps)

    @property
    def n_in(self) -> int:
        return self.arrays.inputs.shape[2]

    @property
    def n_out(self) -> int:
        return self.arrays.n_out

    @property
    def metric_name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self.data is None or self.classifies:
            return "error"
        return "mse" if self.arrays.centre is None else "nmse"

    @property
    def classifies(self) -> bool:
        return self.arrays.targets.ndim == 2

    def facts(self) -> dict[str, Any]:
        """Shape, type and digest of each array of the file, so that a file written anew is told."""
        _ = self.arrays
        file = _read(str(self.data), _stamp(self.data))
        return {"arrays": sorted(file), **{name: _facts(array) for name, array in file.items()}}

    def prepare(self, key: PRNGKeyArray) -> Any:
        a = self.arrays
        part = lambda chosen: tuple(jnp.asarray(x[chosen]) for x in a[:4])  # noqa: E731
        return part(~a.test), part(a.test)

    def _batch(self, arrays: tuple[Array, ...], index: Array) -> Batch:
        in_time = lambda x: jnp.repeat(jnp.swapaxes(x[index], 0, 1), self.repeat, axis=0)  # noqa: E731
        return Batch(*(in_time(x) for x in arrays))

    def sample(self, data: Any, key: PRNGKeyArray, size: int) -> Batch:
        n = data[0][0].shape[0]
        require(size <= n, f"batch = {size}: the file has {n} training samples")
        return self._batch(data[0], jax.random.permutation(key, n)[:size])

    def held_out(self, data: Any, key: PRNGKeyArray, size: int) -> list[Batch]:
        """All test samples, `size` at a time; the last batch is filled up with samples that do not count."""
        n = data[1][0].shape[0]
        batches = []
        for first in range(0, n, size):
            index = jnp.arange(first, first + size)
            batch = self._batch(data[1], jnp.minimum(index, n - 1))
            batches.append(batch._replace(mask=batch.mask & (index < n)[None]))
        return batches

    def loss(self, y: Array, batch: Batch) -> Array:
        return self.window_loss(y, batch, batch)

    def window_loss(self, y: Array, part: Batch, whole: Batch) -> Array:
        if self.classifies:
            return cross_entropy(y, part, whole)
        return squared_error(y, part) / masked_steps(whole).astype(y.dtype)

    def metric(self, y: Array, batch: Batch) -> tuple[Array, Array]:
        if not self.classifies:
            centre, mask = self.arrays.centre, batch.mask[..., None].astype(y.dtype)
            spread = jnp.ones_like(y) if centre is None else (batch.targets - jnp.asarray(centre, y.dtype)) ** 2
            return jnp.sum(mask * (y - batch.targets) ** 2), jnp.sum(mask * spread)
        if self.one_class_a_sample:
            decided = jnp.where(batch.mask[..., None], y, 0.0).sum(0).argmax(-1)
            counted = batch.mask.any(0)
            wrong = counted & (decided != batch.targets[-1])
        else:
            counted = batch.mask
            wrong = counted & (y.argmax(-1) != batch.targets)
        return wrong.sum().astype(y.dtype), counted.sum().astype(y.dtype)

    @property
    def one_class_a_sample(self) -> bool:
        """Whether targets were given once a sample."""
        return bool(self.classifies and _targets_per_sample(self.data))


def _stamp(path: Path | None) -> tuple[int, int] | None:
    """Size and time of change, so that a file written anew is read anew."""
    try:
        found = os.stat(str(path))
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=4)
def _read(path: str, stamp: tuple[int, int] | None) -> dict[str, np.ndarray]:
    try:
        return read_npz(Path(path))
    except FileNotFoundError:
        raise InvalidSetting(f"data = {path}: there is no such file") from None
    except DamagedFile as error:
        raise InvalidSetting(f"data = {path}: not a file that numpy.savez wrote ({error})") from None


def _facts(array: np.ndarray) -> dict[str, Any]:
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8) if array.dtype.itemsize else b""
    digest = hashlib.sha256(content).hexdigest()[:16]  # pyright: ignore[reportArgumentType]
    return {"shape": list(array.shape), "type": str(array.dtype), "sha256": digest}


def _targets_per_sample(path: Path | None) -> bool:
    return _read(str(path), _stamp(path))["targets"].ndim == 1


def load_arrays(path: Path, test_fraction: float, split_seed: int, decision_steps: int) -> Arrays:
    """Read and check a data file.

    Raises:
        InvalidSetting: naming the file, the array and the rule it breaks.
    """
    return _load(path, _stamp(path), test_fraction, split_seed, decision_steps)


@lru_cache(maxsize=4)
def _load(
    path: Path, stamp: tuple[int, int] | None, test_fraction: float, split_seed: int, decision_steps: int
) -> Arrays:
    file = _read(str(path), stamp)

    def check(condition: bool, message: str) -> None:
        require(condition, f"data = {path}: {message}")

    for name in ("inputs", "targets"):
        check(name in file, f"has no array {name!r} (found: {', '.join(file) or 'none'})")
    unknown = set(file) - {"inputs", "targets", "mask", "lengths", "split"}
    check(not unknown, f"unknown array {', '.join(sorted(unknown))} (known: inputs, targets, mask, lengths, split)")

    inputs, targets = file["inputs"], file["targets"]
    check(inputs.ndim == 3, f"inputs: expected [sample, time, channel], got shape {inputs.shape}")
    check(min(inputs.shape) > 0, f"inputs: shape {inputs.shape} has an empty axis")
    check(
        np.issubdtype(inputs.dtype, np.number) and not np.iscomplexobj(inputs),
        f"inputs: are {inputs.dtype}, not real numbers",
    )
    n, time, _ = inputs.shape
    _check_finite(check, "inputs", inputs)

    lengths = file.get("lengths", np.full(n, time))
    check(lengths.shape == (n,), f"lengths: expected shape ({n},), got {lengths.shape}")
    check(np.issubdtype(lengths.dtype, np.integer), f"lengths: are {lengths.dtype}, not integers")
    check(bool(((lengths >= 1) & (lengths <= time)).all()), f"lengths: must be from 1 to {time} (the time axis)")
    valid = np.arange(time)[None] < lengths[:, None]

    mask = file.get("mask", np.ones((n, time), bool))
    check(mask.shape == (n, time), f"mask: expected shape ({n}, {time}), got {mask.shape}")
    check(bool(np.isin(mask, (0, 1)).all()), "mask: must be boolean, or 0 and 1")
    mask = mask.astype(bool) & valid

    n_out, targets, mask = _check_targets(check, targets, mask, lengths, n, time, decision_steps)
    check(bool(mask.any()), "mask: leaves no step where the loss is defined")
    test = _split(check, file.get("split"), n, test_fraction, split_seed)
    centre = _centre(targets[test], mask[test]) if targets.ndim == 3 else None
    return Arrays(inputs.astype(np.float32), targets, mask, valid, test, n_out, centre)


def _centre(targets: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    counted = targets[mask].astype(np.float64)
    if not len(counted) or np.ptp(counted, axis=0).max() == 0:
        return None
    return counted.mean(0)


def _check_finite(check, name: str, array: np.ndarray) -> None:
    bad = np.argwhere(~np.isfinite(array))
    where = tuple(int(i) for i in bad[0]) if len(bad) else ()
    check(not len(bad), f"{name}: {len(bad)} values are not finite, the first at index {where}")


def _check_targets(check, targets, mask, lengths, n, time, decision_steps):
    """Targets in their final shape and type, the number of outputs, and the mask of the loss."""
    shapes = f"({n}, {time}, output) real, or ({n}, {time}) or ({n},) integers"
    if targets.ndim == 3:
        check(targets.shape[:2] == (n, time), f"targets: expected shape {shapes}, got {targets.shape}")
        check(np.issubdtype(targets.dtype, np.number), f"targets: are {targets.dtype}, not real numbers")
        _check_finite(check, "targets", targets)
        return targets.shape[2], targets.astype(np.float32), mask
    check(targets.shape in ((n,), (n, time)), f"targets: expected shape {shapes}, got {targets.shape}")
    check(np.issubdtype(targets.dtype, np.integer), f"targets: classes must be integers, they are {targets.dtype}")
    check(int(targets.min()) >= 0, f"targets: classes must be 0 or above, found {targets.min()}")
    n_out = int(targets.max()) + 1
    check(n_out >= 2, "targets: there is only one class")
    if targets.ndim == 1:
        step = np.arange(time)[None]
        mask = mask & (step >= lengths[:, None] - decision_steps)
        check(bool(mask.any(1).all()), "mask: hides the last steps of a sample, where its class is decided")
        targets = np.broadcast_to(targets[:, None], (n, time))
    return n_out, targets.astype(np.int32), mask


def _split(check, split, n: int, test_fraction: float, seed: int) -> np.ndarray:
    """True for the samples held out."""
    if split is None:
        order = np.random.default_rng(seed).permutation(n)
        held_out = round(test_fraction * n)
        check(
            0 < held_out < n, f"test_fraction = {test_fraction}: of {n} samples it leaves none to train or to test on"
        )
        return np.isin(np.arange(n), order[:held_out])
    check(split.shape == (n,), f"split: expected shape ({n},), got {split.shape}")
    names = split.astype(str)
    check(bool(np.isin(names, ("train", "test")).all()), "split: each entry must be 'train' or 'test'")
    test = names == "test"
    check(0 < int(test.sum()) < n, "split: needs samples of both kinds, 'train' and 'test'")
    return test


PRESETS = {
    "default": Experiment(
        task=ArraysTask(),
        network=NetworkSettings(neuron="lstm", neurons=100, tau_out=None, bias=True),
        optimiser=OptimiserSettings(learning_rate=0.003, rate_strength=0.0),
        run=RunSettings(batch=32, iterations=1000, evaluate_every=50, evaluation_batch=256),
    ),
}
