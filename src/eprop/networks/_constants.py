"""A neuron's constants: which are arrays, and which of them learn."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from eprop.errors import require
from eprop.neurons import Neuron, Wrapper


def as_arrays(neuron: Neuron, names: tuple[str, ...], n: int, dtype: Any) -> Neuron:
    """The neuron with the named constants as arrays `[neuron]`, and all its arrays in `dtype`."""
    for name in names:
        value = getattr(owner(neuron, name), name)
        array = jnp.broadcast_to(jnp.asarray(value, dtype), (n,))
        neuron = eqx.tree_at(lambda m, name=name: getattr(owner(m, name), name), neuron, array)
    return jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, neuron)


def marked(neuron: Any, names: tuple[str, ...]) -> Any:
    """A tree of booleans like the neuron: which of its constants are trained."""
    mask = jax.tree.map(lambda _: False, neuron)
    for name in names:
        mask = eqx.tree_at(lambda n, name=name: getattr(owner(n, name), name), mask, True)
    return mask


def fixed_detached(neuron: Neuron, names: tuple[str, ...]) -> Neuron:
    """The neuron with no gradient into the arrays that are not trained."""
    stop = lambda x, learns: x if learns or not eqx.is_inexact_array(x) else jax.lax.stop_gradient(x)  # noqa: E731
    return jax.tree.map(stop, neuron, marked(neuron, names))


def owner(neuron: Any, name: str, what: str = "trainable constant") -> Any:
    """The model that has the constant `name`: the neuron, or the one it wraps; `what` it is called in a complaint."""
    if isinstance(neuron, Wrapper) and not hasattr(neuron, name):
        return owner(neuron.neuron, name, what)
    require(hasattr(neuron, name), f"{what} {name!r}: {type(neuron).__name__} has none of that name")
    return neuron
