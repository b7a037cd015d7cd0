"""The exceptions that tell a user what to change, or what became of a run."""

import difflib
from collections.abc import Iterable


class InvalidSetting(ValueError):
    """A setting, argument or file that breaks a rule: the message names it, its value and the rule."""


class RunFailed(RuntimeError):
    """A run that cannot go on though its settings were valid: the message says at which step, and what is kept."""


def require(condition: bool, message: str) -> None:
    """Raise `InvalidSetting` with `message` unless `condition` holds."""
    if not condition:
        raise InvalidSetting(message)


def require_positive(**values: object) -> None:
    """Raise `InvalidSetting` for the first keyword whose Python number is not above zero."""
    for name, value in values.items():
        if isinstance(value, (int, float)):
            require(value > 0, f"{name} = {value}: must be above 0")


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
