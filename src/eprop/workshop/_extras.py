"""Which packages each extra brings, and the one line that says what to install."""

import importlib.util

from eprop.errors import require

EXTRAS = {
    "train": ("optax", "tyro", "rich", "orbax", "filelock", "tensorboardX", "matplotlib", "PIL"),
    "speech": ("soundfile", "python_speech_features", "scipy", "espeakng_loader"),
    "exchange": ("nir", "safetensors"),
}
"""The modules of the optional dependencies in `pyproject.toml`, by the name of the extra."""


def require_extra(extra: str, what: str) -> None:
    """Raise `InvalidSetting` unless the packages of `extra` are there; nothing is imported.

    Args:
        extra: a key of `EXTRAS`.
        what: what needs it, as the message's first words.
    """
    missing = [name for name in EXTRAS[extra] if not _is_there(name)]
    require(not missing, f"{what} needs {', '.join(missing)}, not installed here: pip install 'eprop[{extra}]'")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # imported already, by hand
        return True
