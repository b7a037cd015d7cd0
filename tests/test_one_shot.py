"""e-prop 2: the inner update, the gradient through it, families of tasks, the outer loop."""

import dataclasses
import json
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from eprop import LIF, Filtered, InvalidSetting, Recurrent
from eprop.eligibility import Trajectory, record, split_presynaptic, stepwise_gradient, unroll
from eprop.errors import RunFailed
from eprop.learning_signals import ErrorModule
from eprop.neurons import readout_output, recurrent_output
from eprop.rules import inner_gradient, inner_update
from eprop.workshop.cli import main
from eprop.workshop.experiments import REPRODUCTIONS
from eprop.workshop.settings import NetworkSettings, OneShotSettings, OptimiserSettings, RunSettings
from eprop.workshop.tasks import Arm, Sinusoids, TaskFamily, clock, population_code
from eprop.workshop.training import OneShotExperiment, OneShotTrainer, RunFolder, train
from models import N_IN, TIME, N, check_alive, difference, make

pytestmark = pytest.mark.usefixtures("compiled_quickly")
slow = pytest.mark.slow

EXACT = 1e-10
TASKS = 3


def experiment(family=None, neuron="lif", precision="float64", run=None, **one_shot):
    """Tiny, and alive from the start."""
    settings = {"module_neurons": 5, "code_neurons": 4, "code_width": 1.0, "inner_learning_rate": 0.02}
    return OneShotExperiment(
        task=family or Sinusoids(duration=24.0, dt=1.0),
        network=NetworkSettings(neuron=neuron, neurons=6, v_th=0.3, n_refractory=2, precision=precision),
        one_shot=OneShotSettings(**settings | {"clock_period": 2.0, "train_inner_learning_rate": True} | one_shot),
        optimiser=OptimiserSettings(learning_rate=0.01, rate_strength=1.0),
        run=RunSettings(**{"iterations": 6, "evaluate_every": 2, "batch": 4} | (run or {})),
    )


def keys(n=TASKS):
    return jax.random.split(jax.random.key(9), n)


def recorded(name):
    """A run with weights shared by all samples, what it left behind, and learning signals for each."""
    layer = make(name).layers[0]
    x = 1.5 * jax.random.normal(jax.random.key(1), (TIME, TASKS, N_IN), jnp.float64)
    outputs, trajectory = jax.jit(lambda s: record(layer.neuron, s, x, layer.start(TASKS)))(layer.synapses())
    signals = jax.random.normal(jax.random.key(5), (TIME, TASKS, N), jnp.float64)
    return layer, x, outputs, trajectory, signals


# The inner update


@pytest.mark.parametrize("name", ["lif", pytest.param("user's", marks=slow)])
@pytest.mark.parametrize("filtered", [False, pytest.param(True, marks=slow)])
def test_the_gradient_of_each_sample_equals_the_stepwise_reference(name, filtered):
    """Of shared weights, of weights of each sample, and of one run that serves all learning signals."""
    layer, x, outputs, trajectory, signals = recorded(name)
    neuron, synapses, z = layer.neuron, layer.synapses(), recurrent_output(outputs)
    of = jax.jit(lambda *run: inner_gradient(neuron, *run, filtered=filtered))
    found = of(synapses, x, z, signals)
    check_alive(z, found)
    learning_signals = signals
    if isinstance(neuron, Filtered):
        nothing = jnp.zeros_like(signals)
        learning_signals = (nothing, signals) if filtered else (signals, nothing)
    stepwise = jax.jit(lambda *run: split_presynaptic(stepwise_gradient(neuron, *run)[0], synapses))

    def alone(b, signals):
        one = lambda x: jax.tree.map(lambda leaf: leaf[:, b : b + 1], x)  # noqa: E731
        state = jax.tree.map(lambda leaf: leaf[b : b + 1], trajectory.state)
        return stepwise(Trajectory(state, *one(tuple(trajectory)[1:])), one(signals))

    for b in range(TASKS):
        assert difference(jax.tree.map(lambda g, b=b: g[b], found), alone(b, learning_signals)) < EXACT
    own = jax.tree.map(lambda w: jnp.repeat(w[None], TASKS, 0), synapses)
    assert difference(of(own, x, z, signals), found) < EXACT
    first = jnp.zeros(TASKS, int)
    same = of(synapses, x[:, first], z[:, first], signals)
    assert difference(of(synapses, x[:, :1], z[:, :1], signals), same) < EXACT


