"""The adjoint of the neurons alone: it belongs to a neuron, not to a synapse.

    (lambda_{t-1}, g_t) = vjp(step)(lambda_t, L_t)

A run keeps what each step's vjp needs (`Linearised`); the adjoint then runs backwards over it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun, jaxprs_in_params
from jaxtyping import Array, Float, Int, Int8, PyTree

from eprop.eligibility._trajectory import Carry, Synapses, split_constants, spread, unstack_currents
from eprop.neurons import Neuron, recurrent_output, traced
from eprop.neurons._base import Outputs, State

DEAR = frozenset("exp exp2 log log1p expm1 tanh logistic erf sin cos pow sqrt rsqrt".split())
"""Operations whose results are stored rather than computed again: all others are cheaper than memory."""


class Pullbacks(eqx.Module):
    """The pullback of each step, as little of it as the rest can be computed from again."""

    stored: list[Array]  # stacked in time
    constants: list[Any]  # once for all steps
    rest: Jaxpr = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    def at(self, stored: list[Array]) -> Callable:
        """The pullback of one step, from what is stored of it."""
        leaves = jaxpr_as_fun(ClosedJaxpr(self.rest, self.constants))(*stored)
        return self.structure.unflatten(leaves)


class Linearised(NamedTuple):
    """A run, and the pullback of each of its steps."""

    outputs: Outputs  # [time, batch, neuron]
    last: State
    pullbacks: Pullbacks
    z: Float[Array, "time batch neuron"] | Int8[Array, "time batch neuron"]  # spikes in a byte each


def run_linearised(
    neuron: Neuron, synapses: Synapses, inputs: Float[Array, "time batch n_in"], carry: Carry
) -> Linearised:
    """Run a layer and keep the pullbacks of its neurons (`z_prev` held fixed)."""
    n_in, k, n = synapses.w_in.shape
    weights = jnp.concatenate([synapses.w_in, synapses.w_rec]).reshape(-1, k * n)

    step, with_stored = linearised_step(neuron, carry.state, carry.z, k)

    def advance(state_z, x):
        state, z_prev = state_z
        currents = (jnp.concatenate([x, z_prev], axis=-1) @ weights).reshape(-1, k, n)
        if synapses.bias is not None:
            currents = currents + synapses.bias[None]
        state, outputs, stored = step(state, currents, z_prev)
        z = recurrent_output(outputs)
        kept = z.astype(jnp.int8) if neuron.spiking else z
        return (state, z), (outputs, stored, kept)

    (last, _), (outputs, stored, z) = jax.lax.scan(advance, (carry.state, carry.z), inputs)
    return Linearised(outputs, last, with_stored(stored), z)


def linearise(
    neuron: Neuron, state: State, currents: Float[Array, "time batch current neuron"], z_prev: Array
) -> Linearised:
    """The neurons alone, on given currents."""
    step, with_stored = linearised_step(neuron, state, z_prev[0], currents.shape[-2])

    def advance(state, inputs):
        state, outputs, stored = step(state, *inputs)
        return state, (outputs, stored)

    last, (outputs, stored) = jax.lax.scan(advance, state, (currents, z_prev))
    return Linearised(outputs, last, with_stored(stored), recurrent_output(outputs))


def linearised_step(
    neuron: Neuron, state: State, z: Float[Array, "batch neuron"], num_currents: int
) -> tuple[Callable, Callable[[list[Array]], Pullbacks]]:
    """`step(state, currents, z_prev) -> (state, outputs, stored)`, and what makes pullbacks of all that it stored.

    The pullback maps cotangents of (outputs, new traced state) to those of (constants, spread over the batch;
    old traced state; the currents, a tuple). What is stored are either the arrays that it holds or the ones that
    these can be computed from without a dear operation: whichever takes less. What is the same at every step
    (a decay factor) is not stored.
    """
    constants, rest = split_constants(neuron)
    constants = spread(constants, z)

    def with_pullback(state, currents, z_prev):
        floating, integer = eqx.partition(state, eqx.is_inexact_array)

        def neurons(constants, floating, currents):
            model = eqx.combine(constants, rest)
            new, outputs = model.step(eqx.combine(floating, integer), currents, z_prev)
            return (outputs, traced(new)), new

        (outputs, _), pullback, new = jax.vjp(neurons, constants, floating, unstack_currents(currents), has_aux=True)
        return (new, outputs), pullback

    some = (state, jnp.zeros((z.shape[0], num_currents, z.shape[1]), z.dtype), z)
    closed, (shown, pullback) = jax.make_jaxpr(with_pullback, return_shape=True)(*some)
    whole, results = closed.jaxpr, jax.tree.structure(shown)
    leaves = whole.outvars[results.num_leaves :]
    stored, equations = min(_cut(whole, leaves, leaves), _cut(whole, leaves, ()), key=lambda cut: _bytes(cut[0]))
    forward = _part(whole, whole.invars, [*whole.outvars[: results.num_leaves], *stored], whole.eqns)
    run = jaxpr_as_fun(ClosedJaxpr(forward, closed.consts))

    def step(state, currents, z_prev):
        found = run(*jax.tree.leaves((state, currents, z_prev)))
        return *results.unflatten(found[: results.num_leaves]), found[results.num_leaves :]

    rebuild = _part(whole, stored, leaves, equations)
    return step, lambda stored: Pullbacks(stored, closed.consts, rebuild, jax.tree.structure(pullback))


def _cut(whole: Jaxpr, results: Sequence[Any], held: Sequence[Any]) -> tuple[list[Var], list[JaxprEqn]]:
    """Variables that `results` can be computed from, and the equations that do it, in order.

    Backwards from the results, as far as the arguments, dear operations, and what stands in `held`; what does not
    depend on the arguments is computed.
    """
    varying, needed, equations = set(whole.invars), dict.fromkeys(_variables(results)), []
    kept = set(_variables(held))
    for equation in whole.eqns:
        if varying.intersection(_variables(equation.invars)):
            varying.update(equation.outvars)
    for equation in reversed(whole.eqns):
        made = needed.keys() & set(equation.outvars)
        stop = _is_dear(equation) or made <= kept
        if made and not (stop and made & varying):
            equations.append(equation)
            needed.update(dict.fromkeys(_variables(equation.invars)))
    computed = {v for equation in equations for v in equation.outvars}
    return [v for v in needed if v in varying and v not in computed], equations[::-1]


def _variables(atoms: Sequence[Any]) -> list[Var]:
    return [atom for atom in atoms if not isinstance(atom, Literal)]


def _is_dear(equation: JaxprEqn) -> bool:
    inner = jaxprs_in_params(equation.params)
    return equation.primitive.name in DEAR or any(_is_dear(e) for jaxpr in inner for e in jaxpr.eqns)


def _bytes(variables: Sequence[Var]) -> int:
    return sum(v.aval.size * v.aval.dtype.itemsize for v in variables)  # pyright: ignore[reportAttributeAccessIssue]


def _part(whole: Jaxpr, arguments: Sequence[Var], results: Sequence[Any], equations: Sequence[JaxprEqn]) -> Jaxpr:
    return Jaxpr(whole.constvars, arguments, results, equations, debug_info=whole.debug_info)


def adjoint(
    pullbacks: Pullbacks, learning_signals: Outputs, last: State, part: tuple[Int[Array, ""], int] | None = None
) -> tuple[PyTree, State, tuple[Float[Array, "time batch neuron"], ...]]:
    """Run backwards over a stretch of steps.

    Args:
        learning_signals: cotangents of the outputs at each step of the stretch; None for an output that gets none.
        last: cotangent of the traced state after the stretch.
        part: first step and number of steps of the stretch, where it is a part of the run: the pullbacks are read
            where they lie. (Not to be differentiated again: then every step would add to an array as long as the run.)

    Returns:
        Cotangents of the spread constants (summed over time), of the traced state before the stretch, and of
        each current at each step.
    """
    rows = lambda signals: jax.tree.map(  # noqa: E731
        lambda s: jnp.zeros_like(jax.tree.leaves(last)[0]) if s is None else s, signals, is_leaf=lambda s: s is None
    )
    places, at = pullbacks.stored, lambda stored: stored
    if part is not None:
        places = part[0] + jnp.arange(part[1])
        at = lambda t: [jax.lax.dynamic_index_in_dim(x, t, keepdims=False) for x in pullbacks.stored]  # noqa: E731
    first = jax.tree.map(lambda x: x[0], (pullbacks.stored, learning_signals))
    nothing = zeros_of(lambda stored, s: pullbacks.at(stored)((rows(s), last))[0], *first)

    def back(carry, step):
        constants, later = carry
        place, signals = step
        constant, earlier, g = pullbacks.at(at(place))((rows(signals), later))
        return (jax.tree.map(jnp.add, constants, constant), earlier), g

    (constants, before), g = jax.lax.scan(back, (nothing, last), (places, learning_signals), reverse=True)
    return constants, before, g


def zeros_of(function: Callable, *arguments: Any) -> PyTree:
    """Zeros like the result of a call that is not made."""
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(function, *arguments))
