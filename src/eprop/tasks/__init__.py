"""Tasks: what is learnt. One file a task: data, loss, metric, published settings."""

from eprop.tasks import (
    _arrays,
    _copy_repeat,
    _evidence_accumulation,
    _pattern_generation,
    _speech,
    _store_recall,
    _words,
)
from eprop.tasks._arm import Arm as Arm
from eprop.tasks._arrays import ArraysTask as ArraysTask
from eprop.tasks._base import Batch as Batch
from eprop.tasks._base import Task as Task
from eprop.tasks._codes import clock as clock
from eprop.tasks._codes import population_code as population_code
from eprop.tasks._copy_repeat import CopyRepeat as CopyRepeat
from eprop.tasks._evidence_accumulation import EvidenceAccumulation as EvidenceAccumulation
from eprop.tasks._family import TaskFamily as TaskFamily
from eprop.tasks._pattern_generation import PatternGeneration as PatternGeneration
from eprop.tasks._sinusoids import Sinusoids as Sinusoids
from eprop.tasks._speech import Speech as Speech
from eprop.tasks._store_recall import StoreRecall as StoreRecall
from eprop.tasks._stream import StreamTask as StreamTask
from eprop.tasks._stream import Window as Window
from eprop.tasks._words import Words as Words

TASKS = {
    "pattern-generation": _pattern_generation.PRESETS,
    "store-recall": _store_recall.PRESETS,
    "evidence-accumulation": _evidence_accumulation.PRESETS,
    "speech": _speech.PRESETS,
    "copy-repeat": _copy_repeat.PRESETS,
    "words": _words.PRESETS,
    "arrays": _arrays.PRESETS,
}
"""Every task that can be trained: its presets by name, the first the default."""
