"""One-shot movement: a two-joint arm follows a trajectory that it was shown once."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eprop.errors import require, require_positive
from eprop.workshop.tasks._family import TaskFamily


class Movement(NamedTuple):
    """A target of the arm: joint velocities, rad/s, and where the end effector is, in the links' unit of length."""

    velocity: Float[Array, "time joint"]
    position: Float[Array, "time coordinate"]


@dataclass(frozen=True)
class Arm(TaskFamily):
    """Two joints, two links; the readouts are the joints' angular velocities (Bellec et al. 2019, e-prop 2).

        phi_t = phi_0 + sum_{s<=t} omega_s dt / 1000,      phi_0 = (0, pi/2)
        x = l_1 cos phi^1 + l_2 cos(phi^1 + phi^2),        y = l_1 sin phi^1 + l_2 sin(phi^1 + phi^2)

    Targets, as in the authors' released code: a joint's velocity is a sum of five sines `sin(t/P + p)`,
    t from 0 to 2 pi over the trial, P ~ U(0.3, 1), p ~ U(0, 2 pi). First joint: amplitudes U(0, 30).
    Second joint: each sine over its own range (largest minus smallest value), times 20. A joint whose
    angle would leave +-`angle_limit` about its start is scaled, angles and velocities, to stay within.

    Loss: `1/2 (velocity_weight mean (omega - omega*)^2 + position_weight mean ((x, y) - (x*, y*))^2)`.
    Metric: the mean of the latter squares, the end effector's mean squared error in one coordinate.
    """

    links: tuple[float, float] = (0.5, 0.5)
    """Lengths of the links."""
    start: tuple[float, float] = (0.0, 1.5707963267948966)
    """Joint angles before the first step, rad: the second is relative to the first link."""
    sines: int = 5
    """Sines in a joint's velocity."""
    periods: tuple[float, float] = (0.3, 1.0)
    """Range that a sine's period is drawn from, in trials."""
    amplitude: float = 30.0
    """Amplitudes in the first joint are drawn up to this, rad/s."""
    span: float = 20.0
    """Largest minus smallest value of each sine in the second joint, rad/s."""
    angle_limit: float = 1.5707963267948966
    """Largest angle of a joint away from its start, rad."""
    velocity_weight: float = 0.1
    """Weight of the velocities' squared error in the loss."""
    position_weight: float = 1.0
    """Weight of the end effector's squared error in the loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(sines=self.sines, amplitude=self.amplitude, span=self.span, angle_limit=self.angle_limit)
        low, high = self.periods
        require(0 < low <= high, f"periods = {self.periods}: must be a range above 0")
        require(min(self.links) > 0, f"links = {self.links}: must be above 0")
        for name in ("velocity_weight", "position_weight"):
            require(getattr(self, name) >= 0, f"{name} = {getattr(self, name)}: must be 0 or above")

    @property
    def n_out(self) -> int:
        return 2

    @property
    def extent(self) -> float:
        return sum(self.links)

    def sample_task(self, key: PRNGKeyArray) -> Movement:
        key_period, key_phase, key_amplitude = jax.random.split(key, 3)
        low, high = self.periods
        period = jax.random.uniform(key_period, (self.sines, 2), minval=low, maxval=high)
        phase = jax.random.uniform(key_phase, (self.sines, 2), maxval=2 * jnp.pi)
        amplitude = jax.random.uniform(key_amplitude, (self.sines,), maxval=self.amplitude)
        t = jnp.linspace(0.0, 2 * jnp.pi, self.steps)
        waves = jnp.sin(t[:, None, None] / period[None] + phase[None])  # [time, sine, joint]
        second = waves[..., 1]
        ranges = jnp.maximum(second.max(0) - second.min(0), jnp.finfo(second.dtype).eps)
        first = (waves[..., 0] * amplitude[None]).sum(1)
        velocity = jnp.stack([first, (self.span * second / ranges[None]).sum(1)], axis=1)
        largest = jnp.abs(self._turned(velocity)).max(0)
        velocity = velocity * jnp.minimum(1.0, self.angle_limit / jnp.maximum(largest, 1e-6))[None]
        return Movement(velocity, self.produced(velocity))

    def _turned(self, velocity: Float[Array, "time joint"]) -> Float[Array, "time joint"]:
        """Angles relative to the start, rad."""
        return jnp.cumsum(velocity, 0) * (self.dt / 1000.0)

    def joints(self, velocity: Float[Array, "time joint"]) -> tuple[Array, Array]:
        """Where the elbow and the end effector are, `[time, (x, y)]` each."""
        angles = self._turned(velocity) + jnp.array(self.start, velocity.dtype)[None]
        upper, lower = angles[:, 0], angles[:, 0] + angles[:, 1]
        elbow = self.links[0] * jnp.stack([jnp.cos(upper), jnp.sin(upper)], axis=1)
        return elbow, elbow + self.links[1] * jnp.stack([jnp.cos(lower), jnp.sin(lower)], axis=1)

    def produced(self, outputs: Float[Array, "time output"]) -> Float[Array, "time coordinate"]:
        return self.joints(outputs)[1]

    def target(self, task: Movement) -> Float[Array, "time coordinate"]:
        return task.position

    def loss(self, outputs: Float[Array, "time output"], task: Movement) -> Float[Array, ""]:
        of_velocity = jnp.mean((outputs - task.velocity) ** 2)
        return 0.5 * (self.velocity_weight * of_velocity + self.position_weight * self.metric(outputs, task))