def test_the_inner_update_is_the_released_code_s_equation_in_loops():
    """psi' neither divided by the threshold nor masked; zbar of presynaptic spikes; no autapse; L on z, unfiltered."""
    lif = LIF(
        tau_m=20.0, v_th=0.4, n_refractory=4, pseudo_derivative_scaling="none", pseudo_derivative_in_refractory=True
    )
    layer = Recurrent(Filtered(lif, tau_out=20.0), N_IN, N, key=jax.random.key(3), dtype=jnp.float64)
    x = jax.random.bernoulli(jax.random.key(1), 0.4, (TIME, 1, N_IN)).astype(jnp.float64)
    signals = np.asarray(jax.random.normal(jax.random.key(2), (TIME, TASKS, N), jnp.float64))

    @jax.jit
    def updated(synapses):
        outputs, _, _ = unroll(layer.neuron, synapses, x, layer.start(1), recurrence="kept")
        gradient = inner_gradient(layer.neuron, synapses, x, recurrent_output(outputs), jnp.asarray(signals))
        return inner_update(synapses, gradient, layer.connected(), 0.1)

    found = updated(layer.synapses())

    weights = np.concatenate([np.asarray(layer.w_in), np.asarray(layer.w_rec) * (1 - np.eye(N))[:, None]])[:, 0]
    expected = np.repeat(weights[None], TASKS, 0)
    v, z, r, zbar = np.zeros(N), np.zeros(N), np.zeros(N), np.zeros(N_IN + N)
    alpha, spikes, masked_psi = np.exp(-1 / 20.0), 0, 0.0
    for t in range(TIME):
        pre = np.concatenate([np.asarray(x[t, 0]), z])
        v = alpha * v + pre @ weights - 0.4 * z
        psi = 0.3 * np.maximum(0.0, 1.0 - np.abs((v - 0.4) / 0.4))
        masked_psi += psi[r > 0].sum()
        z = ((v > 0.4) & (r == 0)).astype(float)
        r = np.clip(r + 4 * z - 1, 0, 4)
        spikes += z.sum()
        zbar = alpha * zbar + pre
        expected -= 0.1 * zbar[None, :, None] * (psi * signals[t])[:, None]
    expected[:, N_IN:] *= (1 - np.eye(N))[None]
    assert spikes > 10 and masked_psi > 0.5
    assert difference(jnp.concatenate([found.w_in, found.w_rec], axis=1)[:, :, 0], jnp.asarray(expected)) < EXACT


@slow
@pytest.mark.parametrize("name", ["alif", "lstm with filter"])
def test_a_trial_differentiates_as_plain_autodiff_also_with_weights_of_each_sample(name):
    """The trainer's trial, of shared weights and of each task's own, against a plain loop."""
    layer, trainer = make(name).layers[0], OneShotTrainer(experiment())
    signals = jax.random.normal(jax.random.key(5), (TIME, TASKS, N), jnp.float64)
    trainer.clock = 1.5 * jax.random.normal(jax.random.key(1), (TIME, 1, N_IN), jnp.float64)
    begin, synapses = layer.start(1), layer.synapses()

    def plain(synapses):
        shown, _ = record(layer.neuron, synapses, trainer.clock, begin)
        return jnp.sum(readout_output(shown) * signals), shown

    def total(synapses):
        shown = trainer._trial(layer.neuron, synapses)
        return jnp.sum(readout_output(shown) * signals), shown

    (value, shown), expected = jax.jit(jax.value_and_grad(plain, has_aux=True))(synapses)
    check_alive(recurrent_output(shown), expected)
    own = jax.jit(jax.value_and_grad(total, has_aux=True))
    assert difference(own(synapses), ((value, shown), expected)) < EXACT
    (of_all, all_shown), of_each = own(jax.tree.map(lambda w: jnp.repeat(w[None], TASKS, 0), synapses))
    assert difference((of_all, jax.tree.map(lambda g: g.sum(0), of_each)), (value, expected)) < EXACT
    assert difference(all_shown, jax.tree.map(lambda x: jnp.repeat(x, TASKS, 1), shown)) < EXACT
    gradients = of_each.w_rec  # each task has its own learning signals, and so its own gradient
    assert difference(gradients[0], gradients[1]) > 0.1


