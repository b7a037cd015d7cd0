"""Eligibility vectors handed from a window to the next, as few and as small as the model allows.

    eps_K = Phi eps_0 + sum_t gamma_t x_t^T

Only the currents that reach a component have a vector, and a component that decays by itself, at one rate for all
neurons, has one number a presynaptic neuron (see `trace_structure`). A window leaves `Phi`, `gamma` and `x` behind
(`Pending`); the vectors themselves are advanced once everything that reads the old ones is done (`settle`), and so they
are read and written once, in place.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from eprop.eligibility._adjoint import Later, adjoint
from eprop.eligibility._pullbacks import Run
from eprop.eligibility._structure import TraceStructure, shared_recursion, trace_structure
from eprop.eligibility._types import Carry, Pending, Synapses, Traces, split_constants, spread
from eprop.neurons import Neuron, PyTree, State, traced

FUSED = 10
"""Up to so many steps, a window's outer products are summed in one pass over the eligibility vectors."""


def with_traces(neuron: Neuron, synapses: Synapses, carry: Carry) -> Carry:
    """The carry with zero eligibility vectors, so that `unroll` carries them over windows."""
    components = jax.tree.leaves(traced(carry.state))
    constants, _ = split_constants(neuron)
    structure = trace_structure(neuron)

    def vector(component: Array, currents: tuple[int, ...], shared: bool) -> Array:
        batch, n = component.shape
        shape = (batch, synapses.presynaptic, len(currents))
        return jnp.zeros(shape if shared else (*shape, n), component.dtype)

    traces = Traces(
        tuple(map(vector, components, structure.currents, structure.shared)),
        tuple(jax.tree.map(jnp.zeros_like, spread(constants, c)) for c in components),
    )
    return carry._replace(traces=traces)


def pending_of(
    neuron: Neuron, run: Run, presynaptic: Float[Array, "time batch pre"], z: Float[Array, "batch neuron"]
) -> Pending:
    """The part that a run adds: the adjoint of the neurons alone, from each unit vector of its last state."""
    structure = trace_structure(neuron)
    components, treedef = jax.tree.flatten(traced(run.last))
    silent = jax.tree.map(lambda _: None, run.outputs)
    adjoints = []
    for a, reached in enumerate(structure.currents):
        unit = treedef.unflatten([jnp.full_like(c, float(i == a)) for i, c in enumerate(components)])
        found = adjoint(run.pullbacks, silent, Later(unit), jnp.zeros_like(z))
        per_synapse = reached and not structure.shared[a]
        gamma = jnp.stack([found.g[q] for q in reached], axis=2) if per_synapse else None
        adjoints.append((found.constants, tuple(jax.tree.leaves(found.before.own)), gamma))
    return Pending(tuple(adjoints), presynaptic)


def settle(neuron: Neuron, traces: Traces | None) -> Traces | None:
    """The eligibility vectors at the end of the last window, with nothing pending."""
    if traces is None or traces.pending is None:
        return traces
    structure, pending = trace_structure(neuron), traces.pending
    synapses, constants = [], []
    for a, (constant, phi, gamma) in enumerate(pending.adjoints):
        for phi_b, old in zip(phi, traces.constants, strict=True):
            constant = jax.tree.map(lambda c, e, p=phi_b: c + p * e, constant, old)
        constants.append(constant)
        if structure.shared[a]:
            decay, gains = shared_recursion(neuron, a, traces.synapses[a].dtype)
            gains = gains[jnp.array(structure.currents[a], int)]
            synapses.append(_advance_shared(decay, gains, pending.presynaptic, traces.synapses[a]))
        elif gamma is None:  # no current reaches it
            synapses.append(traces.synapses[a])
        else:
            synapses.append(_advance_component(a, structure, phi, gamma, pending.presynaptic, traces.synapses))
    return Traces(tuple(synapses), tuple(constants))


