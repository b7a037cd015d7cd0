"""e-prop 3 and the rules it is made of: BPTT in windows, with traces, with synthetic gradients, with both."""

from typing import ClassVar

from eprop.rules._windowed import WindowedRule


class SyntheticGradients(WindowedRule):
    """Decoupled neural interfaces in time (Jaderberg et al. 2016, arXiv 1608.05343).

    Truncated BPTT whose window is seeded at its end with a synthetic gradient for the recurrent state.

    Approximation: a weight's effect through the state before the window is not counted; the future is as good
    as its prediction.

    Example:
        >>> from eprop.rules import SyntheticGradients
        >>> SyntheticGradients(4).label
        'synthetic_gradients:4'
    """

    name: ClassVar[str] = "synthetic_gradients"
    synthesises: ClassVar[bool] = True


class EligibilityOnly(WindowedRule):
    """e-prop 3 without its synthetic gradient: truncated BPTT's learning signals times carried eligibility traces.

        dE/dW_ji = sum_t L_j^t e_ji^t,     L_j^t = dE/dz_j^t, of the losses up to the end of t's window

    Approximation: what an output does to the loss after its window's end, through other neurons, is not counted.

    Example:
        >>> from eprop.rules import EligibilityOnly
        >>> EligibilityOnly(4).label
        'eligibility_only:4'
    """

    name: ClassVar[str] = "eligibility_only"

    @property
    def carries_traces(self) -> bool:
        return True


class EProp3(EligibilityOnly):
    """e-prop 3 (Bellec et al. 2019, arXiv 1901.09049): traces carry the past, a synthetic gradient the future.

        dE/dW_ji = sum_t L_j^t e_ji^t,     L_j^t = dE/dz_j^t, seeded at the window's end with SG(s, z)

    Approximation: none but the prediction's error: with the true gradient at the boundaries, and weights
    that stay as they are, the sum over windows is BPTT's gradient, for any window.

    Example:
        >>> from eprop import EProp3
        >>> EProp3(4).label
        'eprop3:4'
    """

    name: ClassVar[str] = "eprop3"
    synthesises: ClassVar[bool] = True
