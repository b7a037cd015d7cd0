"""The adjoint of a run, backwards in time. It belongs to a neuron, not to a synapse.

Recurrence cut (the neurons alone):

    (lambda_{t-1}, g_t) = vjp(step)(lambda_t, L_t)

Recurrence kept: the recurrent weights and the reset hand the adjoint of `z_{t-1}` on as well,

    (lambda_{t-1}, g_t, r_t) = vjp(step)(lambda_t, L_t + a_t),     a_{t-1} = g_t W_rec^T + r_t

With delays the first term goes to `a_{t-1-d}` of each column.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eprop.eligibility._delays import DelayLine, sent_back
from eprop.eligibility._pullbacks import WRITTEN_OUT, Pullbacks
from eprop.eligibility._types import zeros_of
from eprop.neurons import Outputs, PyTree, State


class Later(NamedTuple):
    """The adjoint at the end of a stretch of steps.

    own: of the traced state, as far as the weights' gradient counts it here.
    seeded: of the traced state, what the seed behind the run's end started: it counts for learning signals alone,
        since the carried traces will count it for the weights; None where there is no such part.
    z: of the last output through recurrent weights and reset, `[batch, neuron]`; None where recurrence is cut.
    past: of the outputs before it, the newest first, where connections have delays.
    """

    own: State
    seeded: State | None = None
    z: Float[Array, "batch neuron"] | None = None
    past: Float[Array, "longest batch neuron"] | None = None


class Adjoint(NamedTuple):
    """The result of running backwards: over the spread constants (summed over time), before the stretch, over currents.

    g: over each current at each step, as the weights' gradient counts it.
    full: the same with the seeded part.
    """

    constants: PyTree
    before: Later
    g: tuple[Float[Array, "time batch neuron"], ...]
    full: tuple[Float[Array, "time batch neuron"], ...]


def adjoint(
    pullbacks: Pullbacks,
    signals: Outputs,
    later: Later,
    quiet: Float[Array, "batch neuron"],
    w_rec: Float[Array, "column current neuron"] | None = None,
    part: tuple[Int[Array, ""], int] | None = None,
    line: DelayLine | None = None,
) -> Adjoint:
    """Run backwards over a stretch of steps.

    Args:
        signals: cotangents of the outputs at each step of the stretch; None for an output that gets none.
        later: the adjoint after the stretch; it says whether recurrence is kept (`z`).
        quiet: zeros.
        w_rec: recurrent weights, where recurrence is kept and there are any; a row a neuron, or a column of the line.
        part: first step and number of steps of the stretch, where it is a part of the run: the pullbacks are read
            where they lie. (Not to be differentiated again: then every step would add to an array as long as the run.)
        line: says the delays of the recurrent connections, where there are any.
    """
    back = None if w_rec is None else w_rec.reshape(w_rec.shape[0], -1).T  # [current * neuron, neuron]
    steps, at = (pullbacks.stored, signals), lambda stored: stored
    length = pullbacks.length if part is None else part[1]
    if part is not None:
        steps, at = (part[0] + jnp.arange(length), signals), pullbacks.place

    def one(carry: tuple[PyTree, Later], step: tuple) -> tuple[tuple[PyTree, Later], tuple]:
        constants, later = carry
        stored, here = step
        constant, before, g, full = _one_step(pullbacks.at(at(stored)), here, later, quiet, back, line)
        return (jax.tree.map(jnp.add, constants, constant), before), (g, full if later.seeded is not None else None)

    first = jax.tree.map(lambda x: x[0], (pullbacks.stored, signals))
    nothing = zeros_of(lambda stored, s: _one_step(pullbacks.at(stored), s, later, quiet, back, line)[0], *first)
    unroll = max(length, 1) if length <= WRITTEN_OUT else 1
    (constants, before), (g, full) = jax.lax.scan(one, (nothing, later), steps, length, reverse=True, unroll=unroll)
    return Adjoint(constants, before, g, g if full is None else full)


def _one_step(
    pullback, signals: Outputs, later: Later, quiet: Array, back: Array | None, line: DelayLine | None
) -> tuple:
    """One step backwards: over constants, the adjoint before it, over its currents, and those with the seeded part."""
    leaves, structure = jax.tree.flatten(signals, is_leaf=lambda s: s is None)
    leaves = [quiet if s is None else s for s in leaves]
    if later.z is None:
        constant, own, g = pullback((structure.unflatten(leaves), later.own))[:3]
        return constant, Later(own), g, g
    arriving = [leaves[0] + later.z, *leaves[1:]]
    constant, own, g, into_z = pullback((structure.unflatten(arriving), later.own))
    full, seeded = g, None
    if later.seeded is not None:
        silent = structure.unflatten([quiet for _ in leaves])
        _, seeded, of_seed, reset = pullback((silent, later.seeded))
        full, into_z = jax.tree.map(jnp.add, g, of_seed), into_z + reset
    past = later.past
    if back is not None:
        into_seen = jnp.concatenate(full, axis=-1) @ back
        if line is None or past is None:
            into_z = into_z + into_seen
        else:
            sent = sent_back(line, into_seen)
            into_z = into_z + sent[0] + past[0]
            past = sent[1:] + jnp.concatenate([past[1:], jnp.zeros_like(past[:1])])
    return constant, Later(own, seeded, into_z, past), g, full
