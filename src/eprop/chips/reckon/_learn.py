"""Phase E: error, learning signal, pseudo-derivative, and updates of weights by one unit with a probability."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt32

from eprop.chips.reckon import _lfsr
from eprop.chips.reckon._settings import ReckOn
from eprop.chips.reckon._state import Generators, Neurons, Weights, saturate16

BLOCK = 16
"""Synapses that one presynaptic neuron updates at once, each with a random word of its own."""

TOP = 2048
"""1.0 of outputs and targets."""


class LearnConstants(NamedTuple):
    """Columns of the random words of a tick, for as many advances as a tick can need; and of the registers after."""

    in_columns: UInt32[Array, "word 25"]
    in_jumps: UInt32[Array, "advance 25"]
    rec_columns: UInt32[Array, "word 25"]
    rec_jumps: UInt32[Array, "advance 25"]
    out_columns: UInt32[Array, "word 22"]
    out_jumps: UInt32[Array, "advance 22"]


class Signals(NamedTuple):
    """Phase E, for each neuron: error (16 bits), learning signal (16), pseudo-derivative (5), regularisation."""

    err: Int32[Array, "n_out"]  # noqa: F821
    L: Int32[Array, "n_rec"]  # noqa: F821
    h: Int32[Array, "n_rec"]  # noqa: F821
    reg: Int32[Array, "n_rec"]  # noqa: F821


def learn_constants(chip: ReckOn) -> LearnConstants:
    """The constants of a configuration."""
    blocks = -(-chip.n_rec // BLOCK)
    most = {"weights": (blocks * chip.n_in, blocks * chip.n_rec), "readout": (chip.n_rec,)}
    kinds = [("weights", most["weights"][0]), ("weights", most["weights"][1]), ("readout", most["readout"][0])]
    return LearnConstants(*(f(use, n) for use, n in kinds for f in (_lfsr.words, _lfsr.jumps)))  # pyright: ignore


def signals(chip: ReckOn, weights: Weights, neurons: Neurons, target: Int32[Array, "n_out"]) -> Signals:  # noqa: F821
    """Error, learning signal, pseudo-derivative and regularisation, from the state after phase S.

    err_k = y*_k - y_k,   L_j = sat16(sum_k err_k w_out[j,k] 2^ls_scale >> 12),   y = (o + 1) / 2 clipped to 0 and 1
    """
    o = neurons.o
    y = o if chip.no_out_act else jnp.where(o < -TOP, 0, jnp.where(o > TOP - 1, TOP, (o + TOP) >> 1))
    err = saturate16(target - y)
    total = (weights.w_out * err[None]).sum(1, dtype=jnp.int32)  # 28 bits
    shift = chip.ls_scale - 12
    L = saturate16(total << shift if shift >= 0 else total >> -shift)
    h = jnp.full_like(neurons.u, chip.h[4])
    for threshold, step in zip(chip.thr_h[::-1], chip.h[3::-1], strict=True):
        h = jnp.where(neurons.u < threshold, step, h)
    reg = jnp.maximum((neurons.trec >> chip.fp_trec) - chip.regul_f0, 0) if chip.regul_mode else 0 * neurons.trec
    return Signals(err, L, h, reg)


def update(
    chip: ReckOn, constants: LearnConstants, weights: Weights, neurons: Neurons, generators: Generators, found: Signals
) -> tuple[Weights, Generators]:
    """All updates of a tick. Each weight moves by -1, 0 or 1 and stays within 8 bits."""
    w_in, w_rec, w_out = weights
    if chip.do_eprop & 1:
        drawn = _Drawn(constants.in_columns, constants.in_jumps, generators.inp)
        gains = _Gains(chip.regul_w & 1, (chip.k_inp_p, chip.k_inp_r), (chip.lr_p_winp, chip.lr_r_winp))
        step, inp = _synapse_step(chip, neurons.tin >> chip.fp_tinp, found, drawn, gains)
        w_in, generators = _moved(w_in, step), generators._replace(inp=inp)
    if chip.do_eprop & 2:
        drawn = _Drawn(constants.rec_columns, constants.rec_jumps, generators.rec)
        gains = _Gains(chip.regul_w & 2, (chip.k_rec_p, chip.k_rec_r), (chip.lr_p_wrec, chip.lr_r_wrec))
        step, rec = _synapse_step(chip, neurons.trec >> chip.fp_trec, found, drawn, gains)
        diagonal = jnp.eye(chip.n_rec, dtype=bool) & (step != 0)  # a draw that succeeds there writes 0
        w_rec, generators = jnp.where(diagonal, 0, _moved(w_rec, step)), generators._replace(rec=rec)
    if chip.do_eprop & 4:
        to = neurons.tout >> chip.fp_tout
        words, out = _readout_words(to != 0, chip.n_out, constants, generators.out)
        step = _step(to[:, None] * found.err[None], words, 28, chip.lr_p_wout, chip.lr_r_wout)
        w_out = _moved(w_out, step)
        generators = generators._replace(out=out)
    return Weights(w_in, w_rec, w_out), generators


def touches(chip: ReckOn, neurons: Neurons, reg: Array) -> list[Array]:
    """Synapses read and written in a tick: input, recurrent, output; the others are skipped or do not learn."""
    j = np.arange(chip.n_rec, dtype=np.int32) // BLOCK
    calm = (reg[None] == 0) | (j[None] != j[:, None])  # [post, post]: those of the same block without regularisation
    regulated = (~calm.all(1)).sum(dtype=jnp.int32)
    counts = []
    for bit, f in ((1, neurons.tin >> chip.fp_tinp), (2, neurons.trec >> chip.fp_trec)):
        used = jnp.where(f != 0, chip.n_rec, regulated).sum(dtype=jnp.int32)
        counts.append(used if chip.do_eprop & bit else jnp.zeros_like(used))
    out = ((neurons.tout >> chip.fp_tout) != 0).sum(dtype=jnp.int32) * chip.n_out
    return [*counts, out if chip.do_eprop & 4 else jnp.zeros_like(out)]


class _Drawn(NamedTuple):
    """Where a connection's random words come from."""

    columns: Array
    jumps: Array
    register: Array


