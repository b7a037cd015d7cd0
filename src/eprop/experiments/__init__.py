"""Experiments: several runs, a table and a picture."""

from eprop.experiments._compare import begun_rule as begun_rule
from eprop.experiments._compare import better as better
from eprop.experiments._compare import comparison_table as comparison_table
from eprop.experiments._compare import rule_folder as rule_folder
from eprop.experiments._compare import run_comparison as run_comparison
from eprop.experiments._compare import start_comparison as start_comparison
from eprop.experiments._gradients import gradients_table as gradients_table
from eprop.experiments._gradients import measure_gradients as measure_gradients
from eprop.experiments._one_shot import OneShotReproduction as OneShotReproduction
from eprop.experiments._reproduction import REPRODUCTIONS as REPRODUCTIONS
from eprop.experiments._reproduction import Reproduction as Reproduction
from eprop.experiments._reproduction import reproduction_of as reproduction_of
from eprop.experiments._reproduction import start_reproduction as start_reproduction
from eprop.experiments._speech import confusion as confusion
from eprop.experiments._transcribe import Timed as Timed
from eprop.experiments._transcribe import Transcript as Transcript
from eprop.experiments._transcribe import load_speech_run as load_speech_run
from eprop.experiments._transcribe import transcribe as transcribe
from eprop.experiments._transcribe import transcribe_test_utterance as transcribe_test_utterance
from eprop.experiments._windows import CopyRepeatFigure as CopyRepeatFigure
from eprop.experiments._windows import WindowsSettings as WindowsSettings
from eprop.experiments._windows import WordsFigure as WordsFigure
from eprop.experiments._windows import rule_path as rule_path
