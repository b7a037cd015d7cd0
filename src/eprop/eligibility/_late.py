"""Carried traces for small windows: what never leaves zero is not kept, and one pass advances the rest.

In a window of a few steps reading and writing `eps` (`[batch, presynaptic, current, neuron]`) is what costs:

    eps_K = Phi eps_0 + sum_t gamma_t x_t^T              one fused sum, each array read and written once
    dW   += sum_b lambda_0 . eps_0                       a loop that accumulates over samples

Which eligibility vectors can differ from zero at all is read off the derivative of `step` (`trace_structure`):
a gate that acts on the output alone (the LSTM's `o`) leaves no trace in the state, and none is kept.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from eprop.eligibility._structure import TraceStructure, trace_structure
from eprop.eligibility._trajectory import (
    Carry,
    LateTraces,
    Synapses,
    Traces,
    split_constants,
    spread,
)
from eprop.neurons import Neuron, traced
from eprop.neurons._base import State

FUSED_STEPS = 8
"""Up to so many steps the new outer products are summed as they stand; above, a matrix product a sample is faster."""


def with_late_traces(neuron: Neuron, synapses: Synapses, carry: Carry, window: int) -> Carry:
    """The carry with zero eligibility vectors, so that `unroll_with_boundary` carries them over windows.

    Args:
        window: steps a window, so that a first carry has the shapes of all others.
    """
    n_pre = synapses.w_in.shape[0] + synapses.w_rec.shape[0] + 1
    components = jax.tree.leaves(traced(carry.state))
    constants, _ = split_constants(neuron)
    nothing = jax.tree.map(jnp.zeros_like, spread(constants, components[0]))
    vectors, adjoints = [], []
    for c, kept in zip(components, trace_structure(neuron).currents, strict=True):
        batch, n = c.shape
        vectors.append(jnp.zeros((batch, n_pre, len(kept), n), c.dtype))
        phi = tuple(map(jnp.zeros_like, components))
        adjoints.append((nothing, phi, jnp.zeros((window, batch, len(kept), n), c.dtype)))
    presynaptic = jnp.zeros((window, components[0].shape[0], n_pre), components[0].dtype)
    return carry._replace(
        traces=LateTraces(Traces(tuple(vectors), (nothing,) * len(components)), tuple(adjoints), presynaptic)
    )


def reset_carry(carry: Carry, fresh: Carry, ended: Bool[Array, "batch"]) -> Carry:  # noqa: F821
    """`fresh` for the samples whose sequence has ended; their eligibility vectors start again from zero."""
    select = lambda new, old: jnp.where(ended[:, None], new, old)  # noqa: E731
    state, z = jax.tree.map(select, fresh.state, carry.state), select(fresh.z, carry.z)
    if not isinstance(carry.traces, LateTraces):
        return Carry(state, z)
    goes_on = ~ended[:, None]
    adjoints = tuple(
        (
            *jax.tree.map(lambda c: jnp.where(goes_on, c, 0.0), (constant, phi)),
            jnp.where(goes_on[None, :, None], gamma, 0.0),
        )
        for constant, phi, gamma in carry.traces.adjoints
    )
    return Carry(state, z, carry.traces._replace(adjoints=adjoints))


def settle_traces(structure: TraceStructure, late: LateTraces) -> Traces:
    """The eligibility vectors at the end of the last window: `Phi eps_0 + sum_t gamma_t x_t^T`."""
    synapses, constants = [], []
    for a, (constant, phi, gamma) in enumerate(late.adjoints):
        vector = _outer_products(late.presynaptic, gamma)
        for b in _sources(structure, a):
            old = _place(late.vectors.synapses[b], structure.currents[b], structure.currents[a])
            vector = vector + phi[b][:, None, None, :] * old
            constant = jax.tree.map(lambda c, e, p=phi[b]: c + p * e, constant, late.vectors.constants[b])
        synapses.append(vector)
        constants.append(constant)
    return Traces(tuple(synapses), tuple(constants))


def _sources(structure: TraceStructure, a: int) -> tuple[int, ...]:
    """The components that a component's vector is made of: itself, and those it depends on."""
    return tuple(sorted({a, *structure.reads[a]}))


def _outer_products(x: Float[Array, "time batch pre"], gamma: Float[Array, "time batch current neuron"]) -> Array:
    """`sum_t gamma_t x_t^T` of each sample."""
    if x.shape[0] > FUSED_STEPS:
        return jnp.einsum("tbi,tbkn->bikn", x, gamma)
    return sum(x[t][:, :, None, None] * gamma[t][:, None] for t in range(x.shape[0]))  # pyright: ignore[reportReturnType]


def _place(vector: Float[Array, "batch pre kept neuron"], kept: tuple[int, ...], wanted: tuple[int, ...]) -> Array:
    """Eligibility vectors of the currents `kept` in their places among `wanted`, zero elsewhere."""
    if kept == wanted:
        return vector
    nothing = jnp.zeros_like(vector[:, :, 0])
    return jnp.stack([vector[:, :, kept.index(q)] if q in kept else nothing for q in wanted], axis=2)


def contract_traces(
    structure: TraceStructure,
    adjoint: State,
    gradient: Float[Array, "pre current neuron"],
    constants: PyTree,
    traces: Traces,
) -> tuple[Float[Array, "pre current neuron"], PyTree]:
    """`gradient + sum_b lambda_0 . eps_0`, for synapses and constants (`[batch, neuron]`, not yet summed)."""
    for a, lambda_a in enumerate(jax.tree.leaves(adjoint)):
        vector = traces.synapses[a]
        add = lambda b, total, p=lambda_a, e=vector: total + p[b] * e[b]  # noqa: E731
        total = jax.lax.fori_loop(0, vector.shape[0], add, jnp.zeros_like(vector[0]))
        gradient = gradient.at[:, jnp.array(structure.currents[a], int)].add(total)
        constants = jax.tree.map(lambda c, e, p=lambda_a: c + p * e, constants, traces.constants[a])
    return gradient, constants
