"""The task speech: batches hold the corpus, errors count what they say, and the program runs from sound to picture."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
import soundfile

from eprop import InvalidSetting
from eprop.workshop.cli import main
from eprop.workshop.experiments._speech import PRESETS, SpeechFigure, _relate
from eprop.workshop.experiments._transcribe import timed
from eprop.workshop.settings import NetworkSettings, RuleSettings, RunSettings
from eprop.workshop.speech import FOLDED, FOLDING, load_corpus
from eprop.workshop.tasks import TASKS, Batch, Speech
from eprop.workshop.tasks._speech import _classes, edit_distance, merge_neighbours
from eprop.workshop.training import SequenceTrainer

LSTM, LSNN = TASKS["speech"]["lstm"], TASKS["speech"]["lsnn"]
pytestmark = pytest.mark.usefixtures("cache", "compiled_quickly")
slow = pytest.mark.slow
KEY = jax.random.key(7)


def test_buckets_hold_every_utterance_once_normalised_with_its_labels(spoken):
    task, corpus = Speech(data=spoken, buckets=2), load_corpus(spoken)
    data = task.prepare(KEY)
    assert len(data.train) == 2 and data.train[0].inputs.shape[1] < data.train[1].inputs.shape[1]
    mean = np.concatenate([b.inputs[i, : b.lengths[i]] for b in data.train for i in range(len(b.lengths))])
    assert np.allclose(mean.mean(0), 0, atol=1e-3) and np.allclose(mean.std(0), 1, atol=1e-3)
    for split, buckets in zip(("train", "dev", "test"), data, strict=True):
        wanted = {}
        for u in corpus.of(split):
            labels = [FOLDING[corpus.phones[k]] for k in corpus.labels[corpus.frames(u)]]
            wanted[len(labels)] = labels
        found = {}
        for bucket in buckets:
            for i, length in enumerate(np.asarray(bucket.lengths)):
                assert not bucket.mask[i, length:].any() and not bucket.inputs[i, length:].any()
                pairs = zip(np.asarray(bucket.targets[i, :length]), np.asarray(bucket.mask[i, :length]), strict=True)
                found[int(length)] = [task.classes.names[k] if counts else None for k, counts in pairs]
        assert found == wanted


def test_each_iteration_has_its_bucket_and_all_get_their_turn(spoken):
    task = Speech(data=spoken, buckets=2)
    data = task.prepare(KEY)
    lengths = [task.part(data, i).train[0].inputs.shape[1] for i in range(40)]
    assert set(lengths) == {b.inputs.shape[1] for b in data.train}
    assert lengths == [task.part(data, i).train[0].inputs.shape[1] for i in range(40)]
    batch = task.sample(task.part(data, 0), KEY, 3)
    assert batch.inputs.shape == (lengths[0], 3, 39) and (batch.lengths <= lengths[0]).all()
    with pytest.raises(InvalidSetting, match="batch = 9: a length bucket has 4 utterances"):
        task.sample(task.part(data, 0), KEY, 9)


def test_classes_are_timits_39_or_as_written(spoken):
    folded, written = Speech(data=spoken), Speech(data=spoken, phones="written")
    assert set(folded.classes.names) <= set(FOLDED) and folded.n_out < written.n_out
    assert written.classes.names == load_corpus(spoken).phones
    assert Speech(data=spoken, objective="ctc").n_out == folded.n_out + 1
    own = dataclasses.replace(load_corpus(spoken), phones=tuple(f"x{i}" for i in range(written.n_out)))
    assert _classes(own, "folded").names == own.phones


def levenshtein(a, b):
    """The textbook's recursion, in loops."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def test_the_edit_distance_is_levenshteins_of_the_best_path():
    random = np.random.default_rng(0)
    best, blank = random.integers(0, 4, (30, 8)), 3
    targets, lengths = random.integers(0, 3, (12, 8)), random.integers(0, 13, 8)
    ends = random.integers(1, 31, 8)
    mask, valid = np.arange(12)[:, None] < lengths, np.arange(30)[:, None] < ends
    found = edit_distance(*map(jnp.asarray, (best, valid, targets, mask)), blank)
    for b in range(8):
        path = best[: ends[b], b]
        heard = [k for i, k in enumerate(path) if k != blank and (i == 0 or k != path[i - 1])]
        assert found[b] == levenshtein(heard, targets[: lengths[b], b])


