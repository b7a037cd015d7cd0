"""Tasks: what is drawn obeys the task's law, and metrics mean what they say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eprop import InvalidSetting
from eprop.workshop.tasks import TASKS, ArraysTask, EvidenceAccumulation, PatternGeneration, StoreRecall, StreamTask

KEY = jax.random.key(7)
GENERATORS = [
    (name, preset)
    for name, presets in TASKS.items()
    for preset, experiment in presets.items()
    if name not in ("arrays", "speech") and not isinstance(experiment.task, StreamTask)  # see test_stream_tasks.py
]


@pytest.mark.parametrize(("name", "preset"), GENERATORS)
def test_batches_have_the_stated_shapes_and_the_perfect_answer_scores_zero(name, preset):
    task = TASKS[name][preset].task
    batch = task.sample(task.prepare(KEY), KEY, 3)
    assert batch.inputs.shape[1:] == (3, task.n_in)
    numbers = np.asarray(batch.inputs[..., 1:] if name == "adding" else batch.inputs)
    assert {*np.unique(numbers)} == {0.0, 1.0}
    assert batch.mask.any() and batch.valid.all()
    regression = batch.targets.ndim == 3
    y = batch.targets if regression else 10.0 * jax.nn.one_hot(batch.targets, task.n_out)
    wrong, counted = task.metric(y, batch)
    assert float(wrong) == 0.0 and float(counted) > 0
    assert float(task.loss(y, batch)) < 1e-3
    wrong, counted = task.metric(jnp.zeros_like(y) if regression else -y, batch)
    assert float(wrong / counted) >= 0.99


def test_pattern_is_the_same_in_all_batches_and_differs_between_seeds():
    task = PatternGeneration()
    data = task.prepare(KEY)
    one, other = (task.sample(data, jax.random.key(k), 2) for k in (1, 2))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, other))
    assert float(jnp.abs(task.prepare(jax.random.key(8))[1] - data[1]).max()) > 0.1


def test_clock_groups_fire_one_after_the_other_at_their_rate():
    task = PatternGeneration(duration=10_000)
    spikes = task.prepare(KEY)[0].reshape(5, 2000, 5, 4).mean((1, 3))  # [fifth, group]
    assert np.allclose(spikes, 0.1 * np.eye(5), atol=0.02)


def test_normalised_pattern_starts_at_zero_and_reaches_one():
    pattern = TASKS["pattern-generation"]["tutorial"].task.prepare(KEY)[1]
    assert float(jnp.abs(pattern).max()) == pytest.approx(1.0) and float(pattern[0, 0]) == 0.0


def test_nmse_of_the_mean_is_one():
    task = PatternGeneration()
    batch = task.sample(task.prepare(KEY), KEY, 1)
    mean = jnp.broadcast_to(batch.targets.mean(0, keepdims=True), batch.targets.shape)
    wrong, counted = task.metric(mean, batch)
    assert float(wrong / counted) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("kind", ["one value a sample, at its end", "constant in time", "all equal"])
def test_the_metric_of_a_regression_is_finite_and_named(tmp_path, kind):
    """Case: nMSE around each sample's own mean in time divided by zero."""
    rng = np.random.default_rng(0)
    each = rng.normal(size=(10, 1, 2)) if kind != "all equal" else np.full((10, 1, 2), 0.5)
    mask = np.arange(6)[None] >= (5 if "end" in kind else 0)
    arrays = {"inputs": rng.normal(size=(10, 6, 3)), "targets": np.broadcast_to(each, (10, 6, 2))}
    split = np.array(["train"] * 4 + ["test"] * 6)
    np.savez(tmp_path / "data.npz", mask=np.broadcast_to(mask, (10, 6)), split=split, **arrays)
    task = ArraysTask(data=tmp_path / "data.npz")
    y = 0.1 * jnp.ones((6, 4, 2))
    found = np.sum([task.metric(y, batch) for batch in task.held_out(task.prepare(KEY), KEY, 4)], axis=0)
    squared = (0.1 - each[4:]) ** 2
    spread = np.ones_like(squared) if kind == "all equal" else (each[4:] - each[4:].mean((0, 1))) ** 2
    assert task.metric_name == ("mse" if kind == "all equal" else "nmse")
    assert found[0] / found[1] == pytest.approx(squared.sum() / spread.sum(), rel=1e-5)


