"""The espeak-ng engine, through ctypes on the library that the package espeakng-loader ships.

Its voices carry noise and phases on from one utterance to the next, and it may not be called from several
threads: with its seed set (by itself it takes the clock), the same calls in the same order give the same samples
in a process of their own.
"""

import ctypes
from typing import Any, NamedTuple

import numpy as np

from eprop.errors import RunFailed
from eprop.workshop.speech._extra import extra
from eprop.workshop.speech._voices import Speaker

SYNCHRONOUS, PHONEME_EVENTS, DO_NOT_EXIT = 2, 0x0001, 0x8000
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4  # espeak_PARAMETER
PHONEME = 7  # espeak_EVENT_TYPE
UTF8 = 1

PHONES = {
    "i": "iy", "i:": "iy", "i@": "iy", "I": "ih", "I2": "ih", "i@3": "ih", "I#": "ix", "E": "eh", "e@": "eh",
    "a": "ae", "aa": "ae", "A:": "aa", "A@": "aa", "0": "aa", "O:": "ao", "O2": "ao", "O@": "ao", "o@": "ao",
    "V": "ah", "@": "ax", "@2": "ax", "@-": "ax", "a#": "ax", "U": "uh", "U@": "uh", "u:": "uw",
    "3": "axr", "3:": "er", "eI": "ey", "aI": "ay", "aI@": "ay", "aI3": "ay", "OI": "oy", "aU": "aw", "oU": "ow",
    "p": "p", "b": "b", "t": "t", "t2": "t", "d": "d", "k": "k", "g": "g", "t#": "dx", "?": "q", "tS": "ch", "dZ": "jh",
    "f": "f", "v": "v", "T": "th", "D": "dh", "s": "s", "z": "z", "S": "sh", "Z": "zh", "h": "hh",
    "m": "m", "n": "n", "n-": "en", "N": "ng", "l": "l", "@L": "el", "r": "r", "r-": "r", "w": "w", "j": "y", ";": "y",
    "_": "h#", "_:": "pau",
}  # fmt: skip
"""TIMIT's phone for each phoneme of the engine's American English. Vowels coloured by a following r
(`A@`, `e@`, `o@`, ...) are one phoneme there: they keep their vowel's label."""

STRESS = "',=%"


class Sound(NamedTuple):
    """The engine's speech: samples in [-1, 1], their rate, and where each phone begins."""

    signal: np.ndarray
    rate: int
    phones: list[tuple[int, str]]


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Engine:
    """The engine with one speaker's voice; at most one in a process."""

    def __init__(self, speaker: Speaker, seed: int = 0) -> None:
        loader: Any = extra("espeakng_loader", "espeakng-loader")
        self._library = ctypes.CDLL(loader.get_library_path())
        data = loader.get_data_path().encode()
        self.rate = self._library.espeak_Initialize(SYNCHRONOUS, 200, data, PHONEME_EVENTS | DO_NOT_EXIT)
        if self.rate <= 0:
            raise RunFailed("espeak-ng: cannot be initialised with the data that espeakng-loader ships")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1 + seed))
        self._samples: list[np.ndarray] = []
        self._phones: list[tuple[int, str]] = []
        self._callback = _CALLBACK(self._receive)  # kept alive as long as the engine may call it
        self._library.espeak_SetSynthCallback(self._callback)
        if self._library.espeak_SetVoiceByName(f"en-us+{speaker.voice}".encode()) != 0:
            raise RunFailed(f"espeak-ng: has no voice {speaker.voice!r}")
        settings = ((RATE, speaker.rate), (VOLUME, 60), (PITCH, speaker.pitch), (RANGE, speaker.range))
        for parameter, value in settings:
            self._library.espeak_SetParameter(parameter, value, 0)

    def say(self, text: str) -> Sound:
        """Speak `text`.

        Raises:
            RunFailed: if the engine fails, or says a phoneme that has no place in `PHONES`.
        """
        self._samples, self._phones = [], []
        written = text.encode() + b"\0"
        if self._library.espeak_Synth(written, len(written), 0, 1, 0, UTF8, None, None) != 0 or not self._samples:
            raise RunFailed(f"espeak-ng: cannot say {text!r}")
        signal = np.concatenate(self._samples).astype(np.float32) / 2**15
        return Sound(signal, self.rate, [(start, _timits(name)) for start, name in self._phones])

    def _receive(self, samples: Any, number: int, events: Any) -> int:
        if samples and number > 0:
            self._samples.append(np.ctypeslib.as_array(samples, (number,)).copy())
        i = 0
        while events[i].type != 0:
            if events[i].type == PHONEME:
                self._phones.append((events[i].sample, bytes(events[i].id.string).decode()))
            i += 1
        return 0


def _timits(phoneme: str) -> str:
    name = phoneme.lstrip(STRESS)
    if name not in PHONES:
        raise RunFailed(f"espeak-ng: phoneme {phoneme!r} is unknown here; this version of espeakng-loader has changed")
    return PHONES[name]
