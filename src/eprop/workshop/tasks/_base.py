"""A task: data, loss, metric. Published settings are named objects beside each task."""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from eprop.errors import InvalidSetting


class Batch(NamedTuple):
    """One batch, axes `[time, batch, ...]`.

    targets: real `[time, batch, output]`, or classes `[time, batch]`.
    mask: True where the loss is defined.
    valid: True up to each sample's own end (padding is False).
    """

    inputs: Float[Array, "time batch n_in"] | Int[Array, "time batch"]
    targets: Float[Array, "time batch output"] | Int[Array, "time batch"]
    mask: Bool[Array, "time batch"]
    valid: Bool[Array, "time batch"]

    @property
    def lengths(self) -> Int[Array, "batch"]:  # noqa: F821
        return self.valid.sum(0)


@dataclass(frozen=True)
class Task(abc.ABC):
    """Settings of a task; one file a task. Everything random comes from the keys handed in."""

    metric_name: ClassVar[str]
    """Name of the metric."""

    lower_is_better: ClassVar[bool] = True
    """Whether a lower metric is better."""

    shared_data: ClassVar[bool] = False
    """Whether what `prepare` makes is the same for all seeds."""

    test_samples: ClassVar[int] = 512
    """At least so many samples for a generator's final metric; 1 where `held_out` is all there is."""

    @property
    @abc.abstractmethod
    def n_in(self) -> int:
        """Number of input channels."""

    @property
    @abc.abstractmethod
    def n_out(self) -> int:
        """Number of readouts."""

    def prepare(self, key: PRNGKeyArray) -> Any:
        """Everything that stays the same for a whole run (a frozen pattern, a data set), as a pytree of arrays."""
        return None

    def facts(self) -> dict[str, Any] | None:
        """The facts about the data that a run folder keeps (`data.json`); it may not change while the run lasts."""
        return None

    def part(self, data: Any, iteration: int) -> Any:
        """The part of `data` that an iteration's batch is drawn from; parts may differ in shape."""
        return data

    @abc.abstractmethod
    def sample(self, data: Any, key: PRNGKeyArray, size: int) -> Batch:
        """A training batch of `size` samples; jittable."""

    def held_out(self, data: Any, key: PRNGKeyArray, size: int) -> list[Batch]:
        """Batches to evaluate on; a generator's are fresh samples."""
        return [self.sample(data, key, size)]

    def final(self, data: Any, key: PRNGKeyArray, size: int) -> list[Batch]:
        """Batches of the final test."""
        return self.held_out(data, key, size)

    @abc.abstractmethod
    def loss(self, y: Float[Array, "time batch output"], batch: Batch) -> Float[Array, ""]:
        """The loss that is trained."""

    def window_loss(self, y: Float[Array, "time batch output"], part: Batch, whole: Batch) -> Float[Array, ""]:
        """The part of the loss that a window's steps add: over all windows of a batch it sums to `loss`.

        Args:
            y: outputs of the window's steps.
            part: the batch's steps in the window.
            whole: the batch of whole sequences, to count its steps where `loss` is a mean over them.

        Raises:
            InvalidSetting: for a task whose loss has no such parts (unless a subclass says what they are).
        """
        name = type(self).__name__
        raise InvalidSetting(f"update_window: the loss of {name} is not said window by window (it has no window_loss)")

    @abc.abstractmethod
    def metric(self, y: Float[Array, "time batch output"], batch: Batch) -> tuple[Array, Array]:
        """Numerator and denominator of the metric, so that batches add up."""


def squared_error(y: Float[Array, "time batch output"], batch: Batch) -> Float[Array, ""]:
    """`E = 1/2 sum_{t,b,k} (y - y*)^2` over masked steps."""
    return 0.5 * jnp.sum(jnp.where(batch.mask[..., None], y - batch.targets, 0.0) ** 2)


def cross_entropy(y: Float[Array, "time batch output"], batch: Batch, whole: Batch | None = None) -> Float[Array, ""]:
    """`-log softmax(y)[target]`, summed over masked steps and divided by their number.

    Args:
        whole: where `batch` is a window of it, the batch whose steps are counted.
    """
    log_p = jax.nn.log_softmax(y)
    chosen = jnp.take_along_axis(log_p, batch.targets[..., None], axis=-1)[..., 0]
    return -jnp.sum(jnp.where(batch.mask, chosen, 0.0)) / masked_steps(batch if whole is None else whole).astype(
        y.dtype
    )


def masked_steps(batch: Batch) -> Int[Array, ""]:
    """Steps at which the loss is defined; at least 1, to divide by."""
    return jnp.maximum(batch.mask.sum(), 1)


def normalised_squared_error(y: Float[Array, "time batch output"], batch: Batch) -> tuple[Array, Array]:
    """nMSE: squared error over the targets' variance around their mean in time, `sum (y-y*)^2 / sum (y*-<y*>)^2`."""
    mask = batch.mask[..., None].astype(y.dtype)
    mean = (batch.targets * mask).sum(0, keepdims=True) / jnp.maximum(mask.sum(0, keepdims=True), 1.0)
    return jnp.sum(mask * (y - batch.targets) ** 2), jnp.sum(mask * (batch.targets - mean) ** 2)
