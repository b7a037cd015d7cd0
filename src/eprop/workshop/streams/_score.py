"""Errors of forecasts beside the naive forecast, over the whole stream and since the last report."""

from typing import Any

import numpy as np

from eprop.workshop.streams._forecaster import Forecasts


class Score:
    """Sums of squared errors of each target, `[target]`."""

    def __init__(self, targets: list[str], sums: list[list[float]] | None = None) -> None:
        self.targets = targets
        self._sums = np.zeros((3, len(targets))) if sums is None else np.array(sums)

    def add(self, rows: Forecasts) -> None:
        known = np.isfinite(rows.forecast) & np.isfinite(rows.naive)
        for i, forecast in enumerate((rows.forecast, rows.naive)):
            self._sums[i] += np.where(known, (forecast - rows.truth) ** 2, 0.0).sum(0)
        self._sums[2] += known.sum(0)

    def sums(self) -> list[list[float]]:
        return self._sums.tolist()

    def errors(self) -> dict[str, Any]:
        """Root mean square errors, and the mean over targets of error / naive error; None where nothing is known."""
        squared, naive, count = self._sums
        with np.errstate(divide="ignore", invalid="ignore"):
            error, naive = np.sqrt(squared / count), np.sqrt(naive / count)
            ratio = np.mean(error / naive)
        return {
            "rmse": {name: _number(e) for name, e in zip(self.targets, error, strict=True)},
            "naive_rmse": {name: _number(e) for name, e in zip(self.targets, naive, strict=True)},
            "ratio": _number(ratio),
        }


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
