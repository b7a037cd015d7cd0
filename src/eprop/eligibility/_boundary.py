"""The unroll of e-prop 3: a window's learning signals reach beyond its end, its traces before its start."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from eprop.eligibility._late import FUSED_STEPS, contract_traces, settle_traces
from eprop.eligibility._structure import TraceStructure, trace_structure
from eprop.eligibility._trajectory import (
    Carry,
    LateTraces,
    Synapses,
    contract_presynaptic,
    gather,
    input_drive,
    presynaptic_activity,
    require_traces_of,
    split_constants,
    split_presynaptic,
    spread,
    unstack_currents,
)
from eprop.neurons import Neuron, recurrent_output
from eprop.neurons._base import Outputs


def unroll_with_boundary(
    neuron: Neuron, synapses: Synapses, inputs: Float[Array, "time batch n_in"], carry: Carry
) -> tuple[Outputs, Carry]:
    """Run a layer over one window; its gradient is e-prop 3's, `sum_t L_j^t e_ji^t` (Bellec et al. 2019).

        L_t           = dE/do_t, plus lambda_t's part for z
        lambda_{t-1}  = vjp(step and recurrent weights)(lambda_t, L_t),   lambda_K = dE/d(s_K, z_K), the seed
        mu_{t-1}, g_t = vjp(step alone)(mu_t, L_t),                       mu_K = 0
        dW            = sum_t g_t x_t^T + mu_0 . eps_0

    Backward it takes `dE/d(outputs)` and the gradient with respect to the state and `z` of the returned
    carry: the synthetic gradient. `lambda` is the full backward pass inside the window, recurrent
    weights and reset kept; at the window's start it is the gradient with respect to `carry.state` and
    `carry.z`: the target of the synthetic gradient of the window before. `mu` starts from zero: what a
    state does after the window is counted later, by the carried traces, and would be counted twice here.

    Args:
        neuron, synapses, inputs: as in `unroll`.
        carry: from `start`, or from the window before; with traces from `with_late_traces` (else what
            lies before the window does not count, and nothing is carried on).

    Returns:
        The outputs of all steps, `[time, batch, neuron]`, and the carry after the last.

    Approximation: none inside the window. Across its end the gradient is as good as the seed (with the
    true one the windows' sum is BPTT's gradient); across its start nothing but the neurons' own state
    counts, in the traces. Into `inputs` it returns the window's full adjoint, the seed's part included.
    """
    constants, rest = split_constants(neuron)
    floating, integer = eqx.partition(carry.state, eqx.is_inexact_array)
    require_traces_of(constants, carry.traces)
    structure = None if carry.traces is None else trace_structure(neuron)
    window = _window(rest, integer, structure)
    outputs, state, z, others, traces = window(constants, synapses, inputs, floating, carry.z, carry.traces)
    return outputs, Carry(eqx.combine(state, others), z, jax.lax.stop_gradient(traces))


def _window(rest: Neuron, integer: PyTree, structure: TraceStructure | None):
    """`unroll_with_boundary` as a function of arrays, closed over what has no gradient."""

    @jax.custom_vjp
    def window(constants, synapses, inputs, floating, z, traces):
        return forward(constants, synapses, inputs, floating, z, traces)[0]

    def forward(constants, synapses, inputs, floating, z, traces):
        constants_here = spread(constants, z)

        # Every step leaves its pullback behind: what it needs is stored, not computed again.
        def step(carry, drive):
            floating, integer, z_prev = carry

            def neurons(constants, floating, currents, z_prev):
                model, state = eqx.combine(constants, rest), eqx.combine(floating, integer)
                state, outputs = model.step(state, unstack_currents(currents), z_prev)
                floating, others = eqx.partition(state, eqx.is_inexact_array)
                return (floating, outputs), others

            currents = drive + contract_presynaptic(z_prev, synapses.w_rec)
            (floating, outputs), pullback, integer = jax.vjp(
                neurons, constants_here, floating, currents, z_prev, has_aux=True
            )
            return (floating, integer, recurrent_output(outputs)), (outputs, pullback)

        start = (floating, integer, z)
        (state, others, last), (outputs, pullbacks) = _scan(step, start, input_drive(synapses, inputs))
        presynaptic, _ = presynaptic_activity(inputs, z, recurrent_output(outputs))
        vectors, late = None, None
        if structure is not None:
            vectors = settle_traces(structure, traces)
            late = LateTraces(vectors, _unit_adjoints(structure, pullbacks, outputs, state), presynaptic)
        return (outputs, state, last, others, late), (constants, synapses, presynaptic, vectors, pullbacks)

    def backward(residuals, cotangents):
        constants, synapses, presynaptic, vectors, pullbacks = residuals
        errors, state_seed, z_seed, _, _ = cotangents
        constant, mu, g, full, lambda_0 = _window_adjoint(synapses.w_rec, pullbacks, errors, state_seed, z_seed)
        gradient = jnp.einsum("tbi,tbkn->ikn", presynaptic, g)
        if structure is not None:
            gradient, constant = contract_traces(structure, mu, gradient, constant, vectors)
        w_in, w_rec, bias = split_presynaptic(gradient, synapses.w_in.shape[0])
        into_inputs = jnp.einsum("tbkn,ikn->tbi", full, synapses.w_in)
        into_synapses = Synapses(w_in, w_rec, None if synapses.bias is None else bias)
        return gather(constants, constant), into_synapses, into_inputs, *lambda_0, None

    window.defvjp(forward, backward)
    return window


def _window_adjoint(w_rec, pullbacks, errors, state_seed, z_seed):
    """Backwards through a window: the total learning signals on the way, and what they are contracted with.

    The adjoint of the whole network is that of the neurons alone (`mu`, which the weights' gradient is made of)
    plus the one that the seed of the state starts (`nu`): both are linear, and the recurrent weights join them.

    Returns:
        Over constants `[batch, neuron]`, `mu_0`, `g` and the full adjoint of the currents (both
        `[time, batch, current, neuron]`), and the gradients with respect to the first state and `z`.
    """
    leaves, structure = jax.tree.flatten(errors)
    silent = structure.unflatten([jnp.zeros_like(leaf[0]) for leaf in leaves])

    def step(carry, inputs):
        mu, nu, into_z = carry
        error, pullback = inputs
        of_z, *others = jax.tree.leaves(error)
        signal = structure.unflatten([of_z + into_z, *others])
        constant, mu, g, reset = pullback((mu, signal))
        _, nu, seeded, seeded_reset = pullback((nu, silent))
        full = g + seeded
        into_z = jnp.einsum("bkn,jkn->bj", full, w_rec) + reset + seeded_reset
        return (mu, nu, into_z), (constant, g, full)

    start = (jax.tree.map(jnp.zeros_like, state_seed), state_seed, z_seed)
    (mu, nu, into_z), (constants, g, full) = _scan(step, start, (errors, pullbacks), reverse=True)
    constant = jax.tree.map(lambda c: c.sum(0), constants)
    return constant, mu, g, full, (jax.tree.map(jnp.add, mu, nu), into_z)


def _unit_adjoints(kept: TraceStructure, pullbacks, outputs: Outputs, state: PyTree) -> tuple:
    """The neurons' own adjoint from each unit vector of the last state, without learning signals (see `LateTraces`)."""
    silent = jax.tree.map(lambda o: jnp.zeros_like(o[0]), outputs)
    components, structure = jax.tree.flatten(state)

    def step(adjoint, pullback):
        constant, adjoint, gamma, _ = pullback((adjoint, silent))
        return adjoint, (constant, gamma)

    def from_unit(a: int):
        unit = structure.unflatten([jnp.full_like(c, float(i == a)) for i, c in enumerate(components)])
        first, (constants, gamma) = _scan(step, unit, pullbacks, reverse=True)
        total = jax.tree.map(lambda c: c.sum(0), constants)
        return total, tuple(jax.tree.leaves(first)), gamma[:, :, jnp.array(kept.currents[a], int)]

    return tuple(from_unit(a) for a in range(len(components)))


def _scan(step, start, steps, reverse: bool = False):
    """`lax.scan`; a small window is written out, so that its steps are compiled as one."""
    time = jax.tree.leaves(steps)[0].shape[0]
    return jax.lax.scan(step, start, steps, reverse=reverse, unroll=time if time <= FUSED_STEPS else 1)
