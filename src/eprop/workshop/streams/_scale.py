"""Running mean and spread of columns, from rows that have come and no others."""

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """Mean and variance of each column so far."""

    rows: float
    mean: np.ndarray  # [column]
    variance: np.ndarray  # [column]

    @classmethod
    def none(cls, columns: int) -> "Moments":
        return cls(0.0, np.zeros(columns), np.zeros(columns))


def follow_moments(moments: Moments, values: np.ndarray, memory: int | None) -> tuple[Moments, np.ndarray, np.ndarray]:
    """Take rows in one by one, `[row, column]`; return the moments after the last, and mean and spread after each.

        m_n = m_{n-1} + (x_n - m_{n-1}) / n
        v_n = v_{n-1} + ((x_n - m_{n-1}) (x_n - m_n) - v_{n-1}) / n          (Welford 1962)

    with n no larger than `memory`: from there on rows are forgotten exponentially. Rows with NaN do not count.
    """
    count, mean, variance = moments
    limit = np.inf if memory is None else float(memory)
    means, variances = np.empty_like(values), np.empty_like(values)
    for i, row in enumerate(values):
        difference = row - mean
        if np.isfinite(difference).all():
            count = min(count + 1.0, limit)
            mean = mean + difference / count
            variance = variance + (difference * (row - mean) - variance) / count
        means[i], variances[i] = mean, variance
    return Moments(count, mean, variance), means, np.sqrt(variances)