class _Gains(NamedTuple):
    """A connection's shifts, left and right: of additive regularisation, if it has one, and of the learning rate."""

    regularised: int
    regularisation: tuple[int, int]
    rate: tuple[int, int]


def _synapse_step(
    chip: ReckOn, f: Array, found: Signals, drawn: _Drawn, gains: _Gains
) -> tuple[Int32[Array, "pre n_rec"], UInt32[Array, ""]]:
    """The steps of all input or recurrent weights, and the register after; `f`: presynaptic factor."""
    p = _probability(chip, f, found, gains.regularised, *gains.regularisation)
    words, register = _synapse_words(f, found.reg, *drawn)
    return _step(p, words, 32, *gains.rate), register


def _moved(w: Array, step: Array) -> Array:
    return jnp.clip(w + step, -128, 127)


def _probability(
    chip: ReckOn, f: Array, found: Signals, regularised: int, left: int, right: int
) -> Int32[Array, "pre n_rec"]:
    """The number that decides an update's sign and probability: `P = (K >> 4) - A`, 32 bits, wrapping; `[pre, post]`.

    `K = 16 L f h`, less where multiplicative regularisation is on and it is positive, has 37 bits: of it only bits
    4 to 35 and bit 31 are needed, and both come out of 32. The chip's test for underflow looks at bit 31 of `K`
    (35 would be right): it is kept.
    """
    E = found.L[None] * f[:, None] * found.h[None]  # wraps at 32 bits
    K_shifted, K_low = E, E << 4  # K >> 4; the low 32 bits of K
    if chip.regul_mode & 1 and chip.regul_w:
        m = found.reg >> chip.k_mul
        s = jnp.where(m < 16, 16 - m, 0)[None]
        scaled = (E >> 4) * s + ((E & 15) * s >> 4)
        K_shifted, K_low = jnp.where(E >= 0, scaled, E), jnp.where(E >= 0, E * s, E << 4)
    P = K_shifted
    if chip.regul_mode & 2 and regularised:
        A = (found.reg.astype(jnp.uint32) << left) >> right
        P = K_shifted - A.astype(jnp.int32)[None]
    return jnp.where((P >= 0) & (K_low < 0), -(2**31), P)


def _step(P: Array, word: UInt32[Array, "pre post"], width: int, left: int, right: int) -> Int32[Array, "pre post"]:
    """-1, 0 or 1: the sign of `P`, with probability about `|P| 2^(left - right - width)`.

    M = min(|P| << left, 2^width - 1) >> right;      a draw succeeds if P = -2^(width-1) or M >= word
    """
    size = jnp.where(P < 0, -P, P).astype(jnp.uint32)  # of -2^31: 2^31
    top = jnp.uint32(2**width - 1)
    over = size > (top >> left)
    M = jnp.where(over, top, size << left) >> right
    succeeds = (P != 0) & ((P == -(2 ** (width - 1))) | (M >= word))
    return jnp.where(succeeds, jnp.sign(P), 0)


def _synapse_words(
    f: Array, reg: Array, columns: Array, jumps: Array, register: Array
) -> tuple[UInt32[Array, "pre n_rec"], UInt32[Array, ""]]:
    """A word for each synapse `[pre, post]`, and the register after.

    Blocks of 16 postsynaptic neurons one after the other, in each the presynaptic ones in order. One whose trace is 0
    is skipped, and draws nothing, in a block without regularisation.
    """
    n = reg.shape[0]
    blocks = -(-n // BLOCK)
    calm = (jnp.zeros((blocks * BLOCK,), jnp.int32).at[:n].set(reg).reshape(blocks, BLOCK) == 0).all(1)
    drawn = ~((f == 0)[None] & calm[:, None])  # [block, pre]
    after = jnp.cumsum(drawn.reshape(-1), dtype=jnp.int32)
    before = (after - drawn.reshape(-1)).reshape(blocks, -1)
    j = np.arange(n, dtype=np.int32)
    place = jnp.clip(before[j // BLOCK].T * BLOCK + j % BLOCK, 0, columns.shape[0] - 1)
    return _lfsr.draw(columns, register)[place], _lfsr.draw(jumps[after[-1]], register)


def _readout_words(
    drawn: Bool[Array, "n_rec"],  # noqa: F821
    n_out: int,
    constants: LearnConstants,
    register: Array,
) -> tuple[UInt32[Array, "n_rec n_out"], UInt32[Array, ""]]:
    """A word for each output weight, and the register after. A neuron whose output trace is 0 draws nothing."""
    after = jnp.cumsum(drawn, dtype=jnp.int32)
    words = _lfsr.draw(constants.out_columns, register).reshape(-1, BLOCK)
    return words[jnp.maximum(after - 1, 0), :n_out], _lfsr.draw(constants.out_jumps[after[-1]], register)
