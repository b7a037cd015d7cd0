"""e-prop 3 and the rules it is made of: truncated BPTT in windows, with traces, with synthetic gradients, with both."""

from typing import ClassVar

import equinox as eqx

from eprop.eligibility import unroll_exact, unroll_with_boundary
from eprop.errors import require
from eprop.rules._base import Rule


class WindowedRule(Rule):
    """A rule that meets a sequence window by window (see `training.WindowedLearner`).

    Its `unroll` runs one window. Two properties tell the rules apart: whether eligibility traces are
    carried over the window's start, and whether a synthetic gradient reaches over its end.

    Args:
        window: steps a window, at least 1.
    """

    streams: ClassVar[bool] = False
    window: int = eqx.field(default=4, static=True)

    def __check_init__(self) -> None:
        require(self.window >= 1, f"window = {self.window}: must be at least 1 step")

    @property
    def label(self) -> str:
        return f"{self.name}:{self.window}"


class SyntheticGradients(WindowedRule):
    """Decoupled neural interfaces in time (Jaderberg et al. 2016, arXiv 1608.05343).

    Truncated BPTT whose window is seeded at its end with a synthetic gradient for the recurrent state.

    Approximation: a weight's effect through the state before the window is not counted; the future is as good
    as its prediction.
    """

    name: ClassVar[str] = "synthetic_gradients"
    synthesises: ClassVar[bool] = True

    def unroll(self, neuron, synapses, inputs, carry):
        return unroll_exact(neuron, synapses, inputs, carry)


class EligibilityOnly(WindowedRule):
    """e-prop 3 without its synthetic gradient: truncated BPTT's learning signals times carried eligibility traces.

        dE/dW_ji = sum_t L_j^t e_ji^t,     L_j^t = dE/dz_j^t, of the losses up to the end of t's window

    Approximation: what an output does to the loss after its window's end, through other neurons, is not counted.
    """

    name: ClassVar[str] = "eligibility_only"
    carries_traces: ClassVar[bool] = True

    def unroll(self, neuron, synapses, inputs, carry):
        return unroll_with_boundary(neuron, synapses, inputs, carry)


class EProp3(EligibilityOnly):
    """e-prop 3 (Bellec et al. 2019, arXiv 1901.09049): traces carry the past, a synthetic gradient the future.

        dE/dW_ji = sum_t L_j^t e_ji^t,     L_j^t = dE/dz_j^t, seeded at the window's end with SG(s, z)

    Approximation: none but the prediction's error: with the true gradient at the boundaries, and weights
    that stay as they are, the sum over windows is BPTT's gradient, for any window.
    """

    name: ClassVar[str] = "eprop3"
    synthesises: ClassVar[bool] = True
