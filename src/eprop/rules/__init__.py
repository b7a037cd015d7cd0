"""Learning rules, switched by one argument. Each joins a way to differentiate the unroll with a learning signal."""

from collections.abc import Callable

from eprop.errors import InvalidSetting, require_choice
from eprop.learning_signals import Feedback
from eprop.rules._base import Rule as Rule
from eprop.rules._bptt import BPTT as BPTT
from eprop.rules._bptt import TruncatedBPTT as TruncatedBPTT
from eprop.rules._eprop1 import EProp1 as EProp1
from eprop.rules._eprop2 import inner_gradient as inner_gradient
from eprop.rules._eprop2 import inner_update as inner_update
from eprop.rules._eprop3 import EligibilityOnly as EligibilityOnly
from eprop.rules._eprop3 import EProp3 as EProp3
from eprop.rules._eprop3 import SyntheticGradients as SyntheticGradients
from eprop.rules._eprop3 import WindowedRule as WindowedRule
from eprop.rules._fixed import Fixed as Fixed
from eprop.rules._rtrl import RTRL as RTRL

_MAKERS: dict[str, Callable[[Feedback, int], Rule]] = {
    "bptt": lambda feedback, window: BPTT(),
    "truncated_bptt": lambda feedback, window: TruncatedBPTT(window),
    "rtrl": lambda feedback, window: RTRL(),
    "eprop1": lambda feedback, window: EProp1(feedback),
    "fixed": lambda feedback, window: Fixed(),
    "synthetic_gradients": lambda feedback, window: SyntheticGradients(window),
    "eligibility_only": lambda feedback, window: EligibilityOnly(window),
    "eprop3": lambda feedback, window: EProp3(window),
}
RULES: tuple[str, ...] = tuple(_MAKERS)
WINDOWED: tuple[str, ...] = ("truncated_bptt", "synthetic_gradients", "eligibility_only", "eprop3")
"""Rules whose option after ':' is their window; they can train on streams, window by window."""


def make_rule(name: str, feedback: Feedback = "symmetric", window: int = 50) -> Rule:
    """The rule of that name; also written `name:option`, as in `eprop1:random` or `eprop3:4`.

    Example:
        >>> from eprop.rules import make_rule
        >>> make_rule("eprop1:adaptive").label
        'eprop1:adaptive'

    Raises:
        InvalidSetting: for an unknown rule or option.
    """
    base, _, option = name.replace("-", "_").partition(":")
    require_choice("rule", base, RULES)
    if option and base == "eprop1":
        return EProp1(option)
    if option and base == "fixed":
        return Fixed(option)
    if option and base in WINDOWED:
        if not option.isdigit():
            raise InvalidSetting(f"rule = {name!r}: the window after ':' must be a whole number of steps")
        return _MAKERS[base](feedback, int(option))
    if option:
        raise InvalidSetting(f"rule = {name!r}: {base} takes no option after ':'")
    return _MAKERS[base](feedback, window)
