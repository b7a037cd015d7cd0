"""Pictures: every run gets its own, and what they show is what the engine computes."""

import dataclasses

import jax
import matplotlib.image
import numpy as np
import pytest

from eprop.workshop.experiments import measure_gradients, run_comparison, start_comparison
from eprop.workshop.figures import draw
from eprop.workshop.figures._sample import draw_sample, learning_signals, synapse_traces, traces_between
from eprop.workshop.settings import Experiment, NetworkSettings, OptimiserSettings, RuleSettings, RunSettings
from eprop.workshop.tasks import ArraysTask, EvidenceAccumulation, PatternGeneration, StoreRecall
from eprop.workshop.training import RunFolder, experiment_to_json, load_run, train

pytestmark = pytest.mark.usefixtures("compiled_quickly")
slow = pytest.mark.slow

TASKS = {
    "pattern-generation": PatternGeneration(duration=60, inputs=10),
    "store-recall": StoreRecall(symbols=4, symbol_duration=10, group=3),
    "evidence-accumulation": EvidenceAccumulation(
        cues=3, slot=10, cue_duration=5, delay=20, recall_duration=5, group=3, background_rate=40.0
    ),
}


def trained(path, task="pattern-generation", rule="eprop1:random", command="train", name=None, **network):
    experiment = Experiment(
        task=TASKS[task] if isinstance(task, str) else task,
        network=NetworkSettings(**{"neuron": "lif", "neurons": 8} | network),
        optimiser=OptimiserSettings(),
        run=RunSettings(iterations=2, evaluate_every=1, batch=2),
        rule=RuleSettings(rule=rule),
    )
    name = name or (task if isinstance(task, str) else "arrays")
    config = {"command": command, "task": name, "experiment": experiment_to_json(experiment)}
    folder = RunFolder.create(path, config | {"rules": ["eprop1:symmetric", "eprop1:random"]})
    measure_gradients(folder) if command == "gradients" else train(experiment, folder, task=name)
    return folder


def check_pictures(folder, names):
    assert {path.name for path in draw(folder)} == {f"{name}.png" for name in names}
    for path in (folder.path / "figures").iterdir():
        image = matplotlib.image.imread(path)
        assert min(image.shape[:2]) > 200 and image[..., :3].std() > 0.01


@pytest.mark.parametrize(
    ("task", "rule", "network"),
    [
        ("pattern-generation", "eprop1:random", {}),
        ("pattern-generation", "bptt", {"neuron": "rate", "layers": 2}),
        ("store-recall", "eprop1:adaptive", {"neuron": "lsnn", "steps_per_frame": 2}),
        ("evidence-accumulation", "eprop1:symmetric", {"neuron": "gru", "tau_out": None}),
        ("evidence-accumulation", "truncated_bptt:10", {"neuron": "alif", "bidirectional": True}),
        ("store-recall", "eprop1:random", {"neuron": "lstm", "tau_out": None, "bidirectional": True, "layers": 2}),
    ],
)
@slow
def test_a_run_of_any_kind_is_drawn(tmp_path, task, rule, network):
    check_pictures(trained(tmp_path / "run", task, rule, **network), ("learning", "activity", "eligibility"))


@slow
@pytest.mark.parametrize("targets", [np.arange(12) % 6, np.arange(60).reshape(12, 5) % 3, np.ones((12, 5, 2)) * 0.5])
def test_a_run_on_arrays_is_drawn(tmp_path, targets):
    inputs = np.random.default_rng(0).normal(size=(12, 5, 3))
    np.savez(tmp_path / "data.npz", inputs=inputs, targets=targets)
    folder = trained(tmp_path / "run", ArraysTask(data=tmp_path / "data.npz"), neuron="lstm", tau_out=None)
    check_pictures(folder, ("learning", "activity", "eligibility"))


@slow
def test_gradient_alignment_is_drawn(tmp_path):
    folder = trained(tmp_path / "run", command="gradients")
    line = folder.metrics()[0]["alignment"]["eprop1:symmetric"]
    assert line["readout.weight"] == pytest.approx([1.0, 1.0], abs=1e-5)
    assert -1 <= line["w_rec"][0] < 0.9999 and line["w_rec"][1] > 0
    check_pictures(folder, ("learning", "activity", "eligibility", "alignment"))


@slow
def test_a_comparison_is_drawn(tmp_path):
    experiment = Experiment(
        task=TASKS["pattern-generation"],
        network=NetworkSettings(neuron="lif", neurons=8),
        run=RunSettings(iterations=2, evaluate_every=1),
    )
    folder = start_comparison("pattern-generation", experiment, ["bptt", "eprop1:random"], 2, tmp_path / "c")
    comparison = run_comparison(folder)
    assert [row["rule"] for row in comparison["rows"]] == ["bptt", "eprop1:random"]
    for row in comparison["rows"]:
        assert len(row["values"]) == row["seeds"] == 2
        assert row["mean"] == pytest.approx(np.mean(row["values"]))
        assert row["std"] == pytest.approx(np.std(row["values"], ddof=1))
    assert tmp_path / "c" / "comparison.png" in draw(folder)


def test_a_short_run_is_drawn(tmp_path):
    """The fast one: two updates, a checkpoint, three pictures."""
    task = PatternGeneration(duration=30, inputs=10)
    folder = trained(tmp_path / "run", task, name="pattern-generation", v_th=0.2)
    check_pictures(folder, ("learning", "activity", "eligibility"))


@slow
@pytest.mark.parametrize("rule", ["eprop1:random", "bptt"])
@pytest.mark.parametrize(("tau_out", "frame"), [(None, 1), (7.0, 1), (7.0, 3)])
def test_the_products_drawn_add_up_to_the_gradient(tmp_path, rule, tau_out, frame):
    products_add_up(load_run(trained(tmp_path / "run", rule=rule, tau_out=tau_out, steps_per_frame=frame).path))


def products_add_up(run):
    rule = run.experiment.rule.rule
    sample = draw_sample(run)
    (_, result), gradient = jax.jit(run.trainer.gradient)(run.network, sample.batch)
    assert float(result.z[0].sum()) > 5
    everything = np.arange(8), np.arange(10 + 8)
    traces = traces_between(sample.layer, sample.trajectory, everything[1], everything[0], rule != "bptt")
    drawn = np.einsum("tiqj,tj->iqj", traces, np.asarray(learning_signals(run, sample)))
    exact = np.concatenate([gradient.layers[0].w_in, gradient.layers[0].w_rec])
    drawn[10:][np.arange(8), :, np.arange(8)] = 0.0  # no autapses
    assert np.abs(exact).max() > 1e-3
    assert np.abs(drawn - exact).max() / np.abs(exact).max() < 1e-4
    found = synapse_traces(run, sample)
    sums = (found.trace * found.signal).sum(0)
    assert all(np.isclose(exact, s, rtol=1e-3).any() for s in sums)
    assert not any(name.startswith("neuron") and name.split()[1] == name.split()[-1] for name in found.names)


@slow
def test_a_run_that_has_not_begun_says_so(tmp_path):
    folder = trained(tmp_path / "run")
    config = dataclasses.asdict(load_run(folder.path).experiment)
    assert config["run"]["iterations"] == 2
    import shutil

    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        draw(folder)