@slow
def test_with_bptt_as_teacher_the_update_descends_each_task_s_own_loss():
    trainer = OneShotTrainer(experiment(neuron="rate", learning_signal="bptt", inner_learning_rate=1e-4))
    learnt = trainer.learnt(trainer.init())
    before, after = trainer.compare(learnt, keys())
    gradient = eqx.filter_jit(trainer.first_gradient)(learnt, keys())
    layer = learnt.layer
    squares = [jnp.sum((g * c) ** 2, (1, 2, 3)) for g, c in zip(gradient[:2], layer.connected()[:2], strict=True)]
    expected = 1e-4 * 2 * sum(squares)  # the loss is half the metric
    np.testing.assert_allclose(np.asarray(before - after), np.asarray(expected), rtol=1e-2)


# The outer gradient


@pytest.mark.parametrize(
    "one_shot",
    [
        pytest.param({"learning_signal": "error-module"}, id="error-module"),
        pytest.param({"inner_updates": 2, "rematerialise": True}, marks=slow, id="two updates, rematerialised"),
        pytest.param({"learning_signal": "random"}, marks=slow, id="random"),
        pytest.param({"learning_signal": "bptt"}, marks=slow, id="bptt"),
    ],
)
def test_the_outer_gradient_equals_finite_differences(one_shot):
    """Rate neurons in network and module, float64: everything is smooth, and nothing may be detached."""
    trainer = OneShotTrainer(experiment(neuron="rate", module_neuron="rate", **one_shot))
    learnt = trainer.learnt(trainer.init())
    _, gradient = eqx.filter_jit(trainer.gradient)(learnt, keys())
    chosen, rest = eqx.partition(learnt, trainer.trained)
    assert jax.tree.structure(gradient) == jax.tree.structure(chosen)
    silent = [path for path, g in jax.tree_util.tree_leaves_with_path(gradient) if not float(jnp.abs(g).max()) > 0]
    assert not silent
    flat, unravel = jax.flatten_util.ravel_pytree(chosen)
    loss = jax.jit(lambda flat: trainer.loss(eqx.combine(unravel(flat), rest), keys()))
    exact = jax.flatten_util.ravel_pytree(gradient)[0]
    for direction in jax.random.normal(jax.random.key(8), (2, flat.size), flat.dtype):
        h = 1e-5
        slope = (loss(flat + h * direction) - loss(flat - h * direction)) / (2 * h)
        assert float(exact @ direction) == pytest.approx(float(slope), rel=1e-5)


@slow
def test_micro_batches_and_rematerialisation_change_nothing_but_memory():
    whole = experiment(run={"batch": 6})
    whole = dataclasses.replace(whole, optimiser=OptimiserSettings(rate_strength=0.0))
    trainer = OneShotTrainer(whole)
    learnt = trainer.learnt(trainer.init())
    expected = eqx.filter_jit(trainer.gradient)(learnt, keys(6))
    for leaf in (expected[1].module.weight, expected[1].module.layer.w_in, expected[1].log_learning_rate):
        assert float(jnp.abs(leaf).max()) > 0
    thrifty = dataclasses.replace(whole.one_shot, micro_batch=2, rematerialise=True)
    other = OneShotTrainer(dataclasses.replace(whole, one_shot=thrifty))
    assert difference(eqx.filter_jit(other.gradient)(learnt, keys(6)), expected) < EXACT


