"""A trained speech network at work: the phones of a sound, with times."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from eprop.errors import InvalidSetting, require
from eprop.networks import Bidirectional
from eprop.workshop.speech import (
    FOLDING,
    HOP,
    WINDOW,
    BadUtterance,
    Utterance,
    features_of,
    find_utterances,
    read_segments,
    read_sound,
)
from eprop.workshop.tasks import Speech
from eprop.workshop.training import LoadedRun, RunFolder, load_run, read_json

Timed = tuple[float, float, str]
"""A phone: start and end in seconds, name."""


class Transcript(NamedTuple):
    """A network's reading of one sound."""

    name: str
    seconds: float
    bands: np.ndarray  # [frame, band], log mel energies, for the picture
    z: np.ndarray  # [step, neuron], of the last layer
    spiking: bool
    forward: int  # so many of the neurons read forwards
    probabilities: np.ndarray  # [frame, class]
    phones: tuple[str, ...]  # the classes; "" is CTC's blank
    predicted: list[Timed]
    true: list[Timed] | None


@dataclasses.dataclass(frozen=True)
class TrainedSpeech(Speech):
    """The speech task as a run folder remembers it: its classes are known without the corpus."""

    known: tuple[str, ...] = ()

    @property
    def n_out(self) -> int:
        return len(self.known) + (self.objective == "ctc")


def load_speech_run(path: Path) -> tuple[LoadedRun, dict[str, Any]]:
    """A trained speech network and what its folder remembers of the data.

    Raises:
        InvalidSetting: if the folder holds no run of the task speech, or one that has no checkpoint yet.
    """
    folder = RunFolder.open(path)
    task = folder.config.get("task")
    trained = folder.config["command"] in ("train", "gradients") and (folder.path / "data.json").is_file()
    require(task == "speech" and trained, f"{path}: is not the folder of a trained speech network")
    facts = read_json(folder.path / "data.json")
    settings = folder.config["experiment"]["task"]
    known = {name: settings[name] for name in ("features", "phones", "objective")}
    return load_run(path, TrainedSpeech(**known, known=tuple(facts["phones"]))), facts


def transcribe(
    run: LoadedRun, facts: dict[str, Any], path: Path, seed: int = 0, beside: Utterance | None = None
) -> Transcript:
    """The phones that a trained network hears in a sound file.

    Args:
        run: from `load_speech_run`, with its `facts`.
        path: the sound; one channel, at the rate of the corpus.
        seed: which of the run's seeds, by its place.
        beside: the utterance with the true phones, where they are known.

    Raises:
        InvalidSetting: if the sound cannot be used.
    """
    try:
        signal, rate = read_sound(path)
        true = None if beside is None else _true_phones(run.experiment.task, beside, len(signal), rate)
    except BadUtterance as bad:
        raise InvalidSetting(str(bad)) from None
    require(rate == facts["rate"], f"{path}: has {rate} samples a second; the network was trained at {facts['rate']}")
    features = features_of(signal, rate, run.experiment.task.features)
    normal = ((features - np.array(facts["mean"])) / np.array(facts["std"])).astype(run.experiment.network.precision)
    network = run.trainer.network(run.state, seed)
    result = eqx.filter_jit(network)(jnp.asarray(normal)[:, None], run.trainer.rule)
    phones = (*facts["phones"], "") if run.experiment.task.objective == "ctc" else tuple(facts["phones"])
    probabilities = np.asarray(jax.nn.softmax(result.y[:, 0]))
    layer = network.layers[-1]
    return Transcript(
        name=path.name if beside is None else f"{beside.speaker.upper()}/{path.name}",
        seconds=len(signal) / rate,
        bands=features_of(signal, rate, "fbank")[:, 1:41],
        z=np.asarray(result.z[-1][:, 0]),
        spiking=run.trainer.spiking,
        forward=layer.forward.size if isinstance(layer, Bidirectional) else layer.size,
        probabilities=probabilities,
        phones=phones,
        predicted=timed([phones[k] for k in probabilities.argmax(1)], len(signal) / rate),
        true=true,
    )


def transcribe_test_utterance(path: Path, seed: int = 0) -> Transcript:
    """The first utterance of the corpus's test set, beside its true phones."""
    run, facts = load_speech_run(path)
    task: Speech = load_run(path).experiment.task
    found = {str(utterance.audio): utterance for utterance in find_utterances(Path(str(task.data)))}
    utterance = found[task.corpus.paths[int(task.corpus.of("test")[0])]]
    return transcribe(run, facts, utterance.audio, seed, utterance)


def timed(names: list[str], seconds: float) -> list[Timed]:
    """Frames' phones as phones with times: a frame reaches half a hop to either side of its window's midpoint.

    The first begins with the sound, the last ends with it; frames named "" (CTC's blank) are no phone.
    """
    starts = [k for k, name in enumerate(names) if k == 0 or name != names[k - 1]]
    times = [0.0, *(k * HOP + (WINDOW - HOP) / 2 for k in starts[1:]), seconds]
    spans = zip(times[:-1], times[1:], (names[k] for k in starts), strict=True)
    return [(start, min(end, seconds), name) for start, end, name in spans if name and start < seconds]


def _true_phones(task: Speech, utterance: Utterance, samples: int, rate: int) -> list[Timed]:
    segments = read_segments(utterance, samples, rate)
    fold = (lambda name: FOLDING.get(name, name) or name) if task.phones == "folded" else (lambda name: name)
    bounds = zip(segments.starts, segments.ends, segments.names, strict=True)
    return [(start / rate, end / rate, fold(name)) for start, end, name in bounds]
