"""The adding problem: the sum of two marked numbers out of many."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from eprop.errors import require
from eprop.workshop.settings import Experiment, NetworkSettings, OptimiserSettings, RuleSettings, RunSettings
from eprop.workshop.tasks._base import Batch, Task, masked_steps


@dataclass(frozen=True)
class Adding(Task):
    """See `length` random numbers, two of them marked; say the sum of those two at the last step.

    Numbers are uniform from 0 to 1; one mark is drawn from the first half of the steps, the other from the second. Two
    channels: number and mark. Loss: half the squared error at the last step, mean over samples.

    Metric: squared error. Who always says 1 has 1/6.

    Departs from the source (Hochreiter & Schmidhuber 1997; not read, the form is the usual one): numbers from 0 to 1,
    all sequences of one length.
    """

    metric_name: ClassVar[str] = "squared error"

    length: int = 100
    """Steps of a sequence."""

    def __post_init__(self) -> None:
        require(self.length >= 2, f"length = {self.length}: two numbers need at least 2 steps")

    @property
    def n_in(self) -> int:
        return 2

    @property
    def n_out(self) -> int:
        return 1

    def sample(self, data: Any, key: PRNGKeyArray, size: int) -> Batch:
        key_numbers, key_first, key_second = jax.random.split(key, 3)
        numbers, half = jax.random.uniform(key_numbers, (self.length, size), jnp.float32), self.length // 2
        marked = jnp.stack(
            [
                jax.random.randint(key_first, (size,), 0, half),
                jax.random.randint(key_second, (size,), half, self.length),
            ]
        )
        marks = (jnp.arange(self.length)[:, None] == marked[:, None]).any(0).astype(jnp.float32)
        last = jnp.broadcast_to((jnp.arange(self.length) == self.length - 1)[:, None], numbers.shape)
        targets = jnp.where(last, (numbers * marks).sum(0), 0.0)[..., None]
        return Batch(jnp.stack([numbers, marks], axis=-1), targets, last, jnp.ones_like(last))

    def loss(self, y: Array, batch: Batch) -> Array:
        return self.window_loss(y, batch, batch)

    def window_loss(self, y: Array, part: Batch, whole: Batch) -> Array:
        return 0.5 * self.metric(y, part)[0] / masked_steps(whole).astype(y.dtype)

    def metric(self, y: Array, batch: Batch) -> tuple[Array, Array]:
        error = jnp.where(batch.mask, (y - batch.targets.astype(y.dtype))[..., 0], 0.0)
        return jnp.sum(error**2), batch.mask.sum().astype(y.dtype)


PRESETS = {
    "length-100": Experiment(
        task=Adding(),
        network=NetworkSettings(neuron="lstm", neurons=100, tau_out=None, bias=True),
        optimiser=OptimiserSettings(learning_rate=0.001, clip=1.0),
        run=RunSettings(iterations=10_000, batch=32, evaluate_every=100, evaluation_batch=128),
        rule=RuleSettings(rule="eligibility_only:10"),
    ),
}
"""Network and optimiser are ours."""
