"""Synapses, what a run hands to the next one, and the small pieces that engine and reference share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero, custom_vjp_primal_tree_values
from jaxtyping import Array, Float

from eprop.eligibility._delays import DelayLine
from eprop.errors import InvalidSetting, require
from eprop.neurons import Neuron, PyTree, State


class Synapses(NamedTuple):
    """The weights of one layer. Index order everywhere: presynaptic, current, postsynaptic.

    `w_rec` is None for a layer without recurrent weights, `bias` for one without a bias. A row of `w_rec` belongs to a
    neuron, or to a column of a `DelayLine`.
    """

    w_in: Float[Array, "n_in current neuron"]
    w_rec: Float[Array, "column current neuron"] | None = None
    bias: Float[Array, "current neuron"] | None = None

    @property
    def presynaptic(self) -> int:
        """Number of presynaptic variables: inputs, neurons (where they feed each other), and 1 for the bias."""
        return self.w_in.shape[0] + (0 if self.w_rec is None else self.w_rec.shape[0]) + 1


class Pending(NamedTuple):
    """The part that the last window adds to the eligibility vectors of its start (see `settle`).

    adjoints: for each state component, the window's adjoint from its unit vector: over constants `[batch, neuron]`,
        over the components at the start (`Phi`), and over the currents that reach it (`gamma`,
        `[time, batch, reached, neuron]`; None where the vector is shared).
    presynaptic: `[x_t, z_{t-1}, 1]` of the window.
    """

    adjoints: tuple[tuple[PyTree, tuple[Array, ...], Array | None], ...]
    presynaptic: Float[Array, "time batch pre"]


class Traces(NamedTuple):
    """Eligibility vectors, one entry for each traced state component: the past, as far as learning needs it.

    synapses: tuple of `[batch, presynaptic, reached, neuron]`, presynaptic = inputs, neurons, and 1 for the bias;
        reached: the currents that reach the component; a component whose vector is the same for all neurons has
        `[batch, presynaptic, reached]` (see `trace_structure`).
    constants: tuple of pytrees like the neuron's trainable constants, leaves `[batch, neuron]`.
    pending: None, or what the last window adds: then the vectors are those of that window's start.
    """

    synapses: tuple[Float[Array, "batch pre reached neuron"] | Float[Array, "batch pre reached"], ...]
    constants: tuple[PyTree, ...]
    pending: Pending | None = None


class Carry(NamedTuple):
    """The hand-over between windows: neuron state, last output, and eligibility vectors where they are carried.

    line: outputs on their way, where recurrent connections have delays.
    waiting: a layer's inputs on their way, the newest first; the engine is fed with what has arrived.
    """

    state: State
    z: Float[Array, "batch neuron"]
    traces: Traces | None = None
    line: DelayLine | None = None
    waiting: Float[Array, "longest batch n_in"] | None = None


def start(neuron: Neuron, batch: int, size: int, dtype: Any) -> Carry:
    """The carry before the first step: initial state, `z = 0`, no traces."""
    return Carry(neuron.init((batch, size), dtype), jnp.zeros((batch, size), dtype))


def split_constants(neuron: Neuron) -> tuple[PyTree, PyTree]:
    """The neuron's trainable constants (floating-point arrays), and the rest of it."""
    return eqx.partition(neuron, eqx.is_inexact_array)


def spread(constants: PyTree, like: Float[Array, "batch neuron"]) -> PyTree:
    """Constants broadcast to one value for each sample and neuron, so that each has a trace of its own."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, like.shape), constants)


def gather(constants: PyTree, spread_gradients: PyTree) -> PyTree:
    """The transpose of `spread`: `[batch, neuron]` gradients summed to the constants' own shapes."""

    def one(leaf: Array, gradient: Array) -> Array:
        batch_sum = gradient.sum(tuple(range(gradient.ndim - 1)))
        return batch_sum.sum() if leaf.ndim == 0 else batch_sum

    return jax.tree.map(one, constants, spread_gradients)


def contract_presynaptic(activity: Float[Array, "*lead pre"], weights: Float[Array, "pre current neuron"]) -> Array:
    """`sum_i x_i W_i^q_j`, as one matrix product: `[*lead, current, neuron]`."""
    pre, current, neuron = weights.shape
    flat = activity.reshape(-1, pre) @ weights.reshape(pre, current * neuron)
    return flat.reshape(*activity.shape[:-1], current, neuron)


