"""What a window hands to the next: eligibility vectors, as few and as small as the model allows.

    eps_K = Phi eps_0 + sum_t gamma_t x_t^T

Only the currents that reach a component have a vector, and a component that decays by itself, at one rate
for all neurons, has one number a presynaptic neuron (see `trace_structure`).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from eprop.eligibility._adjoint import Linearised, adjoint
from eprop.eligibility._structure import TraceStructure, shared_recursion, trace_structure
from eprop.eligibility._trajectory import Traces, split_constants, spread
from eprop.neurons import Neuron, traced
from eprop.neurons._base import State

FUSED = 10
"""Up to so many steps, a window's outer products are summed in one pass over the eligibility vectors."""


def zero_traces(neuron: Neuron, state: State, n_pre: int) -> Traces:
    """Eligibility vectors before the first step: all zero."""
    components = jax.tree.leaves(traced(state))
    constants, _ = split_constants(neuron)
    structure = trace_structure(neuron)

    def vector(component: Array, currents: tuple[int, ...], shared: bool) -> Array:
        batch, n = component.shape
        shape = (batch, n_pre, len(currents)) if shared else (batch, n_pre, len(currents), n)
        return jnp.zeros(shape, component.dtype)

    return Traces(
        tuple(map(vector, components, structure.currents, structure.shared)),
        tuple(jax.tree.map(jnp.zeros_like, spread(constants, c)) for c in components),
    )


def dense_traces(neuron: Neuron, traces: Traces, n: int) -> tuple[Float[Array, "batch pre current neuron"], ...]:
    """Eligibility vectors written out for every synapse and current: for looking at, and for tests."""
    structure, dense = trace_structure(neuron), []
    for vector, currents, shared in zip(traces.synapses, structure.currents, structure.shared, strict=True):
        full = jnp.broadcast_to(vector[..., None], (*vector.shape, n)) if shared else vector
        nothing = jnp.zeros((*vector.shape[:2], neuron.num_currents, n), vector.dtype)
        dense.append(nothing.at[:, :, jnp.array(currents, int)].set(full) if currents else nothing)
    return tuple(dense)


def contract_traces(
    neuron: Neuron, before: State, traces: Traces, constants: PyTree
) -> tuple[Float[Array, "pre current neuron"], PyTree]:
    """`lambda_0 . eps_0`, summed over the batch: what learning signals of this window owe to earlier ones.

    Args:
        before: `lambda_0`, the adjoint of the state at the window's start.
        constants: this window's gradient of the spread constants, to add theirs to.
    """
    structure = trace_structure(neuron)
    components = jax.tree.leaves(before)
    n_pre, n = traces.synapses[0].shape[1], components[0].shape[-1]
    total = [jnp.zeros((n_pre, n), components[0].dtype) for _ in range(neuron.num_currents)]
    for a, (adjoint_a, vector) in enumerate(zip(components, traces.synapses, strict=True)):
        if structure.shared[a]:
            found = [vector[:, :, q].T @ adjoint_a for q in range(len(structure.currents[a]))]
        else:
            found = list(jnp.moveaxis(_sum_over_samples(adjoint_a, vector), 1, 0))
        for q, product in zip(structure.currents[a], found, strict=True):
            total[q] = total[q] + product
        constants = jax.tree.map(lambda c, e, factor=adjoint_a: c + factor * e, constants, traces.constants[a])
    return jnp.stack(total, axis=1), constants


def _sum_over_samples(factor: Float[Array, "batch neuron"], vector: Float[Array, "batch pre current neuron"]) -> Array:
    """`sum_b factor_bj vector_bi^q_j`, reading the vectors once."""

    def add(b, total):
        return total + factor[b][None, None] * jax.lax.dynamic_index_in_dim(vector, b, 0, False)

    return jax.lax.fori_loop(0, vector.shape[0], add, jnp.zeros(vector.shape[1:], vector.dtype))


