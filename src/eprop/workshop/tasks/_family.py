"""A family of tasks for learning to learn: tasks drawn at random, each to be learnt from one presentation."""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eprop.errors import require, require_positive


@dataclass(frozen=True)
class TaskFamily(abc.ABC):
    """Settings of a family; one file a family. A task is a movement in time that a readout is to produce.

    A family says how a task is drawn (`sample_task`), what is minimised (`loss`), and in which
    coordinates the movement is seen (`target`, `produced`): these are what the error module reads and
    what the mean squared error is measured in. All but `sample_task` are about one task; they are
    jittable and differentiable, and mapped over tasks by whoever uses them.

    Raises:
        InvalidSetting: for a trial shorter than one step.
    """

    metric_name: ClassVar[str] = "mse"

    duration: float = 500.0
    """Length of a trial, ms."""
    dt: float = 1.0
    """Length of a step, ms."""

    def __post_init__(self) -> None:
        require_positive(dt=self.dt)
        require(self.steps >= 1, f"duration = {self.duration}: a trial must last at least one step of dt = {self.dt}")

    @property
    def steps(self) -> int:
        """Steps of a trial."""
        return round(self.duration / self.dt)

    @property
    @abc.abstractmethod
    def n_out(self) -> int:
        """Number of readouts."""

    @property
    def n_coordinates(self) -> int:
        """Number of coordinates that a movement is seen in."""
        return self.n_out

    @property
    def extent(self) -> float:
        """Largest magnitude of a coordinate: the error module sees coordinates divided by it."""
        return 1.0

    @abc.abstractmethod
    def sample_task(self, key: PRNGKeyArray) -> Any:
        """One task, as a pytree of arrays."""

    @abc.abstractmethod
    def target(self, task: Any) -> Float[Array, "time coordinate"]:
        """The movement that the task asks for."""

    def produced(self, outputs: Float[Array, "time output"]) -> Float[Array, "time coordinate"]:
        """The movement that the readouts make; by default they are its coordinates."""
        return outputs

    @abc.abstractmethod
    def loss(self, outputs: Float[Array, "time output"], task: Any) -> Float[Array, ""]:
        """The loss that the outer loop minimises, on the trial after the update."""

    def metric(self, outputs: Float[Array, "time output"], task: Any) -> Float[Array, ""]:
        """Mean over time and coordinates of the squared distance between movement and target."""
        return jnp.mean((self.produced(outputs) - self.target(task)) ** 2)
