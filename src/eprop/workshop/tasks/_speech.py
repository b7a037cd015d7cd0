"""Speech: a phone for every frame of 10 ms, or (CTC) the sequence of phones."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from eprop.errors import InvalidSetting, require, require_positive
from eprop.workshop.settings import Experiment, NetworkSettings, OptimiserSettings, RunSettings
from eprop.workshop.speech import CHANNELS, FOLDED, FOLDING, Corpus, Features, is_timits, load_corpus
from eprop.workshop.tasks._base import Batch, Task, cross_entropy


class Bucket(NamedTuple):
    """Utterances of like length, padded to one length.

    With CTC `targets` and `mask` hold the sequence of phones: `[utterance, phone]`.
    """

    inputs: Float[Array, "utterance time n_in"]
    targets: Int[Array, "utterance time"]
    mask: Bool[Array, "utterance time"]
    lengths: Int[Array, "utterance"]  # noqa: F821


class SpeechData(NamedTuple):
    train: tuple[Bucket, ...]
    dev: tuple[Bucket, ...]
    test: tuple[Bucket, ...]


@dataclass(frozen=True)
class Phones:
    """The classes: their names, and the class of each label that the corpus writes (-1: none)."""

    names: tuple[str, ...]
    of_label: np.ndarray


@dataclass(frozen=True)
class Speech(Task):
    """Phones of speech, frame by frame (10 ms): `--data ROOT`, a corpus in TIMIT's layout.

    ROOT/TRAIN and ROOT/TEST hold a folder a speaker (at any depth), with sound (.WAV: NIST SPHERE or RIFF) and
    phones (.PHN: lines "start end phone", in samples); letter case is free. TIMIT itself is split into its
    standard training, development (50 speakers) and core test set (24); other corpora may have a folder DEV.
    No corpus at hand? 'eprop data speech --out corpus' speaks one.

    A frame's label is the phone that holds the midpoint of its 25 ms window. Features are normalised with
    the mean and standard deviation of the training set. Metric: frame error on the development set, in the
    end on the test set; with objective ctc the phone error rate (edit distance over the number of phones) of the
    best path.
    """

    test_samples: ClassVar[int] = 1
    shared_data: ClassVar[bool] = True

    data: Path | None = None
    """The corpus's folder."""
    features: Features = "mfcc"
    """mfcc: 13 cepstra; fbank: log energy and 40 bands; each with first and second differences."""
    phones: Literal["folded", "written"] = "folded"
    """folded: TIMIT's 61 phones to the standard 39 (other labels stay as they are); written: all as they are."""
    objective: Literal["frames", "ctc"] = "frames"
    """frames: cross-entropy of every frame's phone; ctc: of the phones' sequence, whatever their times."""
    buckets: int = 3
    """Training utterances are sorted by length into so many groups, each padded to its longest."""
    skip_bad: bool = False
    """Leave out utterances that cannot be read, and count them, instead of stopping at the first."""

    def __post_init__(self) -> None:
        require_positive(buckets=self.buckets)

    @property
    def metric_name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "phone error rate" if self.objective == "ctc" else "frame error"

    @property
    def corpus(self) -> Corpus:
        """The corpus, read and checked."""
        if self.data is None:
            raise InvalidSetting(
                "data: name a corpus in TIMIT's layout, as in --data TIMIT; 'eprop data speech --out corpus' makes one"
            )
        return load_corpus(Path(self.data), self.features, self.skip_bad)

    @property
    def classes(self) -> Phones:
        return _classes(self.corpus, self.phones)

    @property
    def n_in(self) -> int:
        return CHANNELS[self.features]

    @property
    def n_out(self) -> int:
        """The classes, and with CTC the blank, which is the last."""
        return len(self.classes.names) + (self.objective == "ctc")

    def facts(self) -> dict[str, Any]:
        """The facts needed to use a trained network without its corpus."""
        mean, std = normalisation(self.corpus)
        return {
            "corpus": self.corpus.key,
            "phones": list(self.classes.names),
            "rate": self.corpus.rate,
            "mean": [float(x) for x in mean],
            "std": [float(x) for x in std],
            "left_out": list(self.corpus.bad),
        }

    def prepare(self, key: PRNGKeyArray) -> SpeechData:
        corpus = self.corpus
        lengths = np.diff(corpus.frame_bounds)
        train = np.sort(lengths[corpus.of("train")])
        ends = train[np.linspace(0, len(train), self.buckets + 1).astype(int)[1:] - 1]
        pad_to = sorted({int(end) for end in ends})
        return SpeechData(*(self._buckets(corpus.of(split), pad_to) for split in ("train", "dev", "test")))

    def _buckets(self, utterances: np.ndarray, pad_to: list[int]) -> tuple[Bucket, ...]:
        lengths = np.diff(self.corpus.frame_bounds)[utterances]
        pad_to = [*pad_to, max(int(lengths.max(initial=0)), pad_to[-1])]
        group = np.searchsorted(pad_to, lengths)
        return tuple(self._bucket(utterances[group == g], pad_to[g]) for g in np.unique(group))

    def _bucket(self, utterances: np.ndarray, length: int) -> Bucket:
        corpus, of_label = self.corpus, self.classes.of_label
        mean, std = normalisation(corpus)
        inputs = np.zeros((len(utterances), length, self.n_in), np.float32)
        targets = np.zeros((len(utterances), length), np.int32)
        mask = np.zeros((len(utterances), length), bool)
        frames = [corpus.frames(u) for u in utterances]
        for i, (utterance, chosen) in enumerate(zip(utterances, frames, strict=True)):
            inputs[i, : chosen.stop - chosen.start] = (corpus.features[chosen] - mean) / std
            if self.objective == "ctc":
                labels = merge_neighbours(of_label[corpus.sequence[corpus.segments(utterance)]])[:length]
            else:
                labels = of_label[corpus.labels[chosen]]
            targets[i, : len(labels)] = np.maximum(labels, 0)
            mask[i, : len(labels)] = labels >= 0
        if self.objective == "ctc":
            longest = mask.sum(1).max()
            targets, mask = targets[:, :longest], mask[:, :longest]
        lengths = np.array([chosen.stop - chosen.start for chosen in frames], np.int32)
        return Bucket(*map(jnp.asarray, (inputs, targets, mask, lengths)))

    def part(self, data: SpeechData, iteration: int) -> SpeechData:
        """One bucket, drawn for this iteration in proportion to the utterances in it; the same for all seeds."""
        sizes = np.array([bucket.inputs.shape[0] for bucket in data.train])
        chosen = np.random.default_rng([iteration, len(sizes)]).choice(len(sizes), p=sizes / sizes.sum())
        return SpeechData((data.train[chosen],), (), ())

    def sample(self, data: SpeechData, key: PRNGKeyArray, size: int) -> Batch:
        """A batch of the first training bucket in `data` (see `part`)."""
        bucket = data.train[0]
        n = bucket.inputs.shape[0]
        require(size <= n, f"batch = {size}: a length bucket has {n} utterances; fewer buckets have more each")
        return self._batch(bucket, jax.random.permutation(key, n)[:size])

    def _batch(self, bucket: Bucket, index: Array) -> Batch:
        in_time = lambda x: jnp.swapaxes(x[index], 0, 1)  # noqa: E731
        valid = jnp.arange(bucket.inputs.shape[1])[:, None] < bucket.lengths[index][None]
        return Batch(in_time(bucket.inputs), in_time(bucket.targets), in_time(bucket.mask), valid)

    def held_out(self, data: SpeechData, key: PRNGKeyArray, size: int) -> list[Batch]:
        return self._all(data.dev, size)

    def final(self, data: SpeechData, key: PRNGKeyArray, size: int) -> list[Batch]:
        return self._all(data.test, size)

    def _all(self, buckets: tuple[Bucket, ...], size: int) -> list[Batch]:
        """Every utterance, `size` at a time; a bucket's last batch is filled up with utterances that do not count."""
        batches = []
        for bucket in buckets:
            n = bucket.inputs.shape[0]
            for first in range(0, n, min(size, n)):
                index = jnp.arange(first, first + min(size, n))
                batch = self._batch(bucket, jnp.minimum(index, n - 1))
                batches.append(batch._replace(mask=batch.mask & (index < n)[None]))
        return batches

    def window_loss(self, y: Array, part: Batch, whole: Batch) -> Array:
        if self.objective != "frames":
            return super().window_loss(y, part, whole)
        return cross_entropy(y, part, whole)

    def loss(self, y: Array, batch: Batch) -> Array:
        if self.objective == "frames":
            return cross_entropy(y, batch)
        import optax

        padding = lambda x: 1.0 - jnp.swapaxes(x, 0, 1).astype(y.dtype)  # noqa: E731
        losses = optax.ctc_loss(
            jnp.swapaxes(y, 0, 1),
            padding(batch.valid),
            jnp.swapaxes(batch.targets, 0, 1),
            padding(batch.mask),
            blank_id=self.n_out - 1,
        )
        return jnp.mean(losses / jnp.maximum(batch.lengths, 1).astype(y.dtype))

    def metric(self, y: Array, batch: Batch) -> tuple[Array, Array]:
        if self.objective == "frames":
            wrong = batch.mask & (y.argmax(-1) != batch.targets)
        else:
            distance = edit_distance(y.argmax(-1), batch.valid, batch.targets, batch.mask, self.n_out - 1)
            wrong = jnp.where(batch.mask.any(0), distance, 0)  # utterances that fill a batch up have no phones
        return wrong.sum().astype(y.dtype), batch.mask.sum().astype(y.dtype)


