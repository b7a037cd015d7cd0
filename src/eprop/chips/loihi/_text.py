"""A learning rule as a text file, a line a setting, and back."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from eprop.chips.loihi._settings import LearningRule
from eprop.errors import InvalidSetting, require, suggestion

SKIPPED = ("x_decay", "y_decay")
"""Settings that follow from the time constants."""


def rule_to_text(rule: LearningRule, comments: Sequence[str] = ()) -> str:
    """A rule as text: comments behind `#`, then `name = value` for each setting that is not its default.

    Exact factors of decay (`x_decay`, `y_decay`) are left out: they follow from the time constants.

    Example:
        >>> from eprop.chips.loihi import LearningRule, rule_to_text
        >>> print(rule_to_text(LearningRule(dw="2^-4*u0*x1*y1", x1_impulse=16.0, x1_tau=10.0)), end="")
        dw = 2^-4*u0*x1*y1
        x1_impulse = 16.0
        x1_tau = 10.0
    """
    given = ((field.name, getattr(rule, field.name)) for field in fields(rule) if field.name not in SKIPPED)
    default = LearningRule(dw="u0*x1")
    lines = [f"{name} = {value}" for name, value in given if name == "dw" or value != getattr(default, name)]
    return "".join(f"{line}\n" for line in [*(f"# {comment}" for comment in comments), *lines])


def rule_from_text(text: str) -> LearningRule:
    """The rule that `rule_to_text` wrote, or that somebody wrote by hand.

    Raises:
        InvalidSetting: naming the line, for an unknown setting, a value of another kind, or a rule out of the grammar.
    """
    kinds: dict[str, Any] = {field.name: field.type for field in fields(LearningRule) if field.name not in SKIPPED}
    made: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        require(bool(equals), f"line {number}: expected 'name = value', got {line!r}")
        require(name in kinds, f"line {number}: unknown setting {name!r}{suggestion(name, kinds)}")
        require(name not in made, f"line {number}: {name} stands there twice")
        try:
            made[name] = kinds[name](value) if kinds[name] in (int, float) else value
        except ValueError:
            raise InvalidSetting(f"line {number}: {name} = {value!r}: must be a number") from None
    return LearningRule(**made)
