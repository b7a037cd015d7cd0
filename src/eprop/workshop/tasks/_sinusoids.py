"""One-shot regression of random sinusoids: the lightest family of tasks."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eprop.errors import require
from eprop.workshop.tasks._family import TaskFamily


@dataclass(frozen=True)
class Sinusoids(TaskFamily):
    """The readout is to follow `a sin(2 pi (n t / T + p))`, with a, n and p drawn for each task, p ~ U(0, 1).

    Loss: half the mean squared error.
    """

    amplitudes: tuple[float, float] = (0.3, 1.0)
    """Range of the amplitude a."""
    cycles: tuple[float, float] = (0.5, 2.0)
    """Range of n, the number of cycles in a trial."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("amplitudes", "cycles"):
            low, high = getattr(self, name)
            require(0 < low <= high, f"{name} = {(low, high)}: must be a range above 0")

    @property
    def n_out(self) -> int:
        return 1

    @property
    def extent(self) -> float:
        return self.amplitudes[1]

    def sample_task(self, key: PRNGKeyArray) -> Float[Array, "time 1"]:
        draw = lambda key, low, high: jax.random.uniform(key, minval=low, maxval=high)  # noqa: E731
        key_amplitude, key_cycles, key_phase = jax.random.split(key, 3)
        t = jnp.arange(self.steps) / self.steps
        turns = draw(key_cycles, *self.cycles) * t + draw(key_phase, 0.0, 1.0)
        return (draw(key_amplitude, *self.amplitudes) * jnp.sin(2 * jnp.pi * turns))[:, None]

    def target(self, task: Any) -> Float[Array, "time coordinate"]:
        return task

    def loss(self, outputs: Float[Array, "time output"], task: Any) -> Float[Array, ""]:
        return 0.5 * self.metric(outputs, task)
