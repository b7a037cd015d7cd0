"""Word prediction: say the next word, or the next character, of any text."""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eprop.errors import InvalidSetting, require
from eprop.workshop.settings import Experiment, NetworkSettings, OptimiserSettings, RuleSettings, RunSettings
from eprop.workshop.tasks._base import Batch
from eprop.workshop.tasks._stream import Run, StreamTask, Window

Level = Literal["word", "character"]
UNKNOWN, END_OF_LINE = "<unk>", "<eos>"
PTB = {part: f"ptb.{part}.txt" for part in ("train", "valid", "test")}
EVALUATION_STEPS = 64


class Text(NamedTuple):
    """A text as symbols: three streams of places in the vocabulary."""

    vocabulary: tuple[str, ...]
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


class WordsPlace(NamedTuple):
    """Where in the text the next window begins. Scalars."""

    t: Int[Array, ""]
    epoch: Int[Array, ""]
    error: Float[Array, ""]  # running mean of the training loss, nats a symbol


@dataclass(frozen=True)
class Words(StreamTask):
    """Predict the next word (or character) of a text: `--text FILE`, or a folder with Penn Treebank's three files.

    The text is cut in as many streams as there are samples in a batch; each is read window by window, with
    the network's state carried on, and again from its start when it ends. Words are lower-case runs of
    letters and digits, single other signs, and the line's end; in a folder with ptb.train.txt, ptb.valid.txt
    and ptb.test.txt they are what stands between blanks, as those files have them. The most frequent words of
    the training part make the vocabulary, all others are <unk>. Without --text: Python's own reference
    manual (`pydoc_data.topics`), which comes with every Python; it differs a little between Python's
    versions, so the run notes the text's digest.

    Metric: perplexity (words) or bits per character, on the validation part, and at the end on the test part.
    """

    text: Path | None = None
    """Text file (UTF-8), or a folder that holds ptb.train.txt, ptb.valid.txt and ptb.test.txt."""
    level: Level = "word"
    """The unit that is predicted."""
    vocabulary: int = 10_000
    """Symbols at most, <unk> included."""
    held_out_fraction: float = 0.05
    """Share of a single file for validation, and the same again, its end, for the test."""

    lower_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.vocabulary >= 2, f"vocabulary = {self.vocabulary}: must be at least 2 (one is <unk>)")
        require(
            0 < self.held_out_fraction < 0.5,
            f"held_out_fraction = {self.held_out_fraction}: must be between 0 and 0.5",
        )

    @property
    def metric_name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "perplexity" if self.level == "word" else "bits per character"

    @property
    def corpus(self) -> Text:
        """The text, read and checked."""
        return load_text(self.text, self.level, self.vocabulary, self.held_out_fraction)

    @property
    def n_in(self) -> int:
        return len(self.corpus.vocabulary)

    @property
    def n_out(self) -> int:
        return len(self.corpus.vocabulary)

    def facts(self) -> dict[str, Any]:
        words = json.dumps(self.corpus.vocabulary).encode()
        content = b"".join(part.tobytes() for part in self.corpus[1:])
        digest = lambda data: hashlib.sha256(data).hexdigest()[:16]  # noqa: E731
        return {"vocabulary": len(self.corpus.vocabulary), "words": digest(words), "text": digest(content)}

    def check_window(self, window: int, size: int) -> None:
        symbols = len(self.corpus.train)
        require(
            window < symbols // size,
            f"window = {window}: longer than a stream of the text ({symbols} training symbols in batch = {size} "
            f"streams of {symbols // size})",
        )

    def prepare(self, key: PRNGKeyArray | None) -> Any:
        return tuple(jnp.asarray(part) for part in self.corpus[1:])

    def place(self) -> WordsPlace:
        zero = jnp.array(0, jnp.int32)
        return WordsPlace(zero, zero, jnp.array(math.log(self.n_out), jnp.float32))

    def window(self, data: Any, key: PRNGKeyArray | None, place: WordsPlace, size: int, steps: int) -> Window:
        train = data[0]
        long = train.shape[0] // size
        streams = train[: long * size].reshape(size, long)
        shown = jax.lax.dynamic_slice_in_dim(streams, place.t, steps + 1, axis=1).T  # [time, batch]
        everywhere = jnp.ones((steps, size), bool)
        per_sample = lambda x: jnp.broadcast_to(x, (size,))  # noqa: E731
        return Window(
            Batch(shown[:-1], shown[1:], everywhere, everywhere),
            per_sample(place.t == 0),
            per_sample(place.t + 2 * steps >= long),
        )

    def sample(self, data: Any, key: PRNGKeyArray | None, size: int) -> Batch:
        """The first symbols of the text."""
        return self.window(
            data, key, self.place(), size, min(EVALUATION_STEPS, len(self.corpus.train) // size - 1)
        ).batch

    def loss(self, y: Array, batch: Batch) -> Array:
        """Cross-entropy, mean over samples, summed over steps, so that windows add up. Nats."""
        return jnp.sum(_errors(y, batch.targets) * batch.mask) / y.shape[1]

    def metric(self, y: Array, batch: Batch) -> tuple[Array, Array]:
        """Cross-entropy in nats, and the number of symbols."""
        return jnp.sum(_errors(y, batch.targets) * batch.mask), batch.mask.sum().astype(y.dtype)

    def move(self, place: WordsPlace, y: Array, window: Window) -> WordsPlace:
        ended, steps = window.ended.all(), y.shape[0]
        error = self.loss(y, window.batch).astype(place.error.dtype) / steps
        return WordsPlace(jnp.where(ended, 0, place.t + steps), place.epoch + ended, 0.99 * place.error + 0.01 * error)

    def measure(
        self,
        data: Any,
        key: PRNGKeyArray | None,
        place: WordsPlace | None,
        run: Run,
        start: Callable[[int], Any],
        test: bool,
    ) -> Array:
        """The whole part, every symbol once: in few streams, each with its state carried on."""
        symbols = data[2] if test else data[1]
        long = -(-(symbols.shape[0] - 1) // EVALUATION_STREAMS)
        steps = min(EVALUATION_STEPS, long)
        chunks = -(-long // steps)
        index = jnp.arange(EVALUATION_STREAMS)[None] * long + jnp.arange(chunks * steps)[:, None]  # [time, stream]
        mask = (jnp.arange(chunks * steps)[:, None] < long) & (index < symbols.shape[0] - 1)
        index = jnp.minimum(index, symbols.shape[0] - 2)
        parts = jax.tree.map(
            lambda x: x.reshape(chunks, steps, EVALUATION_STREAMS), (symbols[index], symbols[index + 1], mask)
        )

        def chunk(carry, part):
            inputs, targets, mask = part
            y, carry = run(inputs, carry)
            return carry, self.metric(y, Batch(inputs, targets, mask, mask))

        _, (error, counted) = jax.lax.scan(chunk, start(EVALUATION_STREAMS), parts)
        nats = error.sum() / counted.sum()
        return jnp.exp(nats) if self.level == "word" else nats / math.log(2.0)

    def details(self, place: WordsPlace) -> dict[str, Array]:
        return {"epoch": place.epoch, "training_bits": place.error / math.log(2.0)}

    def status(self, details: dict[str, Any]) -> str:
        return f"epoch {details['epoch']:.0f}  training bits {details['training_bits']:.3f}"


EVALUATION_STREAMS = 8


def _errors(y: Float[Array, "time batch output"], targets: Int[Array, "time batch"]) -> Array:
    """`-log softmax(y)[target]`, by step and sample."""
    return -jnp.take_along_axis(jax.nn.log_softmax(y), targets[..., None], axis=-1)[..., 0]


@lru_cache(maxsize=4)
def load_text(text: Path | None, level: Level, vocabulary: int, held_out_fraction: float) -> Text:
    """Read, split and number a text.

    Raises:
        InvalidSetting: naming the file and what is wrong with it.
    """
    name = "the default text" if text is None else f"text = {text}"
    parts = _parts(text, name, level, held_out_fraction)
    counts = Counter(parts[0])
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = [UNKNOWN, *(word for word, _ in frequent if word != UNKNOWN)][:vocabulary]
    unit = "words" if level == "word" else "characters"
    require(len(kept) > 2, f"{name}: there is only one of its {unit} to predict ({frequent[0][0]!r}), nothing to learn")
    place = {word: i for i, word in enumerate(kept)}
    streams = [np.array([place.get(word, 0) for word in part], np.int32) for part in parts]
    for part, stream in zip(PTB, streams, strict=True):
        require(len(stream) >= 2, f"{name}: its {part} part has {len(stream)} {unit}, too few to predict the next")
    return Text(tuple(kept), *streams)


def _parts(text: Path | None, name: str, level: Level, held_out_fraction: float) -> list[list[str]]:
    """Training, validation and test part as lists of words or characters."""
    if text is not None and text.is_dir():
        missing = [file for file in PTB.values() if not (text / file).is_file()]
        require(not missing, f"{name}: a folder must hold {', '.join(PTB.values())}; {', '.join(missing)} is missing")
        return [_symbols(_read(text / file, f"{name}/{file}"), level, str.split) for file in PTB.values()]
    content = _default_text() if text is None else _read(text, name)
    symbols = _symbols(content, level, lambda line: re.findall(r"\w+|[^\w\s]", line.lower()))
    held_out = round(held_out_fraction * len(symbols))
    first = len(symbols) - 2 * held_out
    return [symbols[:first], symbols[first : first + held_out], symbols[first + held_out :]]


def _symbols(content: str, level: Level, words) -> list[str]:
    if level == "character":
        return list(content)
    return [word for line in content.splitlines() if line.strip() for word in (*words(line), END_OF_LINE)]


def _read(path: Path, name: str) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidSetting(f"{name}: cannot be read ({error.strerror})") from None
    require(bool(data.strip()), f"{name}: is empty")
    require(b"\0" not in data, f"{name}: is binary, not text (it has a zero byte at {data.find(bytes(1))})")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidSetting(f"{name}: is not UTF-8 text (byte {error.start})") from None


def _default_text() -> str:
    """Python's reference manual, topic by topic, without the rules drawn under its titles."""
    from pydoc_data import topics

    text = "\n".join(topics.topics[name] for name in sorted(topics.topics))
    return re.sub(r"([^\w\s])\1{2,}", " ", text)


_lstm = NetworkSettings(neuron="lstm", neurons=100, tau_out=None, bias=True, embedding=64)
PRESETS = {
    "default": Experiment(
        task=Words(vocabulary=2000),
        network=_lstm,
        optimiser=OptimiserSettings(learning_rate=0.002, clip=5.0),
        run=RunSettings(iterations=6000, batch=20, evaluate_every=500),
        rule=RuleSettings(rule="eprop3:4"),
    ),
    "characters": Experiment(
        task=Words(level="character", vocabulary=200),
        network=_lstm,
        optimiser=OptimiserSettings(learning_rate=0.002, clip=5.0),
        run=RunSettings(iterations=20_000, batch=32, evaluate_every=1000),
        rule=RuleSettings(rule="eprop3:4"),
    ),
    "penn-treebank": Experiment(
        task=Words(text=Path("ptb")),
        network=NetworkSettings(neuron="lstm", neurons=200, tau_out=None, bias=True, embedding=200),
        optimiser=OptimiserSettings(learning_rate=0.002, clip=5.0),
        run=RunSettings(iterations=50_000, batch=20, evaluate_every=2000),
        rule=RuleSettings(rule="eprop3:4"),
    ),
}
"""Our own settings; the paper's are not known to us. `penn-treebank` expects its files in a folder `ptb`, or --text."""
