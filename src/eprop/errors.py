"""The exceptions that tell a user what to change, or what became of a run; and the rules for arguments."""

import difflib
import numbers
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


class InvalidSetting(ValueError):
    """A setting, argument or file that breaks a rule: the message names it, its value and the rule."""


class RunFailed(RuntimeError):
    """A run that cannot go on though its settings were valid: the message says at which step, and what is kept."""


def require(condition: bool, message: str) -> None:
    """Raise `InvalidSetting` with `message` unless `condition` holds."""
    if not condition:
        raise InvalidSetting(message)


def require_positive(**values: object) -> None:
    """Raise `InvalidSetting` for the first keyword that is not above zero: a number, or an array with all its entries.

    Booleans, NaN and infinity break the rule too. What has no value yet passes: None, a tracer, a shape
    (`jax.ShapeDtypeStruct`).

    Example:
        >>> import jax.numpy as jnp
        >>> from eprop.errors import require_positive
        >>> require_positive(tau_m=20.0, tau_a=jnp.array([100.0, 200.0]))
        >>> require_positive(tau_m=jnp.array([20.0, -1.0]))
        Traceback (most recent call last):
            ...
        eprop.errors.InvalidSetting: tau_m[1] = -1.0: must be above 0
    """
    for name, value in values.items():
        require_entries(name, value, lambda x: x > 0, "must be above 0")


def require_entries(name: str, value: Any, holds: Callable[[Any], Any], rule: str) -> None:
    """Raise `InvalidSetting` unless `value` is a number or an array of numbers and `holds` is true of every entry.

    Args:
        name: the argument.
        value: as in `require_positive`.
        holds: the rule, elementwise. NaN and infinity break it, whatever it says.
        rule: the rule in words, after the offending entry: `must be above 0`.
    """
    if not _is_known(value):
        return
    is_array = isinstance(value, (np.ndarray, np.generic, jax.Array))
    real = is_array and any(jnp.issubdtype(value.dtype, kind) for kind in (np.integer, np.floating))
    real = real or isinstance(value, numbers.Real) and not isinstance(value, (bool, np.generic))
    found = f"array of {value.dtype}" if is_array and value.ndim else repr(value)
    require(real, f"{name} = {found}: must be a number or an array of numbers")
    entries = np.asarray(value) if is_array else np.asarray(value, float)
    broken = np.argwhere(~(holds(entries) & np.isfinite(entries)))
    if len(broken):
        place = tuple(int(i) for i in broken[0])
        entry = entries[place].item() if is_array else value
        of = f"[{', '.join(map(str, place))}]" if place else ""
        raise InvalidSetting(f"{name}{of} = {entry}: {rule if np.isfinite(entries[place]) else 'must be finite'}")


def whole_number(name: str, value: object, least: int, note: str = "") -> int:
    """`value` as an int: a whole number (2 and 2.0, not 2.5 or True) of at least `least`.

    Args:
        note: what stands behind the rule in the message.

    Raises:
        InvalidSetting: names the argument, its value and the rule.
    """
    whole = isinstance(value, numbers.Real) and not isinstance(value, bool) and float(value).is_integer()
    require(whole, f"{name} = {value!r}: must be a whole number")
    require(int(value) >= least, f"{name} = {value}: must be at least {least}{note}")  # pyright: ignore[reportArgumentType]
    return int(value)  # pyright: ignore[reportArgumentType]


def _is_known(value: object) -> bool:
    """Whether there are entries to look at: not under a transformation, not a placeholder, not on other machines."""
    if isinstance(value, jax.Array) and not isinstance(value, Tracer):
        return value.is_fully_addressable and not value.is_deleted()
    return value is not None and not isinstance(value, (Tracer, jax.ShapeDtypeStruct))


def require_at_most(most: int, **values: object) -> None:
    """Raise `InvalidSetting` for the first keyword that is above `most`: beyond it the compiler breaks off."""
    for name, value in values.items():
        require(not isinstance(value, int) or value <= most, f"{name} = {value}: must be at most {most}")


def require_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise `InvalidSetting` unless `value` is one of `choices`; the message names the nearest."""
    choices = tuple(choices)
    require(value in choices, f"{name} = {value!r}: must be one of {', '.join(choices)}{suggestion(value, choices)}")


def suggestion(value: str, choices: Iterable[str]) -> str:
    """` (did you mean ...?)`, or nothing where no choice is near."""
    near = difflib.get_close_matches(value, list(choices), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
