"""Features of sound, as the authors computed them with python_speech_features, and a label for each frame."""

from typing import Any, Literal, NamedTuple

import numpy as np

from eprop.workshop.speech._corpus import BadUtterance, Segments, Utterance, read_segments, read_sound
from eprop.workshop.speech._extra import extra

Features = Literal["mfcc", "fbank"]
CHANNELS: dict[str, int] = {"mfcc": 39, "fbank": 123}
WINDOW, HOP = 0.025, 0.010
"""Seconds a frame looks at, and from one frame to the next."""


class Analysed(NamedTuple):
    """An utterance's features `[frame, channel]`, not yet normalised, with its phones and sampling rate."""

    features: np.ndarray
    segments: Segments
    rate: int


def features_of(signal: np.ndarray, rate: int, kind: Features) -> np.ndarray:
    """Features with their first and second differences, `[frame, channel]`.

    `"mfcc"`: 13 cepstra of 26 mel bands, the first replaced by the log energy (39 channels). `"fbank"`: log
    energy and 40 log mel bands (123 channels). Windows of 25 ms, one every 10 ms, pre-emphasis 0.97;
    differences over two frames to either side. The signal's end is padded with zeros to a whole window.

    Args:
        signal: samples on the scale of 16-bit integers.
        rate: samples a second.
        kind: which.
    """
    psf: Any = extra("python_speech_features", "python_speech_features")
    nfft = 1 << (round(WINDOW * rate) - 1).bit_length()  # the power of two that holds a window: 512 at 16 kHz
    if kind == "mfcc":
        static = psf.mfcc(signal, rate, WINDOW, HOP, numcep=13, nfilt=26, nfft=nfft)
    else:
        bands, energy = psf.fbank(signal, rate, WINDOW, HOP, nfilt=40, nfft=nfft)
        static = np.log(np.column_stack([energy, bands]))
    first = psf.delta(static, 2)
    return np.concatenate([static, first, psf.delta(first, 2)], axis=1).astype(np.float32)


def frame_midpoints(frames: int, rate: int) -> np.ndarray:
    """The sample in the middle of each frame's window: `k hop + window / 2`."""
    return np.arange(frames) * round(HOP * rate) + round(WINDOW * rate) // 2


def frame_labels(frames: int, rate: int, segments: Segments) -> np.ndarray:
    """For each frame the place in `segments` of the phone that holds its midpoint; -1 where there is none.

    A phone holds `start <= midpoint < end`. A frame whose midpoint lies past the last phone (the last window
    is padded) has the last phone's label.
    """
    midpoints = np.minimum(frame_midpoints(frames, rate), segments.ends[-1] - 1)
    place = np.searchsorted(segments.starts, midpoints, side="right") - 1
    inside = (place >= 0) & (midpoints < segments.ends[place])
    return np.where(inside, place, -1)


def analyse(task: tuple[Utterance, Features]) -> Analysed | str:
    """An utterance's features and phones; or, in words that name its file, why it cannot be used."""
    utterance, kind = task
    try:
        signal, rate = read_sound(utterance.audio)
        segments = read_segments(utterance, len(signal), rate)
        return Analysed(features_of(signal, rate, kind), segments, rate)
    except BadUtterance as bad:
        return str(bad)
