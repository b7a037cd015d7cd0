"""Packages of the extra `speech`, imported where they are used."""

import importlib
from types import ModuleType

from eprop.errors import InvalidSetting


def extra(module: str, package: str) -> ModuleType:
    """Import `module`.

    Raises:
        InvalidSetting: naming the missing package and how to install it.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise InvalidSetting(
            f"speech needs the package {package}, which cannot be imported ({error}): pip install 'eprop[speech]'"
        ) from None
