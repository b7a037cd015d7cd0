"""Checks of integers that stand in registers."""

from typing import Any

import numpy as np

from eprop.errors import InvalidSetting, require


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def require_range(**values: tuple[Any, int, int]) -> None:
    """Raise `InvalidSetting` for the first `name=(value, low, high)` that is no integer from `low` to `high`."""
    for name, (value, low, high) in values.items():
        require(
            _whole(value) and bool(low <= value <= high), f"{name} = {value!r}: must be an integer from {low} to {high}"
        )


def require_bits(name: str, value: Any, bits: int) -> None:
    """Raise `InvalidSetting` unless `value` fits in so many unsigned bits."""
    require(
        _whole(value) and bool(0 <= value < 2**bits),
        f"{name} = {value!r}: must be an integer from 0 to {2**bits - 1}, its register has {bits} bits",
    )


def integers(name: str, values: Any, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """`values` as an int32 array of `shape`, all from `low` to `high`.

    Raises:
        InvalidSetting: for another shape, a number that is not whole, or one out of range.
    """
    array = np.asarray(values)
    require(array.shape == shape, f"{name}: expected shape {shape}, got {array.shape}")
    if not np.issubdtype(array.dtype, np.integer) and array.dtype != np.bool_:
        raise InvalidSetting(f"{name}: must hold integers, got {array.dtype}")
    inside = array.size == 0 or (int(array.min()) >= low and int(array.max()) <= high)
    found = f"{int(array.min())} to {int(array.max())}" if array.size else ""
    require(inside, f"{name} = {found}: must be from {low} to {high}")
    return array.astype(np.int32)
