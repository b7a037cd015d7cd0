"""Loihi: neurons, synapses, traces and learning rules in the integers of Intel's open models of the chip."""

from eprop.chips.loihi._draws import Draws as Draws
from eprop.chips.loihi._draws import draw as draw
from eprop.chips.loihi._draws import never as never
from eprop.chips.loihi._eprop import EPropRule as EPropRule
from eprop.chips.loihi._eprop import eprop_alif as eprop_alif
from eprop.chips.loihi._eprop import eprop_lif as eprop_lif
from eprop.chips.loihi._evaluate import Synapses as Synapses
from eprop.chips.loihi._grammar import Factor as Factor
from eprop.chips.loihi._grammar import Product as Product
from eprop.chips.loihi._grammar import parse as parse
from eprop.chips.loihi._grammar import write as write
from eprop.chips.loihi._neuron import LIFState as LIFState
from eprop.chips.loihi._run import ConnectionRecord as ConnectionRecord
from eprop.chips.loihi._run import ConnectionState as ConnectionState
from eprop.chips.loihi._run import LoihiState as LoihiState
from eprop.chips.loihi._run import Record as Record
from eprop.chips.loihi._run import run as run
from eprop.chips.loihi._run import start as start
from eprop.chips.loihi._settings import Connection as Connection
from eprop.chips.loihi._settings import LearningRule as LearningRule
from eprop.chips.loihi._settings import Loihi as Loihi
from eprop.chips.loihi._settings import LoihiLIF as LoihiLIF
from eprop.chips.loihi._settings import Variant as Variant
from eprop.chips.loihi._text import rule_from_text as rule_from_text
from eprop.chips.loihi._text import rule_to_text as rule_to_text
