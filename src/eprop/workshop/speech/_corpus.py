"""Reading a corpus in TIMIT's layout: which files there are, whose they are, what is in them."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eprop.errors import require
from eprop.workshop.speech._extra import extra
from eprop.workshop.speech._phones import CORE_TEST, DEVELOPMENT

SPLITS = ("train", "dev", "test")
EVERYONES = re.compile(r"sa[12]")
"""TIMIT's two sentences that all speakers say: they are left out."""

PAST_THE_END = 0.025
"""Seconds by which the last boundary may lie past the signal's end: a window of the features."""


RATES, LONGEST = (1000, 768_000), 3600
"""Samples a second that a sound may have, and the seconds that it may last: a damaged file may say anything."""


class BadUtterance(Exception):
    """An utterance that cannot be used: the message names its file and the reason."""


class Utterance(NamedTuple):
    """One utterance's files. `phones` is None where there is no such file."""

    audio: Path
    phones: Path | None
    speaker: str
    split: str


class Segments(NamedTuple):
    """An utterance's phones: `[phone]` each, bounds in samples."""

    starts: np.ndarray
    ends: np.ndarray
    names: list[str]


def find_utterances(root: Path) -> list[Utterance]:
    """All utterances of a corpus, without the sentences SA1 and SA2, in the order of their paths.

    Under `root` (or in a folder TIMIT there) stand folders TRAIN and TEST, and under each, at any depth, a
    folder a speaker with sound (.WAV: NIST SPHERE, RIFF, or whatever soundfile reads) and phones (.PHN); letter case is
    free. A folder DEV holds the development set. Without one: where the core test set's speakers are
    found in TEST this is TIMIT: they are the test set, the 50 of the standard list the development set,
    and the other speakers of TEST are left out; elsewhere every tenth speaker of TRAIN is the development set.

    Raises:
        InvalidSetting: if there are no such folders, or no sound in one of them.
    """
    root = Path(root)
    require(root.is_dir(), f"data = {root}: is not a folder")
    folders = _split_folders(root)
    found = {split: _utterances(folder, split) for split, folder in folders.items()}
    for split in ("train", "test"):
        require(split in found, f"data = {root}: has no folder {split.upper()}")
        require(len(found[split]) > 0, f"data = {folders[split]}: holds no .WAV files, but for the sentences SA")
    if "dev" not in found:
        found |= _standard_split(found["train"], found["test"])
    require(len(found["dev"]) > 0, f"data = {root}: no speakers for development; make a folder DEV, or add speakers")
    return [utterance for split in SPLITS for utterance in found[split]]


def _split_folders(root: Path) -> dict[str, Path]:
    inside = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    if "train" not in inside and "timit" in inside:
        return _split_folders(inside["timit"])
    return {split: inside[split] for split in SPLITS if split in inside}


def _utterances(folder: Path, split: str) -> list[Utterance]:
    """Each sound file of a split, with its `.PHN` if there is one."""
    by_folder: dict[Path, dict[str, Path]] = defaultdict(dict)
    for path in sorted(folder.rglob("*")):
        by_folder[path.parent][path.name.lower()] = path
    found = []
    for parent, files in by_folder.items():
        sounds = {name.split(".")[0]: path for name, path in files.items() if name.endswith(".wav")}
        for stem, audio in sounds.items():
            if not EVERYONES.fullmatch(stem):
                found.append(Utterance(audio, files.get(f"{stem}.phn"), parent.name.lower(), split))
    return found


def _standard_split(train: list[Utterance], test: list[Utterance]) -> dict[str, list[Utterance]]:
    if CORE_TEST <= {u.speaker for u in test}:
        dev = [u._replace(split="dev") for u in test if u.speaker in DEVELOPMENT]
        return {"dev": dev, "test": [u for u in test if u.speaker in CORE_TEST]}
    speakers = sorted({u.speaker for u in train})
    held_out = set(speakers[9::10] or speakers[1:][-1:])
    dev = [u._replace(split="dev") for u in train if u.speaker in held_out]
    return {"dev": dev, "train": [u for u in train if u.speaker not in held_out]}


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """Samples on the scale of 16-bit integers, and their rate.

    Raises:
        BadUtterance: if the file is no sound, is cut short, is empty, or has several channels.
    """
    soundfile: Any = extra("soundfile", "soundfile")
    try:
        with soundfile.SoundFile(path) as file:
            rate, channels, frames = file.samplerate, file.channels, file.frames
            if channels != 1:
                raise BadUtterance(f"{path}: has {channels} channels, expected 1")
            if not RATES[0] <= rate <= RATES[1]:
                raise BadUtterance(f"{path}: has {rate} samples a second, expected {RATES[0]} to {RATES[1]}")
            if frames > LONGEST * rate:
                raise BadUtterance(f"{path}: lasts {frames / rate:.0f} s, at most {LONGEST} s are read")
            signal = file.read(dtype="float64", always_2d=True)
    except (soundfile.LibsndfileError, OSError, RuntimeError, ValueError, MemoryError) as error:
        raise BadUtterance(f"{path}: cannot be read as sound ({_reason(error)})") from None
    if len(signal) == 0:
        raise BadUtterance(f"{path}: holds no samples")
    return signal[:, 0] * 2.0**15, rate


def _reason(error: Exception) -> str:
    return str(error).split(": ")[-1].rstrip(".")


def read_segments(utterance: Utterance, samples: int, rate: int) -> Segments:
    """The phones of an utterance from its `.PHN`: lines `start end phone`, in samples.

    Raises:
        BadUtterance: if there is no such file, a line is not of that form, phones overlap or run backwards,
            or a boundary lies past the signal's end.
    """
    path = utterance.phones
    if path is None:
        raise BadUtterance(f"{utterance.audio}: has no .PHN beside it")
    segments = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        words = line.split()
        if len(words) != 3 or not (words[0].isdigit() and words[1].isdigit()):
            raise BadUtterance(f"{path}: line {number}: expected 'start end phone', got {line!r}")
        start, end = int(words[0]), int(words[1])
        if end <= start or (segments and start < segments[-1][1]):
            raise BadUtterance(
                f"{path}: line {number}: phone from {start} to {end} is empty, or overlaps the one before"
            )
        segments.append((start, end, words[2].lower()))
    if not segments:
        raise BadUtterance(f"{path}: holds no phones")
    last = segments[-1][1]
    if last > samples + PAST_THE_END * rate:
        raise BadUtterance(f"{path}: its last boundary, {last}, lies past the end of the sound ({samples} samples)")
    starts, ends, names = zip(*segments, strict=True)
    return Segments(np.array(starts), np.array(ends), list(names))