def test_the_inner_learning_rate_is_trained_only_where_it_is_asked_for():
    for asked in (True, False):
        assert OneShotTrainer(experiment(train_inner_learning_rate=asked)).trained.log_learning_rate is asked


@slow
def test_the_published_variants_of_the_pseudo_derivative_give_different_updates():
    def first(**network):
        setup = experiment()
        setup = dataclasses.replace(setup, network=dataclasses.replace(setup.network, **network))
        trainer = OneShotTrainer(setup)
        return eqx.filter_jit(trainer.first_gradient)(trainer.learnt(trainer.init()), keys()).w_rec

    masked = first(pseudo_derivative_scaling="threshold")
    assert difference(first(pseudo_derivative_scaling="none"), 0.3 * masked) < EXACT
    assert difference(first(pseudo_derivative_in_refractory=True), masked) > 0.01


# Families, codes, module


def test_the_arm_s_kinematics_and_target_law():
    arm = Arm(duration=500.0)
    task = jax.jit(arm.sample_task)(jax.random.key(3))
    velocity = np.asarray(task.velocity, float)
    phi, ends = np.array([0.0, np.pi / 2]), []
    for omega in velocity:
        phi = phi + omega / 1000.0
        ends.append([0.5 * np.cos(phi[0]) + 0.5 * np.cos(phi.sum()), 0.5 * np.sin(phi[0]) + 0.5 * np.sin(phi.sum())])
    np.testing.assert_allclose(np.asarray(task.position), ends, atol=1e-5)
    assert float(arm.metric(task.velocity, task)) < 1e-10 and float(arm.loss(task.velocity, task)) < 1e-10
    drawn = jax.jit(jax.vmap(arm.sample_task))(jax.random.split(jax.random.key(0), 400)).velocity
    turned = np.abs(np.cumsum(np.asarray(drawn), 1) / 1000.0).max(1)  # [task, joint]
    assert turned.max() <= np.pi / 2 + 1e-4
    assert 0.2 < (turned > np.pi / 2 - 1e-4).mean() < 0.9  # some are rescaled, some are not
    spread = np.asarray(drawn).std((0, 1))
    assert 10 < spread[0] < 17 and 9 < spread[1] < 15


def test_links_and_ranges_of_the_arm_are_settings():
    arm = Arm(links=(0.3, 0.6), angle_limit=0.5)
    task = jax.jit(arm.sample_task)(jax.random.key(1))
    assert np.abs(np.cumsum(np.asarray(task.velocity), 0) / 1000.0).max() <= 0.5 + 1e-5
    start = np.asarray(arm.produced(jnp.zeros((2, 2))))[0]
    np.testing.assert_allclose(start, [0.3, 0.6], atol=1e-6)


def test_clock_and_population_code():
    ticks = np.asarray(clock(500, 1.0, groups=5, neurons=2, period=10.0))
    assert ticks.shape == (500, 10) and ticks.sum(0).tolist() == [10.0] * 10
    assert (np.flatnonzero(ticks[:, 2]) == np.arange(100, 200, 10)).all()
    values = jnp.array([[0.0, -3.0]])
    draw = jax.jit(jax.vmap(lambda key: population_code(values, 100, 10.0, 200.0, 1.0, key)))
    rate = np.asarray(draw(jax.random.split(jax.random.key(0), 4000))).mean(0)[0]
    centres = np.linspace(-1.4, 1.4, 100)
    for coordinate, value in enumerate((0.0, -1.0)):  # -3 counts as -1
        expected = 0.2 * np.exp(-0.5 * ((value - centres) / 0.2) ** 2)
        np.testing.assert_allclose(rate[100 * coordinate :][:100], expected, atol=0.03)


