"""Old names that still work for a while, with a warning that names the new one (`CONTRIBUTING.md`: how long)."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def deprecated(old: str, successor: str, removed_in: str) -> None:
    """Warn the caller of the function that calls this: `old` goes in version `removed_in`, use `successor`.

    Example:
        >>> import warnings
        >>> def old_name():
        ...     deprecated("eprop.old_name", "eprop.new_name", removed_in="0.4.0")
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     old_name()
        >>> print(caught[0].message)
        eprop.old_name is deprecated and goes in eprop 0.4.0: use eprop.new_name
    """
    message = f"{old} is deprecated and goes in eprop {removed_in}: use {successor}"
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def renamed(module: str, names: Mapping[str, str], removed_in: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module some of whose names have moved.

    Args:
        module: the module's `__name__`.
        names: the old name in this module, and the full new one, as `{"Old": "eprop.networks.New"}`.
        removed_in: the version that no longer knows the old names.

    Example:
        `__getattr__ = renamed(__name__, {"Old": "eprop.networks.New"}, removed_in="0.4.0")` at the end of a module.
    """

    def look_up(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        deprecated(f"{module}.{name}", names[name], removed_in)
        where, _, what = names[name].rpartition(".")
        return getattr(importlib.import_module(where), what)

    return look_up
