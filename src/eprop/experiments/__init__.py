"""Experiments: several runs, a table and a picture."""

from eprop.experiments._compare import comparison_table as comparison_table
from eprop.experiments._compare import rule_folder as rule_folder
from eprop.experiments._compare import run_comparison as run_comparison
from eprop.experiments._compare import start_comparison as start_comparison
from eprop.experiments._gradients import gradients_table as gradients_table
from eprop.experiments._gradients import measure_gradients as measure_gradients
from eprop.experiments._one_shot import ONE_SHOT_ARM, ONE_SHOT_SINUSOIDS
from eprop.experiments._reproduction import REPRODUCTIONS as REPRODUCTIONS
from eprop.experiments._reproduction import Reproduction as Reproduction
from eprop.experiments._reproduction import reproduction_of as reproduction_of
from eprop.experiments._reproduction import start_reproduction as start_reproduction

REPRODUCTIONS["one-shot-arm"] = ONE_SHOT_ARM
REPRODUCTIONS["one-shot-sinusoids"] = ONE_SHOT_SINUSOIDS
