"""The recipes of DEVELOPMENT.md: each one is added to the program, and used."""

import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import eprop
from eprop import LSTM, Block, EProp1, Network, Readout, Recurrent, make_rule, value_and_grad
from eprop.eligibility import Synapses, start, stepwise, unroll
from eprop.learning_signals import FEEDBACKS
from eprop.rules import RULES
from eprop.workshop import bench, cli, figures
from eprop.workshop.bench import _measure, _peers
from eprop.workshop.experiments import REPRODUCTIONS
from eprop.workshop.settings import NetworkSettings, OneShotSettings, OptimiserSettings, RunSettings
from eprop.workshop.tasks import TASKS
from eprop.workshop.training import OneShotExperiment, OneShotTrainer, RunFolder
from models import difference

PAGE = Path(__file__).parent.parent / "DEVELOPMENT.md"
pytestmark = pytest.mark.usefixtures("compiled_quickly")
IMPORTS = """
import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from rich.table import Table

from eprop import RTRL, Neuron
from eprop.eligibility import Recurrence
from eprop.eligibility.tools import with_gradient
from eprop.learning_signals import Feedback
from eprop.rules import WindowedRule
from eprop.workshop.bench._ways import Way, gradient_under
from eprop.workshop.experiments import Reproduction, run_rules
from eprop.workshop.settings import Experiment, NetworkSettings, RuleSettings
from eprop.workshop.tasks import TASKS, Batch, Task, TaskFamily, normalised_squared_error, squared_error
"""


def recipe(title):
    """The code under a heading of the page."""
    found = re.search(rf"^### {title}\n.*?```python\n(.*?)```", PAGE.read_text(), re.S | re.M)
    assert found, title
    return found[1]


def made(title):
    names = {"__name__": __name__}
    exec(IMPORTS, names)
    exec(recipe(title), names)
    return names


def layer(neuron, key=0, n_in=3, n=4):
    keys = jax.random.split(jax.random.key(key), 2)
    k = neuron.num_currents
    return Synapses(jax.random.normal(keys[0], (n_in, k, n)), 0.3 * jax.random.normal(keys[1], (n, k, n)))


def test_every_row_of_the_table_has_its_recipe():
    page = PAGE.read_text()
    rows = re.findall(r"^\| (?!to add|---)(.*?) \|", page[: page.index("Each of them whole")], re.M)
    titles = re.findall(r"^### (.*)$", page, re.M)
    shortened = [row.split(" of several")[0].split(" for one-shot")[0].split(" to measure")[0] for row in rows]
    assert [title.lower() for title in titles] == shortened


def test_a_map_between_layers_learns_in_a_block():
    scale = made("A map between layers")["Scale"](jnp.ones(4))
    keys = jax.random.split(jax.random.key(0), 2)
    block = Block(Recurrent(LSTM(), 3, 4, key=keys[0]), (), (scale,))
    network, x = Network((block,), Readout(4, 2, key=keys[1])), jnp.ones((5, 1, 3))
    gradient = value_and_grad(lambda n: jnp.sum(n(x, EProp1()).y ** 2), EProp1())(network)[1]
    assert bool((gradient.layers[0].after[0].gain != 0).all())


def test_a_neuron_model():
    neuron = made("A neuron model")["Leaky"]()
    synapses, inputs = layer(neuron), jax.random.normal(jax.random.key(1), (7, 2, 3))

    def loss(synapses, run):
        outputs, _, _ = run(neuron, synapses, inputs, start(neuron, 2, 4, jnp.float64))
        return jnp.sum(outputs**2)

    ours, reference = (jax.grad(loss)(synapses, run) for run in (unroll, stepwise.unroll))
    assert difference(ours.w_in, reference.w_in) < 1e-12 and difference(ours.w_rec, reference.w_rec) < 1e-12


def loss_of(network, rule, inputs):
    return jnp.sum(network(inputs, rule).y ** 2)


def gradient(network, rule, inputs):
    return value_and_grad(loss_of, rule)(network, rule, inputs)[1]


def small_network(readout=None):
    keys = jax.random.split(jax.random.key(3), 3)
    recurrent = Recurrent(eprop.Rate(), n_in=3, n=4, key=keys[0], dtype=jnp.float64)
    return Network((recurrent,), readout or eprop.Readout(4, 2, key=keys[1], dtype=jnp.float64))