def test_merging_leaves_out_what_has_no_class_and_counts_neighbours_once():
    assert merge_neighbours(np.array([3, 3, -1, 3, 1, 1, 2])).tolist() == [3, 1, 2]
    assert merge_neighbours(np.array([-1])).tolist() == []


def test_ctc_batches_hold_the_sequence_of_phones(spoken):
    task = Speech(data=spoken, buckets=1, objective="ctc")
    corpus, data = load_corpus(spoken), task.prepare(KEY)
    (bucket,) = data.dev
    phones = [FOLDING[corpus.phones[k]] for k in corpus.sequence[corpus.segments(corpus.of("dev")[0])]]
    expected = [p for i, p in enumerate(phones) if i == 0 or p != phones[i - 1]]
    assert [task.classes.names[k] for k in bucket.targets[0][bucket.mask[0]]] == expected
    perfect = np.full((2 * len(expected), 1), task.n_out - 1)
    perfect[::2, 0] = bucket.targets[0][bucket.mask[0]]
    batch = Batch(jnp.zeros((len(perfect), 1, 39)), bucket.targets.T, bucket.mask.T, jnp.ones((len(perfect), 1), bool))
    wrong, counted = task.metric(jax.nn.one_hot(jnp.asarray(perfect), task.n_out), batch)
    assert wrong == 0 and counted == len(expected)
    assert task.loss(20.0 * jax.nn.one_hot(jnp.asarray(perfect), task.n_out), batch) < 0.1


@slow
def test_the_loss_of_ctc_falls(spoken):
    task = Speech(data=spoken, buckets=1, objective="ctc")
    experiment = dataclasses.replace(
        LSTM,
        task=task,
        network=dataclasses.replace(LSTM.network, neurons=8),
        run=RunSettings(batch=4),
        rule=RuleSettings(rule="eprop1:random"),
    )
    trainer = SequenceTrainer(experiment, [0])
    state, losses = trainer.init(), []
    for i in range(12):
        state, loss = trainer.update(state, trainer.part(i), jnp.asarray(i))
        losses.append(float(loss[0]))
    assert np.isfinite(losses).all() and losses[-1] < 0.9 * losses[0]


def test_one_update_on_frames_of_sound(spoken):
    """The fast one: features, a batch, an update of a small bidirectional LSTM."""
    experiment = dataclasses.replace(
        LSTM,
        task=Speech(data=spoken, buckets=1),
        network=dataclasses.replace(LSTM.network, neurons=4),
        optimiser=dataclasses.replace(LSTM.optimiser, warmup=0),
        run=RunSettings(batch=2),
        rule=RuleSettings(rule="eprop1:random"),
    )
    trainer = SequenceTrainer(experiment, [0])
    state = trainer.init()
    before = jax.tree.map(np.array, state.learner.network)
    state, loss = trainer.update(state, trainer.part(0), jnp.asarray(0))
    assert float(loss[0]) == pytest.approx(np.log(trainer.task.n_out), rel=0.5)
    for part in (lambda n: n.layers[0].forward.w_rec, lambda n: n.layers[0].backward.w_in, lambda n: n.readout.weight):
        assert np.abs(np.asarray(part(state.learner.network)) - part(before)).max() > 1e-5


