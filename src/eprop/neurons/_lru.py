"""The linear recurrent unit: a rotating, decaying complex number."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eprop.errors import require
from eprop.neurons._base import Neuron, Outputs
from eprop.neurons._constants import FINITE, Constant, Range, constant

Unit = TypeVar("Unit", bound="Turning")


class LRUState(NamedTuple):
    re: Float[Array, "batch neuron"]
    im: Float[Array, "batch neuron"]


class Turning(Neuron):
    """A unit with two real numbers for state, which turn and decay by `lambda = exp(-exp(nu) + i exp(theta))`."""

    num_currents: ClassVar[int] = 2
    recurrent_currents: ClassVar[tuple[int, ...] | None] = ()
    ranges: ClassVar[Mapping[str, Range]] = {"nu": FINITE, "theta": FINITE}

    nu: Constant = constant(-2.25)
    theta: Constant = constant(-2.25)

    @classmethod
    def ring(
        cls: type[Unit],
        key: PRNGKeyArray,
        n: int,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
        dtype: Any = jnp.float32,
        **fields: Any,
    ) -> Unit:
        """`n` units whose `lambda` is uniform on a ring of the complex plane; arguments as in `ring_of_eigenvalues`.

        Args:
            fields: the unit's other fields.
        """
        nu, theta = ring_of_eigenvalues(key, n, r_min, r_max, max_phase, dtype)
        return cls(nu=nu, theta=theta, **fields)


class LRU(Turning):
    """Linear recurrent unit (Orvieto et al. 2023): one complex number, kept as two real ones.

        h_t = lambda h_{t-1} + g (I_re + i I_im),          lambda = exp(-exp(nu) + i exp(theta))
        z_t = Re h_t,                                      g = sqrt(1 - |lambda|^2)

    The two currents of a unit are the real and the imaginary part of `B x`. A unit has no recurrent weights: its
    state is all that it remembers, and e-prop's gradient is RTRL's (Zucchet et al. 2023).

    Detached: nothing.

    Args:
        nu: `log(-log |lambda|)`; number or array `[]` or `[neuron]` (trainable). -2.25 is `|lambda|` = 0.9. (The
            paper's `nu^log`; so is theta.)
        theta: logarithm of the phase of `lambda`, an angle a step; number or array (trainable).

    Departs from the source: the output is `Re h`, one number a unit; the paper's is `Re(C h) + D x`, with `C`
    complex. A turn of `B`'s phase turns that of `h`, so a single reader loses nothing; several readers share the
    phase. `D x` is a matter of the layers around. `g` follows `lambda`; in the paper it starts so and is trained
    apart.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from eprop.neurons import LRU
        >>> units = LRU.ring(jax.random.key(0), 3, r_min=0.9, r_max=0.99)
        >>> zeros = jnp.zeros((1, 3))
        >>> state, z = units.step(units.init((1, 3)), (zeros + 1.0, zeros), zeros)
        >>> z.shape
        (1, 3)

    Reference: Orvieto et al. 2023, arXiv 2303.06349; online: Zucchet et al. 2023, arXiv 2305.15947.
    """

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> LRUState:
        zeros = jnp.zeros(shape, dtype)
        return LRUState(re=zeros, im=zeros)

    def step(self, state: LRUState, currents: tuple[Array, ...], z_prev: Array) -> tuple[LRUState, Outputs]:
        cos, sin, gain = eigenvalue(self.nu, self.theta)
        re = cos * state.re - sin * state.im + gain * currents[0]
        im = sin * state.re + cos * state.im + gain * currents[1]
        return LRUState(re, im), re


def ring_of_eigenvalues(
    key: PRNGKeyArray, n: int, r_min: float, r_max: float, max_phase: float, dtype: Any
) -> tuple[Float[Array, "neuron"], Float[Array, "neuron"]]:  # noqa: F821
    """`nu` and `theta` of `lambda = exp(-exp(nu) + i exp(theta))`, uniform on a ring (Orvieto et al. 2023, Lemma 3.2).

    Args:
        key: random key.
        n: number of units.
        r_min, r_max: inner and outer radius, `0 <= r_min < r_max <= 1`.
        max_phase: largest angle a step, above 0 and up to 2 pi.

    Raises:
        InvalidSetting: for a ring that is none.
    """
    require(0 <= r_min < r_max <= 1, f"r_min = {r_min}, r_max = {r_max}: must be 0 <= r_min < r_max <= 1")
    require(0 < max_phase <= 2 * math.pi, f"max_phase = {max_phase}: must be above 0 and at most 2 pi")
    least = float(jnp.finfo(dtype).eps)  # so that no logarithm is infinite
    area, angle = jax.random.uniform(key, (2, n), dtype, least, 1.0 - least)
    nu = jnp.log(-0.5 * jnp.log(r_min**2 + area * (r_max**2 - r_min**2)))
    return nu, jnp.log(max_phase * angle)


def eigenvalue(nu: float | Float[Array, "..."], theta: float | Float[Array, "..."]) -> tuple[Array, Array, Array]:
    """Real and imaginary part of `lambda`, and the gain `sqrt(1 - |lambda|^2)`."""
    decay, angle = jnp.exp(nu), jnp.exp(theta)
    radius = jnp.exp(-decay)
    return radius * jnp.cos(angle), radius * jnp.sin(angle), jnp.sqrt(-jnp.expm1(-2.0 * decay))
