"""Learning signals: where `L_j^t` comes from."""

from eprop.learning_signals._broadcast import FEEDBACKS as FEEDBACKS
from eprop.learning_signals._broadcast import Feedback as Feedback
from eprop.learning_signals._broadcast import backward_weights as backward_weights
from eprop.learning_signals._broadcast import broadcast_readout as broadcast_readout
from eprop.learning_signals._error_module import ErrorModule as ErrorModule
from eprop.learning_signals._firing_rate import firing_rate_loss as firing_rate_loss
from eprop.learning_signals._firing_rate import firing_rates as firing_rates
from eprop.learning_signals._synthetic_gradient import SyntheticGradient as SyntheticGradient
from eprop.learning_signals._synthetic_gradient import boundary_loss as boundary_loss
from eprop.learning_signals._synthetic_gradient import prediction_error as prediction_error
