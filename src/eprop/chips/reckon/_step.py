"""Phases S (leak, threshold, decay) and P (events) of a tick, and the decision between them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt32

from eprop.chips.reckon import _lfsr
from eprop.chips.reckon._settings import ALPHA_ONE, KAPPA_ONE, ReckOn
from eprop.chips.reckon._state import Generators, Neurons, Weights, saturate16, wrap

OUTPUT_WORDS = 16
"""Words drawn a tick for outputs, however many there are."""


class StepConstants(NamedTuple):
    """Constants a neuron, and the columns of the random words of a tick."""

    alpha: Int32[Array, "n_rec"]  # noqa: F821
    thr: Int32[Array, "n_rec"]  # noqa: F821
    u_word: Int32[Array, "pairs"]  # noqa: F821
    u_columns: UInt32[Array, "advance 15"]
    u_jump: UInt32[Array, "15"]
    trace_columns: UInt32[Array, "pairs 15"]
    trace_jump: UInt32[Array, "15"]
    tout_columns: UInt32[Array, "pairs 15"]
    tout_jump: UInt32[Array, "15"]
    o_columns: UInt32[Array, "16 15"]
    o_jump: UInt32[Array, "15"]
    noise_columns: UInt32[Array, "n_rec 17"]
    noise_jump: UInt32[Array, "17"]


def step_constants(chip: ReckOn) -> StepConstants:
    """The constants of a configuration."""
    alpha = np.array(chip.per_pair("alpha"), np.int32)
    draws = alpha != ALPHA_ONE  # pairs whose membranes are rounded
    count, pairs = int(draws.sum()), chip.pairs
    leak, leak7 = (lambda n: (_lfsr.words("leak", n), _lfsr.jumps("leak", n)[-1])), "leak7"
    u_columns, u_jump = leak(max(count, 1))
    found = (
        np.repeat(alpha, 2), np.repeat(np.array(chip.per_pair("thr"), np.int32), 2),
        np.maximum(np.cumsum(draws) - draws, 0).clip(max=max(count - 1, 0)).astype(np.int32),
        u_columns, u_jump if count else _lfsr.jumps("leak", 1)[0], *leak(pairs),
        _lfsr.words(leak7, pairs), _lfsr.jumps(leak7, pairs)[-1],
        _lfsr.words(leak7, OUTPUT_WORDS), _lfsr.jumps(leak7, OUTPUT_WORDS)[-1],
        _lfsr.words("noise", pairs), _lfsr.jumps("noise", pairs)[-1],
    )  # fmt: skip
    return StepConstants(*found)  # pyright: ignore[reportArgumentType]


def leak(
    x: Int32[Array, "n"],  # noqa: F821
    factor: Int32[Array, "n"] | int,  # noqa: F821
    fraction: int,
    bits: int,
    signed: bool,
    word: UInt32[Array, "n"] | None,  # noqa: F821
) -> Int32[Array, "n"]:  # noqa: F821
    """`x factor 2^-fraction`, rounded: down, or up where the cut bits reach a random word and the rest is not 0.

    A body of 0 is never rounded up, and rounding up applies to negative numbers as well. Widths: 16 x 16 bits and
    sign fit in 32. `word` None: always down.
    """
    product = x * factor
    cut = (lambda y: wrap(y, bits)) if signed else (lambda y: y & (2**bits - 1))
    body = cut(product >> fraction)
    if word is None:
        return body
    up = ((product & (2**fraction - 1)) >= word.astype(jnp.int32)) & (body != 0)
    return cut(body + up.astype(jnp.int32))


def decay(
    chip: ReckOn, constants: StepConstants, neurons: Neurons, generators: Generators
) -> tuple[Neurons, Generators]:
    """Phase S: spikes of the membranes as they are, then leak, reset and the decay of traces and outputs."""
    u_words, tin_words, trec_words, tout_words, o_words = _words(chip, constants, generators)
    z = neurons.u >= constants.thr
    body = leak(neurons.u, constants.alpha, 15, 16, True, u_words)
    u = jnp.where(z, 0 if chip.reset_zero else wrap(body - constants.thr, 16), body)
    tin = leak(neurons.tin, constants.alpha[: chip.n_in], 15, 12, False, tin_words)
    trec = leak(neurons.trec, constants.alpha, 15, 12, False, trec_words)
    tout = leak(neurons.tout, chip.kappa, 7, 10, False, tout_words)
    o = leak(neurons.o, chip.kappa, 7, 16, True, o_words)
    if chip.stoch_round:
        step = lambda jump, pair: jax.vmap(lambda one: _lfsr.draw(jump, one))(pair)  # noqa: E731
        generators = generators._replace(
            neur=step(constants.u_jump, generators.neur),
            tinp=step(constants.trace_jump, generators.tinp),
            trec=step(constants.trace_jump, generators.trec),
            tout=step(constants.tout_jump, generators.tout),
            oneur=generators.oneur if chip.kappa == KAPPA_ONE else _lfsr.draw(constants.o_jump, generators.oneur),
        )
    return Neurons(u, tin, trec, tout, o, z), generators


def _words(chip: ReckOn, constants: StepConstants, generators: Generators) -> tuple[Array | None, ...]:
    """Random words of phase S, one a membrane, input trace, recurrent trace, output trace, output."""
    if not chip.stoch_round:
        return (None,) * 5
    pairs = lambda columns, two: jax.vmap(lambda one: _lfsr.draw(columns, one), out_axes=1)(two)  # noqa: E731
    u = pairs(constants.u_columns, generators.neur)[constants.u_word].reshape(-1)
    tin = pairs(constants.trace_columns, generators.tinp).reshape(-1)[: chip.n_in]
    trec = pairs(constants.trace_columns, generators.trec).reshape(-1)
    if chip.kappa == KAPPA_ONE:
        return u, tin, trec, None, None
    tout = pairs(constants.tout_columns, generators.tout).reshape(-1)
    return u, tin, trec, tout, _lfsr.draw(constants.o_columns, generators.oneur)[: chip.n_out]


def deliver(
    chip: ReckOn,
    constants: StepConstants,
    weights: Weights,
    neurons: Neurons,
    generators: Generators,
    x: Bool[Array, "n_in"],  # noqa: F821
) -> tuple[Neurons, Generators]:
    """Phase P: inputs `x` and spikes `neurons.z` reach membranes, outputs and traces, one event after the other.

    Sums saturate at each event, so that their order counts: an event is an index `i` with an input, a spike, or both.
    """
    x = jnp.zeros((chip.n_rec,), bool).at[: chip.n_in].set(x)
    w_in = weights.w_in << chip.fp_winp
    w_rec, w_out = weights.w_rec << chip.fp_wrec, weights.w_out << chip.fp_wout

    def event(carry):
        left, u, o, noise = carry
        i = jnp.argmax(left)
        v = jnp.where(x[i], w_in[jnp.minimum(i, chip.n_in - 1)], 0) + jnp.where(neurons.z[i], w_rec[i], 0)
        more = 0
        if chip.noise_en:
            more = wrap(_lfsr.draw(constants.noise_columns, noise).astype(jnp.int32), 16) >> chip.noise_str
            noise = _lfsr.draw(constants.noise_jump, noise)
        u = _add(u, v, more)
        o = saturate16(o + jnp.where(neurons.z[i], w_out[i], 0))
        return left.at[i].set(False), u, o, noise

    begin = (x | neurons.z, neurons.u, neurons.o, generators.noise)
    _, u, o, noise = jax.lax.while_loop(lambda carry: carry[0].any(), event, begin)
    neurons = _mark(chip, neurons._replace(u=u, o=o), x[: chip.n_in])
    return neurons, generators._replace(noise=noise)


def _add(u: Array, v: Array, noise: Array | int) -> Array:
    """`u + v + noise` in 16 bits: wraps, but saturates where `u` and `v` have one sign and the sum the other."""
    total = wrap(u + v + noise, 16)
    total = jnp.where((u >= 0) & (v >= 0) & (total < 0), 2**15 - 1, total)
    return jnp.where((u < 0) & (v < 0) & (total >= 0), -(2**15), total)


def _mark(chip: ReckOn, neurons: Neurons, x: Array) -> Neurons:
    """Each spike adds to its trace: 8, 8 and 2 above the fractional bits; saturating."""

    def marked(trace, spikes, bit, amount, top):
        on = chip.force_traces or chip.do_eprop >> bit & 1
        return jnp.minimum(trace + jnp.where(spikes, amount, 0), top) if on else trace

    return neurons._replace(
        tin=marked(neurons.tin, x, 0, 8 << chip.fp_tinp, 4095),
        trec=marked(neurons.trec, neurons.z, 1, 8 << chip.fp_trec, 4095),
        tout=marked(neurons.tout, neurons.z, 2, 2 << chip.fp_tout, 1023),
    )
