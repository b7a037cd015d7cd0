"""Handwritten digits, read row by row as sequences: real data through `eprop train arrays`.

    python examples/digits.py OUT

writes OUT/digits.npz (scikit-learn's bundled digits: 1797 images of 8 x 8 grey levels, 8 steps of 8
channels) and holds e-prop 1 against BPTT on it, with an LSTM. The same on the command line:

    eprop compare arrays --data OUT/digits.npz --neuron lstm --rules bptt,eprop1:random --out OUT/lstm
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from eprop.workshop.cli import main


def write_digits(path: Path) -> None:
    """The images as sequences of rows, in the arrays that the task reads."""
    digits = load_digits()
    split = np.where(np.random.default_rng(0).permutation(len(digits.target)) < 360, "test", "train")
    np.savez(path, inputs=digits.images / 16.0, targets=digits.target, split=split)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python examples/digits.py OUT [options of 'eprop compare arrays']")
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    write_digits(out / "digits.npz")
    rules = "bptt,eprop1:symmetric,eprop1:random"
    main(["compare", "arrays", "--data", f"{out}/digits.npz", "--rules", rules, "--out", f"{out}/lstm", *sys.argv[2:]])