@slow
@pytest.mark.parametrize("published", [LSTM, LSNN])
def test_published_networks_learn_frames_and_compile_once_a_bucket(spoken, published):
    experiment = dataclasses.replace(
        published,
        task=Speech(data=spoken, buckets=2),
        network=dataclasses.replace(published.network, neurons=12),
        optimiser=dataclasses.replace(published.optimiser, warmup=0),
        run=RunSettings(batch=4, evaluation_batch=2),
        rule=RuleSettings(rule="eprop1:random"),
    )
    trainer = SequenceTrainer(experiment, [0])
    state, losses = trainer.init(), []
    for i in range(10):
        state, loss = trainer.update(state, trainer.part(i), jnp.asarray(i))
        losses.append(float(loss[0]))
    assert trainer.update._cache_size() == 2
    assert np.mean(losses[-3:]) < 0.96 * np.mean(losses[:3])
    error, activity = trainer.evaluate(state, trainer.data, jnp.asarray(0), test=True)
    assert 0 < float(error[0]) < 1 and (not trainer.spiking or 0.001 < float(activity[0]) < 0.3)


def test_the_published_sizes_and_constants_are_those_of_the_released_code():
    assert (LSTM.network.neurons, LSNN.network.neurons, LSNN.network.adaptive_fraction) == (200, 400, 0.25)
    network = LSNN.network
    assert (network.v_th, network.beta, network.tau_a, network.n_refractory) == (0.205, 0.1841, 200.0, 2)
    assert network.tau_out is not None
    assert np.exp(-network.steps_per_frame / network.tau_out) == pytest.approx(np.exp(-1 / 3))
    assert LSTM.optimiser.adam_epsilon == LSNN.optimiser.adam_epsilon == 1e-5
    assert PRESETS["paper"].lstm_units == 200 and PRESETS["paper"].lsnn_neurons == 400


def test_phones_have_times_from_the_sounds_start_to_its_end():
    spans = timed(["sil", "sil", "a", "b", "b"], 0.055)
    assert [name for _, _, name in spans] == ["sil", "a", "b"]
    assert [t for span in spans for t in span[:2]] == pytest.approx([0.0, 0.0275, 0.0275, 0.0375, 0.0375, 0.055])
    assert [name for _, _, name in timed(["", "a", "", ""], 0.05)] == ["a"]


def run(*arguments):
    main([str(a) for a in arguments])


def check_picture(path):
    image = matplotlib.image.imread(path)
    assert min(image.shape[:2]) > 300 and image[..., :3].std() > 0.02


TINY = "--neurons 6 --iterations 2 --evaluate-every 2 --batch 2 --buckets 1".split()


