"""Optimisers by name: every one of optax that takes a learning rate, and its options."""

import ast
import inspect
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from eprop.errors import require, require_choice, suggestion

KNOWN = ("adam", "adamw", "sgd", "rmsprop", "lion")
"""Those that need no look into optax."""

UNFIT = {
    "lbfgs": "it searches along a line, and needs the loss for that",
    "noisy_sgd": "it needs random numbers of its own",
    "optimistic_adam": "it takes no schedule of learning rates; optimistic_adam_v2 does",
    "rprop": "it takes no schedule of learning rates",
    "sm3": "it takes no schedule of learning rates",
}
"""Those of optax that cannot be used here, and why."""


@cache
def optimiser_names() -> tuple[str, ...]:
    """The named ones, then all others of optax that take a learning rate."""
    import optax

    found = [name for name in dir(optax) if not name.startswith(("_", "scale_by")) and name not in (*KNOWN, *UNFIT)]
    return KNOWN + tuple(name for name in found if "learning_rate" in _parameters(getattr(optax, name)))


def optimiser_options(name: str) -> dict[str, Any]:
    """What may be set of an optimiser beside its learning rate, with optax's defaults."""
    import optax

    found = _parameters(getattr(optax, name)).values()
    apart = ("learning_rate", "mask", "dtype")
    simple = [p for p in found if not p.name.endswith(apart) and _is_simple(p.default)]
    return {p.name: p.default for p in simple}


def check_optimiser(name: str, options: Sequence[str] = ()) -> None:
    """Refuse a name or an option that optax does not have.

    Raises:
        InvalidSetting: it names the nearest.
    """
    require(name not in UNFIT, f"optimiser = {name!r}: cannot be used here ({UNFIT.get(name)})")
    if name not in KNOWN:
        require_choice("optimiser", name, optimiser_names())
    if options:
        _values(name, options)


def make_optimiser(name: str, learning_rate: float | Callable[[Any], Any], options: Sequence[str] = ()) -> Any:
    """The optax transformation of that name.

    Args:
        name: one of `optimiser_names()`.
        learning_rate: a number, or a schedule over updates.
        options: `NAME=VALUE` each: `b1=0.95`, `nesterov=True`.

    Raises:
        InvalidSetting: as `check_optimiser`.

    Example:
        >>> import jax.numpy as jnp
        >>> from eprop.workshop.optimisers import make_optimiser
        >>> make_optimiser("rmsprop", 0.001, ["decay=0.99"]).init(jnp.zeros(2, jnp.float32))[0].nu
        Array([0., 0.], dtype=float32)
    """
    import optax

    check_optimiser(name, options)
    return getattr(optax, name)(learning_rate=learning_rate, **_values(name, options))


def _values(name: str, options: Sequence[str]) -> dict[str, Any]:
    """The options as numbers, booleans and None."""
    known, values = optimiser_options(name), {}
    for option in options:
        key, equals, text = option.partition("=")
        said = f"optimiser_options = {option!r}"
        require(bool(equals), f"{said}: expected NAME=VALUE, as weight_decay=0.01")
        of = f"{name} has {', '.join(known) or 'none'}{suggestion(key, known)}"
        require(key in known, f"{said}: {of}")
        require(key not in values, f"{said}: {key} stands there twice")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        require(_is_simple(value), f"{said}: must be a number, True, False or None")
        same = isinstance(value, bool) == isinstance(known[key], bool) or known[key] is None or value is None
        require(same, f"{said}: must be {'True or False' if isinstance(known[key], bool) else 'a number'}")
        values[key] = value
    return values


def _is_simple(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float))


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    if not inspect.isfunction(function) and not isinstance(function, partial):
        return {}
    return dict(inspect.signature(function).parameters)
