"""ReckOn: e-prop in the integers of a spiking chip's public design, register by register."""

from eprop.chips.reckon._run import Events as Events
from eprop.chips.reckon._run import Registers as Registers
from eprop.chips.reckon._run import Result as Result
from eprop.chips.reckon._run import run as run
from eprop.chips.reckon._settings import ReckOn as ReckOn
from eprop.chips.reckon._state import Generators as Generators
from eprop.chips.reckon._state import Neurons as Neurons
from eprop.chips.reckon._state import ReckOnState as ReckOnState
from eprop.chips.reckon._state import Weights as Weights
from eprop.chips.reckon._state import start as start
from eprop.chips.reckon._training import Initial as Initial
from eprop.chips.reckon._training import Learnt as Learnt
from eprop.chips.reckon._training import accuracy as accuracy
from eprop.chips.reckon._training import initial as initial
from eprop.chips.reckon._training import learn as learn
