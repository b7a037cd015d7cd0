"""The leaky rate unit."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.errors import require_positive
from eprop.neurons._base import Neuron, Outputs
from eprop.neurons._constants import TIME_CONSTANT, Constant, Range, constant


class RateState(NamedTuple):
    v: Float[Array, "batch neuron"]


class Rate(Neuron):
    """Leaky rate unit: `v_t = alpha v_{t-1} + (1 - alpha) I_t`, `z_t = tanh(v_t)`, `alpha = exp(-dt/tau_m)`.

    Args:
        tau_m: membrane time constant, ms, above 0; number or array (trainable).
        dt: length of a step, ms.

    Example:
        >>> from eprop.neurons import Rate
        >>> Rate(tau_m=10.0).init((1, 3)).v.shape
        (1, 3)
    """

    ranges: ClassVar[Mapping[str, Range]] = {"tau_m": TIME_CONSTANT}

    tau_m: Constant = constant(20.0)
    dt: float = eqx.field(default=1.0, static=True)

    def __check_init__(self) -> None:
        require_positive(dt=self.dt)

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> RateState:
        return RateState(v=jnp.zeros(shape, dtype))

    def step(self, state: RateState, currents: tuple[Array, ...], z_prev: Array) -> tuple[RateState, Outputs]:
        (current,) = currents
        alpha = jnp.exp(-self.dt / self.tau_m)
        v = alpha * state.v + (1.0 - alpha) * current
        return RateState(v), jnp.tanh(v)
