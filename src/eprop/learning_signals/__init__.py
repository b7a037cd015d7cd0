"""Learning signals: where `L_j^t` comes from."""

from eprop.errors import InvalidSetting, require_choice
from eprop.learning_signals._adaptive import Adaptive as Adaptive
from eprop.learning_signals._base import Feedback as Feedback
from eprop.learning_signals._base import broadcast_readout as broadcast_readout
from eprop.learning_signals._error_module import ErrorModule as ErrorModule
from eprop.learning_signals._firing_rate import firing_rate_loss as firing_rate_loss
from eprop.learning_signals._firing_rate import firing_rates as firing_rates
from eprop.learning_signals._random import Random as Random
from eprop.learning_signals._symmetric import Symmetric as Symmetric
from eprop.learning_signals._synthetic_gradient import SyntheticGradient as SyntheticGradient
from eprop.learning_signals._synthetic_gradient import boundary as boundary
from eprop.learning_signals._synthetic_gradient import boundary_loss as boundary_loss
from eprop.learning_signals._synthetic_gradient import prediction_error as prediction_error
from eprop.learning_signals._synthetic_gradient import seeded as seeded
from eprop.learning_signals._synthetic_gradient import with_boundary as with_boundary
from eprop.learning_signals._uniform import Uniform as Uniform

FEEDBACKS: dict[str, Feedback] = {kind.name: kind for kind in (Symmetric(), Random(), Adaptive(), Uniform())}
"""Kinds of feedback, by name."""


def as_feedback(feedback: str | Feedback) -> Feedback:
    """A kind of feedback, given itself or its name.

    Example:
        >>> as_feedback("random")
        Random()

    Raises:
        InvalidSetting: for an unknown name, or something that is neither.
    """
    if isinstance(feedback, Feedback):
        return feedback
    if not isinstance(feedback, str):
        raise InvalidSetting(f"feedback = {feedback!r}: must be a kind of feedback, or the name of one")
    require_choice("feedback", feedback, FEEDBACKS)
    return FEEDBACKS[feedback]
