"""A neuron model is one elementwise step."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eprop.errors import require
from eprop.neurons._constants import Range

PyTree: TypeAlias = Any
"""A tree of arrays, as JAX takes it. To a type checker it is any object (jaxtyping's `PyTree` is unknown to it)."""

State: TypeAlias = PyTree
"""A neuron's own state: a pytree of arrays `[batch, neuron]`. Floating leaves are traced, integer ones are not."""

Outputs: TypeAlias = PyTree
"""The outputs of a neuron: `z`, or `(z, z_bar)` where the readout reads a filtered copy (`Filtered`)."""


class Neuron(eqx.Module):
    """A neuron model: how one neuron turns its own state and its input currents into its output.

    A subclass says how many currents a neuron has and writes `init` and `step`. It writes no
    eligibility trace: traces come from automatic differentiation of `step`. Three rules hold:

    - `step` is pure and elementwise: neuron `j` of sample `b` sees only its own entries;
    - what the neuron's last output does to its own membrane (the *reset*) is read from `z_prev`.
      It is a recurrent signal: e-prop cuts it together with the recurrent weights, BPTT keeps it;
    - what the neuron remembers of its outputs (*adaptation*) is state, and both rules keep it.

    Floating-point arrays among the fields (scalar or `[neuron]`) are constants that can be trained;
    Python numbers are fixed. `ranges` says where each may lie: the construction checks it, and
    `keep_in_range` restores it after an update.

    Example:
        >>> import jax.numpy as jnp
        >>> from eprop.neurons import Neuron
        >>> class LeakyIntegrator(Neuron):
        ...     decay: float = 0.9
        ...     def init(self, shape, dtype=jnp.float32):
        ...         return jnp.zeros(shape, dtype)
        ...     def step(self, state, currents, z_prev):
        ...         (current,) = currents
        ...         state = self.decay * state + current
        ...         return state, jnp.tanh(state)
    """

    num_currents: ClassVar[int] = 1
    """Number of currents `k` a neuron receives (LIF 1, LSTM 4)."""

    input_currents: ClassVar[tuple[int, ...] | None] = None
    """Currents that input weights feed; None for all."""

    recurrent_currents: ClassVar[tuple[int, ...] | None] = None
    """Currents that recurrent weights feed; None for all, `()` for none.

    A model with `()` has no recurrent weights at all. What a neuron remembers is its own state alone: eligibility
    vectors hold the whole past, and the layer's e-prop gradient is its RTRL gradient. (`step` reads no `z_prev` then.)
    """

    spiking: ClassVar[bool] = False
    """Whether the output is a spike: 0 or 1, nothing else (it is kept in a byte). Spiking neurons get no autapses."""

    ranges: ClassVar[Mapping[str, Range]] = {}
    """The range of each constant, by the name of its field: `{"tau_m": TIME_CONSTANT}`."""

    def __check_init__(self) -> None:
        for name, allowed in self.ranges.items():
            allowed.check(name, getattr(self, name))

    @property
    def time_step(self) -> float:
        """Length of a step, ms: the field `dt` where there is one, else 1."""
        return getattr(self, "dt", 1.0)

    @abc.abstractmethod
    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> State:
        """The state before the first step: a pytree of arrays of `shape` = `(batch, neuron)`.

        It is given, not learnt: where it is made of a constant, it holds `jax.lax.stop_gradient` of it.
        """

    @abc.abstractmethod
    def step(
        self,
        state: State,
        currents: tuple[Float[Array, "batch neuron"], ...],
        z_prev: Float[Array, "batch neuron"],
    ) -> tuple[State, Outputs]:
        """One time step.

        Args:
            state: the neuron's state at t-1.
            currents: `num_currents` arrays `[batch, neuron]`, the currents at t.
            z_prev: the neuron's own output at t-1, `[batch, neuron]`.

        Returns:
            The state at t, and the output `z` at t, `[batch, neuron]`.
        """

    def observe(self, before: State, state: State) -> dict[str, Float[Array, "*shape"]]:
        """Named quantities worth a picture, of one step: what the step compared.

        Args:
            before, state: the states at t-1 and at t, `[batch, neuron]`; leading axes of both are kept.

        Returns:
            `v`, the membrane, and `threshold` as it met it at t, where there is one. Here: the state at t.
        """
        leaves = jax.tree_util.tree_leaves_with_path(traced(state))
        return {jax.tree_util.keystr(path).strip(".[]'") or "state": leaf for path, leaf in leaves}


class Wrapper(Neuron):
    """A model around another: it has the other's currents, and spikes if the other does."""

    neuron: Neuron

    @property
    def num_currents(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.neuron.num_currents

    @property
    def input_currents(self) -> tuple[int, ...] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.neuron.input_currents

    @property
    def recurrent_currents(self) -> tuple[int, ...] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.neuron.recurrent_currents

    @property
    def spiking(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.neuron.spiking


def recurrent_output(outputs: Outputs) -> Float[Array, "*shape"]:
    """The output `z` that goes to the other neurons."""
    return jax.tree.leaves(outputs)[0]


def readout_output(outputs: Outputs) -> Float[Array, "*shape"]:
    """The output that goes to the readout: `z_bar` where there is a filter, else `z`."""
    return jax.tree.leaves(outputs)[-1]


def traced(state: State) -> State:
    """The floating-point part of a state: the components that have eligibility vectors."""
    return eqx.filter(state, eqx.is_inexact_array)


def keep_in_range(tree: PyTree) -> PyTree:
    """The neurons in `tree` with their constants in range: what an optimiser's update needs behind it.

    An update knows nothing of `tau_m > 0`. Each floating-point array with an entry in its model's `ranges` is projected
    on the values that training may leave; Python numbers, and all that is not a neuron, stay as they are. Pure; works
    under `jit`; the identity where nothing is out of range.

    Args:
        tree: a neuron, or anything that holds neurons (a layer, a network).

    Example:
        >>> import jax.numpy as jnp, equinox as eqx
        >>> from eprop.neurons import LIF, keep_in_range
        >>> lif = LIF(tau_m=jnp.array([20.0, 0.5]))
        >>> moved = eqx.tree_at(lambda n: n.tau_m, lif, lif.tau_m - 1.0)
        >>> print(keep_in_range(moved).tau_m)
        [19.   0.1]
    """
    is_neuron = lambda node: isinstance(node, Neuron)  # noqa: E731
    return jax.tree.map(lambda node: _kept(node) if is_neuron(node) else node, tree, is_leaf=is_neuron)


def _kept(neuron: Neuron) -> Neuron:
    for name, value in _fields(neuron):
        if isinstance(value, Neuron):
            value = _kept(value)
        elif name in neuron.ranges and eqx.is_inexact_array(value):
            value = neuron.ranges[name].project(value, neuron.time_step)
        else:
            continue
        neuron = eqx.tree_at(lambda n, name=name: getattr(n, name), neuron, value)
    return neuron


def require_size(neuron: Neuron, n: int) -> None:
    """Raise `InvalidSetting` for a constant that is neither one value nor one for each of a layer's `n` neurons."""
    for name, value in _fields(neuron):
        if isinstance(value, Neuron):
            require_size(value, n)
        elif isinstance(value, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)):
            require(
                value.shape in ((), (n,)),
                f"{name}: expected a number or an array [{n}], one value for each of the layer's {n} neurons, "
                f"got shape {value.shape}",
            )


def _fields(neuron: Neuron) -> list[tuple[str, Any]]:
    return [(f.name, getattr(neuron, f.name)) for f in dataclasses.fields(neuron)]  # pyright: ignore[reportArgumentType]