@slow
def test_the_module_sees_the_target_or_the_error():
    trainer = OneShotTrainer(experiment(module_input="error", code_neurons=30, code_rate=1000.0))
    tasks = trainer.draw_tasks(keys())
    exact = jnp.swapaxes(tasks, 0, 1)  # outputs without error: the code of zero
    code = trainer._code(exact, tasks, keys())
    centre = np.asarray(code).reshape(24, TASKS, 30).mean((0, 1)) @ np.arange(30)
    zero = np.asarray(trainer._code(exact, tasks, keys()[::-1])).reshape(24, TASKS, 30).mean((0, 1)) @ np.arange(30)
    assert centre == pytest.approx(zero, rel=0.2)
    seeing = OneShotTrainer(experiment(code_neurons=30, code_rate=1000.0))
    assert not (np.asarray(seeing._code(exact, tasks, keys())) == np.asarray(code)).all()


@slow
def test_the_module_runs_on_any_neuron_model_and_refuses_other_inputs():
    trainer = OneShotTrainer(experiment(module_neuron="lstm"))
    before, after = trainer.compare(trainer.learnt(trainer.init()), keys())
    assert np.isfinite(np.asarray(after)).all() and (np.asarray(after) != np.asarray(before)).all()
    module = ErrorModule(Recurrent(LIF(), 5, 4, key=jax.random.key(0)), 3, key=jax.random.key(1))
    with pytest.raises(InvalidSetting, match=r"error module: expected 5 inputs, got 2 \+ 2"):
        module(jnp.zeros((7, 1, 2)), jnp.zeros((7, 1, 2)))


@dataclass(frozen=True)
class Ramps(TaskFamily):
    """A family as a user writes it."""

    wrong: str = ""

    @property
    def n_out(self) -> int:
        return 2 if self.wrong == "outputs" else 1

    def sample_task(self, key):
        return jax.random.uniform(key) * jnp.linspace(0.0, 1.0, self.steps + (self.wrong == "steps"))[:, None]

    def target(self, task):
        return task

    def loss(self, outputs, task):
        error = (outputs - task) ** 2
        return error if self.wrong == "loss" else 0.5 * error.mean()


def test_a_user_s_family_trains_and_compiles_once():
    trainer = OneShotTrainer(experiment(Ramps(duration=20.0)))
    state = trainer.init()
    before = np.array(state.arrays.module.weight)
    for i in range(3):
        state, loss = trainer.update(state, None, jnp.asarray(i))
    assert np.isfinite(float(loss[0])) and np.abs(state.arrays.module.weight - before).max() > 0
    assert trainer.update._cache_size() == 1


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: OneShotTrainer(experiment(Ramps(duration=20.0, wrong="outputs"))), r"family Ramps: target has shape"),
        (lambda: OneShotTrainer(experiment(Ramps(duration=20.0, wrong="steps"))), r"\(20, 1\) do not fit its tasks"),
        (lambda: OneShotTrainer(experiment(Ramps(duration=20.0, wrong="loss"))), r"loss has shape \(20, 1\), expected"),
        (lambda: Arm(duration=0.0), r"duration = 0.0: a trial must last at least one step of dt = 1.0"),
        (lambda: Arm(links=(0.5, -0.5)), r"links = \(0.5, -0.5\): must be above 0"),
        (lambda: Sinusoids(cycles=(2.0, 1.0)), r"cycles = \(2.0, 1.0\): must be a range above 0"),
        (lambda: experiment(inner_learning_rate=0.0), r"inner_learning_rate = 0.0: must be above 0"),
        (lambda: OneShotTrainer(experiment(micro_batch=3)), r"micro_batch = 3: must divide the batch of 4"),
    ],
)
def test_what_does_not_fit_is_refused(make_it, message):
    with pytest.raises(InvalidSetting, match=message):
        make_it()


