"""Delayed evidence accumulation: count cues, wait, decide."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from eprop.errors import require, require_positive
from eprop.workshop.settings import Experiment, NetworkSettings, OptimiserSettings, RuleSettings, RunSettings
from eprop.workshop.tasks._base import Batch, Task, cross_entropy


@dataclass(frozen=True)
class EvidenceAccumulation(Task):
    """Cues on the left or the right, a delay, then: on which side were more? (Bellec et al. 2020, Fig. 3)

    Input groups: left, right, recall, background noise. Constants of the authors' released code.
    Metric: share of wrong decisions; the decision is the class with the larger mean output over the recall cue.
    """

    metric_name: ClassVar[str] = "decision error"

    cues: int = 7
    """Number of cues; odd, so that there is a majority."""
    slot: int = 150
    """Steps (ms) from one cue's slot to the next; the cue fills its end."""
    cue_duration: int = 100
    """Steps a cue lasts."""
    delay: int = 1200
    """Steps from the last slot to the end; the recall cue fills its end."""
    recall_duration: int = 150
    """Steps of the recall cue, where loss and decision are taken."""
    cue_probability: float = 0.7
    """Probability that a cue is on the trial's preferred side."""
    group: int = 10
    """Input neurons a group."""
    cue_rate: float = 40.0
    """Rate of an active group, Hz."""
    background_rate: float = 10.0
    """Rate of the noise group, Hz."""

    def __post_init__(self) -> None:
        require_positive(cues=self.cues, slot=self.slot, cue_duration=self.cue_duration, group=self.group,
                         recall_duration=self.recall_duration, cue_rate=self.cue_rate)  # fmt: skip
        require(self.cues % 2 == 1, f"cues = {self.cues}: must be odd, so that there is a majority")
        require(self.cue_duration <= self.slot, f"cue_duration = {self.cue_duration}: must fit in slot = {self.slot}")
        require(
            self.recall_duration <= self.delay,
            f"recall_duration = {self.recall_duration}: must fit in delay = {self.delay}",
        )
        require(0 <= self.cue_probability <= 1, f"cue_probability = {self.cue_probability}: must be from 0 to 1")

    @property
    def n_in(self) -> int:
        return 4 * self.group

    @property
    def n_out(self) -> int:
        return 2

    @property
    def duration(self) -> int:
        return self.cues * self.slot + self.delay

    def sample(self, data: Any, key: PRNGKeyArray, size: int) -> Batch:
        key_side, key_cues, key_spikes = jax.random.split(key, 3)
        preferred = jax.random.bernoulli(key_side, 0.5, (size,))
        agrees = jax.random.bernoulli(key_cues, self.cue_probability, (self.cues, size))
        right = jnp.where(agrees, preferred[None], ~preferred[None])  # [cue, batch]
        decision = (right.sum(0) * 2 > self.cues).astype(jnp.int32)

        t = jnp.arange(self.duration)
        on = (t < self.cues * self.slot) & (t % self.slot >= self.slot - self.cue_duration)
        shown = right[jnp.minimum(t // self.slot, self.cues - 1)]  # [time, batch]
        recall = jnp.broadcast_to((t >= self.duration - self.recall_duration)[:, None], shown.shape)
        rates = jnp.stack(
            [
                self.cue_rate * (on[:, None] & ~shown),
                self.cue_rate * (on[:, None] & shown),
                self.cue_rate * recall,
                jnp.full(shown.shape, self.background_rate),
            ],
            axis=-1,
        )
        rates = jnp.repeat(rates, self.group, axis=-1) / 1000.0
        spikes = (jax.random.uniform(key_spikes, rates.shape) < rates).astype(jnp.float32)
        targets = jnp.broadcast_to(decision[None], shown.shape)
        return Batch(spikes, targets, recall, jnp.ones_like(recall))

    def loss(self, y: Array, batch: Batch) -> Array:
        return cross_entropy(y, batch)

    def window_loss(self, y: Array, part: Batch, whole: Batch) -> Array:
        return cross_entropy(y, part, whole)

    def metric(self, y: Array, batch: Batch) -> tuple[Array, Array]:
        decided = jnp.where(batch.mask[..., None], y, 0.0).sum(0).argmax(-1)
        wrong = decided != batch.targets[-1]
        return wrong.sum().astype(y.dtype), jnp.asarray(wrong.size, y.dtype)


PRESETS = {
    "published": Experiment(
        task=EvidenceAccumulation(),
        network=NetworkSettings(
            neuron="lsnn",
            neurons=100,
            adaptive_fraction=0.5,
            tau_a=2000.0,
            v_th=0.6,
            beta=0.01742,
            feedback_scale=1.0,
            readout_scale=(2 / 102) ** 0.5,
        ),
        optimiser=OptimiserSettings(learning_rate=0.005, rate_strength=1.0),
        run=RunSettings(iterations=2000, batch=64, evaluate_every=10, evaluation_batch=64, stop_below=0.07),
        rule=RuleSettings(feedback="random"),
    ),
}
"""`published`: 50 LIF and 50 ALIF neurons, the authors' released code of 2020 (initial readout of the same
variance as its Glorot initialisation, but normal instead of uniform)."""