def advance_traces(
    neuron: Neuron, run: Linearised, presynaptic: Float[Array, "time batch pre"], traces: Traces
) -> Traces:
    """The eligibility vectors at the window's end, from those at its start."""
    structure = trace_structure(neuron)
    components, treedef = jax.tree.flatten(traced(run.last))
    silent = jax.tree.map(lambda _: None, run.outputs)
    synapses, constants = [], []
    for a in range(len(components)):
        unit = treedef.unflatten([jnp.full_like(c, float(i == a)) for i, c in enumerate(components)])
        constant, phi, gamma = adjoint(run.pullbacks, silent, unit)
        phi, gamma = jax.tree.leaves(phi), jnp.stack(gamma, axis=2)
        for phi_b, old in zip(phi, traces.constants, strict=True):
            constant = jax.tree.map(lambda c, e, p=phi_b: c + p * e, constant, old)
        constants.append(constant)
        if structure.shared[a]:
            decay, gains = shared_recursion(neuron, a, components[a].dtype)
            gains = gains[jnp.array(structure.currents[a], int)]
            synapses.append(_advance_shared(decay, gains, presynaptic, traces.synapses[a]))
        else:
            synapses.append(_advance_component(a, structure, phi, gamma, presynaptic, traces.synapses))
    return Traces(tuple(synapses), tuple(constants))


def _advance_shared(
    decay: Float[Array, ""],
    gains: Float[Array, "current"],  # noqa: F821
    presynaptic: Float[Array, "time batch pre"],
    vector: Float[Array, "batch pre current"],
) -> Float[Array, "batch pre current"]:
    """`decay^K vector + gain sum_t decay^(K-1-t) x_t`."""
    time = presynaptic.shape[0]
    weights = decay ** jnp.arange(time - 1, -1, -1, dtype=decay.dtype)
    filtered = jnp.tensordot(weights, presynaptic, axes=1)
    return decay**time * vector + filtered[..., None] * gains


def _advance_component(
    a: int,
    structure: TraceStructure,
    phi: Sequence[Float[Array, "batch neuron"]],
    gamma: Float[Array, "time batch current neuron"],
    presynaptic: Float[Array, "time batch pre"],
    vectors: Sequence[Array],
) -> Float[Array, "batch pre reached neuron"]:
    """`sum_b Phi_ab eps_b + sum_t gamma_t x_t^T` of one component `a`.

    A shared vector takes part as one more step's presynaptic activity, with `Phi` for its `gamma`.
    """
    currents = structure.currents[a]
    steps, weights = [presynaptic], [gamma[:, :, jnp.array(currents, int)]]
    terms, narrower = [(phi[a], vectors[a])], []  # vectors of all currents of `a`, and of fewer
    for b in structure.reads[a]:
        if structure.shared[b]:
            for place, q in enumerate(structure.currents[b]):
                steps.append(vectors[b][None, :, :, place])
                weights.append(jnp.zeros_like(weights[0][:1]).at[:, :, currents.index(q)].set(phi[b]))
        elif b != a and structure.currents[b] == currents:
            terms.append((phi[b], vectors[b]))
        elif b != a:
            narrower.append((phi[b], vectors[b], [currents.index(q) for q in structure.currents[b]]))
    new = _decay_and_add(terms, jnp.concatenate(steps), jnp.concatenate(weights))
    for phi_b, vector, places in narrower:
        new = new.at[:, :, jnp.array(places)].add(phi_b[:, None, None, :] * vector)
    return new


def _decay_and_add(
    terms: Sequence[tuple[Float[Array, "batch neuron"], Float[Array, "batch pre current neuron"]]],
    x: Float[Array, "time batch pre"],
    gamma: Float[Array, "time batch current neuron"],
) -> Float[Array, "batch pre current neuron"]:
    """`sum Phi eps + sum_t x_t gamma_t`, written over the first `eps`: every vector is read once."""
    batch, n_pre, k, n = terms[0][1].shape
    if x.shape[0] <= FUSED:
        new = jnp.zeros_like(terms[0][1])
        for phi, vector in terms:
            new = new + phi[:, None, None, :] * vector
        for x_t, gamma_t in zip(x, gamma, strict=True):
            new = new + x_t[:, :, None, None] * gamma_t[:, None]
        return new

    def sample(b, vectors):
        at = lambda y, axis=0: jax.lax.dynamic_index_in_dim(y, b, axis, False)  # noqa: E731
        new = (at(x, 1).T @ at(gamma, 1).reshape(-1, k * n)).reshape(n_pre, k, n)
        for phi, vector in [(terms[0][0], vectors), *terms[1:]]:
            new = new + at(phi)[None, None] * at(vector)
        return jax.lax.dynamic_update_index_in_dim(vectors, new, b, 0)

    return jax.lax.fori_loop(0, batch, sample, terms[0][1])