# The outer loop


def folder_of(path, setup) -> RunFolder:
    return RunFolder.create(path, {"command": "part", "settings": dataclasses.asdict(setup)})


@slow
def test_an_inner_learning_rate_that_blows_up_ends_the_run_with_good_weights_kept(tmp_path):
    setup = experiment(neuron="rate", precision="float32", inner_learning_rate=3e38)
    folder = folder_of(tmp_path / "run", setup)
    trainer = OneShotTrainer(setup)
    expected = "iteration 1: loss or gradient is not finite; .*checkpoints; .*inner_learning_rate below 3e\\+38"
    with pytest.raises(RunFailed, match=expected):
        train(setup, folder, task="ramps", trainer=trainer)
    from eprop.workshop.experiments._one_shot import load_learnt

    kept = load_learnt(folder, trainer)
    assert all(np.isfinite(np.asarray(w)).all() for w in jax.tree.leaves(eqx.filter(kept, eqx.is_inexact_array)))


@slow
def test_learning_to_learn_sinusoids():
    """Bound: over seeds 0 to 2 the error after the update was 0.24 to 0.52 of that before it."""
    quick = REPRODUCTIONS["one-shot-sinusoids"].presets["quick"]
    setup = dataclasses.replace(
        quick,
        task=Sinusoids(duration=250.0, dt=5.0),
        network=dataclasses.replace(quick.network, neurons=40, v_th=0.8, n_refractory=2),
        one_shot=dataclasses.replace(quick.one_shot, module_neurons=40, code_neurons=30, code_width=3.0),
        optimiser=dataclasses.replace(quick.optimiser, rate_strength=0.3),
        run=RunSettings(iterations=250, batch=20, evaluation_batch=200),
    )
    trainer = OneShotTrainer(setup)
    state = trainer.init()
    for i in range(250):
        state, _ = trainer.update(state, None, jnp.asarray(i))
    found = trainer.evaluate(state, None, jnp.asarray(0))
    assert float(found.metric[0]) < 0.8 * float(found.before[0])


TINY = (
    "--duration 60 --dt 3 --neurons 8 --module-neurons 6 --code-neurons 8 --code-width 1.5 --batch 3 "
    "--evaluation-batch 4 --compared-tasks 4 --evaluate-every 2"
).split()


@slow
def test_reproduce_ends_with_a_table_and_pictures(tmp_path, capsys):
    out = tmp_path / "arm"
    main(["reproduce", "one-shot-arm", *TINY, "--iterations", "4", "--out", str(out)])
    said = capsys.readouterr().out
    assert "held-out tasks" in said and "BPTT" in said
    results = json.loads((out / "results.json").read_text())
    names = [row["name"] for row in results["rows"]]
    assert len(names) == len(set(names)) == 7 and all(len(row["values"]) == 4 for row in results["rows"])
    assert {p.name for p in (out / "figures").iterdir()} == {"learning.png", "lesson.png", "comparison.png", "arm.gif"}
    assert (out / "figures" / "arm.gif").read_bytes()[:3] == b"GIF"
    main(["resume", str(out)])
    assert json.loads((out / "results.json").read_text()) == results


@slow
def test_a_resumed_outer_loop_gives_the_same_numbers(tmp_path):
    trainer = OneShotTrainer(experiment())

    def run(path, iterations):
        setup = experiment(run={"iterations": iterations})
        folder = RunFolder.open(path) if path.is_dir() else folder_of(path, setup)
        train(setup, folder, task="sinusoids", trainer=trainer)
        return [{k: v for k, v in line.items() if k != "wall_s"} for line in folder.metrics()]

    straight = run(tmp_path / "straight", 6)
    assert straight[0]["before"] != straight[0]["metric"]
    run(tmp_path / "stopped", 3)
    (tmp_path / "stopped" / "summary.json").unlink()
    assert run(tmp_path / "stopped", 6)[-2:] == straight[-2:]
