"""Back-propagation through time, whole and truncated."""

from typing import ClassVar

from eprop.rules._base import Rule
from eprop.rules._windowed import WindowedRule


class BPTT(Rule):
    """Back-propagation through time: the exact gradient, at the price of storing the whole past.

    Approximation: none, but for the pseudo-derivative of spikes.

    Example:
        >>> from eprop import BPTT
        >>> BPTT().label
        'bptt'
    """

    name: ClassVar[str] = "bptt"
    streams: ClassVar[bool] = False

    @property
    def label(self) -> str:
        return self.name


class TruncatedBPTT(WindowedRule):
    """BPTT whose gradient does not cross multiples of `window` steps (Williams & Peng 1990).

    Approximation: at the start of each window the state (the readout's filter included) and `z_prev` are detached.

    Args:
        window: steps a window, at least 1.

    Example:
        >>> from eprop import TruncatedBPTT
        >>> TruncatedBPTT(20).label
        'truncated_bptt:20'
    """

    name: ClassVar[str] = "truncated_bptt"
