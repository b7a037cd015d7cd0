"""Checkpoints: a file each, `checkpoints/ITERATION.npz`, with the leaves of the training state as arrays.

Format 1: arrays `0`, `1`, ... in the order of the state's leaves, and `types`, their dtypes' names (a type that NumPy
does not know, as bfloat16, is stored as integers of its size). Folders of eprop 0.1.0 hold orbax's checkpoints, a
folder each; they are read.
"""

import logging
import re
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eprop.errors import RunFailed
from eprop.files import DamagedFile, read_npz, write_npz

KEPT = 2
"""So many checkpoints are kept: the newest."""


class Checkpoints:
    """The checkpoints of a run folder. One is there whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.directory: Path = Path(folder) / "checkpoints"

    def all_steps(self) -> list[int]:
        """The iterations of which there is one, in order."""
        if not self.directory.is_dir():
            return []
        names = [path.name for path in self.directory.iterdir()]
        return sorted(int(found[1]) for found in (re.fullmatch(r"(\d{1,12})(\.npz)?", n) for n in names) if found)

    def latest_step(self) -> int | None:
        return max(self.all_steps(), default=None)

    def save(self, iteration: int, state: Any) -> None:
        """Write the state down, and remove all but the newest.

        Raises:
            OSError: if that cannot be; what was there before is there still.
        """
        self.directory.mkdir(exist_ok=True)
        arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
        named = {str(i): _plain(array) for i, array in enumerate(arrays)}
        types = np.array([str(array.dtype) for array in arrays])
        write_npz(self._file(iteration), {"types": types, **named})
        for old in self.all_steps()[:-KEPT]:
            self.delete(old)

    def delete(self, iteration: int) -> None:
        self._file(iteration).unlink(missing_ok=True)
        if (self.directory / str(iteration)).is_dir():
            _remove_orbax(self.directory / str(iteration))

    def read(self, iteration: int, like: Any) -> Any:
        """The state of one checkpoint, in the shape of `like`; None where it is damaged or of another shape."""
        leaves, structure = jax.tree.flatten(like)
        try:
            if self._file(iteration).is_file():
                found = _read(self._file(iteration))
            else:
                found = _read_older(self.directory / str(iteration), leaves)
        except (DamagedFile, OSError):
            return None
        expected = [(leaf.shape, leaf.dtype) for leaf in leaves]
        if [(array.shape, array.dtype) for array in found] != expected:
            return None
        return structure.unflatten([jnp.asarray(array) for array in found])

    def close(self) -> None:
        """Nothing is open between two calls."""

    def _file(self, iteration: int) -> Path:
        return self.directory / f"{iteration}.npz"


def restore_newest(checkpoints: Checkpoints, like: Any, mend: bool = False) -> tuple[Any, int] | None:
    """The training state of the newest checkpoint that can be read, and its iteration; None if there is none yet.

    Args:
        checkpoints: a folder's.
        like: a state of the same shape.
        mend: remove damaged checkpoints once an older one was found good, with a word on stderr.

    Raises:
        RunFailed: if no checkpoint can be read, or they are of another network than `like`.
    """
    damaged = []
    for iteration in reversed(checkpoints.all_steps()):
        state = checkpoints.read(iteration, like)
        if state is None:
            damaged.append(iteration)
            continue
        for bad in damaged:
            said = f"eprop: {checkpoints.directory}: checkpoint {bad} is damaged; going on from the one before"
            print(f"{said}, iteration {iteration}", file=sys.stderr)
            if mend:
                checkpoints.delete(bad)
        return state, iteration
    if damaged and all((checkpoints.directory / str(i)).is_dir() for i in damaged):
        raise RunFailed(
            f"{checkpoints.directory}: checkpoints of eprop 0.1.0, damaged or of a training state that this version "
            "does not know (a stream's, or another network's); its metrics stand, but it cannot go on or be loaded"
        )
    if damaged:
        raise RunFailed(
            f"{checkpoints.directory}: no checkpoint ({', '.join(map(str, damaged))}) can be read: damaged, or of "
            "another network than the configuration's"
        )
    return None


def _plain(array: np.ndarray) -> np.ndarray:
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array


def _read(path: Path) -> list[np.ndarray]:
    found = read_npz(path)
    types = found.pop("types", np.array([], str))
    if types.dtype.kind != "U" or sorted(found) != sorted(map(str, range(types.size))):
        raise DamagedFile("its arrays are not those of a training state")
    arrays = []
    for i, name in enumerate(types.tolist()):
        try:
            dtype = jnp.dtype(name)
            arrays.append(found[str(i)].view(dtype) if dtype.kind == "V" else found[str(i)])
        except (TypeError, ValueError) as error:
            raise DamagedFile(str(error)) from None
        if arrays[-1].dtype != dtype:
            raise DamagedFile(f"array {i} is not of type {name}")
    return arrays


def _read_older(path: Path, leaves: list[Any]) -> list[np.ndarray]:
    """A checkpoint of eprop 0.1.0: for whole sequences, today's state without the two counts before its last leaf."""
    try:
        return _read_orbax(path, leaves)
    except DamagedFile:
        counts, last = leaves[-3:-1], leaves[-1:]
        if len(counts) < 2 or any(leaf.dtype != jnp.int32 for leaf in counts):
            raise
        found = _read_orbax(path, [*leaves[:-3], *last])
        return [*found[:-1], *(np.zeros(leaf.shape, leaf.dtype) for leaf in counts), found[-1]]


def _read_orbax(path: Path, leaves: list[Any]) -> list[np.ndarray]:
    """The arrays of an orbax checkpoint, which must have the shapes of `leaves`."""
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # it would show a traceback of each damaged file
    expected = {str(i): leaf for i, leaf in enumerate(leaves)}
    item = path / "default" if (path / "default").is_dir() else path
    try:
        with ocp.StandardCheckpointer() as reader:
            metadata = reader.metadata(item.absolute())
            metadata = getattr(metadata, "item_metadata", metadata)
            if {name: tuple(array.shape) for name, array in dict(metadata).items()} != {
                name: array.shape for name, array in expected.items()
            }:
                raise DamagedFile("its arrays are of other shapes")
            restored = reader.restore(item.absolute(), expected)
        return [np.asarray(restored[name]) for name in expected]
    except Exception as error:  # orbax and tensorstore raise whatever they stumble over in a damaged folder
        raise DamagedFile(str(error)) from None


def _remove_orbax(path: Path) -> None:
    import shutil

    shutil.rmtree(path)
