"""A corpus as arrays, built once for its files and settings and kept on disk."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from eprop.errors import InvalidSetting, require
from eprop.files import DamagedFile, read_npz, write_npz
from eprop.workshop.speech._corpus import SPLITS, Utterance, find_utterances
from eprop.workshop.speech._extra import extra
from eprop.workshop.speech._features import Analysed, Features, analyse, frame_labels
from eprop.workshop.speech._processes import ordered_map, progress_bar

LAYOUT = 2
"""Of the cached arrays; part of their key."""

ARRAYS = frozenset("paths split features labels frame_bounds sequence sequence_bounds phones rate bad".split())
"""The arrays of a cached corpus."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """Features and phones of all utterances, one after the other, phones as the corpus writes them.

    Frames of utterance `i` are `frame_bounds[i]` to `frame_bounds[i + 1]`, its phones likewise.
    """

    key: str
    paths: tuple[str, ...]  # of each utterance's sound
    split: np.ndarray  # [utterance], place in SPLITS
    features: np.ndarray  # [frame, channel], not normalised
    labels: np.ndarray  # [frame], place in `phones`, -1: none
    frame_bounds: np.ndarray  # [utterance + 1]
    sequence: np.ndarray  # [segment], place in `phones`
    sequence_bounds: np.ndarray  # [utterance + 1]
    phones: tuple[str, ...]
    rate: int
    bad: tuple[str, ...]  # why utterances were left out, each with its file

    def name(self, utterance: int) -> str:
        """`SPEAKER/SENTENCE`."""
        path = Path(self.paths[utterance])
        return f"{path.parent.name.lower()}/{path.name.split('.')[0].lower()}"

    def of(self, split: str) -> np.ndarray:
        """Utterances of a split."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    def frames(self, utterance: int) -> slice:
        return slice(self.frame_bounds[utterance], self.frame_bounds[utterance + 1])

    def segments(self, utterance: int) -> slice:
        return slice(self.sequence_bounds[utterance], self.sequence_bounds[utterance + 1])


@lru_cache(maxsize=2)
def load_corpus(root: Path, kind: Features = "mfcc", skip_bad: bool = False) -> Corpus:
    """The corpus at `root`: from the cache, or built with all processors and put there.

    The cache is in `$XDG_CACHE_HOME/eprop/speech` (`~/.cache` where that is not set), keyed by the files' paths,
    sizes and times of change, by the kind of features, and by the versions of what computes them.

    Args:
        root: a folder in TIMIT's layout (see `find_utterances`).
        kind: which features.
        skip_bad: leave out utterances that cannot be used, instead of refusing the corpus.

    Worker processes import the calling script: there, call it under `if __name__ == "__main__"`.

    Raises:
        InvalidSetting: for a missing package, a folder that is no corpus, or an utterance that cannot be used.
    """
    for package in ("soundfile", "python_speech_features"):
        extra(package, package)
    utterances = find_utterances(root)
    key = _key(root, utterances, kind)
    path = cache_folder() / f"{key}.npz"
    arrays = _read(path)
    if arrays is None:
        arrays = _build(utterances, kind)
        _write(path, arrays)
    corpus = _corpus(key, arrays)
    if corpus.bad and not skip_bad:
        first, *others = corpus.bad
        more = f" (and {len(others)} more)" if others else ""
        raise InvalidSetting(f"{first}{more}; --skip-bad leaves such utterances out")
    for split in ("train", "test"):
        require(len(corpus.of(split)) > 0, f"data = {root}: no usable utterance in {split.upper()}")
    return corpus


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eprop" / "speech"


def _key(root: Path, utterances: Sequence[Utterance], kind: Features) -> str:
    digest = hashlib.sha256()
    facts = {name: version(name) for name in ("python_speech_features", "numpy", "scipy")} | {"layout": str(LAYOUT)}
    digest.update(json.dumps([kind, facts, str(Path(root).resolve())]).encode())
    for utterance in utterances:
        for path in (utterance.audio, utterance.phones):
            about = None if path is None else (str(path), path.stat().st_size, path.stat().st_mtime_ns)
            digest.update(json.dumps([about, utterance.split]).encode())
    return digest.hexdigest()[:24]


def _build(utterances: Sequence[Utterance], kind: Features) -> dict[str, np.ndarray]:
    bad: list[str] = []
    good: list[tuple[Utterance, Analysed]] = []
    with progress_bar("features", len(utterances), "utterances") as show:
        for done, (utterance, result) in enumerate(zip(utterances, _analysed(utterances, kind), strict=True), 1):
            if isinstance(result, str):
                bad.append(result)
            elif good and result.rate != good[0][1].rate:
                rate, expected = result.rate, good[0][1].rate
                bad.append(f"{utterance.audio}: has {rate} samples a second, where {good[0][0].audio} has {expected}")
            else:
                good.append((utterance, result))
            show(done)
    require(len(good) > 0, f"{bad[0] if bad else ''}: none of the corpus's {len(utterances)} utterances can be used")
    phones = sorted({name for _, result in good for name in result.segments.names})
    place = {name: i for i, name in enumerate(phones)}
    sequences = [np.array([place[name] for name in result.segments.names], np.int16) for _, result in good]
    labels = []
    for (_, result), sequence in zip(good, sequences, strict=True):
        where = frame_labels(len(result.features), result.rate, result.segments)
        labels.append(np.where(where < 0, -1, sequence[where]).astype(np.int16))
    return {
        "paths": np.array([str(u.audio) for u, _ in good]),
        "split": np.array([SPLITS.index(u.split) for u, _ in good], np.int8),
        "features": np.concatenate([result.features for _, result in good]),
        "labels": np.concatenate(labels),
        "frame_bounds": _bounds(labels),
        "sequence": np.concatenate(sequences),
        "sequence_bounds": _bounds(sequences),
        "phones": np.array(phones),
        "rate": np.array(good[0][1].rate),
        "bad": np.array(bad, dtype=str),
    }


def _analysed(utterances: Sequence[Utterance], kind: Features) -> Iterator[Analysed | str]:
    tasks: list[tuple[Utterance, Features]] = [(utterance, kind) for utterance in utterances]
    return map(analyse, tasks) if len(tasks) < 50 else ordered_map(analyse, tasks)


def _bounds(pieces: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64)


def _read(path: Path) -> dict[str, np.ndarray] | None:
    try:
        arrays = read_npz(path)
    except (OSError, DamagedFile):
        return None  # not there, or damaged: built again
    return arrays if arrays.keys() == ARRAYS else None


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_npz(path, arrays)
    except OSError as error:
        raise InvalidSetting(f"{path.parent}: cannot be written ({error.strerror}); set XDG_CACHE_HOME") from None


def _corpus(key: str, arrays: dict[str, Any]) -> Corpus:
    text = {name: tuple(str(x) for x in arrays[name]) for name in ("paths", "phones", "bad")}
    fields: dict[str, Any] = arrays | text | {"rate": int(arrays["rate"])}
    return Corpus(key=key, **fields)
