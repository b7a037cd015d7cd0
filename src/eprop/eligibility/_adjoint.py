"""The adjoint of the neurons alone: it belongs to a neuron, not to a synapse.

    (lambda_{t-1}, g_t) = vjp(step)(lambda_t, L_t)

A run keeps what each step's vjp needs (`Linearised`); the adjoint then runs backwards over it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from eprop.eligibility._structure import dependences
from eprop.eligibility._trajectory import Carry, Synapses, split_constants, spread, unstack_currents
from eprop.neurons import Neuron, recurrent_output, traced
from eprop.neurons._base import Outputs, State

DEAR = frozenset("exp exp2 log log1p expm1 tanh logistic erf sin cos pow sqrt rsqrt".split())
"""Operations whose results are stored rather than computed again: all others are cheaper than memory."""


class Stored(eqx.Module):
    """What one step's pullback is made of, or (stacked in time) that of many, but for what all steps share."""

    varying: list[Array]
    structure: Any = eqx.field(static=True)


class Pullbacks(NamedTuple):
    """A pullback for each step: maps of cotangents. A decay factor is there once, not once a step."""

    fixed: list[Array | None]  # what all steps share; None where they differ
    stored: Stored

    def at(self, stored: Stored) -> Callable:
        """The pullback of one step."""
        varying = iter(stored.varying)
        return stored.structure.unflatten([next(varying) if leaf is None else leaf for leaf in self.fixed])


class Linearised(NamedTuple):
    """A run, and the pullback of each of its steps."""

    outputs: Outputs  # [time, batch, neuron]
    last: State
    pullbacks: Pullbacks


def run_linearised(
    neuron: Neuron, synapses: Synapses, inputs: Float[Array, "time batch n_in"], carry: Carry
) -> Linearised:
    """Run a layer and keep the pullbacks of its neurons (`z_prev` held fixed)."""
    n_in, k, n = synapses.w_in.shape
    weights = jnp.concatenate([synapses.w_in, synapses.w_rec]).reshape(-1, k * n)
    fixed, step = linearised_step(neuron, carry.state, carry.z, k)

    def advance(state_z, x):
        state, z_prev = state_z
        currents = (jnp.concatenate([x, z_prev], axis=-1) @ weights).reshape(-1, k, n)
        if synapses.bias is not None:
            currents = currents + synapses.bias[None]
        state, outputs, stored = step(state, currents, z_prev)
        return (state, recurrent_output(outputs)), (outputs, stored)

    (last, _), (outputs, stored) = jax.lax.scan(advance, (carry.state, carry.z), inputs)
    return Linearised(outputs, last, Pullbacks(fixed, stored))


def linearise(
    neuron: Neuron, state: State, currents: Float[Array, "time batch current neuron"], z_prev: Array
) -> Linearised:
    """The neurons alone, on given currents."""
    fixed, step = linearised_step(neuron, state, z_prev[0], currents.shape[-2])

    def advance(state, inputs):
        state, outputs, stored = step(state, *inputs)
        return state, (outputs, stored)

    last, (outputs, stored) = jax.lax.scan(advance, state, (currents, z_prev))
    return Linearised(outputs, last, Pullbacks(fixed, stored))


def linearised_step(
    neuron: Neuron, state: State, z: Float[Array, "batch neuron"], num_currents: int
) -> tuple[list[Array | None], Callable]:
    """What all steps' pullbacks share, and `step(state, currents, z_prev) -> (state, outputs, stored)`.

    The pullback (`Pullbacks.at`) maps cotangents of (outputs, new traced state) to those of (constants, spread
    over the batch; old traced state; currents). Of two forms of it, the one that stores less.
    """
    constants, rest = split_constants(neuron)
    constants = spread(constants, z)

    def plain(constants, floating, integer, currents, z_prev):
        model = eqx.combine(constants, rest)
        new, outputs = model.step(eqx.combine(floating, integer), unstack_currents(currents), z_prev)
        return (outputs, traced(new)), new

    store_dear = jax.checkpoint(plain, policy=lambda operation, *_, **__: operation.name in DEAR, prevent_cse=False)

    def step_with(function):
        def step(state, currents, z_prev):
            floating, integer = eqx.partition(state, eqx.is_inexact_array)
            of = lambda c, f, i: function(c, f, integer, i, z_prev)  # noqa: E731
            (outputs, _), pullback, new = jax.vjp(of, constants, floating, currents, has_aux=True)
            return new, outputs, pullback

        return step

    some = (state, jnp.zeros((z.shape[0], num_currents, z.shape[1]), z.dtype), z)
    forms = [(step, *_varying(step, some)) for step in map(step_with, (plain, store_dear))]
    step, varies, _ = min(forms, key=lambda form: form[2])
    fixed = [None if v else leaf for leaf, v in zip(jax.tree.leaves(step(*some)[2]), varies, strict=True)]

    def step_and_store(state, currents, z_prev):
        state, outputs, pullback = step(state, currents, z_prev)
        leaves, structure = jax.tree.flatten(pullback)
        return state, outputs, Stored([leaf for leaf, v in zip(leaves, varies, strict=True) if v], structure)

    return fixed, step_and_store


def _varying(step: Callable, arguments: Sequence[Any]) -> tuple[list[bool], int]:
    """Which of the arrays that a step's pullback is made of differ from step to step, and how many bytes these are."""
    pullback = jax.make_jaxpr(lambda *a: step(*a)[2])(*arguments)
    varies = [bool(found) for found in dependences(pullback.jaxpr)]
    return varies, sum(a.size * a.dtype.itemsize for a, v in zip(pullback.out_avals, varies, strict=True) if v)


def adjoint(
    pullbacks: Pullbacks, learning_signals: Outputs, last: State
) -> tuple[PyTree, State, Float[Array, "time batch current neuron"]]:
    """Run backwards over a stretch of steps.

    Args:
        learning_signals: cotangents of the outputs at each step; None for an output that gets none.
        last: cotangent of the traced state after the stretch.

    Returns:
        Cotangents of the spread constants (summed over time), of the traced state before the stretch, and of
        the currents at each step.
    """
    rows = lambda signals: jax.tree.map(  # noqa: E731
        lambda s: jnp.zeros_like(jax.tree.leaves(last)[0]) if s is None else s, signals, is_leaf=lambda s: s is None
    )
    steps = (pullbacks.stored, learning_signals)
    first = jax.tree.map(lambda x: x[0], steps)
    shapes = jax.eval_shape(lambda stored, s: pullbacks.at(stored)((rows(s), last))[0], *first)
    nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def back(carry, step):
        constants, later = carry
        stored, signals = step
        constant, earlier, g = pullbacks.at(stored)((rows(signals), later))
        return (jax.tree.map(jnp.add, constants, constant), earlier), g

    (constants, before), g = jax.lax.scan(back, (nothing, last), steps, reverse=True)
    return constants, before, g