def restart(carry: Carry, fresh: Carry, ended: Bool[Array, "batch"]) -> Carry:  # noqa: F821
    """`fresh` for the samples whose sequence has ended; their eligibility vectors start again from zero."""
    select = lambda new, old: jnp.where(ended[:, None], new, old)  # noqa: E731
    state, z = jax.tree.map(select, fresh.state, carry.state), select(fresh.z, carry.z)
    traces, line, waiting = carry.traces, carry.line, carry.waiting
    gone = lambda x: jnp.where(ended[None, :, None], jnp.zeros((), x.dtype), x)  # noqa: E731
    line = None if line is None else line._replace(past=gone(line.past))
    waiting = None if waiting is None else gone(waiting)
    if traces is None:
        return Carry(state, z, None, line, waiting)
    goes_on = lambda x: jnp.where(ended.reshape(-1, *(1,) * (x.ndim - 1)), jnp.zeros((), x.dtype), x)  # noqa: E731
    if traces.pending is None:
        return Carry(state, z, jax.tree.map(goes_on, traces), line, waiting)
    # Where something is pending, the vectors per synapse are not touched: they are multiplied with a `Phi` of zero.
    adjoints = tuple(
        (*jax.tree.map(goes_on, (constant, phi)), gamma) for constant, phi, gamma in traces.pending.adjoints
    )
    presynaptic = jnp.where(ended[None, :, None], 0.0, traces.pending.presynaptic).astype(z.dtype)
    vectors = tuple(goes_on(v) if v.ndim == 3 else v for v in traces.synapses)
    return Carry(state, z, Traces(vectors, traces.constants, Pending(adjoints, presynaptic)), line, waiting)


def dense_vectors(neuron: Neuron, traces: Traces, n: int) -> tuple[Float[Array, "batch pre current neuron"], ...]:
    """Eligibility vectors written out for every synapse and current: for looking at, and for tests."""
    settled, structure, dense = settle(neuron, traces), trace_structure(neuron), []
    assert settled is not None
    for vector, currents, shared in zip(settled.synapses, structure.currents, structure.shared, strict=True):
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
        traces: with nothing pending.
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

    def add(b: Array, total: Array) -> Array:
        return total + factor[b][None, None] * jax.lax.dynamic_index_in_dim(vector, b, 0, False)

    return jax.lax.fori_loop(0, vector.shape[0], add, jnp.zeros(vector.shape[1:], vector.dtype))


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
    gamma: Float[Array, "time batch reached neuron"],
    presynaptic: Float[Array, "time batch pre"],
    vectors: Sequence[Array],
) -> Float[Array, "batch pre reached neuron"]:
    """`sum_b Phi_ab eps_b + sum_t gamma_t x_t^T` of one component `a`.

    A shared vector takes part as one more step's presynaptic activity, with `Phi` for its `gamma`.
    """
    currents = structure.currents[a]
    steps, weights = [presynaptic], [gamma]
    terms, narrower = [(phi[a], vectors[a])], []  # vectors of all currents of `a`, and of fewer
    for b in structure.reads[a]:
        if structure.shared[b]:
            for place, q in enumerate(structure.currents[b]):
                steps.append(vectors[b][None, :, :, place])
                weights.append(jnp.zeros_like(gamma[:1]).at[:, :, currents.index(q)].set(phi[b]))
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

    def sample(b: Array, vectors: Array) -> Array:
        at = lambda y, axis=0: jax.lax.dynamic_index_in_dim(y, b, axis, False)  # noqa: E731
        new = (at(x, 1).T @ at(gamma, 1).reshape(-1, k * n)).reshape(n_pre, k, n)
        for phi, vector in [(terms[0][0], vectors), *terms[1:]]:
            new = new + at(phi)[None, None] * at(vector)
        return jax.lax.dynamic_update_index_in_dim(vectors, new, b, 0)

    return jax.lax.fori_loop(0, batch, sample, terms[0][1])


def settle_if(finite: Bool[Array, ""], neuron: Neuron, traces: Traces | None, before: Traces | None) -> Traces | None:
    """`settle`, where the window is `finite`; else the vectors stay those `before` it."""
    if traces is None or traces.pending is None or before is None:
        return traces
    one_or = lambda x, value: jnp.where(finite, x, jnp.asarray(value, x.dtype))  # noqa: E731
    adjoints = tuple(
        (
            jax.tree.map(lambda c: one_or(c, 0), constant),
            tuple(one_or(p, a == b) for b, p in enumerate(phi)),
            jax.tree.map(lambda g: one_or(g, 0), gamma),
        )
        for a, (constant, phi, gamma) in enumerate(traces.pending.adjoints)
    )
    pending = Pending(adjoints, one_or(traces.pending.presynaptic, 0))
    settled = settle(neuron, traces._replace(pending=pending))
    assert settled is not None
    small = lambda new, old: jnp.where(finite, new, old) if new.ndim == 3 else new  # noqa: E731
    return settled._replace(synapses=tuple(map(small, settled.synapses, before.synapses)))
