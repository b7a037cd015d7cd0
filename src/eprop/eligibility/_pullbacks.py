"""One step of the neurons, linearised: what its pullback needs is kept, and as little as possible of it.

The only file that takes a program of JAX apart (`jax.extend`). Where that cannot be had, a step's pullback is computed
again from the step's own arguments: the same numbers, more slowly.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int8

from eprop.eligibility._delays import DelayLine, pushed, seen
from eprop.eligibility._types import (
    Carry,
    Synapses,
    contract_presynaptic,
    input_currents,
    split_constants,
    spread,
    unstack_currents,
)
from eprop.neurons import Neuron, Outputs, State, recurrent_output, traced

try:
    from jax.extend import core as programs
except ImportError:  # pragma: no cover  # an older or a newer JAX
    programs: Any = None

CUTS = all(hasattr(programs, name) for name in ("ClosedJaxpr", "Jaxpr", "Literal", "jaxpr_as_fun"))
"""Whether a step's program can be taken apart."""

DEAR = frozenset("exp exp2 log log1p expm1 tanh logistic erf sin cos pow sqrt rsqrt".split())
"""Operations whose results are stored rather than computed again: all others are cheaper than memory."""

WRITTEN_OUT = 8
"""A loop of up to so many steps is compiled as one piece of code."""


class Pullbacks(eqx.Module):
    """The pullback of each step of a run: what is stored of it, and how to make it from that."""

    stored: list[Array]  # stacked in time
    constants: list[Any]  # once for all steps
    make: Callable[[list[Any], list[Array]], Callable] = eqx.field(static=True)
    length: int = eqx.field(static=True)

    def at(self, stored: list[Array]) -> Callable[..., Any]:
        """The pullback of one step, from what is stored of it."""
        return self.make(self.constants, stored)

    def place(self, t: Int[Array, ""]) -> list[Array]:
        """The arrays stored of step `t`."""
        return [jax.lax.dynamic_index_in_dim(x, t, keepdims=False) for x in self.stored]


class Run(NamedTuple):
    """A run of a layer, and the pullback of each of its steps."""

    outputs: Outputs  # [time, batch, neuron]
    last: State
    pullbacks: Pullbacks
    z: Float[Array, "time batch neuron"] | Int8[Array, "time batch neuron"]  # spikes in a byte each
    line: DelayLine | None = None  # after the last step


def run(neuron: Neuron, synapses: Synapses, inputs: Float[Array, "time batch n_in"], carry: Carry, reset: bool) -> Run:
    """Run a layer and keep the pullbacks of its neurons; `reset`: with respect to `z_prev` as well."""
    time, (_, k, n) = inputs.shape[0], synapses.w_in.shape
    step, with_stored = linearised_step(neuron, carry.state, carry.z, k, reset)
    at_once = synapses.w_rec is None or time <= WRITTEN_OUT  # the inputs' product, for all steps
    weights = None
    if not at_once and synapses.w_rec is not None:
        weights = jnp.concatenate([synapses.w_in, synapses.w_rec]).reshape(-1, k * n)

    def currents_of(x: Array, z_prev: Array) -> Array:
        if weights is not None:
            found = (jnp.concatenate([x, z_prev], axis=-1) @ weights).reshape(-1, k, n)
            return found if synapses.bias is None else found + synapses.bias[None]
        return x if synapses.w_rec is None else x + contract_presynaptic(z_prev, synapses.w_rec)

    def advance(carried: tuple, x: Array) -> tuple[tuple, tuple]:
        state, z_prev, line = carried
        state, outputs, stored = step(state, currents_of(x, seen(line, z_prev)), z_prev)
        z = recurrent_output(outputs)
        return (state, z, pushed(line, z_prev)), (outputs, stored, z.astype(jnp.int8) if neuron.spiking else z)

    rows = input_currents(synapses, inputs) if at_once else inputs
    unroll = max(time, 1) if time <= WRITTEN_OUT else 1
    begin = (carry.state, carry.z, carry.line)
    (last, _, line), (outputs, stored, z) = jax.lax.scan(advance, begin, rows, unroll=unroll)
    return Run(outputs, last, with_stored(stored, time), z, line)