def follows_the_law(symbols: list[int]) -> bool:
    """An independent reading of the store-recall law."""
    expecting_store, after_store, stores = True, False, 0
    for symbol in symbols:
        if after_store and symbol > 1:
            return False
        after_store = symbol == 2
        if symbol > 1:
            if (symbol == 2) != expecting_store:
                return False
            expecting_store = not expecting_store
            stores += symbol == 2
    return stores > 0 and expecting_store


def test_store_recall_sequences_follow_the_law_and_vary():
    sequences = np.asarray(StoreRecall().sequences(KEY, 500))
    assert all(follows_the_law(list(s)) for s in sequences)
    assert len(np.unique(sequences, axis=0)) > 400
    first_command = (sequences > 1).argmax(1)
    assert (np.bincount(first_command, minlength=9)[:9] > 0).all()


def test_store_recall_asks_for_the_bit_shown_with_store():
    task = StoreRecall(input_rate=1000.0, symbol_duration=2)
    batch = task.sample(None, KEY, 200)
    shown = np.asarray(batch.inputs[::2]).reshape(12, 200, 4, 25)[..., 0]  # [symbol, batch, group]
    targets, recall = np.asarray(batch.targets[::2]), np.asarray(batch.mask[::2])
    inverted = []
    for b in range(200):
        stored = None
        for t in range(12):
            bit0, bit1, store, is_recall = shown[t, b]
            if store:
                assert bit0 + bit1 == 1
                stored = int(bit1)
                inverted.append(int(shown[t + 1, b, 1]) != stored)
            assert bool(is_recall) == bool(recall[t, b])
            if is_recall:
                assert bit0 + bit1 == 0 and targets[t, b] == stored
    assert 0.4 < np.mean(inverted) < 0.6


def test_evidence_targets_are_the_majority_of_the_cues():
    task = EvidenceAccumulation(cue_rate=1000.0, background_rate=0.0)
    batch = task.sample(None, KEY, 300)
    assert batch.inputs.shape[0] == task.duration == 2250
    groups = np.asarray(batch.inputs).reshape(2250, 300, 4, 10)[..., 0]
    left, right = (groups[:1050, :, side].reshape(7, 150, 300) for side in (0, 1))
    assert (left[:, :50] + right[:, :50] == 0).all() and (left[:, 50:] + right[:, 50:] == 1).all()
    majority = right[:, 100].sum(0) > 3.5
    assert (np.asarray(batch.targets[-1]) == majority).all() and 0.4 < majority.mean() < 0.6
    assert (groups[..., 2].astype(bool) == np.asarray(batch.mask)).all() and int(batch.mask[:, 0].sum()) == 150
    agreement = np.maximum(right[:, 100].sum(0), 7 - right[:, 100].sum(0)).mean() / 7
    assert 0.7 < agreement < 0.8


def test_settings_out_of_range_are_named():
    with pytest.raises(InvalidSetting, match="groups = 3: must divide inputs = 20"):
        PatternGeneration(groups=3)
    with pytest.raises(InvalidSetting, match="input_rate = 0.0: must be above 0"):
        PatternGeneration(input_rate=0.0)
    with pytest.raises(InvalidSetting, match="cues = 4: must be odd"):
        EvidenceAccumulation(cues=4)
    with pytest.raises(InvalidSetting, match="symbols = 2"):
        StoreRecall(symbols=2)


