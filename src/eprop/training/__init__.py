"""Training: settings to networks, the update, the loop, the run folder."""

from eprop.training._build import build_network as build_network
from eprop.training._build import build_neuron as build_neuron
from eprop.training._build import build_optimiser as build_optimiser
from eprop.training._folder import RunFolder as RunFolder
from eprop.training._folder import as_fields as as_fields
from eprop.training._folder import experiment_from_json as experiment_from_json
from eprop.training._folder import experiment_to_json as experiment_to_json
from eprop.training._folder import read_json as read_json
from eprop.training._folder import versions as versions
from eprop.training._folder import write_json as write_json
from eprop.training._learner import Learner as Learner
from eprop.training._learner import TrainState as TrainState
from eprop.training._learner import stream as stream
from eprop.training._loop import AnyLearner as AnyLearner
from eprop.training._loop import Interrupted as Interrupted
from eprop.training._loop import make_learner as make_learner
from eprop.training._loop import restore_newest as restore_newest
from eprop.training._loop import stop_signals as stop_signals
from eprop.training._loop import train as train
from eprop.training._one_shot import Learnt as Learnt
from eprop.training._one_shot import Lesson as Lesson
from eprop.training._one_shot import OneShotExperiment as OneShotExperiment
from eprop.training._one_shot import OneShotLearner as OneShotLearner
from eprop.training._runs import LoadedRun as LoadedRun
from eprop.training._runs import load_run as load_run
from eprop.training._windowed import WindowedLearner as WindowedLearner
