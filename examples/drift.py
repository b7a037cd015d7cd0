"""A table whose columns change their relation, learnt online.

    python examples/drift.py OUT

writes OUT/drift.csv (120 000 rows: three columns a, b, c that wander, and a column y that follows from them) and runs

    eprop stream --csv OUT/drift.csv --targets y --out OUT/stream

on it. y_t = w_1 a_{t-1} + w_2 b_{t-1} + w_3 c_{t-1} + a_{t-4} / 2 + noise. The weights w turn slowly all the time, and
change their signs at once in the middle of the table: a forecast has to know a, b and c of the row before and to
remember a of three rows before that, and what it has learnt of w grows old. Options of 'eprop stream' may follow OUT.
"""

import sys
from pathlib import Path

import numpy as np

from eprop.workshop.cli import main

ROWS, NOISE, TURN = 120_000, 0.3, 100_000
"""Rows; standard deviation of what cannot be forecast; rows in which w turns once round."""


def drifting_table(rows: int = ROWS, seed: int = 0) -> np.ndarray:
    """Columns a, b, c, y as `[row, column]`."""
    random = np.random.default_rng(seed)
    abc, shock = np.zeros((rows, 3)), random.standard_normal((rows, 3))
    for t in range(1, rows):
        abc[t] = 0.8 * abc[t - 1] + 0.6 * shock[t]
    t = np.arange(rows)
    angle = 2 * np.pi * t / TURN
    w = np.stack([np.cos(angle), np.sin(angle), np.full(rows, 0.7)], axis=1)
    w[t >= rows // 2] *= -1.0
    y = NOISE * random.standard_normal(rows)
    y[1:] += (w[1:] * abc[:-1]).sum(1)
    y[4:] += 0.5 * abc[:-4, 0]
    return np.column_stack([abc, y])


def write_table(path: Path, table: np.ndarray) -> None:
    np.savetxt(path, table, fmt="%.6f", delimiter=",", header="a,b,c,y", comments="")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python examples/drift.py OUT [options of 'eprop stream']")
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    table = out / "drift.csv"
    if not table.is_file():
        write_table(table, drifting_table())
    main(["stream", "--csv", str(table), "--targets", "y", "--out", str(out / "stream"), *sys.argv[2:]])