@lru_cache(maxsize=4)
def _classes(corpus: Corpus, phones: str) -> Phones:
    if phones == "written" or not is_timits(corpus.phones):
        return Phones(corpus.phones, np.arange(len(corpus.phones)))
    folded = [FOLDING[phone] for phone in corpus.phones]
    names = tuple(phone for phone in FOLDED if phone in folded)
    return Phones(names, np.array([-1 if phone is None else names.index(phone) for phone in folded]))


@lru_cache(maxsize=4)
def normalisation(corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over the training set's frames."""
    frames = np.concatenate([corpus.features[corpus.frames(u)] for u in corpus.of("train")])
    return frames.mean(0, dtype=np.float64), np.maximum(frames.std(0, dtype=np.float64), 1e-6)


def merge_neighbours(labels: np.ndarray) -> np.ndarray:
    """The sequence without unlabelled phones, and with neighbours of one class counted once (folding makes such)."""
    labels = labels[labels >= 0]
    return labels[np.concatenate([[True], labels[1:] != labels[:-1]])] if len(labels) else labels


def edit_distance(
    best: Int[Array, "time batch"],
    valid: Bool[Array, "time batch"],
    targets: Int[Array, "phone batch"],
    mask: Bool[Array, "phone batch"],
    blank: int,
) -> Int[Array, "batch"]:  # noqa: F821
    """Edits from the best path (repeats merged, blanks dropped) to the sequence of phones (Levenshtein 1966).

        d_{i,j} = min(d_{i-1,j} + 1, d_{i-1,j-1} + [a_i != b_j], d_{i,j-1} + 1)

    One row for each phone of the best path; the last term along a row is a running minimum of `d_{i,j} - j`.
    """
    places = jnp.arange(targets.shape[0] + 1)[:, None]

    def one_frame(row, inputs):
        phone, before, counts = inputs
        substituted = row[:-1] + (targets != phone[None])
        new = jnp.concatenate([row[:1] + 1, jnp.minimum(row[1:] + 1, substituted)])
        new = jax.lax.cummin(new - places, axis=0) + places
        emitted = counts & (phone != blank) & (phone != before)
        return jnp.where(emitted[None], new, row), None

    before = jnp.concatenate([jnp.full_like(best[:1], blank), best[:-1]])
    start = jnp.broadcast_to(places, (targets.shape[0] + 1, targets.shape[1]))
    row, _ = jax.lax.scan(one_frame, start, (best, before, valid))
    return jnp.take_along_axis(row, mask.sum(0)[None], axis=0)[0]


_WITH_LSTM = Experiment(
    task=Speech(),
    network=NetworkSettings(
        neuron="lstm",
        neurons=200,
        bidirectional=True,
        tau_out=None,
        bias=True,
        feedback_scale=1.0,
        adaptive_feedback_scale=39**-0.5,  # 1/sqrt(outputs)
    ),
    optimiser=OptimiserSettings(
        learning_rate=0.01,
        adam_epsilon=1e-5,
        decay_factor=0.3,
        decay_every=500,
        weight_penalty=1e-5,
        kolen_pollack_decay=1e-3,
    ),
    run=RunSettings(batch=32, iterations=3500, evaluate_every=100, evaluation_batch=64),
)
_WITH_LSNN = Experiment(
    task=replace(_WITH_LSTM.task, features="fbank", phones="written"),
    network=NetworkSettings(
        neuron="lsnn",
        neurons=400,
        bidirectional=True,
        adaptive_fraction=0.25,
        tau_m=20.0,
        tau_a=200.0,
        tau_out=15.0,
        v_th=0.2050,
        beta=0.1841,
        n_refractory=2,
        adaptation_masked=False,
        steps_per_frame=5,
        feedback_scale=1.0,
        adaptive_feedback_scale=61**-0.5,
    ),
    optimiser=OptimiserSettings(
        learning_rate=0.01,
        adam_epsilon=1e-5,
        warmup=100,
        rate_strength=50.0,
        weight_penalty=1e-5,
        kolen_pollack_decay=1e-2,
    ),
    run=RunSettings(batch=32, iterations=9000, evaluate_every=100, evaluation_batch=64),
)
PRESETS = {
    "lstm": _WITH_LSTM,
    "lsnn": _WITH_LSNN,
    "lstm-ctc": replace(
        _WITH_LSTM,
        task=replace(_WITH_LSTM.task, features="fbank", objective="ctc"),
        network=replace(_WITH_LSTM.network, neurons=250, layers=3, read_all=True),
        optimiser=replace(
            _WITH_LSTM.optimiser, learning_rate=1e-3, clip=1.0, kolen_pollack_decay=1e-4, weight_penalty=0.0
        ),
        run=replace(_WITH_LSTM.run, batch=8, iterations=28000),
    ),
}
"""The authors' released code: `lstm` and `lsnn` frame by frame, `lstm-ctc` for sequences (there with dropout, which is
not here). Iterations are 30 and 80 passes through TIMIT's 3696 training utterances, and 60 for CTC."""
