"""eprop: train recurrent networks online with eligibility propagation (e-prop), for any neuron model."""

import sys
from collections.abc import Callable as _Callable
from typing import Any as _Any

from eprop._deprecation import moved as _moved
from eprop._deprecation import renamed as _renamed
from eprop.errors import InvalidSetting as InvalidSetting
from eprop.learner import Learner as Learner
from eprop.learner import LearnerMetrics as LearnerMetrics
from eprop.learner import LearnerState as LearnerState
from eprop.learner import suggested_window as suggested_window
from eprop.learning_signals import ErrorModule as ErrorModule
from eprop.networks import Bidirectional as Bidirectional
from eprop.networks import Block as Block
from eprop.networks import Broadcast as Broadcast
from eprop.networks import Dense as Dense
from eprop.networks import GatedLinearUnit as GatedLinearUnit
from eprop.networks import LayerNorm as LayerNorm
from eprop.networks import Network as Network
from eprop.networks import Population as Population
from eprop.networks import Readout as Readout
from eprop.networks import Recurrent as Recurrent
from eprop.networks import Rewiring as Rewiring
from eprop.networks import apply_updates as apply_updates
from eprop.networks import kolen_pollack_decay as kolen_pollack_decay
from eprop.networks import partition as partition
from eprop.networks import random_mask as random_mask
from eprop.networks import trainable as trainable
from eprop.networks import value_and_grad as value_and_grad
from eprop.neurons import ALIF as ALIF
from eprop.neurons import ELSTM as ELSTM
from eprop.neurons import GRU as GRU
from eprop.neurons import LIF as LIF
from eprop.neurons import LRU as LRU
from eprop.neurons import LSTM as LSTM
from eprop.neurons import RTU as RTU
from eprop.neurons import STDPALIF as STDPALIF
from eprop.neurons import STDPLIF as STDPLIF
from eprop.neurons import AdEx as AdEx
from eprop.neurons import CubaLIF as CubaLIF
from eprop.neurons import Filtered as Filtered
from eprop.neurons import Izhikevich as Izhikevich
from eprop.neurons import MinGRU as MinGRU
from eprop.neurons import Neuron as Neuron
from eprop.neurons import Range as Range
from eprop.neurons import Rate as Rate
from eprop.neurons import keep_in_range as keep_in_range
from eprop.rules import BPTT as BPTT
from eprop.rules import RTRL as RTRL
from eprop.rules import EProp1 as EProp1
from eprop.rules import EProp3 as EProp3
from eprop.rules import Immediate as Immediate
from eprop.rules import Rule as Rule
from eprop.rules import TruncatedBPTT as TruncatedBPTT
from eprop.rules import make_rule as make_rule

__version__ = "0.2.0.dev0"

__getattr__: _Callable[[str], _Any] = _renamed(
    __name__,
    {
        "OnlineLearner": "eprop.Learner",
        "OnlineState": "eprop.LearnerState",
        "OnlineMetrics": "eprop.LearnerMetrics",
    },
    removed_in="0.4.0",
)

_WORKSHOP = {"bench", "cli", "experiments", "figures", "memory", "settings", "speech", "streams", "tasks", "training"}
sys.meta_path.insert(0, _moved("eprop", _WORKSHOP, into="eprop.workshop", removed_in="0.4.0"))
