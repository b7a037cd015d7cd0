"""Which eligibility vectors a neuron model has, read off the derivative of its `step`.

    eps_a^t = sum_a' A_aa' eps_a'^{t-1} + B_a^q x^t,       A = ds_t/ds_{t-1},  B^q = ds_t/dI_t^q

Where `A` or `B` is zero whatever the state, nothing need be carried: an LSTM's output gate never reaches
its cell. Where a component decays by itself, at the same rate in every neuron (a membrane), its vector is
the same for all postsynaptic neurons: `eps_ji = x_bar_i`, one number a presynaptic neuron, not a synapse.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.neurons import Neuron, traced


class TraceStructure(NamedTuple):
    """One entry for each traced state component, in the order of the leaves of `traced(state)`."""

    currents: tuple[tuple[int, ...], ...]
    """The currents that reach a component: for the others its vector is zero."""
    reads: tuple[tuple[int, ...], ...]
    """The components that a component depends on, through any number of steps."""
    shared: tuple[bool, ...]
    """Whether the vector is the same for all postsynaptic neurons."""


def trace_structure(neuron: Neuron) -> TraceStructure:
    """The structure of a model's eligibility vectors; nothing is computed on its arrays."""
    constants, rest = eqx.partition(neuron, eqx.is_inexact_array)
    abstract = jax.tree.map(lambda c: jax.ShapeDtypeStruct(c.shape[:-1] + (1,) if c.ndim else (), c.dtype), constants)
    constant_leaves, constant_structure = jax.tree.flatten(abstract)
    dtype = constant_leaves[0].dtype if constant_leaves else jnp.result_type(float)
    one = eqx.filter_eval_shape(lambda: _of_one(neuron).init((1, 1), dtype))
    states, integers = eqx.partition(one, lambda s: jnp.issubdtype(s.dtype, jnp.inexact))
    n, k = len(jax.tree.leaves(states)), neuron.num_currents
    scalar = jax.ShapeDtypeStruct((1, 1), dtype)

    counts = jax.tree.leaves(integers)

    def tangents(constants, counts, z_prev, primals, tangents):
        model = eqx.combine(constant_structure.unflatten(constants), rest)
        return jax.jvp(lambda *a: _step(model, n, a, dtype, counts, z_prev), tuple(primals), tuple(tangents))[1]

    rows = jax.make_jaxpr(tangents)(constant_leaves, counts, scalar, [scalar] * (n + k), [scalar] * (n + k)).jaxpr
    first = len(constant_leaves) + len(counts) + 1 + n + k  # of the tangents, among the arguments
    # A count (of a refractory period) and the last output (of a hard reset) vary as a state does.
    vary = set(range(first)) - {i for i, c in enumerate(constant_leaves) if not c.shape}
    depends = _dependences(rows)
    reads = [{i - first for i in row if i >= first} for row in depends]
    shared = tuple(not (row & vary) and reads[a] & set(range(n)) <= {a} for a, row in enumerate(depends))
    for _ in range(n):  # through any number of steps
        reads = [row.union(*(reads[b] for b in row if b < n)) for row in reads]
    return TraceStructure(
        tuple(tuple(sorted(c - n for c in row if c >= n)) for row in reads),
        tuple(tuple(sorted(c for c in row if c < n)) for row in reads),
        shared,
    )


def shared_recursion(neuron: Neuron, component: int, dtype) -> tuple[Float[Array, ""], Float[Array, "current"]]:  # noqa: F821
    """A shared component's decay `A_aa`, and the gains `B_a^q` of all currents."""
    model = _of_one(neuron)
    n, k = len(jax.tree.leaves(traced(model.init((1, 1), dtype)))), model.num_currents
    zero, one = jnp.zeros((1, 1), dtype), jnp.ones((1, 1), dtype)

    def of(argument: int) -> Array:
        tangents = tuple(one if i == argument else zero for i in range(n + k))
        return jax.jvp(lambda *a: _step(model, n, a, dtype), (zero,) * (n + k), tangents)[1][component][0, 0]

    return of(component), jnp.stack([of(n + q) for q in range(k)])


def _step(
    model: Neuron, n: int, arguments, dtype, counts: list[Array] | None = None, z_prev: Array | None = None
) -> list[Array]:
    """New traced state components from old ones and currents, of one neuron.

    Args:
        counts: the integer part of the state; None: as `init` has it.
        z_prev: its last output; None: it was silent.
    """
    floating, integer = eqx.partition(model.init((1, 1), dtype), eqx.is_inexact_array)
    if counts is not None:
        integer = jax.tree.structure(integer).unflatten(counts)
    state = eqx.combine(jax.tree.structure(floating).unflatten(arguments[:n]), integer)
    z_prev = jnp.zeros((1, 1), dtype) if z_prev is None else z_prev
    return jax.tree.leaves(traced(model.step(state, tuple(arguments[n:]), z_prev)[0]))


def _of_one(neuron: Neuron) -> Neuron:
    """The model of a single neuron: the first one's constants."""
    return jax.tree.map(lambda c: c[..., :1] if eqx.is_inexact_array(c) and c.ndim else c, neuron)


def _dependences(jaxpr: Any) -> list[set[int]]:
    """For each result, the arguments that it may depend on."""
    sources = {variable: {i} for i, variable in enumerate(jaxpr.invars)}  # a literal (it has `val`) depends on nothing
    of = lambda v: set() if hasattr(v, "val") else sources.get(v, set())  # noqa: E731
    for equation in jaxpr.eqns:
        found = set().union(*(of(v) for v in equation.invars))
        sources.update(dict.fromkeys(equation.outvars, found))
    return [of(v) for v in jaxpr.outvars]
