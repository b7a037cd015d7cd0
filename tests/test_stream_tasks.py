"""Tasks that come window by window, and training on them."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eprop import BPTT, InvalidSetting, partition
from eprop.learner import Data
from eprop.neurons import traced
from eprop.rules import WINDOWED
from eprop.workshop.settings import Experiment, NetworkSettings, OptimiserSettings, RuleSettings, RunSettings
from eprop.workshop.tasks import CopyRepeat, PatternGeneration, Words
from eprop.workshop.tasks._words import load_text
from eprop.workshop.training import RunFolder, SequenceTrainer, StreamTrainer, experiment_to_json, load_run, train

pytestmark = pytest.mark.usefixtures("compiled_quickly")
slow = pytest.mark.slow

TEXT = "the cat saw a dog. the dog saw the cat.\na bird sang; the cat heard it and the dog did not.\n" * 60


def small(rule="eprop3:3", task=None, neuron="lstm", optimiser=None, **run) -> Experiment:
    task = CopyRepeat(bits=3, threshold=0.6) if task is None else task
    embedding = 4 if isinstance(task, Words) else None
    return Experiment(
        task=task,
        network=NetworkSettings(
            neuron=neuron,
            neurons=8,
            tau_out=5.0 if neuron == "lsnn" else None,
            bias=True,
            embedding=embedding,
            v_th=0.3,
        ),
        optimiser=optimiser or OptimiserSettings(learning_rate=0.01, clip=1.0),
        run=RunSettings(**{"iterations": 24, "evaluate_every": 8, "batch": 4} | run),
        rule=RuleSettings(rule=rule),
    )


def text_file(tmp_path, content=TEXT):
    path = tmp_path / "text.txt"
    path.write_text(content)
    return path


# Copy-repeat


def expected_sequence(bits, n, r, scale):
    """The layout in a plain loop: `bits` are `[n, bit]`."""
    time, channels = (r + 1) * n + 3, bits.shape[1]
    inputs, targets, mask = np.zeros((time, channels + 2)), np.zeros((time, channels + 1)), np.zeros(time, bool)
    inputs[0, channels] = 1
    inputs[1 : n + 1, :channels] = bits
    inputs[n + 1, channels + 1] = r * scale
    for copy in range(r):
        for i in range(n):
            targets[n + 2 + copy * n + i, :channels] = bits[i]
    targets[-1, channels] = 1
    mask[n + 2 :] = True
    return inputs, targets, mask


@pytest.mark.parametrize(
    "n, r, steps", [(3, 2, 4), *(pytest.param(*case, marks=slow) for case in ((1, 1, 5), (3, 2, 1), (4, 3, 7)))]
)
def test_windows_of_copy_repeat_make_up_the_sequence(n, r, steps):
    task, key, size = CopyRepeat(), jax.random.key(3), 5
    place = task.place()._replace(n=jnp.array(n), r=jnp.array(r), sequence=jnp.array(2))
    starts = range(0, (r + 1) * n + 3, steps)
    parts = [task.window(None, key, place._replace(t=jnp.array(t)), size, steps) for t in starts]
    batch = jax.tree.map(lambda *x: np.concatenate(x), *(p.batch for p in parts))
    time = (r + 1) * n + 3
    assert batch.valid[:time].all() and not batch.valid[time:].any() and not batch.mask[time:].any()
    for b in range(size):
        bits = batch.inputs[1 : n + 1, b, :8]
        inputs, targets, mask = expected_sequence(bits, n, r, 0.1)
        assert np.allclose(batch.inputs[:time, b], inputs) and np.array_equal(batch.mask[:time, b], mask)
        assert np.array_equal(batch.targets[:time, b], targets)
    assert 0.2 < batch.inputs[1 : n + 1, :, :8].mean() < 0.8  # both bits are drawn
    assert [bool(p.ended.all()) for p in parts] == [False] * (len(parts) - 1) + [True]
    assert [bool(p.first.all()) for p in parts] == [True] + [False] * (len(parts) - 1)
    again = task.window(None, key, place._replace(sequence=jnp.array(3)), size, steps)
    assert steps == 1 or not np.array_equal(again.batch.inputs, parts[0].batch.inputs)


@slow
def test_the_curriculum_goes_through_the_published_lengths():
    task = CopyRepeat()
    place, lengths = task.place(), []
    step = jax.jit(lambda place: _perfect(task, place))
    while len(lengths) < 15:
        place = step(place)
        if not lengths or int(place.solved) != lengths[-1]:
            lengths += [int(place.solved)] if place.solved else []
    assert lengths == [5, 7, 9, 12, 15, 19, 23, 28, 33, 39, 45, 52, 59, 67, 75]
    stuck = place
    for _ in range(30):
        stuck = task.move(stuck, jnp.zeros((4, 1, 9)), task.window(None, jax.random.key(0), stuck, 1, 4))
    assert (int(stuck.n), int(stuck.r)) == (int(place.n), int(place.r)) and float(stuck.bits) == pytest.approx(1.0)


def _perfect(task, place):
    window = task.window(None, jax.random.key(0), place, 1, 4)
    return task.move(place, 40.0 * (window.batch.targets - 0.5), window)


# Words


def test_words_are_split_numbered_and_cut_off(tmp_path):
    corpus = Words(text=text_file(tmp_path), vocabulary=6).corpus
    assert corpus.vocabulary == ("<unk>", "the", ".", "cat", "dog", "<eos>")
    first = [corpus.vocabulary[i] for i in corpus.train[:12]]
    assert first == ["the", "cat", "<unk>", "<unk>", "dog", ".", "the", "dog", "<unk>", "the", "cat", "."]
    characters = Words(text=text_file(tmp_path), level="character").corpus
    assert "".join(characters.vocabulary[i] for i in characters.train[:9]) == "the cat s"
    whole = sum(len(part) for part in characters[1:])
    assert whole == len(TEXT) and len(characters.valid) == len(characters.test) == round(0.05 * whole)


def test_penn_treebanks_files_are_known_by_name(tmp_path):
    for part, words in (("train", " a <unk> b \n a b N \n"), ("valid", " a c \n"), ("test", " b N \n")):
        (tmp_path / f"ptb.{part}.txt").write_text(words)
    corpus = Words(text=tmp_path).corpus
    assert corpus.vocabulary == ("<unk>", "<eos>", "a", "b", "N")
    assert [len(part) for part in corpus[1:]] == [8, 3, 3] and corpus.valid.tolist() == [2, 0, 1]


def test_streams_are_read_on_from_window_to_window(tmp_path):
    task = Words(text=text_file(tmp_path))
    data, place, read = task.prepare(None), task.place(), []
    long = len(task.corpus.train) // 3
    ended = False
    while not ended:
        window = task.window(data, None, place, 3, 7)
        read.append(np.asarray(window.batch.inputs))
        assert np.array_equal(window.batch.inputs[1:], window.batch.targets[:-1])
        ended = bool(window.ended.all())
        place = task.move(place, jnp.zeros((7, 3, task.n_out)), window)
    read = np.concatenate(read)
    assert np.array_equal(read.T, task.corpus.train[: 3 * long].reshape(3, long)[:, : len(read)])
    assert long - 7 <= len(read) < long and int(place.t) == 0 and int(place.epoch) == 1


@pytest.mark.parametrize("level", ["word", pytest.param("character", marks=slow)])
def test_perplexity_counts_every_symbol_once(tmp_path, level):
    task = Words(text=text_file(tmp_path), level=level)
    data = task.prepare(None)
    score = jax.random.normal(jax.random.key(0), (task.n_out,))
    run = lambda inputs, carry: (jnp.broadcast_to(score, (*inputs.shape, task.n_out)), carry)  # noqa: E731
    log_p = np.asarray(score - jax.nn.logsumexp(score), np.float64)
    for test, part in ((False, task.corpus.valid), (True, task.corpus.test)):
        nats = -log_p[part[1:]].mean()
        expected = np.exp(nats) if level == "word" else nats / np.log(2)
        found = task.measure(data, None, None, run, lambda size: (), test)
        assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"some\0thing", "is binary, not text \\(it has a zero byte at 4\\)"),
        (b"caf\xe9 au lait", "is not UTF-8 text \\(byte 3\\)"),
        (b"word " * 50, "there is only one of its words to predict"),
        (b"a b c", "part has 0 words, too few"),
    ],
)
def test_a_text_that_cannot_be_learnt_is_refused(tmp_path, content, message):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(InvalidSetting, match=f"text = .*{message}"):
        _ = Words(text=path).n_in


def test_windows_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(InvalidSetting, match="window = 6: longer than the first sequence \\(5 steps"):
        StreamTrainer(small("eprop3:6"), [0])
    with pytest.raises(InvalidSetting, match="window = 900: longer than a stream of the text"):
        StreamTrainer(small("eprop3:900", Words(text=text_file(tmp_path))), [0])
    with pytest.raises(InvalidSetting, match="rule = 'bptt': this task is trained window by window.*eprop3:4"):
        StreamTrainer(small("bptt"), [0])
    with pytest.raises(
        InvalidSetting,
        match="rule = 'eprop3:4': is trained window by window, with its synthetic gradients, on copy-repeat",
    ):
        SequenceTrainer(dataclasses.replace(small("eprop3:4"), task=PatternGeneration()), [0])
    with pytest.raises(InvalidSetting, match="text = .*nothing: cannot be read"):
        _ = Words(text=tmp_path / "nothing").n_in
    with pytest.raises(InvalidSetting, match="ptb.valid.txt, ptb.test.txt is missing"):
        (tmp_path / "ptb.train.txt").write_text("a b")
        _ = Words(text=tmp_path).n_in


# Training


def run(path, experiment, task="copy-repeat", **kwargs):
    config = {"command": "train", "task": task, "experiment": experiment_to_json(experiment)}
    folder = RunFolder.create(path, config)
    return train(experiment, folder, task=task, **kwargs), folder


def numbers(folder):
    return [{k: v for k, v in line.items() if k != "wall_s"} for line in folder.metrics()]


EVERY_RULE = [
    ("lstm", "eprop3:3"),
    *(pytest.param("lstm", f"{name}:3", marks=slow) for name in WINDOWED if name != "eprop3"),
    pytest.param("lsnn", "eprop3:3", marks=slow),
    pytest.param("gru", "eprop3:2", marks=slow),
]


@pytest.mark.parametrize("neuron, rule", EVERY_RULE)
def test_every_rule_trains_window_by_window_and_compiles_once(neuron, rule):
    trainer = StreamTrainer(small(rule, neuron=neuron), [0, 1])
    state = trainer.init()
    before = jax.tree.map(np.array, state.learner.network)
    for i in range(6):
        state, loss = trainer.update(state, trainer.data, jnp.asarray(i))
    assert np.isfinite(np.asarray(loss)).all() and trainer.update._cache_size() == 1
    moved = lambda of: float(np.abs(np.asarray(of(state.learner.network)) - of(before)).max()) > 1e-4  # noqa: E731
    assert moved(lambda n: n.readout.weight)
    # In the window that has a loss all inputs are zero: truncated BPTT alone has no way to learn their weights.
    assert moved(lambda n: n.layers[0].w_in) == (rule != "truncated_bptt:3")
    assert (state.learner.synthesisers is not None) == trainer.rule.synthesises
    if trainer.rule.synthesises:
        (module,) = state.learner.synthesisers.modules
        assert float(np.abs(np.asarray(module.weight)).max()) > 0
    assert int(state.place.sequence[0]) > 0


@slow
def test_a_resumed_run_keeps_the_curriculum_and_gives_the_same_numbers(tmp_path):
    easy = CopyRepeat(bits=3, threshold=1.2)  # every sequence counts as solved: the curriculum moves fast
    _, straight = run(tmp_path / "straight", small(task=easy))
    _, stopped = run(tmp_path / "stopped", small(task=easy, iterations=13))
    (tmp_path / "stopped" / "summary.json").unlink()
    summary = train(small(task=easy), stopped, task="copy-repeat")
    lines = straight.metrics()
    assert [line for line in numbers(stopped) if line["iteration"] != 13] == numbers(straight)
    assert lines[-1]["N"] > 1 and summary["value"] == lines[-1]["metric"] > 7
    assert load_run(tmp_path / "stopped").iteration == 24


def test_once_a_sequence_is_one_step_with_the_sum_of_its_windows():
    optimiser = OptimiserSettings(optimiser="sgd", learning_rate=0.1, update_every="sequence")
    trainer = StreamTrainer(small("eligibility_only:3", optimiser=optimiser), [0])
    state = trainer.init()
    network = jax.tree.map(lambda x: jnp.array(x) if eqx.is_array(x) else x, trainer.network(state))
    chosen, rest = partition(network, trainer.rule)

    @jax.jit
    def of_window(batch, carry):
        def loss(chosen):
            result = eqx.combine(chosen, rest)(batch.inputs, trainer.rule, carry)
            return trainer.task.loss(result.y, batch), result.carry

        return jax.grad(loss, has_aux=True)(chosen)

    total, carry = jax.tree.map(jnp.zeros_like, chosen), network.start(4, traces=True)
    for t in (0, 3):
        place = trainer.task.place()._replace(t=jnp.array(t))
        key = jax.random.fold_in(jax.random.fold_in(trainer.keys[0], 2), 0)
        gradient, carry = of_window(trainer.task.window(None, key, place, 4, 3).batch, carry)
        total = jax.tree.map(jnp.add, total, gradient)
        state, _ = trainer.update(state, None, jnp.asarray(0))
        w_in = np.asarray(state.learner.network.layers[0].w_in)[0]
        moved = np.abs(w_in - network.layers[0].w_in).max()
        assert (moved > 0) == (t == 3)
    step = (np.asarray(network.layers[0].w_in) - w_in) / 0.1
    assert np.allclose(step, total.layers[0].w_in, rtol=1e-4, atol=3e-6)  # a float32 difference over 0.1
    assert np.abs(total.layers[0].w_in).max() > 1e-3
    assert not np.asarray(state.learner.gradient.layers[0].w_in).any()


@slow
def test_the_synthetic_gradient_learns_the_true_one():
    """On a frozen network the prediction's error against the true future gradient falls.

    Bound: over five seeds 0.02 to 0.06 of the error of saying nothing was left after 600 windows.
    """
    optimiser = OptimiserSettings(optimiser="sgd", learning_rate=1e-9, synthesiser_learning_rate=0.01)
    task = CopyRepeat(bits=2, pattern=2, repeats=2, threshold=1e-6)
    trainer = StreamTrainer(small("eprop3:3", task, optimiser=optimiser, batch=32), [0])
    state = trainer.init()
    for i in range(600):
        state, _ = trainer.update(state, trainer.data, jnp.asarray(i))
    (module,), network = jax.tree.map(lambda x: x[0], state.learner.synthesisers.modules), trainer.network(state)
    place = task.place()._replace(sequence=jnp.array(10_000))
    key = jax.random.key(9)
    window = lambda t, steps: task.window(None, key, place._replace(t=jnp.array(t)), 32, steps)  # noqa: E731
    left = said = 0.0
    for t in (3, 6):
        (carry,) = network(window(0, t).batch.inputs, BPTT(), network.start(32)).carry
        batch = window(t, 9 - t).batch

        def rest(state, z, carry=carry, batch=batch):
            """The loss of all that follows."""
            begin = carry._replace(state=eqx.combine(state, carry.state), z=z)
            return task.loss(network(batch.inputs, BPTT(), (begin,)).y, batch)

        true = jax.tree.map(lambda g: 32 * g, jax.grad(rest, argnums=(0, 1))(traced(carry.state), carry.z))
        predicted = module(carry.state, carry.z)
        square = lambda a: sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(a))  # noqa: E731
        left += square(jax.tree.map(jnp.subtract, predicted, true))
        said += square(true)
    assert left < 0.2 * said


def test_the_discount_weighs_what_is_said_of_the_future():
    """With discount d a window's gradient is the one without synthetic gradients plus d times what they add."""
    trainer = StreamTrainer(small("eprop3:3", optimiser=OptimiserSettings(synthesiser_discount=0.5)), [0])
    learner = trainer.learner
    assert learner.synthesiser_discount == 0.5
    state = trainer.whole(jax.tree.map(lambda x: x[0], trainer.init().learner))
    modules = jax.tree.map(lambda x: x + 0.1, state.synthesisers.modules)
    state = state._replace(synthesisers=state.synthesisers._replace(modules=modules))
    window = trainer.task.window(None, jax.random.key(1), trainer.task.place(), 4, 3)

    def gradient(discount, ended):
        learner.synthesiser_discount = discount
        data = Data(window.batch.inputs, window.batch, window.batch.mask, window.batch.valid, ended)
        return learner._gradient(state, data)[1].layers[0].w_rec

    of = jax.jit(gradient)
    none, half, whole = (of(discount, window.ended) for discount in (0.0, 0.5, 1.0))
    assert float(jnp.abs(whole - none).max()) > 1e-3
    assert np.allclose(half, (none + whole) / 2, atol=1e-6)
    assert np.allclose(of(1.0, ~window.ended), none, atol=1e-7)  # where a sequence ends, nothing follows
    with pytest.raises(InvalidSetting, match="synthesiser_discount = 2"):
        OptimiserSettings(synthesiser_discount=2.0)


@slow
def test_words_are_learnt_and_another_text_is_refused(tmp_path):
    task = Words(text=text_file(tmp_path), held_out_fraction=0.1)
    summary, folder = run(tmp_path / "run", small("eprop3:4", task, iterations=120, evaluate_every=60), "words")
    lines = folder.metrics()
    assert summary["metric"] == "perplexity" and summary["value"] < lines[0]["metric"] < 0.8 * task.n_out
    assert json.loads((tmp_path / "run" / "data.json").read_text())["vocabulary"] == task.n_in
    text_file(tmp_path, TEXT + "A zebra, though, was quite another matter.\n" * 5)
    load_text.cache_clear()
    with pytest.raises(InvalidSetting, match="its data have changed since the run began"):
        load_run(tmp_path / "run")
