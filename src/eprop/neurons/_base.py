"""What a neuron model is: one elementwise step (contract C1)."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

State = PyTree
"""A neuron's own state: a pytree of arrays `[batch, neuron]`. Floating leaves are traced, integer ones are not."""

Outputs = PyTree
"""What a neuron shows: `z`, or `(z, z_bar)` where the readout reads a filtered copy (`Filtered`)."""


class Neuron(eqx.Module):
    """A neuron model: how one neuron turns its own state and its input currents into its output.

    A subclass says how many currents a neuron has and writes `init` and `step`. It writes no
    eligibility trace: traces come from automatic differentiation of `step`. Three rules hold:

    - `step` is pure and elementwise: neuron `j` of sample `b` sees only its own entries;
    - what the neuron's last output does to its own membrane (the *reset*) is read from `z_prev`.
      It is a recurrent signal: e-prop cuts it together with the recurrent weights, BPTT keeps it;
    - what the neuron remembers of its outputs (*adaptation*) is state, and both rules keep it.

    Floating-point arrays among the fields (scalar or `[neuron]`) are constants that can be trained;
    Python numbers are fixed.

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
    """Currents that recurrent weights feed; None for all."""

    spiking: ClassVar[bool] = False
    """Whether the output is a spike: 0 or 1, nothing else (it is kept in a byte). Spiking neurons get no autapses."""

    @abc.abstractmethod
    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> State:
        """The state before the first step: a pytree of arrays of `shape` = `(batch, neuron)`."""

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

    def observe(self, state: State) -> dict[str, Float[Array, "*shape"]]:
        """Named quantities worth a picture (membrane, threshold), from a state."""
        leaves = jax.tree_util.tree_leaves_with_path(traced(state))
        return {jax.tree_util.keystr(path).strip(".[]'") or "state": leaf for path, leaf in leaves}


def recurrent_output(outputs: Outputs) -> Float[Array, "*shape"]:
    """The output `z` that goes to the other neurons."""
    return jax.tree.leaves(outputs)[0]


def readout_output(outputs: Outputs) -> Float[Array, "*shape"]:
    """The output that goes to the readout: `z_bar` where there is a filter, else `z`."""
    return jax.tree.leaves(outputs)[-1]


def traced(state: State) -> State:
    """The floating-point part of a state: the components that have eligibility vectors."""
    return eqx.filter(state, eqx.is_inexact_array)