def write(tmp_path, **arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    return ArraysTask(data=tmp_path / "data.npz")


def good(kind: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = {
        "regression": rng.normal(size=(10, 6, 2)),
        "step": rng.integers(0, 3, (10, 6)),
        "sample": np.arange(10) % 3,
    }[kind]
    return {"inputs": rng.normal(size=(10, 6, 4)), "targets": targets, "lengths": np.arange(10) % 3 + 4}


@pytest.mark.parametrize("kind", ["regression", "step", "sample"])
def test_arrays_of_each_kind_make_batches_and_scores(tmp_path, kind):
    task = dataclasses.replace(write(tmp_path, **good(kind)), decision_steps=2, repeat=2)
    data = task.prepare(KEY)
    batch = task.sample(data, KEY, 5)
    assert batch.inputs.shape == (12, 5, 4) and task.n_out == {"regression": 2}.get(kind, 3)
    held_out = task.held_out(data, KEY, 3)
    assert len(held_out) == 1 and int(held_out[0].mask.any(0).sum()) == 2
    y = batch.targets if kind == "regression" else 9.0 * jax.nn.one_hot(batch.targets, 3)
    wrong, counted = task.metric(y, batch)
    assert float(wrong) == 0.0 and float(counted) > 0
    if kind == "sample":
        assert float(counted) == 5.0 and np.allclose(batch.mask.sum(0), 4)
        assert (np.asarray(batch.lengths) - 1 == 11 - np.asarray(batch.mask)[::-1].argmax(0)).all()


def test_every_held_out_sample_counts_once(tmp_path):
    arrays = good("sample") | {"split": np.array(["test"] * 7 + ["train"] * 3)}
    task = write(tmp_path, **arrays)
    batches = task.held_out(task.prepare(KEY), KEY, 4)
    assert [int(b.mask.any(0).sum()) for b in batches] == [4, 3]
    seen = np.concatenate([np.asarray(b.inputs[0, b.mask.any(0), 0]) for b in batches])
    assert np.allclose(seen, arrays["inputs"][:7, 0, 0])


BROKEN = {
    "no array 'targets'": lambda a: a.pop("targets"),
    "unknown array extra": lambda a: a.update(extra=np.zeros(1)),
    r"inputs: expected \[sample, time, channel\], got shape \(10, 6\)": lambda a: a.update(inputs=np.zeros((10, 6))),
    r"inputs: 1 values are not finite, the first at index \(2, 1, 0\)": lambda a: a["inputs"].__setitem__(
        (2, 1, 0), np.nan
    ),
    "inputs: are <U1, not real": lambda a: a.update(inputs=np.full((10, 6, 4), "x")),
    "targets: expected shape": lambda a: a.update(targets=np.zeros((9,), int)),
    "classes must be integers": lambda a: a.update(targets=np.zeros(10)),
    "classes must be 0 or above": lambda a: a.update(targets=np.arange(10) - 1),
    "only one class": lambda a: a.update(targets=np.zeros(10, int)),
    "lengths: must be from 1 to 6": lambda a: a.update(lengths=np.full(10, 7)),
    r"lengths: expected shape \(10,\)": lambda a: a.update(lengths=np.full(9, 3)),
    "mask: expected shape": lambda a: a.update(mask=np.ones((10, 5))),
    "mask: must be boolean": lambda a: a.update(mask=np.full((10, 6), 2)),
    "mask: hides the last steps": lambda a: a.update(mask=np.zeros((10, 6))),
    "split: each entry": lambda a: a.update(split=np.array(["train"] * 9 + ["valid"])),
    "split: needs samples of both": lambda a: a.update(split=np.array(["train"] * 10)),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_file_is_refused_with_the_reason(tmp_path, message):
    arrays = good("sample")
    BROKEN[message](arrays)
    with pytest.raises(InvalidSetting, match=message):
        _ = write(tmp_path, **arrays).arrays


def test_a_file_that_is_not_one_is_refused(tmp_path):
    with pytest.raises(InvalidSetting, match="no such file"):
        _ = ArraysTask(data=tmp_path / "none.npz").arrays
    (tmp_path / "text.npz").write_text("not arrays")
    with pytest.raises(InvalidSetting, match=r"not a file that numpy.savez wrote"):
        _ = ArraysTask(data=tmp_path / "text.npz").arrays
    task = write(tmp_path, **good("sample"))
    with pytest.raises(InvalidSetting, match="batch = 9: the file has 8 training samples"):
        task.sample(task.prepare(KEY), KEY, 9)
