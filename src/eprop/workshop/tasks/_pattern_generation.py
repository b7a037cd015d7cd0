"""Pattern generation: a fixed movement of the outputs in time, from a fixed input."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from eprop.errors import require, require_positive
from eprop.workshop.settings import Experiment, NetworkSettings, OptimiserSettings, RunSettings
from eprop.workshop.tasks._base import Batch, Task, normalised_squared_error, squared_error


@dataclass(frozen=True)
class PatternGeneration(Task):
    """Produce sums of sines of random amplitude and phase, from an input drawn once and frozen.

    The 600-LIF, 3-output form (Bellec et al. 2019, task 1.1, constants as two re-implementations have
    them: reported, unverified) and the released tutorial's form are the presets `published` and `tutorial`.
    Metric: nMSE, `sum (y - y*)^2 / sum (y* - mean y*)^2`.

    Departs from the source: the clock neurons of the published form fire Poisson spikes, drawn once
    (the sources at hand do not say).
    """

    metric_name: ClassVar[str] = "nmse"
    test_samples: ClassVar[int] = 1

    duration: int = 1000
    """Length of the pattern, steps (ms)."""
    inputs: int = 20
    """Number of input neurons."""
    groups: int = 5
    """Input neurons form this many groups, active one after the other (1: all active throughout)."""
    input_rate: float = 100.0
    """Rate of an active input neuron, Hz."""
    outputs: int = 3
    """Number of patterns produced at once."""
    frequencies: tuple[float, ...] = (2.0, 3.0, 5.0)
    """Frequencies of the sines, cycles a pattern of 1000 steps (Hz)."""
    form: Literal["plain", "normalised"] = "plain"
    """plain: the sum of sines; normalised: minus its first value, over its largest magnitude."""

    def __post_init__(self) -> None:
        require_positive(
            duration=self.duration, inputs=self.inputs, groups=self.groups, input_rate=self.input_rate,
            outputs=self.outputs,
        )  # fmt: skip
        require(
            self.inputs % self.groups == 0,
            f"groups = {self.groups}: must divide inputs = {self.inputs}",
        )

    @property
    def n_in(self) -> int:
        return self.inputs

    @property
    def n_out(self) -> int:
        return self.outputs

    def prepare(self, key: PRNGKeyArray) -> Any:
        key_spikes, key_amplitude, key_phase = jax.random.split(key, 3)
        t = jnp.arange(self.duration)
        active = t[:, None] * self.groups // self.duration == jnp.arange(self.inputs) * self.groups // self.inputs
        uniform = jax.random.uniform(key_spikes, (self.duration, self.inputs))
        spikes = active & (uniform < self.input_rate / 1000.0)

        shape = (self.outputs, len(self.frequencies))
        amplitude = jax.random.uniform(key_amplitude, shape, minval=0.5, maxval=2.0)
        phase = jax.random.uniform(key_phase, shape, maxval=2 * jnp.pi)
        angle = 2 * jnp.pi * t[:, None, None] / 1000.0 * jnp.array(self.frequencies)[None, None]
        pattern = (amplitude[None] * jnp.sin(angle + phase[None])).sum(-1)  # [time, output]
        if self.form == "normalised":
            pattern = pattern - pattern[:1]
            pattern = pattern / jnp.abs(pattern).max(0, keepdims=True)
        return spikes.astype(jnp.float32), pattern

    def sample(self, data: Any, key: PRNGKeyArray, size: int) -> Batch:
        spikes, pattern = data
        everywhere = jnp.ones((self.duration, size), bool)
        repeat = lambda x: jnp.broadcast_to(x[:, None], (self.duration, size, x.shape[-1]))  # noqa: E731
        return Batch(repeat(spikes), repeat(pattern), everywhere, everywhere)

    def loss(self, y: Array, batch: Batch) -> Array:
        return squared_error(y, batch)

    def window_loss(self, y: Array, part: Batch, whole: Batch) -> Array:
        return squared_error(y, part)

    def metric(self, y: Array, batch: Batch) -> tuple[Array, Array]:
        return normalised_squared_error(y, batch)


PRESETS = {
    "published": Experiment(
        task=PatternGeneration(),
        network=NetworkSettings(neuron="lif", neurons=600, v_th=0.61, n_refractory=5),
        optimiser=OptimiserSettings(learning_rate=0.003, decay_factor=0.7, decay_every=100, rate_strength=3.0),
        run=RunSettings(iterations=1000, evaluate_every=20),
    ),
    "tutorial": Experiment(
        task=PatternGeneration(
            inputs=100, groups=1, input_rate=50.0, outputs=1, frequencies=(1.0, 2.0, 3.0, 5.0), form="normalised"
        ),
        network=NetworkSettings(
            neuron="lif",
            neurons=100,
            tau_m=30.0,
            tau_out=30.0,
            v_th=0.03,
            n_refractory=1,
            input_gain="one-minus-alpha",
            readout_gain="one-minus-kappa",
        ),
        optimiser=OptimiserSettings(optimiser="sgd", learning_rate=1e-4, rate_strength=150.0),
        run=RunSettings(iterations=2000, evaluate_every=20),
    ),
}
"""`published`: 600 LIF, 3 outputs (arXiv 1901.09049 task 1.1, reported, unverified); `tutorial`: 100 LIF, 1 output
(the authors' released tutorial, 2020: its regularisation 300 * 1/2 sum_j (f_j - f_0)^2 is 150 in ours)."""
