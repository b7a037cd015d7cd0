"""The recurrent trace unit: a linear recurrent unit with a nonlinearity."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.errors import require_choice
from eprop.neurons._base import Outputs
from eprop.neurons._lru import Turning, eigenvalue

Activation = Literal["relu", "tanh", "identity"]
Recurrence = Literal["nonlinear", "linear"]

ACTIVATIONS: dict[str, Callable] = {"relu": jax.nn.relu, "tanh": jnp.tanh, "identity": lambda x: x}


class RTUState(NamedTuple):
    c1: Float[Array, "batch neuron"]
    c2: Float[Array, "batch neuron"]


class RTU(Turning):
    """Recurrent trace unit (Elelimy et al. 2024): two real numbers that turn and decay, behind a nonlinearity f.

        c1_t = f(g c1_{t-1} - p c2_{t-1} + n I_1),         r = exp(-exp(nu)),  n = sqrt(1 - r^2)
        c2_t = f(g c2_{t-1} + p c1_{t-1} + n I_2),         g = r cos(exp(theta)),  p = r sin(exp(theta))
        z_t = c1_t

    With `recurrence="linear"` f stands behind the recurrence: `c1`, `c2` without it, and `z_t = f(c1_t)`. A unit gets
    two
    currents and no recurrent weights: its state is all that it remembers, and e-prop's gradient is RTRL's.

    Detached: nothing.

    Args:
        nu: `log(-log r)`; number or array `[]` or `[neuron]` (trainable).
        theta: logarithm of the angle a step; number or array (trainable).
        activation: f: `"relu"`, `"tanh"` or `"identity"`.
        recurrence: `"nonlinear"`: f inside; `"linear"`: f behind.

    Departs from the source: the output is `c1`, one number a unit; the paper's layer hands on `c1` and `c2`. (With a
    linear recurrence a turn of the input weights turns both.)

    Raises:
        InvalidSetting: for an unknown option.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from eprop.neurons import RTU
        >>> units = RTU.ring(jax.random.key(0), 3, activation="tanh")
        >>> zeros = jnp.zeros((1, 3))
        >>> state, z = units.step(units.init((1, 3)), (zeros + 1.0, zeros), zeros)
        >>> bool((jnp.abs(z) < 1).all())
        True

    Reference: Elelimy et al. 2024, arXiv 2409.01449, and the authors' code for `exp(theta)`.
    """

    activation: Activation = eqx.field(default="relu", static=True)
    recurrence: Recurrence = eqx.field(default="nonlinear", static=True)

    def __check_init__(self) -> None:
        require_choice("activation", self.activation, ACTIVATIONS)
        require_choice("recurrence", self.recurrence, ("nonlinear", "linear"))

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> RTUState:
        zeros = jnp.zeros(shape, dtype)
        return RTUState(c1=zeros, c2=zeros)

    def step(self, state: RTUState, currents: tuple[Array, ...], z_prev: Array) -> tuple[RTUState, Outputs]:
        g, p, n = eigenvalue(self.nu, self.theta)
        f = ACTIVATIONS[self.activation]
        c1 = g * state.c1 - p * state.c2 + n * currents[0]
        c2 = g * state.c2 + p * state.c1 + n * currents[1]
        if self.recurrence == "linear":
            return RTUState(c1, c2), f(c1)
        return RTUState(f(c1), f(c2)), f(c1)
