"""A spoken corpus in TIMIT's layout, synthesised on this machine: `eprop data speech`."""

import dataclasses
import glob
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eprop.errors import InvalidSetting, require, require_positive
from eprop.files import process_lives
from eprop.workshop.speech._engine import Engine, Sound
from eprop.workshop.speech._extra import extra
from eprop.workshop.speech._processes import ordered_map, progress_bar
from eprop.workshop.speech._room import add_noise, reverberate
from eprop.workshop.speech._sentences import compose
from eprop.workshop.speech._voices import Speaker, draw_speaker, voices_of_splits

RATE = 16_000
SPLITS = ("train",) * 4 + ("test",) + ("train",) * 4 + ("dev",)
"""The split of one speaker after the other: of ten, eight for training."""


@dataclasses.dataclass(frozen=True)
class Synthesis:
    """Settings of a synthesised corpus; with the same settings and the same espeak-ng it is the same to the bit."""

    hours: float = 0.5
    """At least so many hours of speech in all: 80 % for training, 10 % each for development and test."""
    seed: int = 0
    """Seed of voices, sentences, noise and rooms."""
    sentences: int = 4
    """Sentences a speaker; no sentence is said twice."""
    snr_low: float = 0.0
    """Each utterance has noise, between white and pink; its level below the speech is drawn from snr-low ..."""
    snr_high: float = 20.0
    """... to snr-high, dB."""
    reverberant: float = 0.5
    """Share of utterances with a room's echoes."""
    echo_seconds: float = 0.4
    """A room's echoes decay by 60 dB in a time drawn from 0.1 s to this."""
    echo_level: float = -5.0
    """Energy of the echoes against the direct sound's, drawn from 10 dB less to this, dB."""

    def __post_init__(self) -> None:
        require_positive(hours=self.hours, sentences=self.sentences, echo_seconds=self.echo_seconds)
        require(0 <= self.seed < 2**31, f"seed = {self.seed}: must be from 0 to 2^31 - 1")
        require(self.snr_low <= self.snr_high, f"snr_low = {self.snr_low}: must not be above snr_high")
        require(0 <= self.reverberant <= 1, f"reverberant = {self.reverberant}: must be from 0 to 1")
        require(self.echo_seconds >= 0.1, f"echo_seconds = {self.echo_seconds}: must be at least 0.1")


PIECE = re.compile(r"corpus\.json|(TRAIN|DEV|TEST)/DR\d/\w+/SX\d+\.(WAV|PHN|TXT)")
"""A file of a corpus, from its folder."""


class Speaking(NamedTuple):
    """The words of one speaker, and where they belong."""

    settings: Synthesis
    number: int
    split: str
    speaker: Speaker
    sentences: list[str]


class Said(NamedTuple):
    """An utterance as it is written: 16-bit samples, and `(start, end, phone)` for each phone."""

    samples: np.ndarray
    phones: list[tuple[int, int, str]]
    text: str


