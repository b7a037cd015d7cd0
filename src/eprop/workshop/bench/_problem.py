"""The problem that is measured: one network, its input and its target, at one size."""

from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.errors import RunFailed, require, require_choice
from eprop.networks import Network, Readout, Recurrent
from eprop.neurons import ALIF, GRU, LIF, LSTM, Filtered, Neuron

NEURONS: dict[str, Neuron] = {
    "lif": Filtered(LIF(tau_m=20.0, v_th=0.6, n_refractory=2), tau_out=20.0),
    "alif": Filtered(ALIF(tau_m=20.0, tau_a=200.0, beta=0.1, v_th=0.6, n_refractory=2), tau_out=20.0),
    "lstm": LSTM(),
    "gru": GRU(),
}
"""Models that can be measured, by name."""

N_IN, N_OUT, INPUT_RATE = 20, 3, 0.05
"""Inputs (Poisson spikes, a step each with this probability) and outputs."""

GRID = 2.0**-12
"""Weights are rounded to multiples of this, so that float32 sums of spikes are exact: however a path adds them up,
it sees the same spikes, and gradients can be compared at full size."""


@dataclass(frozen=True)
class Case:
    """One size: model, neurons, steps, batch."""

    model: str
    neurons: int
    steps: int
    batch: int

    def __post_init__(self) -> None:
        require_choice("model", self.model, NEURONS)
        for name in ("neurons", "steps", "batch"):
            require(getattr(self, name) >= 1, f"{name} = {getattr(self, name)}: must be at least 1")

    def __str__(self) -> str:
        return f"{self.model} N={self.neurons} T={self.steps} B={self.batch}"


class Problem(NamedTuple):
    network: Network
    inputs: Float[Array, "time batch n_in"]
    targets: Float[Array, "time batch output"]


def make_network(model: str, neurons: int) -> Network:
    """The network of one size: weights `N(0, 1) / sqrt(n)`, on the grid; no bias."""
    key_layer, key_out = jax.random.split(jax.random.key(0))
    layer = Recurrent(NEURONS[model], N_IN, neurons, key=key_layer)
    if NEURONS[model].spiking:
        on_grid = lambda w: jnp.round(w / GRID) * GRID  # noqa: E731
        layer = eqx.tree_at(lambda m: (m.w_in, m.w_rec), layer, (on_grid(layer.w_in), on_grid(layer.w_rec)))
    return Network((layer,), Readout(neurons, N_OUT, key=key_out))


def input_spikes(key: Array, steps: int, batch: int) -> Float[Array, "time batch n_in"]:
    return jax.random.bernoulli(key, INPUT_RATE, (steps, batch, N_IN)).astype(jnp.float32)


def targets_of(steps: int, batch: int, first: int = 0) -> Float[Array, "time batch output"]:
    """Sines, one period for each output."""
    t = first + jnp.arange(steps, dtype=jnp.float32)
    waves = jnp.sin(2 * jnp.pi * t[:, None] / jnp.array([[500.0, 333.0, 200.0]], jnp.float32))
    return jnp.broadcast_to(waves[:, None], (steps, batch, N_OUT))


def make_problem(case: Case) -> Problem:
    """Network, input spikes and target of one size, always the same."""
    inputs = input_spikes(jax.random.key(1), case.steps, case.batch)
    return Problem(make_network(case.model, case.neurons), inputs, targets_of(case.steps, case.batch))


def squared_error(y: Array, targets: Array, mask: Array) -> Array:
    """`1/2 sum (y - target)^2`, summed over steps, so that windows add up."""
    return 0.5 * jnp.sum(mask[..., None] * (y - targets) ** 2)


def check_alive(z: Float[Array, "time batch neuron"], case: Case) -> float:
    """Mean output a neuron and step: for spiking models the firing rate.

    Raises:
        RunFailed: if a spiking network is silent or saturated: its times would say nothing.
    """
    rate = float(jnp.abs(z).mean())
    if NEURONS[case.model].spiking and not 0.002 < rate < 0.4:
        raise RunFailed(f"bench: {case}: {rate:.4f} spikes a neuron and step, outside 0.002 to 0.4: nothing was timed")
    return rate
