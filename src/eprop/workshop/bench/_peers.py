"""Other libraries on the same network: each in the interpreter that has it, with the same weights and inputs.

A peer is a script in the repository's `benchmarks/peers/` that needs its own library and numpy alone. It reads a
problem (npz), and writes its times and its gradient. Processes cannot take turns: a peer's times are those of a
process of its own, after ours.
"""

import json
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from eprop.networks import Network, Recurrent
from eprop.workshop.bench._problem import Case, make_problem
from eprop.workshop.bench._reference import reference_gradient

PEERS = {"torch": ("lif", "alif", "lstm"), "braintrace": ("lif", "alif"), "sparxml": ("alif",)}
"""Every peer, and the models its script is written for."""
MODULES = {"sparxml": "sparx"}
"""The module of a peer, where it is not called as the peer is."""
TIME_LIMIT = 240.0
"""Seconds that a peer may take."""


def measure_peers(
    case: Case, interpreters: list[str], scripts: Path, rounds: int, say: Callable[[str], None] = lambda said: None
) -> list[dict[str, Any]]:
    """One entry a peer: times and its gradient's error, or why there is none."""
    with tempfile.TemporaryDirectory() as scratch:
        problem, answer = Path(scratch) / "problem.npz", Path(scratch) / "answer.npz"
        _write(case, problem)
        found = []
        for name, models in PEERS.items():
            if case.model not in models:
                continue
            say(f"{case}: {name}")
            found.append({"name": name} | _measure(name, interpreters, scripts, (problem, answer, rounds), case))
    return found


def _measure(
    name: str, interpreters: list[str], scripts: Path, arguments: tuple[Path, Path, int], case: Case
) -> dict[str, Any]:
    interpreter = next((i for i in interpreters if _has(i, MODULES.get(name, name))), None)
    if interpreter is None:
        return {"why": f"not installed in {', '.join(interpreters)}"}
    command = [interpreter, str(scripts / f"{name}_peer.py"), *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return {"why": f"took more than {TIME_LIMIT:.0f} s"}
    if done.returncode:
        return {"why": f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"}
    told = json.loads(done.stdout.strip().splitlines()[-1])
    kind = told.pop("kind")
    gradient = "not comparable" if kind is None else _compared(kind, case, arguments[1])
    return told | {"median_s": statistics.median(told["seconds"]), "gradient": gradient}


def _has(interpreter: str, name: str) -> bool:
    found = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
    try:
        return subprocess.run([interpreter, "-c", found], capture_output=True, timeout=60).returncode == 0
    except OSError:
        return False


def _write(case: Case, path: Path) -> None:
    network, inputs, targets = make_problem(case)
    (layer,) = network.layers
    assert isinstance(layer, Recurrent)
    weights = layer.synapses()
    np.savez(
        path,
        model=case.model,
        w_in=weights.w_in,
        w_rec=np.asarray(weights.w_rec),
        w_out=network.readout.weight,
        inputs=inputs,
        targets=targets,
    )


def _compared(kind: Any, case: Case, answer: Path) -> str:
    """How a peer's gradient differs from the reference of the same kind: largest error over the largest entry."""
    reference: Network = reference_gradient(kind, make_problem(case))
    (layer,) = reference.layers
    assert isinstance(layer, Recurrent)
    errors = []
    with np.load(answer) as theirs:
        for name, ours in (("w_in", layer.w_in), ("w_rec", layer.w_rec), ("w_out", reference.readout.weight)):
            if name in theirs:
                ours = np.asarray(ours)
                errors.append(float(np.abs(theirs[name] - ours).max() / np.abs(ours).max()))
    return f"{kind}'s to {max(errors):.0e}"