def synthesise(out: Path, settings: Synthesis) -> dict[str, Any]:
    """Write the corpus to the folder `out`, whole or not at all.

    Returns:
        What `corpus.json` says: settings, and hours, speakers and utterances of each split.

    Raises:
        InvalidSetting: if there is something at `out` already, or it cannot be written.
        RunFailed: if the engine fails.
    """
    out = Path(out)
    require(not out.exists(), f"out = {out}: is there already; name a new folder")
    for module, package in (("soundfile", "soundfile"), ("espeakng_loader", "espeakng-loader"), ("scipy", "scipy")):
        extra(module, package)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    require(not partial.exists(), f"{partial}: is there already; remove it")
    try:
        _clear_partial(out)
        partial.mkdir(parents=True)
        report = _write_all(partial, settings)
        os.replace(partial, out)
    except OSError as error:
        raise InvalidSetting(f"out = {out}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # made above
    return report


def _clear_partial(out: Path) -> None:
    """Remove what processes that were killed left beside `out`: folders of the corpus's files alone."""
    for partial in out.parent.glob(f".{glob.escape(out.name)}.*.partial"):
        process = partial.name.split(".")[-2]
        files = [path for path in partial.rglob("*") if not path.is_dir() or path.is_symlink()]
        ours = all(PIECE.fullmatch(path.relative_to(partial).as_posix()) for path in files)
        if process.isdigit() and not process_lives(int(process)) and ours:
            shutil.rmtree(partial)


def _write_all(folder: Path, settings: Synthesis) -> dict[str, Any]:
    counts = {split: {"seconds": 0.0, "speakers": 0, "utterances": 0} for split in ("train", "dev", "test")}
    speakers, total = [], 3600 * settings.hours
    with progress_bar("speaking", settings.hours * 60, "minutes") as show:
        for task, said in ordered_map(speak, plan(settings), fresh=True):
            count = counts[task.split]
            _write_speaker(folder / task.split.upper() / f"DR{task.number % 8 + 1}" / task.speaker.name.upper(), said)
            count["speakers"] += 1
            count["utterances"] += len(said)
            count["seconds"] += sum(len(u.samples) for u in said) / RATE
            speakers.append(task.speaker._asdict() | {"split": task.split})
            done = sum(c["seconds"] for c in counts.values())
            show(done / 60)
            if done >= total and all(c["speakers"] for c in counts.values()):
                break
    splits = {name: count | {"seconds": round(count["seconds"], 3)} for name, count in counts.items()}
    report = {"settings": dataclasses.asdict(settings), "splits": splits, "speakers": speakers}
    (folder / "corpus.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def plan(settings: Synthesis) -> Iterator[Speaking]:
    """Speaker after speaker, without end: splits in turn, voices of their split in turn, sentences never twice."""
    random = np.random.default_rng(settings.seed)
    voices = voices_of_splits(random)
    spoken: set[str] = set()
    turn = dict.fromkeys(voices, 0)
    number = 0
    while True:
        split = SPLITS[number % len(SPLITS)]
        voice = voices[split][turn[split] % len(voices[split])]
        turn[split] += 1
        sentences: list[str] = []
        while len(sentences) < settings.sentences:
            sentence = compose(random)
            if sentence not in spoken:
                spoken.add(sentence)
                sentences.append(sentence)
        yield Speaking(settings, number, split, draw_speaker(number, voice, random), sentences)
        number += 1


def speak(speaking: Speaking) -> tuple[Speaking, list[Said]]:
    """The same, and all its utterances; to be called in a process of its own (see `_engine`)."""
    engine = Engine(speaking.speaker, speaking.settings.seed)
    random = np.random.default_rng([speaking.settings.seed, speaking.number])
    said = [_record(engine.say(sentence), sentence, speaking.settings, random) for sentence in speaking.sentences]
    return speaking, said


def _record(sound: Sound, text: str, settings: Synthesis, random: np.random.Generator) -> Said:
    """Speech in a room: 16 kHz, silence before and after, echoes and noise, boundaries in samples."""
    signals = extra("scipy.signal", "scipy")
    common = np.gcd(RATE, sound.rate)
    signal = signals.resample_poly(sound.signal, RATE // common, sound.rate // common)
    before, after = (int(random.uniform(0.1, 0.2) * RATE) for _ in range(2))
    starts = [before + round(start * RATE / sound.rate) for start, _ in sound.phones]
    names = [phone for _, phone in sound.phones]
    end = before + len(signal)
    signal = np.pad(signal, (before, after))
    if random.random() < settings.reverberant:
        seconds = random.uniform(0.1, settings.echo_seconds)
        level = settings.echo_level - random.uniform(0.0, 10.0)
        signal = reverberate(signal, RATE, seconds, level, random)
    signal = add_noise(signal, random.uniform(settings.snr_low, settings.snr_high), random)
    samples = np.round(signal * (0.5 / np.abs(signal).max()) * 2**15).astype(np.int16)
    bounds = [0, *starts, end, len(samples)]
    segments = zip(bounds[:-1], bounds[1:], ["h#", *names, "h#"], strict=True)
    return Said(samples, [segment for segment in segments if segment[1] > segment[0]], text)


def _write_speaker(folder: Path, said: list[Said]) -> None:
    soundfile: Any = extra("soundfile", "soundfile")
    folder.mkdir(parents=True)
    for i, utterance in enumerate(said, 1):
        soundfile.write(folder / f"SX{i}.WAV", utterance.samples, RATE, subtype="PCM_16", format="WAV")
        lines = "".join(f"{start} {end} {phone}\n" for start, end, phone in utterance.phones)
        (folder / f"SX{i}.PHN").write_text(lines)
        (folder / f"SX{i}.TXT").write_text(f"0 {len(utterance.samples)} {utterance.text}\n")
