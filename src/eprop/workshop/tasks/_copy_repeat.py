"""Copy-repeat: say a pattern again, several times, with a curriculum of ever longer sequences."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eprop.errors import require, require_positive
from eprop.workshop.settings import Experiment, NetworkSettings, OptimiserSettings, RuleSettings, RunSettings
from eprop.workshop.tasks._base import Batch
from eprop.workshop.tasks._stream import Run, StreamTask, Window


class CopyRepeatPlace(NamedTuple):
    """The curriculum, and the place in the sequence that runs now. Scalars."""

    n: Int[Array, ""]  # length of the pattern
    r: Int[Array, ""]  # repeats
    t: Int[Array, ""]  # step at which the next window begins
    sequence: Int[Array, ""]  # sequences before this one
    error: Float[Array, ""]  # summed over this sequence's steps so far, nats a channel
    bits: Float[Array, ""]  # of the sequence before
    solved: Int[Array, ""]  # length of the longest sequence solved


@dataclass(frozen=True)
class CopyRepeat(StreamTask):
    """See a random pattern and how often to say it; then say it so often, and stop (Graves et al. 2014).

    A sequence of pattern length N and R repeats has (R+1)N+3 steps: start delimiter, N vectors of random bits, the
    repeat count (R/10, a channel of its own), R copies, end marker. The loss is taken from the first copy on. All
    samples of a batch share N and R. Curriculum: from N = R = 1, when a batch's error over a whole sequence is
    below 0.15 bits (binary cross-entropy, mean over channels, steps and samples), R grows by one if R < N, else N.

    Metric: steps of the longest sequence solved, (R+1)N+3 (higher is better). One iteration is one window.

    Departs from the source: the curriculum follows single batches, as the re-implementation at hand; whether
    the papers average or add up the bits of a step is not known. Papers that count without the end marker,
    or without the delimiter, have lengths that are smaller by one.
    """

    metric_name: ClassVar[str] = "length solved"
    lower_is_better: ClassVar[bool] = False

    bits: int = 8
    """Channels of the pattern."""
    pattern: int = 1
    """Pattern length N that the curriculum starts from."""
    repeats: int = 1
    """Repeats R that the curriculum starts from."""
    threshold: float = 0.15
    """The curriculum goes on when a sequence's error is below this, bits a channel and step."""
    repeat_scale: float = 0.1
    """The repeat count is shown as R times this."""

    def __post_init__(self) -> None:
        require_positive(bits=self.bits, pattern=self.pattern, repeats=self.repeats, threshold=self.threshold,
                         repeat_scale=self.repeat_scale)  # fmt: skip

    @property
    def n_in(self) -> int:
        return self.bits + 2

    @property
    def n_out(self) -> int:
        return self.bits + 1

    def check_window(self, window: int, size: int) -> None:
        first = length(self.pattern, self.repeats)
        require(
            window <= first,
            f"window = {window}: longer than the first sequence ({first} steps at pattern = {self.pattern}, repeats = "
            f"{self.repeats}); use a shorter window, or let the curriculum start from a longer sequence",
        )

    def place(self) -> CopyRepeatPlace:
        whole = lambda x: jnp.array(x, jnp.int32)  # noqa: E731
        real = lambda x: jnp.array(x, jnp.float32)  # noqa: E731
        return CopyRepeatPlace(
            whole(self.pattern), whole(self.repeats), whole(0), whole(0), real(0.0), real(jnp.nan), whole(0)
        )

    # Each vector of bits has a key of its own, so a window draws only what it shows, and no length is the longest.
    def window(self, data: Any, key: PRNGKeyArray, place: CopyRepeatPlace, size: int, steps: int) -> Window:
        n, r, bits = place.n, place.r, self.bits
        end = length(n, r)
        t = place.t + jnp.arange(steps)
        shown, said = (t >= 1) & (t <= n), (t >= n + 2) & (t < end - 1)
        index = jnp.where(said, (t - n - 2) % n, t - 1)
        key = jax.random.fold_in(key, place.sequence)
        draw = jax.vmap(lambda i: jax.random.bernoulli(jax.random.fold_in(key, i), 0.5, (size, bits)))
        vectors = draw(index).astype(jnp.float32)  # [time, batch, bit]

        everyone = lambda x: jnp.broadcast_to(x[:, None, None].astype(jnp.float32), (steps, size, 1))  # noqa: E731
        count = jnp.where(t == n + 1, r * self.repeat_scale, 0.0)
        inputs = jnp.concatenate([vectors * everyone(shown), everyone(t == 0), everyone(count)], axis=-1)
        targets = jnp.concatenate([vectors * everyone(said), everyone(t == end - 1)], axis=-1)
        per_sample = lambda x: jnp.broadcast_to(x[:, None], (steps, size))  # noqa: E731
        batch = Batch(inputs, targets, per_sample((t >= n + 2) & (t < end)), per_sample(t < end))
        return Window(batch, jnp.broadcast_to(place.t == 0, (size,)), jnp.broadcast_to(place.t + steps >= end, (size,)))

    def sample(self, data: Any, key: PRNGKeyArray, size: int) -> Batch:
        """One whole sequence at the curriculum's start."""
        return self.window(data, key, self.place(), size, length(self.pattern, self.repeats)).batch

    def loss(self, y: Array, batch: Batch) -> Array:
        """Binary cross-entropy: mean over channels and samples, summed over steps, so that windows add up. Nats."""
        errors = optax.sigmoid_binary_cross_entropy(y, batch.targets.astype(y.dtype)).mean(-1)
        return jnp.sum(jnp.where(batch.mask, errors, 0.0)) / y.shape[1]

    def metric(self, y: Array, batch: Batch) -> tuple[Array, Array]:
        """Error in bits a channel and step."""
        steps = batch.mask[:, 0].sum().astype(y.dtype)
        return self.loss(y, batch) / math.log(2.0), steps

    def move(self, place: CopyRepeatPlace, y: Array, window: Window) -> CopyRepeatPlace:
        n, r = place.n, place.r
        end, ended = length(n, r), window.ended.all()
        error = place.error + self.loss(y, window.batch).astype(place.error.dtype)
        bits = error / ((r * n + 1) * math.log(2.0)).astype(error.dtype)
        solved = ended & (bits < self.threshold)
        longer = solved & (r >= n)
        return CopyRepeatPlace(
            n=n + longer,
            r=r + (solved & ~longer),
            t=jnp.where(ended, 0, place.t + y.shape[0]),
            sequence=place.sequence + ended,
            error=jnp.where(ended, jnp.zeros_like(error), error),
            bits=jnp.where(ended, bits, place.bits),
            solved=jnp.where(solved, jnp.maximum(end, place.solved), place.solved),
        )

    def measure(
        self, data: Any, key: PRNGKeyArray, place: CopyRepeatPlace, run: Run, start: Callable[[int], Any], test: bool
    ) -> Array:
        return place.solved.astype(place.bits.dtype)

    def details(self, place: CopyRepeatPlace) -> dict[str, Array]:
        return {"N": place.n, "R": place.r, "bits": place.bits, "sequences": place.sequence}

    def status(self, details: dict[str, Any]) -> str:
        return f"N {details['N']:.3g}  R {details['R']:.3g}  bits {details['bits']:.3f}"


def length(n, r):
    """Steps of a sequence: start delimiter, N vectors, repeat count, R N vectors, end marker."""
    return (r + 1) * n + 3


PRESETS = {
    "published": Experiment(
        task=CopyRepeat(),
        network=NetworkSettings(neuron="lstm", neurons=100, tau_out=None, bias=True),
        optimiser=OptimiserSettings(learning_rate=0.001, clip=1.0),
        run=RunSettings(iterations=100_000, batch=100, evaluate_every=200),
        rule=RuleSettings(rule="eprop3:4"),
    ),
}
"""`published`: LSTM of 100 units, Adam at 1e-3, clip 1, batch 100, windows of 4 (a re-implementation's settings and
memory of the paper: reported, unverified)."""