@pytest.fixture(scope="module")
def trained(spoken, tmp_path_factory):
    """An LSTM's run on a corpus of its own."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(spoken, folder / "corpus")
    run("train", "speech", "--data", folder / "corpus", *TINY, "--rule", "eprop1:random", "--out", folder / "run")
    return folder


@slow
def test_train_draws_an_utterance_and_the_confusions(trained):
    summary = json.loads((trained / "run" / "summary.json").read_text())
    assert summary["metric"] == "frame error" and 0 < summary["value"] <= 1
    for name in ("learning", "utterance", "confusion"):
        check_picture(trained / "run" / "figures" / f"{name}.png")


@slow
def test_transcribe_prints_phones_with_times_and_draws_them(trained, spoken, tmp_path, capsys):
    (sound, *_) = (spoken / "TEST").rglob("*.WAV")
    run("transcribe", trained / "run", sound, "--out", tmp_path / "x.png")
    *lines, picture = capsys.readouterr().out.strip().splitlines()
    assert picture == str(tmp_path / "x.png") and lines
    check_picture(picture)
    for line in lines:
        start, end, phone = line.split()
        assert 0 <= float(start) < float(end) <= soundfile.info(sound).duration + 1e-3 and phone in FOLDED


@slow
def test_a_network_of_spikes_is_trained_on_sequences_with_ctc(spoken, tmp_path):
    ctc = ("--preset", "lsnn", "--features", "mfcc", "--steps-per-frame", 2, "--objective", "ctc")
    run("train", "speech", "--data", spoken, *ctc, *TINY, "--rule", "eprop1:adaptive", "--out", tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["metric"] == "phone error rate" and summary["value"] > 0
    check_picture(tmp_path / "run" / "figures" / "utterance.png")


def refused(capsys, *arguments):
    """The one line that bad input gets."""
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and len(said.strip().splitlines()) == 1
    return said


@slow
def test_transcribe_refuses_what_it_cannot_use(trained, tmp_path, capsys):
    said = lambda *arguments: refused(capsys, "transcribe", *arguments)  # noqa: E731
    assert "name a run folder and a sound file" in said("only-one")
    assert "no run there" in said(tmp_path / "none", "x.wav")
    assert "cannot be read as sound" in said(trained / "run", tmp_path / "none.wav")
    soundfile.write(tmp_path / "slow.wav", np.zeros(8000), 8000)
    assert "has 8000 samples a second; the network was trained at 16000" in said(trained / "run", tmp_path / "slow.wav")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"command": "train", "task": "arrays", "experiment": {}}')
    assert "is not the folder of a trained speech network" in said(tmp_path / "other", "x.wav")


@slow
def test_a_network_transcribes_without_its_corpus_but_is_not_trained_on_another(trained, spoken, tmp_path, capsys):
    shutil.copytree(trained / "run", tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    first = next((trained / "corpus" / "TRAIN").rglob("*.WAV"))
    first.write_bytes(first.read_bytes() + bytes(2))
    load_corpus.cache_clear()
    assert "its data have changed since the run began" in refused(capsys, "resume", tmp_path / "run")
    shutil.rmtree(trained / "corpus")
    load_corpus.cache_clear()
    run("transcribe", tmp_path / "run", next((spoken / "TEST").rglob("*.WAV")))
    assert capsys.readouterr().out


@slow
def test_reproduce_speech_ends_with_table_and_pictures_and_can_be_resumed(spoken, tmp_path, capsys):
    tiny = "--rules bptt --seeds 2 --batch 2 --buckets 1 --lstm-units 4 --lsnn-neurons 4".split()
    tiny += "--lstm-iterations 2 --lsnn-iterations 2".split()
    out = tmp_path / "r"
    run("reproduce", "speech", "--data", spoken, *tiny, "--out", out)
    said = capsys.readouterr().out
    assert "÷ BPTT" in said and "lsnn" in said and "s/s" in said
    rows = json.loads((out / "speech.json").read_text())["rows"]
    assert [(row["neuron"], row["rule"]) for row in rows] == [("lstm", "bptt"), ("lsnn", "bptt")]
    assert all(len(row["values"]) == 2 and row["speed"] > 0 and row["over_bptt"] == 1 for row in rows)
    for name in ("errors", "utterance-lstm", "utterance-lsnn", "confusion-lstm", "confusion-lsnn"):
        check_picture(out / "figures" / f"{name}.png")
    run("resume", out)
    assert json.loads((out / "speech.json").read_text())["rows"] == rows


def test_errors_are_related_to_bptts_of_the_same_network():
    means = (("a", "bptt", 0.2), ("b", "x", 0.9), ("a", "x", 0.3), ("b", "bptt", 0.6))
    rows = [{"neuron": neuron, "rule": rule, "mean": mean} for neuron, rule, mean in means]
    _relate(rows)
    assert [row["over_bptt"] for row in rows] == pytest.approx([1.0, 1.5, 1.5, 1.0])


def test_the_reproductions_settings_are_checked():
    with pytest.raises(InvalidSetting, match="bptt must be among them"):
        SpeechFigure(rules=("eprop1:random",))
    with pytest.raises(InvalidSetting, match="steps_per_frame = 2: must be at least 1; above 1 it needs"):
        NetworkSettings(steps_per_frame=2, tau_out=None)
