"""Spikes, and the pseudo-derivatives that stand for their missing derivative."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.errors import require, require_positive


class Surrogate(eqx.Module):
    """The pseudo-derivative `dz/dv_scaled` of the step function `z = H(v_scaled)`.

    Args:
        dampening_factor: `gamma`, the height at the threshold, above 0 (a number, as all fields of surrogates).
    """

    dampening_factor: float = eqx.field(default=0.3, static=True)

    def __check_init__(self) -> None:
        _require_positive_number(dampening_factor=self.dampening_factor)

    def __call__(self, v_scaled: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """`gamma * shape(v_scaled)`."""
        return self.dampening_factor * self.shape(v_scaled)

    @abc.abstractmethod
    def shape(self, v_scaled: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """A bump of height 1 at the threshold."""


class Triangular(Surrogate):
    """`gamma max(0, 1 - |v_scaled|)`: Bellec et al. 2020, Methods (doi:10.1038/s41467-020-17236-y)."""

    def shape(self, v_scaled: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.maximum(0.0, 1.0 - jnp.abs(v_scaled))


class FastSigmoid(Surrogate):
    """`gamma / (1 + slope |v_scaled|)^2`: Zenke & Ganguli 2018 (doi:10.1162/neco_a_01086)."""

    slope: float = eqx.field(default=10.0, static=True)

    def __check_init__(self) -> None:
        _require_positive_number(slope=self.slope)

    def shape(self, v_scaled: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 1.0 / (1.0 + self.slope * jnp.abs(v_scaled)) ** 2


class Arctan(Surrogate):
    """`gamma / (1 + (pi slope v_scaled / 2)^2)`: Fang et al. 2021 (arXiv 2007.05785)."""

    slope: float = eqx.field(default=2.0, static=True)

    def __check_init__(self) -> None:
        _require_positive_number(slope=self.slope)

    def shape(self, v_scaled: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return 1.0 / (1.0 + (0.5 * math.pi * self.slope * v_scaled) ** 2)


class Gaussian(Surrogate):
    """`gamma exp(-v_scaled^2 / (2 width^2))`: Yin et al. 2021 (doi:10.1038/s42256-021-00397-w)."""

    width: float = eqx.field(default=0.5, static=True)

    def __check_init__(self) -> None:
        _require_positive_number(width=self.width)

    def shape(self, v_scaled: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.exp(-0.5 * (v_scaled / self.width) ** 2)


class Exponential(Surrogate):
    """`gamma exp(min(0, v_scaled))`: Traub et al. 2020 (arXiv 2006.09988), for Izhikevich neurons.

    For membranes that shoot over the threshold in one step: above it the height stays `gamma`.
    """

    def shape(self, v_scaled: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jnp.exp(jnp.minimum(0.0, v_scaled))


def _require_positive_number(**values: object) -> None:
    for name, value in values.items():
        require(not getattr(value, "ndim", 0), f"{name}: must be one number, got shape {getattr(value, 'shape', ())}")
    require_positive(**values)


SURROGATES: dict[str, type[Surrogate]] = {
    "triangular": Triangular,
    "fast-sigmoid": FastSigmoid,
    "arctan": Arctan,
    "gaussian": Gaussian,
    "exponential": Exponential,
}


def spike(
    v_scaled: Float[Array, "*shape"], surrogate: Surrogate, scale: float | Float[Array, "..."] = 1.0
) -> Float[Array, "*shape"]:
    """`z = H(v_scaled)`, strictly above zero, with derivative `scale * surrogate(v_scaled)`.

    The derivative is itself differentiable (e-prop 2 differentiates through the inner update).
    """

    @jax.custom_jvp
    def heaviside(v, scale):
        return (v > 0).astype(v.dtype)

    @heaviside.defjvp
    def _(primals, tangents):
        v, scale = primals
        return heaviside(v, scale), scale * surrogate(v) * tangents[0]

    return heaviside(v_scaled, scale)
