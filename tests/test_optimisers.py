"""Optimisers by name: those of optax, their options, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eprop.errors import InvalidSetting
from eprop.workshop.cli import main
from eprop.workshop.optimisers import UNFIT, make_optimiser, optimiser_names, optimiser_options
from eprop.workshop.settings import Experiment, NetworkSettings, OptimiserSettings, RunSettings
from eprop.workshop.tasks import PatternGeneration
from eprop.workshop.training import (
    RunFolder,
    SequenceTrainer,
    build_optimiser,
    experiment_from_json,
    experiment_to_json,
    train,
)

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def small(iterations=4, **optimiser) -> Experiment:
    return Experiment(
        task=PatternGeneration(duration=40, inputs=10),
        network=NetworkSettings(neuron="rate", neurons=4),
        optimiser=OptimiserSettings(**optimiser),
        run=RunSettings(iterations=iterations, evaluate_every=2),
    )


def test_every_optimiser_of_optax_with_a_learning_rate_has_a_name():
    names = optimiser_names()
    assert names[:5] == ("adam", "adamw", "sgd", "rmsprop", "lion") and len(set(names)) == len(names)
    assert {"adagrad", "nadam", "yogi"} <= {*names} and not {*UNFIT} & {*names}
    assert all(callable(getattr(optax, name)) for name in names)
    assert optimiser_options("adamw").keys() == {"b1", "b2", "eps", "eps_root", "weight_decay", "nesterov"}


def test_updates_are_those_of_the_papers():
    weights, gradient, rate = jnp.array([1.0, -2.0]), jnp.array([0.5, -0.1]), 0.01
    expected = {
        ("sgd",): -rate * gradient,
        ("rmsprop", "decay=0.75"): -rate * gradient / jnp.sqrt(0.25 * gradient**2),
        ("lion", "weight_decay=0.5"): -rate * (jnp.sign(gradient) + 0.5 * weights),
        ("adamw", "weight_decay=0.5"): -rate * (jnp.sign(gradient) + 0.5 * weights),
        ("adam", "b1=0.5"): -rate * jnp.sign(gradient),
    }
    for (name, *options), update in expected.items():
        optimiser = build_optimiser(OptimiserSettings(name, tuple(options), rate))
        found, _ = optimiser.update(gradient, optimiser.init(weights), weights)
        assert np.allclose(found, update, rtol=1e-5), name
    decayed = make_optimiser("rmsprop", lambda count: rate / (1 + count), ["momentum=0.5"])
    assert len(jax.tree.leaves(decayed.init(weights))) == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimiser": "adamm"}, "optimiser = 'adamm'.*did you mean 'adam'"),
        ({"optimiser": "lbfgs"}, "optimiser = 'lbfgs': cannot be used here"),
        ({"optimiser": "rmsprop", "optimiser_options": ("decy=0.9",)}, "'decy=0.9'.*did you mean 'decay'"),
        ({"optimiser_options": ("b1",)}, "'b1': expected NAME=VALUE"),
        ({"optimiser_options": ("b1=x",)}, "'b1=x': must be a number"),
        ({"optimiser_options": ("nesterov=0.5",)}, "'nesterov=0.5': must be True or False"),
        ({"optimiser_options": ("b1=0.5", "b1=0.6")}, "b1 stands there twice"),
        ({"optimiser": "rmsprop", "adam_epsilon": 1e-5}, "adam_epsilon = 1e-05: rmsprop does not use it"),
        ({"optimiser_options": ("eps=1e-6",), "adam_epsilon": 1e-5}, "set one of the two"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(settings, said):
    with pytest.raises(InvalidSetting, match=said):
        OptimiserSettings(**settings)


def test_the_program_refuses_with_one_line_and_writes_nothing(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "pattern-generation", "--optimizer", "rmsprpo", "--out", str(tmp_path / "run")])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and len(said.strip().splitlines()) == 1 and "did you mean 'rmsprop'" in said
    assert not (tmp_path / "run").exists()


def test_a_configuration_keeps_optimiser_and_options(tmp_path):
    experiment = small(optimiser="lion", optimiser_options=("b1=0.8", "weight_decay=0"))
    assert experiment_from_json("pattern-generation", experiment_to_json(experiment), tmp_path) == experiment


@pytest.mark.slow
def test_a_resumed_run_keeps_optimiser_options_and_state(tmp_path):
    chosen = {"optimiser": "rmsprop", "optimiser_options": ("momentum=0.5", "decay=0.8")}

    def lines(name, *iterations):
        config = {"command": "train", "task": "pattern-generation", "experiment": experiment_to_json(small(**chosen))}
        folder = RunFolder.create(tmp_path / name, config)
        for count in iterations:
            kept = experiment_from_json("pattern-generation", folder.config["experiment"], folder.path)
            assert kept.optimiser == OptimiserSettings(**chosen)
            (folder.path / "summary.json").unlink(missing_ok=True)
            run = dataclasses.replace(kept.run, iterations=count)
            train(dataclasses.replace(kept, run=run), folder, task="pattern-generation")
        return [line["loss"] for line in folder.metrics()]

    assert lines("stopped", 2, 6) == lines("straight", 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", optimiser_names())
def test_every_optimiser_trains(name):
    trainer = SequenceTrainer(small(optimiser=name), [0])
    state = trainer.init()
    before = np.array(state.learner.network.layers[0].w_in)
    for i in range(2):
        state, loss = trainer.update(state, trainer.data, jnp.asarray(i))
    assert np.isfinite(np.asarray(loss)).all()
    assert float(np.abs(np.asarray(state.learner.network.layers[0].w_in) - before).max()) > 0
