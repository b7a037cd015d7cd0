"""Gated units: LSTM and GRU."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.neurons._base import Neuron, Outputs
from eprop.neurons._constants import FINITE, Range


class LSTMState(NamedTuple):
    c: Float[Array, "batch neuron"]


class GRUState(NamedTuple):
    h: Float[Array, "batch neuron"]


class LSTM(Neuron):
    """Long short-term memory unit without peepholes (Hochreiter & Schmidhuber 1997; TF1 `LSTMCell`).

        i = s(I_i), g = tanh(I_g), f = s(I_f + forget_bias), o = s(I_o)
        c_t = f c_{t-1} + i g,      h_t = o tanh(c_t)

    The four currents stand in the order i, g, f, o. The traced state is `c`; the output `h` reaches
    the unit again only through recurrent weights, so e-prop cuts it there and nothing else.

    Args:
        forget_bias: added to the forget gate's current (1 in the authors' code).

    Example:
        >>> from eprop.neurons import LSTM
        >>> LSTM().init((1, 3)).c.shape
        (1, 3)

    Reference: Bellec et al. 2020, Supplementary Note 4 (doi:10.1038/s41467-020-17236-y).
    """

    num_currents: ClassVar[int] = 4
    ranges: ClassVar[Mapping[str, Range]] = {"forget_bias": FINITE}

    forget_bias: float = eqx.field(default=1.0, static=True)

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> LSTMState:
        return LSTMState(c=jnp.zeros(shape, dtype))

    def step(self, state: LSTMState, currents: tuple[Array, ...], z_prev: Array) -> tuple[LSTMState, Outputs]:
        i, g, f, o = currents
        c = jax.nn.sigmoid(f + self.forget_bias) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return LSTMState(c), jax.nn.sigmoid(o) * jnp.tanh(c)


class GRU(Neuron):
    """Gated recurrent unit (Cho et al. 2014, arXiv 1406.1078, in the form with the reset after the product).

        r = s(I_r), u = s(I_u), n = tanh(I_n + r I_m)
        h_t = (1 - u) n + u h_{t-1}

    The four currents stand in the order r, u, n, m. Input weights feed r, u and n; recurrent weights
    feed r, u and m (the candidate's recurrent current is apart, since the reset gate scales it alone).
    The traced state is `h`: `u h_{t-1}` is the unit's own memory and kept, `W_rec h_{t-1}` is cut.

    Example:
        >>> from eprop.neurons import GRU
        >>> GRU().init((1, 3)).h.shape
        (1, 3)
    """

    num_currents: ClassVar[int] = 4
    input_currents: ClassVar[tuple[int, ...] | None] = (0, 1, 2)
    recurrent_currents: ClassVar[tuple[int, ...] | None] = (0, 1, 3)

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> GRUState:
        return GRUState(h=jnp.zeros(shape, dtype))

    def step(self, state: GRUState, currents: tuple[Array, ...], z_prev: Array) -> tuple[GRUState, Outputs]:
        r, u, n, m = currents
        candidate = jnp.tanh(n + jax.nn.sigmoid(r) * m)
        gate = jax.nn.sigmoid(u)
        h = (1.0 - gate) * candidate + gate * state.h
        return GRUState(h), h
