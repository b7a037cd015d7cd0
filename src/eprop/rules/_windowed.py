"""A rule with windows of its own."""

import equinox as eqx

from eprop.errors import whole_number
from eprop.rules._base import Rule


class WindowedRule(Rule):
    """A rule that cuts a sequence into windows of a fixed length.

    Args:
        window: steps a window, at least 1.
    """

    window: int = eqx.field(default=50, static=True, converter=lambda w: whole_number("window", w, 1, " step"))  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def label(self) -> str:
        return f"{self.name}:{self.window}"
