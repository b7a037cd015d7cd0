"""Tasks: what is learnt. One file a task: data, loss, metric, published settings."""

from typing import Any

from eprop.workshop.settings import Experiment
from eprop.workshop.tasks import (
    _adding,
    _arrays,
    _copy_memory,
    _copy_repeat,
    _evidence_accumulation,
    _pattern_generation,
    _speech,
    _store_recall,
    _words,
)
from eprop.workshop.tasks._adding import Adding as Adding
from eprop.workshop.tasks._arm import Arm as Arm
from eprop.workshop.tasks._arrays import ArraysTask as ArraysTask
from eprop.workshop.tasks._base import Batch as Batch
from eprop.workshop.tasks._base import Task as Task
from eprop.workshop.tasks._base import cross_entropy as cross_entropy
from eprop.workshop.tasks._base import normalised_squared_error as normalised_squared_error
from eprop.workshop.tasks._base import squared_error as squared_error
from eprop.workshop.tasks._codes import clock as clock
from eprop.workshop.tasks._codes import population_code as population_code
from eprop.workshop.tasks._copy_memory import CopyMemory as CopyMemory
from eprop.workshop.tasks._copy_repeat import CopyRepeat as CopyRepeat
from eprop.workshop.tasks._evidence_accumulation import EvidenceAccumulation as EvidenceAccumulation
from eprop.workshop.tasks._family import TaskFamily as TaskFamily
from eprop.workshop.tasks._pattern_generation import PatternGeneration as PatternGeneration
from eprop.workshop.tasks._sinusoids import Sinusoids as Sinusoids
from eprop.workshop.tasks._speech import Speech as Speech
from eprop.workshop.tasks._store_recall import StoreRecall as StoreRecall
from eprop.workshop.tasks._stream import StreamTask as StreamTask
from eprop.workshop.tasks._stream import Window as Window
from eprop.workshop.tasks._words import Words as Words

TASKS: dict[str, dict[str, Experiment[Any]]] = {
    "pattern-generation": _pattern_generation.PRESETS,
    "store-recall": _store_recall.PRESETS,
    "evidence-accumulation": _evidence_accumulation.PRESETS,
    "speech": _speech.PRESETS,
    "copy-memory": _copy_memory.PRESETS,
    "adding": _adding.PRESETS,
    "copy-repeat": _copy_repeat.PRESETS,
    "words": _words.PRESETS,
    "arrays": _arrays.PRESETS,
}
"""Every task that can be trained: its presets by name, the first the default."""
