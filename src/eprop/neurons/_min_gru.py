"""The minimal gated recurrent unit."""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.neurons._base import Neuron, Outputs


class MinGRUState(NamedTuple):
    h: Float[Array, "batch neuron"]


class MinGRU(Neuron):
    """Minimal gated recurrent unit (Feng et al. 2024): the gate sees the input alone.

        h_t = (1 - u) h_{t-1} + u I_n,                     u = s(I_u)
        z_t = h_t

    The two currents stand in the order u, n (gate and candidate). A unit has no recurrent weights: its state is all
    that it remembers, and e-prop's gradient is RTRL's.

    Detached: nothing.

    Departs from the source: nothing in the step. (The paper's form in logarithms, for parallel training, passes the
    candidate through a positive function; this is the plain form.)

    Example:
        >>> import jax.numpy as jnp
        >>> from eprop.neurons import MinGRU
        >>> zeros = jnp.zeros((1, 1))
        >>> state, z = MinGRU().step(MinGRU().init((1, 1)), (zeros, zeros + 3.0), zeros)
        >>> float(z[0, 0])
        1.5

    Reference: Feng et al. 2024, arXiv 2410.01201.
    """

    num_currents: ClassVar[int] = 2
    recurrent_currents: ClassVar[tuple[int, ...] | None] = ()

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> MinGRUState:
        return MinGRUState(h=jnp.zeros(shape, dtype))

    def step(self, state: MinGRUState, currents: tuple[Array, ...], z_prev: Array) -> tuple[MinGRUState, Outputs]:
        u, candidate = jax.nn.sigmoid(currents[0]), currents[1]
        h = (1.0 - u) * state.h + u * candidate
        return MinGRUState(h), h
