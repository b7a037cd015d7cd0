"""The LSTM with elementwise recurrence."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eprop.neurons._base import Neuron, Outputs
from eprop.neurons._constants import FINITE, Constant, Range, constant


class ELSTMState(NamedTuple):
    c: Float[Array, "batch neuron"]


class ELSTM(Neuron):
    """LSTM with elementwise recurrence (Irie et al. 2023): each cell feeds its own gates, and no other's.

        f = s(I_f + w_f c_{t-1}),  g = tanh(I_g + w_g c_{t-1})
        c_t = f c_{t-1} + (1 - f) g
        o = s(I_o + w_o c_t),      z_t = o c_t

    The three currents stand in the order f, g, o. A unit has no recurrent weights beside its own `w`: its state is all
    that it remembers, and e-prop's gradient is RTRL's.

    Detached: nothing.

    Args:
        w_f, w_g, w_o: weights of a cell on its own gates; number or array `[]` or `[neuron]` (trainable). The paper
            calls the candidate `z`.

    Departs from the source: the output gate there has a full matrix over the cells `c_t`, which is a layer of its own
    (the authors' online code puts it behind the recurrent layer); here it is the elementwise `w_o`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from eprop.neurons import ELSTM
        >>> units = ELSTM.random(jax.random.key(0), 3)
        >>> units.init((1, 3)).c.shape, units.w_f.shape
        ((1, 3), (3,))

    Reference: Irie, Gopalakrishnan, Schmidhuber 2023, arXiv 2305.19044.
    """

    num_currents: ClassVar[int] = 3
    recurrent_currents: ClassVar[tuple[int, ...] | None] = ()
    ranges: ClassVar[Mapping[str, Range]] = {"w_f": FINITE, "w_g": FINITE, "w_o": FINITE}

    w_f: Constant = constant(0.0)
    w_g: Constant = constant(0.0)
    w_o: Constant = constant(0.0)

    @classmethod
    def random(cls, key: PRNGKeyArray, n: int, scale: float = 0.1, dtype: Any = jnp.float32) -> "ELSTM":
        """`n` units with `w ~ N(0, scale^2)`; 0.1 in the authors' code."""
        w_f, w_g, w_o = scale * jax.random.normal(key, (3, n), dtype)
        return cls(w_f=w_f, w_g=w_g, w_o=w_o)

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> ELSTMState:
        return ELSTMState(c=jnp.zeros(shape, dtype))

    def step(self, state: ELSTMState, currents: tuple[Array, ...], z_prev: Array) -> tuple[ELSTMState, Outputs]:
        f = jax.nn.sigmoid(currents[0] + self.w_f * state.c)
        candidate = jnp.tanh(currents[1] + self.w_g * state.c)
        c = f * state.c + (1.0 - f) * candidate
        return ELSTMState(c), jax.nn.sigmoid(currents[2] + self.w_o * c) * c
