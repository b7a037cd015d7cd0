"""eprop: train recurrent networks online with eligibility propagation (e-prop), for any neuron model."""

from eprop.errors import InvalidSetting as InvalidSetting
from eprop.learning_signals import ErrorModule as ErrorModule
from eprop.networks import Bidirectional as Bidirectional
from eprop.networks import Network as Network
from eprop.networks import Readout as Readout
from eprop.networks import Recurrent as Recurrent
from eprop.networks import kolen_pollack_decay as kolen_pollack_decay
from eprop.networks import trainable as trainable
from eprop.neurons import ALIF as ALIF
from eprop.neurons import GRU as GRU
from eprop.neurons import LIF as LIF
from eprop.neurons import LSTM as LSTM
from eprop.neurons import Filtered as Filtered
from eprop.neurons import Neuron as Neuron
from eprop.neurons import Rate as Rate
from eprop.online import OnlineLearner as OnlineLearner
from eprop.online import OnlineMetrics as OnlineMetrics
from eprop.online import OnlineState as OnlineState
from eprop.online import suggested_window as suggested_window
from eprop.rules import BPTT as BPTT
from eprop.rules import RTRL as RTRL
from eprop.rules import EProp1 as EProp1
from eprop.rules import Rule as Rule
from eprop.rules import TruncatedBPTT as TruncatedBPTT
from eprop.rules import make_rule as make_rule

__version__ = "0.2.0.dev0"
