"""Learning rules, switched by one argument."""

from eprop.errors import InvalidSetting, require, require_choice
from eprop.rules._base import Future as Future
from eprop.rules._base import Result as Result
from eprop.rules._base import Rule as Rule
from eprop.rules._base import require_rule as require_rule
from eprop.rules._bptt import BPTT as BPTT
from eprop.rules._bptt import TruncatedBPTT as TruncatedBPTT
from eprop.rules._eprop1 import EProp1 as EProp1
from eprop.rules._eprop2 import inner_gradient as inner_gradient
from eprop.rules._eprop2 import inner_update as inner_update
from eprop.rules._eprop3 import EligibilityOnly as EligibilityOnly
from eprop.rules._eprop3 import EProp3 as EProp3
from eprop.rules._eprop3 import SyntheticGradients as SyntheticGradients
from eprop.rules._fixed import Fixed as Fixed
from eprop.rules._immediate import Immediate as Immediate
from eprop.rules._rtrl import RTRL as RTRL
from eprop.rules._windowed import WindowedRule as WindowedRule

RULES: dict[str, type[Rule]] = {
    kind.name: kind
    for kind in (BPTT, TruncatedBPTT, RTRL, EProp1, Immediate, Fixed, SyntheticGradients, EligibilityOnly, EProp3)
}
"""Rules by name."""

WINDOWED: tuple[str, ...] = tuple(name for name, kind in RULES.items() if issubclass(kind, WindowedRule))
"""Rules whose option after ':' is their window."""


def make_rule(name: str, feedback: str | None = None, window: int | None = None) -> Rule:
    """The rule of that name; also written `name:option`, as in `eprop1:random` or `eprop3:4`.

    Args:
        feedback: of `eprop1` and `immediate`, where the name does not say it.
        window: steps a window, where the name does not say it.

    Example:
        >>> from eprop.rules import make_rule
        >>> make_rule("eprop1:adaptive").label
        'eprop1:adaptive'

    Raises:
        InvalidSetting: for an unknown rule or option, or one that the rule has no use for.
    """
    base, colon, option = name.replace("-", "_").partition(":")
    require_choice("rule", base, RULES)
    require(not colon or bool(option), f"rule = {name!r}: an option must follow the ':'")
    kind = RULES[base]
    named = _named_option(name, kind, option) if option else None
    takes = "window" if issubclass(kind, WindowedRule) else "feedback" if issubclass(kind, EProp1) else None
    for argument, value in (("feedback", feedback), ("window", window)):
        if value is None:
            continue
        require(takes == argument, f"{argument} = {value!r}: rule {base!r} has none")
        require(named in (None, value), f"{argument} = {value!r}: rule {name!r} says {named!r}")
        named = value
    return kind() if named is None else kind(named)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _named_option(name: str, kind: type[Rule], option: str) -> str | int:
    if issubclass(kind, WindowedRule):
        require(option.isdigit(), f"rule = {name!r}: the window after ':' must be a whole number of steps")
        return int(option)
    if issubclass(kind, (EProp1, Fixed)):
        return option
    raise InvalidSetting(f"rule = {name!r}: {kind.name} takes no option after ':'")