def test_a_kind_of_feedback(monkeypatch):
    monkeypatch.setitem(FEEDBACKS, "negative", made("A kind of feedback")["Negative"]())
    rule = make_rule("eprop1:negative")
    network, inputs = small_network(), jax.random.normal(jax.random.key(1), (7, 2, 3))
    ours, plain = gradient(network, rule, inputs), gradient(network, EProp1(), inputs)
    assert rule.label == "eprop1:negative"
    assert difference(ours.layers[0].w_in, -plain.layers[0].w_in) < 1e-12
    assert difference(ours.readout.weight, plain.readout.weight) < 1e-12


def test_another_learning_signal():
    weight = jax.random.normal(jax.random.key(2), (4, 2))
    network = small_network(made("Another learning signal")["SignReadout"](weight))
    inputs = jax.random.normal(jax.random.key(1), (7, 2, 3))
    ours = gradient(network, EProp1(), inputs)

    z = network.layers[0]
    outputs, trajectory = stepwise.record(z.neuron, z.synapses(), inputs, start(z.neuron, 2, 4, jnp.float64))
    signals = jnp.einsum("tbk,jk->tbj", jnp.sign(2 * outputs @ weight), weight)
    reference, _ = stepwise.stepwise_gradient(z.neuron, trajectory, signals)
    assert difference(ours.layers[0].w_in, reference[:3]) < 1e-12
    assert jnp.abs(ours.readout.weight).max() > 0


def test_a_rule(monkeypatch):
    monkeypatch.setitem(RULES, "forgetful", made("A rule")["Forgetful"])
    rule = make_rule("forgetful:3")
    network, inputs = small_network(), jax.random.normal(jax.random.key(1), (6, 2, 3))
    assert rule.label == "forgetful:3"
    ours = gradient(network, rule, inputs)

    layer, head = network.layers[0], network.readout

    def in_two(synapses):
        carry, total = start(layer.neuron, 2, 4, jnp.float64), 0.0
        for window in (inputs[:3], inputs[3:]):
            z, _, carry = stepwise.unroll(layer.neuron, synapses, window, carry, recurrence="cut")
            total = total + jnp.sum((z @ head.weight + head.bias[None, None]) ** 2)
        return total

    assert difference(ours.layers[0].w_in, jax.grad(in_two)(layer.synapses()).w_in) < 1e-12


def test_a_task(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "echo", made("A task")["PRESETS"])
    run = tmp_path / "run"
    cli.main(["train", "echo", "--delay", "2", "--iterations", "2", "--evaluate-every", "1", "--out", str(run)])
    assert json.loads((run / "config.json").read_text())["experiment"]["task"]["delay"] == 2
    assert len(RunFolder.open(run).metrics()) >= 2


def test_a_family_of_tasks():
    experiment = OneShotExperiment(
        task=made("A family of tasks")["Ramps"](duration=20.0),
        network=NetworkSettings(neuron="lif", neurons=6, v_th=0.3),
        one_shot=OneShotSettings(module_neurons=5, code_neurons=4, code_width=1.0, clock_period=2.0),
        optimiser=OptimiserSettings(learning_rate=0.01),
        run=RunSettings(iterations=1, batch=2),
    )
    trainer = OneShotTrainer(experiment)
    state, _ = trainer.update(trainer.init(), None, jnp.asarray(0))
    moved = jax.tree.map(lambda a, b: jnp.any(a != b), trainer.init().arrays, state.arrays)
    assert any(jax.tree.leaves(moved))


def test_an_experiment(tmp_path, monkeypatch):
    made_here = made("An experiment")
    figure = made_here["TWO_RULES"]
    monkeypatch.setitem(REPRODUCTIONS, "two-rules", figure)
    monkeypatch.setitem(figures._REPRODUCED, "two-rules", lambda folder: [])
    cli.main(["reproduce", "two-rules", "--iterations", "1", "--seeds", "1", "--out", str(tmp_path / "run")])
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"bptt", "eprop1-random", "config.json"}


def test_a_way_to_be_measured(monkeypatch):
    way = made("A way to be measured")["EXACT"]
    monkeypatch.setattr(_measure, "whole_ways", lambda: [way])
    case = bench.Case("lstm", 5, 6, 1)
    _, (row,) = _measure.measure_case(case, rounds=1, paths=["rtrl"])
    assert not row.refused and row.error < 1e-5 and row.seconds


def test_a_peer(tmp_path, monkeypatch):
    (tmp_path / "mine_peer.py").write_text(recipe("A peer"))
    monkeypatch.setattr(_peers, "PEERS", {"mine": ("alif",)})
    monkeypatch.setattr(_peers, "MODULES", {"mine": "numpy"})
    (told,) = _peers.measure_peers(bench.Case("alif", 5, 6, 1), [sys.executable], tmp_path, 2)
    assert told["gradient"] == "not comparable" and len(told["seconds"]) == 2
