"""A neuron's constants: numbers or arrays, and the range each of them stays in."""

import numbers
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from eprop.errors import require, require_entries

Constant = float | Float[Array, ""] | Float[Array, "neuron"]  # noqa: F821
"""A constant of a neuron model: a number (fixed), or an array `[]` or `[neuron]` (it can be trained)."""


class Range(NamedTuple):
    """Where a constant may lie: what the construction checks, and what training keeps.

    Args:
        lower: smallest value.
        strict: whether `lower` itself is excluded.
        floor: smallest value that training leaves, where it is not `lower` (a constant above 0 needs one).
        in_steps: whether `floor` counts steps of the neuron's `dt`.
    """

    lower: float = -float("inf")
    strict: bool = False
    floor: float | None = None
    in_steps: bool = False

    def check(self, name: str, value: object) -> None:
        """Raise `InvalidSetting` unless `value` is a number, or an array `[]` or `[neuron]`, in the range."""
        ndim = getattr(value, "ndim", 0)
        require(ndim <= 1, f"{name}: expected a number or an array [neuron], got shape {getattr(value, 'shape', ())}")
        require_entries(name, value, self._holds, self._rule)

    def project(self, value: Array, dt: float) -> Array:
        """The nearest value that training may leave."""
        floor = self.lower if self.floor is None else self.floor * (dt if self.in_steps else 1.0)
        return value if floor == -float("inf") else jnp.maximum(value, jnp.asarray(floor, value.dtype))

    def _holds(self, value: Any) -> Any:
        return value > self.lower if self.strict else value >= self.lower

    @property
    def _rule(self) -> str:
        return f"must be above {self.lower:g}" if self.strict else f"must be {self.lower:g} or above"


TIME_CONSTANT = Range(0.0, strict=True, floor=0.1, in_steps=True)
"""Above 0; training keeps a tenth of a step. There exp(-dt/tau) is 5e-5: what is left to forget has been forgotten. The
derivative in tau is still 5e-3/dt, so that the constant finds its way back; at a hundredth of a step it is 4e-40/dt."""

THRESHOLD = Range(0.0, strict=True, floor=1e-3)
"""Above 0; training keeps 0.001, a tenth of the smallest threshold published (0.01). psi grows as 1/v_th."""

POSITIVE = Range(0.0, strict=True, floor=1e-6)
"""Above 0; training keeps 1e-6."""

NOT_NEGATIVE = Range(0.0)
"""0 or above."""

FINITE = Range()
"""Any number."""


def constant(default: Any) -> Any:
    """The field of a constant of a model: lists and NumPy arrays become arrays of JAX, whole numbers floats."""
    return eqx.field(default=default, converter=as_constant)


def as_constant(value: Any) -> Any:
    """Numbers as they are, numbers in a list or a NumPy array as an array of JAX; what is no number is left as it is.

    What is left is refused, by name, when the module is complete.
    """
    if isinstance(value, bool) or isinstance(value, (Tracer, jax.ShapeDtypeStruct)):
        return value
    if isinstance(value, (list, tuple)):
        try:
            value = np.asarray(value)
        except ValueError:  # rows of several lengths
            return value
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        if not any(jnp.issubdtype(value.dtype, kind) for kind in (np.integer, np.floating)):
            return value
        if not isinstance(value, np.generic):
            return jnp.asarray(value, float if jnp.issubdtype(value.dtype, np.integer) else None)
    return float(value) if isinstance(value, numbers.Real) else value
