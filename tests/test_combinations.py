"""Whole experiments, drawn: each has the gradient of plain loops, or is refused by name before anything was written."""

import contextlib
import io
import json
import os
import re
import runpy
import tempfile
from pathlib import Path
from typing import get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

from combinations import AXES, REFUSED, Experiment, found, reasons, reference
from eprop import InvalidSetting
from eprop.learning_signals import FEEDBACKS
from eprop.rules import RULES
from eprop.workshop.cli import main
from eprop.workshop.settings import NeuronName
from eprop.workshop.training import load_run
from models import difference

pytestmark = pytest.mark.usefixtures("compiled_quickly")

ROOT = Path(__file__).parent.parent

DRAWS = int(os.environ.get("EPROP_DRAWS", "10"))
"""So many experiments: CI draws more, from the same seed."""

SEED = int(os.environ.get("EPROP_SEED", "0"))

PART = 25
"""Draws of one test: several run side by side, and what they compiled is forgotten after each."""


def each_of(strategy, draws, part, check):
    """Have so many things drawn, from a seed of this part's, and checked; the first that fails is shown as it is."""
    how = settings(
        max_examples=draws,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    seed(1000 * SEED + part)(how(given(strategy)(check)))()
    jax.clear_caches()


def test_the_page_is_what_the_code_says():
    """And what `REFUSED` names is there, two parts each."""
    assert all(len(parts) == 2 and set(parts) <= set(AXES) for parts, _ in REFUSED)
    assert all(set(values) <= set(AXES[axis]) for parts, _ in REFUSED for axis, values in parts.items())
    made = runpy.run_path(str(ROOT / "scripts/combinations_page.py"))["page"]()
    assert made == (ROOT / "docs/combinations.md").read_text(), "run python scripts/combinations_page.py"


@st.composite
def experiments(draw):
    """Any values in a quarter of the draws; in the others such as are not refused beside those before."""
    bold, chosen = draw(st.integers(0, 3)) == 0, {}
    for axis in draw(st.permutations(list(AXES))):
        free = [value for value in AXES[axis] if not reasons(chosen | {axis: value})]
        chosen[axis] = draw(st.sampled_from(AXES[axis] if bold or not free else free))
    return Experiment(tuple(chosen[axis] for axis in AXES))


def holds(e):
    """The experiment is refused where it should be, with the words for it; else its gradient is the reference's."""
    chosen = dict(zip(AXES, e.values, strict=True))
    words = reasons(chosen)
    try:
        gradient, y = found(e)
    except InvalidSetting as refusal:
        assert any(re.search(why, str(refusal)) for why in words), refusal
        return "refused"
    assert not words, f"not refused, though {words}"
    expected, expected_y = reference(e)
    exact = e.dtype == jnp.float64
    if not exact:
        assume(difference(y, expected_y) < 1e-4)  # a spike more or less, by rounding, is another experiment
    assert difference(y, expected_y) < (1e-10 if exact else 1e-4)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(expected))
    assert difference(gradient, expected) < (1e-10 if exact else 2e-3)
    return "tested"


@pytest.mark.parametrize("part", range(-(-DRAWS // PART)))
def test_each_experiment_has_the_gradient_of_plain_loops_or_is_refused_by_name(part):
    each_of(experiments(), min(PART, DRAWS - part * PART), part, lambda e: holds(e) and None)


# The program: what it trains, and what it refuses before it has written anything

RUNS = int(os.environ.get("EPROP_RUNS", "1"))

TASKS = {
    "pattern-generation": "--preset tutorial --duration 12",
    "store-recall": "--symbols 3 --symbol-duration 8 --delay 1 --group 2",
    "evidence-accumulation": "--cues 1 --slot 6 --cue-duration 4 --delay 4 --recall-duration 4 --group 2",
    "copy-repeat": "",
    "arrays": "--data data.npz",
}

OPTIONS = {
    "--rule": (*(name for name in RULES if name != "fixed"), "fixed:layers", "fixed:recurrent", "eprop1:random"),
    "--window": ("None", "4"),
    "--feedback": ("None", *FEEDBACKS),
    "--neuron": get_args(NeuronName),
    "--layers": ("1", "2"),
    "--bidirectional": (None,),
    "--read-all": (None,),
    "--embedding": ("3",),
    "--tau-out": ("20", "None"),
    "--steps-per-frame": ("1", "2"),
    "--bias": (None,),
    "--autapses": ("True",),
    "--trainable": ("tau_m", "tau_a", "tau_m tau_out"),
    "--precision": ("float32", "float64"),
    "--optimiser": ("sgd", "adam"),
    "--clip": ("1.0",),
    "--cosine-decay": (None,),
    "--rate-strength": ("0.1",),
    "--weight-penalty": ("0.01",),
    "--update-every": ("window", "sequence"),
    "--update-window": ("4", "5"),
    "--stop-below": ("0.5",),
    "--synthesiser-hidden": ("3",),
    "--evaluation-batch": ("3",),
}


@st.composite
def commands(draw):
    task = draw(st.sampled_from(list(TASKS)))
    names = draw(st.lists(st.sampled_from(list(OPTIONS)), max_size=6, unique=True))
    chosen = {name: draw(st.sampled_from(OPTIONS[name])) for name in names}
    words = [word for name, value in chosen.items() for word in (name, *(value or "").split())]
    rest = "--neurons 4 --batch 2 --iterations 2 --evaluate-every 1 --out run".split()
    return ["train", task, *TASKS[task].split(), *words, *rest]


def trained(command):
    """The program run in an empty folder: whether it trained, or else refused in one line with nothing written."""
    random, here = np.random.default_rng(0), Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        np.savez("data.npz", inputs=random.normal(size=(10, 12, 3)).astype("f4"), targets=random.integers(0, 2, 10))
        said, status = io.StringIO(), 0
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                main(command)
            except SystemExit as stop:
                status = stop.code
        if status:
            assert status == 2 and len(said.getvalue().splitlines()) == 1, said.getvalue()
            assert os.listdir() == ["data.npz"], f"written before it was refused: {said.getvalue()}"
            return False
        lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
        assert all(np.isfinite(line["loss"]) for line in lines)
        os.unlink("data.npz")
        weights = jax.tree.leaves(load_run(Path("run")).network)
        assert all(bool(np.isfinite(np.asarray(w)).all()) for w in weights if eqx.is_inexact_array(w))
    assert Path.cwd() == here
    return True


@pytest.mark.parametrize("part", range(-(-RUNS // 10)))
def test_each_run_is_trained_or_refused_before_anything_is_written(part, monkeypatch):
    monkeypatch.setattr("eprop.workshop.cli._execute.draw_all", lambda folder: None)
    each_of(commands(), min(10, RUNS - part * 10), part, lambda command: None if trained(command) else None)