def linearised_step(
    neuron: Neuron, state: State, z: Float[Array, "batch neuron"], num_currents: int, reset: bool = False
) -> tuple[Callable, Callable[[list[Array], int], Pullbacks]]:
    """`step(state, currents, z_prev) -> (state, outputs, stored)`, and what makes pullbacks of all that it stored.

    The pullback maps cotangents of (outputs, new traced state) to those of (constants, spread over the batch; old
    traced state; the currents, a tuple), and of `z_prev` where `reset`; else that is held fixed.
    """
    constants, rest = split_constants(neuron)
    constants = spread(constants, z)

    def with_pullback(
        constants: Any, state: State, currents: Array, z_prev: Array
    ) -> tuple[tuple[State, Outputs], Callable]:
        floating, integer = eqx.partition(state, eqx.is_inexact_array)

        def neurons(constants: Any, floating: State, currents: tuple, *z_seen: Array) -> tuple:
            model = eqx.combine(constants, rest)
            new, outputs = model.step(eqx.combine(floating, integer), currents, *(z_seen or (z_prev,)))
            return (outputs, traced(new)), new

        arguments = (constants, floating, unstack_currents(currents), *((z_prev,) if reset else ()))
        (outputs, _), pullback, new = jax.vjp(neurons, *arguments, has_aux=True)
        return (new, outputs), pullback

    if not CUTS:
        return _recomputed(with_pullback, constants)
    some = (state, jnp.zeros((z.shape[0], num_currents, z.shape[1]), z.dtype), z)
    return _cut_step(partial(with_pullback, constants), some)


def _recomputed(with_pullback: Callable, constants: Any) -> tuple[Callable, Callable[[list[Array], int], Pullbacks]]:
    """The plain way: of each step its arguments are stored."""
    leaves, of_constants = jax.tree.flatten(constants)
    structures = []

    def step(state: State, currents: Array, z_prev: Array) -> tuple[State, Outputs, list[Array]]:
        new, outputs = with_pullback(constants, state, currents, z_prev)[0]
        stored, structure = jax.tree.flatten((state, currents, z_prev))
        structures.append(structure)
        return new, outputs, stored

    def make(leaves: list[Any], stored: list[Array]) -> Callable:
        return with_pullback(of_constants.unflatten(leaves), *structures[0].unflatten(stored))[1]

    return step, lambda stored, length: Pullbacks(stored, leaves, make, length)


def _cut_step(with_pullback: Callable, some: tuple) -> tuple[Callable, Callable[[list[Array], int], Pullbacks]]:
    """The lean way: of each step the arrays that its pullback holds are stored, or those that they can be computed from
    without a dear operation, whichever takes less. What is the same at every step (a decay factor) is not stored.
    """
    closed, (shown, pullback) = jax.make_jaxpr(with_pullback, return_shape=True)(*some)
    whole, results, structure = closed.jaxpr, jax.tree.structure(shown), jax.tree.structure(pullback)
    leaves = whole.outvars[results.num_leaves :]
    stored, equations = min(_cut(whole, leaves, leaves), _cut(whole, leaves, ()), key=lambda cut: _bytes(cut[0]))
    forward = _part(whole, whole.invars, [*whole.outvars[: results.num_leaves], *stored], whole.eqns)
    run_forward = programs.jaxpr_as_fun(programs.ClosedJaxpr(forward, closed.consts))
    rest = _part(whole, stored, leaves, equations)

    def step(state: State, currents: Array, z_prev: Array) -> tuple[State, Outputs, list[Array]]:
        found = run_forward(*jax.tree.leaves((state, currents, z_prev)))
        return *results.unflatten(found[: results.num_leaves]), found[results.num_leaves :]

    def make(constants: list[Any], stored: list[Array]) -> Callable:
        return structure.unflatten(programs.jaxpr_as_fun(programs.ClosedJaxpr(rest, constants))(*stored))

    return step, lambda stored, length: Pullbacks(stored, closed.consts, make, length)


def _cut(whole: Any, results: Sequence[Any], held: Sequence[Any]) -> tuple[list[Any], list[Any]]:
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


def _variables(atoms: Sequence[Any]) -> list[Any]:
    return [atom for atom in atoms if not isinstance(atom, programs.Literal)]


def _is_dear(equation: Any) -> bool:
    inner = [x for value in equation.params.values() for x in (value if isinstance(value, tuple) else (value,))]
    jaxprs = [getattr(x, "jaxpr", x) for x in inner if hasattr(x, "eqns") or hasattr(x, "jaxpr")]
    return equation.primitive.name in DEAR or any(_is_dear(e) for jaxpr in jaxprs for e in jaxpr.eqns)


def _bytes(variables: Sequence[Any]) -> int:
    return sum(v.aval.size * v.aval.dtype.itemsize for v in variables)


def _part(whole: Any, arguments: Sequence[Any], results: Sequence[Any], equations: Sequence[Any]) -> Any:
    return programs.Jaxpr(whole.constvars, arguments, results, equations, debug_info=whole.debug_info)
