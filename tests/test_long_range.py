"""Copy memory, the adding problem, and the figure of how far a window sees."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eprop import value_and_grad
from eprop.errors import InvalidSetting
from eprop.workshop.experiments import LongRangeSettings, longest, reproduction_of, start_reproduction
from eprop.workshop.experiments import _long_range as long_range
from eprop.workshop.figures import draw
from eprop.workshop.tasks import Adding, CopyMemory
from eprop.workshop.training import Interrupted, RunFolder, read_json, write_json

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KEY = jax.random.key(3)
S = LongRangeSettings(tasks=("copy-memory",), models=("rtu",), windows=(1,), delays=(2, 4), seeds=2, iterations=30,
                      check_every=10, batch=8, neurons=6, layers=1, alphabet=2, solved_error=0.6)  # fmt: skip


def test_copy_memory_asks_for_what_it_showed():
    task = CopyMemory(alphabet=5, symbols=3, delay=4)
    batch = task.sample(None, KEY, 6)
    shown = np.asarray(batch.inputs).argmax(-1)
    assert shown.shape == (10, 6) and np.allclose(batch.inputs.sum(-1), 1.0)
    assert np.array_equal(shown[:3], batch.targets[-3:]) and len(np.unique(shown[:3])) > 2
    assert np.array_equal(shown[3:, 0], [5, 5, 5, 6, 5, 5, 5])
    assert np.array_equal(np.flatnonzero(batch.mask[:, 0]), [7, 8, 9])


def test_adding_asks_for_the_sum_of_two_marked_numbers():
    batch = Adding(length=9).sample(None, KEY, 50)
    numbers, marks = np.moveaxis(np.asarray(batch.inputs), -1, 0)
    assert np.array_equal(marks[:4].sum(0), np.ones(50)) and np.array_equal(marks[4:].sum(0), np.ones(50))
    assert len({*marks[:4].argmax(0)}) == 4 and len({*marks[4:].argmax(0)}) == 5
    assert np.allclose(batch.targets[-1, :, 0], (numbers * marks).sum(0)) and 0 <= numbers.min() < numbers.max() < 1
    wrong, counted = Adding(length=9).metric(jnp.ones_like(batch.targets), batch)
    assert 0.08 < float(wrong / counted) < 0.3  # 1/6 in the mean


@pytest.mark.parametrize("task", [CopyMemory(alphabet=3, symbols=2, delay=5), Adding(length=9)])
def test_windows_of_the_loss_add_up(task):
    batch = task.sample(None, KEY, 4)
    y = jax.random.normal(KEY, (9, 4, task.n_out))
    parts = [jax.tree.map(lambda x, t=t: x[t : t + 3], batch) for t in (0, 3, 6)]
    added = sum(task.window_loss(y[t : t + 3], part, batch) for t, part in zip((0, 3, 6), parts, strict=True))
    assert float(added) == pytest.approx(float(task.loss(y, batch)), rel=1e-6)


@pytest.mark.slow
def test_in_a_layer_without_recurrent_weights_windows_with_traces_are_bptt_and_windows_without_are_not():
    gradients = {}
    for rule in ("bptt", "eligibility_only:1", "truncated_bptt:1"):
        trainer = long_range.LongRangeTrainer(S, "rtu", S.experiment("copy-memory", rule, 12))
        network = trainer._network(KEY)
        batch = trainer.task.sample(None, KEY, 8)
        loss = lambda n, trainer=trainer, batch=batch: trainer.task.loss(n(batch.inputs, trainer.rule).y, batch)  # noqa: E731
        gradients[rule] = np.asarray(jax.jit(value_and_grad(loss, trainer.rule))(network)[1].layers[0].w_in)
    exact = gradients["bptt"]
    assert np.abs(exact).max() > 0
    assert np.abs(gradients["eligibility_only:1"] - exact).max() < 1e-5 * np.abs(exact).max()
    assert np.abs(gradients["truncated_bptt:1"] - exact).max() > 0.5 * np.abs(exact).max()


def run(folder):
    reproduction, settings = reproduction_of(folder)
    return reproduction.run(folder, settings)


def test_what_was_measured_is_drawn(tmp_path):
    folder = start_reproduction("long-range", S, tmp_path / "run")
    with pytest.raises(InvalidSetting, match="nothing measured yet"):
        draw(folder)
    rows = [{"task": "copy-memory", "model": "rtu", "rule": rule, "solved": [2, 0]} for rule in S.rules[:2]]
    write_json(folder.path / "long-range.json", {"rows": rows})
    assert [path.name for path in draw(folder)] == ["long-range.png"]
    RunFolder.create(folder.path, folder.config, overwrite=True)
    assert not (folder.path / "long-range.png").exists()


@pytest.mark.slow
def test_it_runs_goes_on_and_is_drawn(tmp_path, monkeypatch):
    folder = start_reproduction("long-range", S, tmp_path / "run")
    one_delay, calls = long_range._one_delay, []

    def stopped(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise Interrupted(143)
        return one_delay(*arguments)

    monkeypatch.setattr(long_range, "_one_delay", stopped)
    with pytest.raises(Interrupted):
        run(folder)
    cell = long_range.part_path(folder, ("copy-memory", "rtu", "eligibility_only:1"))
    assert [line["delay"] for line in RunFolder.open(cell).metrics()] == [2]
    run(folder)
    lines = RunFolder.open(cell).metrics()
    assert [line["delay"] for line in lines] == [2, 4] and lines[0]["updates"] == [10, 10]
    found = read_json(folder.path / "long-range.json")
    assert [row["rule"] for row in found["rows"]] == ["eligibility_only:1", "truncated_bptt:1", "bptt"]
    assert found["rows"][0]["solved"] == longest(lines, 2)
    assert [path.name for path in draw(folder)] == ["long-range.png"]
    RunFolder.create(folder.path, folder.config, overwrite=True)
    assert not cell.exists()


def test_who_has_not_solved_a_delay_is_out():
    lines = [{"delay": 2, "solved": [True, False]}, {"delay": 4, "solved": [False, False]}]
    assert longest(lines, 2) == [2, 0]


@pytest.mark.parametrize(
    "wrong", [{"delays": (30, 10)}, {"windows": ()}, {"windows": (0,)}, {"longest_memory": 1.0}, {"models": ("gru",)}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InvalidSetting, match=next(iter(wrong))):
        dataclasses.replace(S, **wrong)