def input_currents(synapses: Synapses, inputs: Float[Array, "time batch n_in"]) -> Array:
    """The currents from inputs and bias, for all steps at once: `[time, batch, current, neuron]`."""
    currents = contract_presynaptic(inputs, synapses.w_in)
    return currents if synapses.bias is None else currents + synapses.bias[None, None]


def unstack_currents(currents: Float[Array, "*lead current neuron"]) -> tuple[Float[Array, "*lead neuron"], ...]:
    """A tuple with an entry for each current, as `step` takes them."""
    return tuple(currents[..., q, :] for q in range(currents.shape[-2]))


def presynaptic_activity(
    synapses: Synapses, inputs: Float[Array, "time batch n_in"], z_prev: Float[Array, "time batch neuron"]
) -> Float[Array, "time batch pre"]:
    """`[x_t, z_{t-1}, 1]`; `z_{t-1}` where there are recurrent weights."""
    ones = jnp.ones((*z_prev.shape[:2], 1), z_prev.dtype)
    recurrent = [] if synapses.w_rec is None else [z_prev]
    return jnp.concatenate([inputs, *recurrent, ones], axis=-1)


def split_presynaptic(gradient: Float[Array, "pre current neuron"], synapses: Synapses) -> Synapses:
    """The gradient over `[x, z_prev, 1]` as that of the synapses there are."""
    n_in = synapses.w_in.shape[0]
    recurrent = None if synapses.w_rec is None else gradient[n_in:-1]
    return Synapses(gradient[:n_in], recurrent, None if synapses.bias is None else gradient[-1])


def zeros_of(function: Callable[..., Any], *arguments: Any) -> PyTree:
    """Zeros like the result of a call that is not made."""
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(function, *arguments))


def with_gradient(
    forward: Callable[..., tuple[PyTree, PyTree]], backward: Callable[[PyTree, PyTree], tuple]
) -> Callable[..., PyTree]:
    """A function with a gradient of its own.

    Args:
        forward: arguments -> (results, what the backward pass needs).
        backward: (what it needs, cotangents of the results: None for a result that nothing depends on) -> cotangents
            of the arguments; None for an argument that gets none.

    Raises (the function):
        InvalidSetting: for a forward-mode derivative; under `jax.jit` JAX refuses it, with a TypeError.
    """

    @jax.custom_vjp
    def function(*arguments: PyTree) -> PyTree:
        return forward(*arguments)[0]

    def forward_values(*arguments: PyTree) -> tuple[PyTree, PyTree]:
        return forward(*custom_vjp_primal_tree_values(arguments))

    def backward_present(kept: PyTree, cotangents: PyTree) -> tuple:
        silent = lambda c: None if isinstance(c, SymbolicZero) else c  # noqa: E731
        return backward(kept, jax.tree.map(silent, cotangents, is_leaf=lambda c: isinstance(c, SymbolicZero)))

    function.defvjp(forward_values, backward_present, symbolic_zeros=True)

    def reverse_only(*arguments: PyTree) -> PyTree:
        try:
            return function(*arguments)
        except TypeError as error:
            if "forward-mode" not in str(error):
                raise
            raise InvalidSetting(
                "no forward-mode derivative (jax.jvp, jacfwd, linearize): the gradient of a layer is made of "
                "learning signals, which run backwards; use jax.grad, jax.vjp or jax.jacrev"
            ) from None

    return reverse_only


def filled(cotangents: PyTree, like: PyTree) -> PyTree:
    """Cotangents with zeros, like the results, where nothing depends on a result."""
    zeros = jax.tree.map(jnp.zeros_like, like)
    return jax.tree.map(lambda c, z: z if c is None else c, cotangents, zeros, is_leaf=lambda c: c is None)


def require_traces_of(neuron: Neuron, traces: Traces | None) -> None:
    """Refuse eligibility vectors that were begun when other constants of the neuron were arrays."""
    constants, _ = split_constants(neuron)
    require(
        traces is None
        or all(jax.tree.structure(vector) == jax.tree.structure(constants) for vector in traces.constants),
        "carry: its eligibility vectors were begun with other neuron constants as arrays than the network has now; "
        "a network that is an argument of jax.jit has all its numbers made arrays: use equinox.filter_jit",
    )
