"""All arrays of a network, by name, in files that hold no code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from eprop.errors import InvalidSetting, require
from eprop.files import write_npz, write_whole

T = TypeVar("T")


def named_arrays(network: Any) -> dict[str, np.ndarray]:
    """Every array of a network, under its place in it: `layers.0.w_in`, `readout.weight`.

    Example:
        >>> import jax
        >>> from eprop import LIF, Filtered, Network, Readout, Recurrent
        >>> from eprop.interop import named_arrays
        >>> key = jax.random.key(0)
        >>> layer = Recurrent(Filtered(LIF(), tau_out=20.0), n_in=3, n=5, key=key)
        >>> sorted(named_arrays(Network((layer,), Readout(5, 2, key=key))))[:2]
        ['layers.0.w_in', 'layers.0.w_rec']
    """
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(network, eqx.is_array))
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def to_npz(network: Any, path: str | Path) -> None:
    """Write every array, in NumPy's format; names as in `named_arrays`."""
    write_npz(Path(path), named_arrays(network))


def to_safetensors(network: Any, path: str | Path) -> None:
    """The same in the safetensors format (package `safetensors`)."""
    arrays = {name: np.ascontiguousarray(array) for name, array in named_arrays(network).items()}
    write = _safetensors().save_file
    write_whole(Path(path), lambda temporary: write(arrays, str(temporary)))


def from_npz(network: T, path: str | Path) -> T:
    """`network` with the arrays of a file written by `to_npz`; shapes and types must be its own.

    Raises:
        InvalidSetting: for a file whose names, shapes or types are others.
    """
    with np.load(path, allow_pickle=False) as file:
        return _filled(network, {name: file[name] for name in file.files}, path)


def from_safetensors(network: T, path: str | Path) -> T:
    """The same from a safetensors file."""
    return _filled(network, _safetensors().load_file(str(path)), path)


def _filled(network: T, arrays: Mapping[str, np.ndarray], path: str | Path) -> T:
    here = named_arrays(network)
    for name in [*here, *arrays]:
        require(name in arrays, f"{path}: has no array {name!r}, which the network has")
        require(name in here, f"{path}: has an array {name!r}, which the network has not")
        found, wanted = arrays[name], here[name]
        require(
            found.shape == wanted.shape and found.dtype == wanted.dtype,
            f"{path}: {name}: expected {wanted.dtype}{list(wanted.shape)}, got {found.dtype}{list(found.shape)}",
        )
    dynamic, static = eqx.partition(network, eqx.is_array)
    filled = jax.tree_util.tree_map_with_path(lambda place, leaf: jnp.asarray(arrays[_name(place)]), dynamic)
    return eqx.combine(filled, static)


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ModuleNotFoundError:
        raise InvalidSetting("safetensors: not installed; pip install safetensors") from None
    return safetensors.numpy
