"""Training: settings to networks, the update, the loop, the run folder."""

from eprop.training._build import build_network as build_network
from eprop.training._build import build_neuron as build_neuron
from eprop.training._build import build_optimiser as build_optimiser
from eprop.training._learner import Learner as Learner
from eprop.training._learner import TrainState as TrainState
