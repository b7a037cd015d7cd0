"""Old names that still work for a while, with a warning that names the new one (`CONTRIBUTING.md`: how long)."""

import importlib
import warnings
from collections.abc import Callable, Collection, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
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


class moved(MetaPathFinder, Loader):  # noqa: N801  it reads as the function `renamed` does
    """Let packages that have moved be imported under their old names, with a warning that names the new one.

    The old name gives the very module of the new one: a class is the same class under both.

    Args:
        package: the package that they stood in.
        names: what stood there.
        into: the package where they stand now.
        removed_in: the version that no longer knows the old names.

    Example:
        `sys.meta_path.insert(0, moved("eprop", {"tasks"}, into="eprop.workshop", removed_in="0.4.0"))`. It must come
        first: Python's own finders would load a module of a moved package once more.
    """

    def __init__(self, package: str, names: Collection[str], into: str, removed_in: str) -> None:
        self.package, self.names, self.into, self.removed_in = package, names, into, removed_in

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname.startswith(f"{self.package}.") and fullname.split(".")[1] in self.names:
            return ModuleSpec(fullname, self)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        successor = self.into + spec.name.removeprefix(self.package)
        message = f"{spec.name} is deprecated and goes in eprop {self.removed_in}: use {successor}"
        module = importlib.import_module(successor)
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        old = module.__spec__  # the import system has put it in place of the module's own
        module.__spec__ = old.loader_state if old else None
