"""Noise and reverberation at stated levels."""

import numpy as np
from numpy.random import Generator

from eprop.workshop.speech._extra import extra


def reverberate(signal: np.ndarray, rate: int, seconds: float, level: float, random: Generator) -> np.ndarray:
    """The signal with a room's echoes, as long as before; the direct sound stays where it was.

    Args:
        signal: samples.
        rate: samples a second.
        seconds: time in which the echoes decay by 60 dB.
        level: their energy against the direct sound's, dB.
        random: draws the room, white noise under an exponential decay (Polack's model).
    """
    signals = extra("scipy.signal", "scipy")
    echoes = random.standard_normal(int(seconds * rate)) * 10 ** (
        -3 * np.arange(int(seconds * rate)) / (seconds * rate)
    )
    echoes[: int(0.002 * rate)] = 0.0  # the first wall is 2 ms away
    echoes *= 10 ** (level / 20) / np.sqrt((echoes**2).sum())
    return signal + signals.fftconvolve(signal, echoes)[: len(signal)]


def add_noise(signal: np.ndarray, snr: float, random: Generator) -> np.ndarray:
    """The signal with noise between white and pink (spectrum `f^-a`, a drawn from 0 to 1).

    Args:
        signal: samples.
        snr: energy of the signal against that of the noise, dB.
        random: draws the noise.
    """
    spectrum = np.fft.rfft(random.standard_normal(len(signal)))
    frequency = np.maximum(np.arange(len(spectrum)), 1.0)
    noise = np.fft.irfft(spectrum * frequency ** (-random.uniform(0.0, 1.0) / 2), len(signal))
    return signal + noise * np.sqrt((signal**2).mean() / (noise**2).mean()) * 10 ** (-snr / 20)
