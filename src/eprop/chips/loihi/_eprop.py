"""e-prop as learning rules of the chip, for LIF and ALIF neurons.

The chip multiplies 7-bit traces, loses low bits of products, and takes a presynaptic spike into its trace a step
before it acts on the membrane. The rules here undo the last (a second product, at the spike), and say what one unit
of each number stands for.
"""

import math
from typing import Literal, NamedTuple

from eprop.chips._checks import require_range
from eprop.chips.loihi._settings import LearningRule
from eprop.errors import require, require_choice, require_positive

Sign = Literal["offset", "two-traces", "signed"]
ZERO = 64
"""The value that stands for 0 where a trace has no sign."""


class EPropRule(NamedTuple):
    """A rule and its units.

    weight: weight units that one unit of y3 (from its zero) adds a step and a presynaptic spike that has not decayed.
    psi, tag: pseudo-derivative (of an ALIF rule) that one unit of y2 stands for, and eligibility vector that one unit
    of the tag does; 0 where there is none.
    errors: relative errors of the rule's constants, which have 3 bits, for each that is not exact.
    """

    rule: LearningRule
    weight: float
    psi: float
    tag: float
    errors: dict[str, float]


def eprop_lif(dv: int, *, impulse: int = 16, exponent: int = -4, sign: Sign = "offset", rng_seed: int = 0) -> EPropRule:
    """e-prop for a LIF neuron: `dw_ij = c y3_j (x1_i - impulse x0_i)`, y3 = -L psi.

        e_ji^t = psi_j^t xbar_i^{t-1},    xbar_i^t = alpha xbar_i^{t-1} + x_i^t,    alpha = (4096 - dv) / 4096

    The neuron sends y3 each step: what its weights should gain, so *minus* learning signal times pseudo-derivative.
    Of x1, this step's impulse is taken away again, since it acts a step later; what is left is alpha times xbar^{t-1}.

    Args:
        dv: decay of the neuron's voltage; `du` must be 4095, so that the current has no memory.
        impulse: what a spike adds to x1, 1 to 127; x1 stops at 127.
        exponent: of the product, -7 to 8: `c = 2^exponent / 8`.
        sign: how a number with a sign is sent. offset: `64 + y`, 7 bits. two-traces: its positive part in y3, its
            negative part in y2. signed: as it is, which the open models' ports allow.
        rng_seed: of the traces' generators.

    Example:
        >>> from eprop.chips.loihi import eprop_lif
        >>> eprop_lif(dv=128).rule.dw
        '2^-4*u0*x1*(y3-64) - 2^-3*x0*(y3-64)'
    """
    _check(dv, impulse, sign)
    require(-7 <= exponent <= 8, f"exponent = {exponent}: must be from -7 to 8")
    errors: dict[str, float] = {}
    at_spike = _number("impulse", impulse * 2.0**exponent / 8, errors)
    y = f"(y3-{ZERO})" if sign == "offset" else "y3"
    dw = f"2^{exponent}*u0*x1*{y} - {at_spike}*x0*{y}"
    if sign == "two-traces":
        dw += f" - 2^{exponent}*u0*x1*y2 + {at_spike}*x0*y2"
    rule = LearningRule(dw=dw, factors=3, x1_impulse=float(impulse), x1_tau=trace_tau(dv), rng_seed=rng_seed)
    return EPropRule(rule, impulse * 2.0**exponent / 8, 0.0, 0.0, errors)


def eprop_alif(
    dv: int,
    tau_a: float,
    beta: float,
    psi: float,
    *,
    impulse: int = 16,
    exponent: int = -4,
    tag_exponent: int = -4,
    sign: Literal["offset", "signed"] = "offset",
    rng_seed: int = 0,
) -> EPropRule:
    """e-prop for an ALIF neuron, its slow eligibility vector in the synapse's tag.

        e_ji^t = psi_j^t (xbar_i^{t-1} - beta eps_ji^t)
        eps_ji^{t+1} = psi_j^t xbar_i^{t-1} + (rho - psi_j^t beta) eps_ji^t

    y2 = psi and y3 = -L psi are sent each step. The tag is an integer of 8 bits and sign: steps below 1 live by
    stochastic rounding alone, and all synapses share that one random number.

    Args:
        dv, impulse, exponent, rng_seed: as in `eprop_lif`.
        tau_a: time constant of the adaptation, steps, at most about 128: `1 / tau_a`, a step's loss, is at least 2^-7.
        beta: threshold increase a spike, above 0, in the units of 1 / psi.
        psi: pseudo-derivative that one unit of y2 stands for: y2 = psi_j / psi, 0 to 127.
        tag_exponent: of the tag's first product: one unit of the tag is `8 psi / (impulse 2^tag_exponent)`.
        sign: as in `eprop_lif`; two-traces would need a fourth trace.

    Raises:
        InvalidSetting: for constants that the rule's numbers (3 bits, 2^-7 to 2^8) cannot say.

    Example:
        >>> from eprop.chips.loihi import eprop_alif
        >>> print(eprop_alif(dv=128, tau_a=128, beta=0.25, psi=1 / 64).rule.dt)
        2^-4*u0*x1*y2 - 2^-7*u0*t - 2^-3*u0*y2*t - 2^-3*x0*y2
    """
    _check(dv, impulse, sign)
    require(sign != "two-traces", "sign = 'two-traces': the ALIF rule needs y1, y2 and y3 otherwise; use 'offset'")
    require_positive(tau_a=tau_a, beta=beta, psi=psi)
    for name, value in (("exponent", exponent), ("tag_exponent", tag_exponent)):
        require(-7 <= value <= 8, f"{name} = {value}: must be from -7 to 8")
    errors: dict[str, float] = {}
    tag = 8 * psi / (impulse * 2.0**tag_exponent)
    forget = _number("tau_a", 1 / tau_a, errors)
    t_spike = _number("impulse (dt)", impulse * 2.0**tag_exponent / 8, errors)
    w_spike = _number("impulse (dw)", impulse * 2.0**exponent / 8, errors)
    by_tag = _number("beta (dt)", 32 * beta * psi, errors)
    by_signal = _number("beta (dw)", 4 * beta * impulse * 2.0**exponent * tag, errors)
    y = f"(y3-{ZERO})" if sign == "offset" else "y3"
    dt = f"2^{tag_exponent}*u0*x1*y2 - {forget}*u0*t - {by_tag}*u0*y2*t - {t_spike}*x0*y2"
    dw = f"2^{exponent}*u0*x1*{y} - {by_signal}*u0*{y}*t - {w_spike}*x0*{y}"
    rule = LearningRule(dw=dw, dt=dt, factors=3, x1_impulse=float(impulse), x1_tau=trace_tau(dv), rng_seed=rng_seed)
    return EPropRule(rule, impulse * 2.0**exponent / 8, psi, tag, errors)


def trace_tau(dv: int) -> float:
    """The time constant of a trace that decays as the voltage does: `exp(-1/tau) = (4096 - dv) / 4096`."""
    return -1 / math.log1p(-dv / 4096)


def _check(dv: int, impulse: int, sign: str) -> None:
    require_range(dv=(dv, 1, 4095), impulse=(impulse, 1, 127))
    require_choice("sign", sign, ("offset", "two-traces", "signed"))


def _number(name: str, value: float, errors: dict[str, float]) -> str:
    """`value` as the nearest `m*2^E`, m 1 to 7, E -7 to 8, in text; a relative error goes into `errors`."""
    choices = [(m, e) for e in range(-7, 9) for m in (1, 3, 5, 7)]
    m, e = min(choices, key=lambda pair: abs(pair[0] * 2.0 ** pair[1] / value - 1))
    error = m * 2.0**e / value - 1
    require(
        abs(error) < 0.25,
        f"{name}: needs the constant {value:.6g}, no m*2^E with m <= 7, E >= -7 is near",
    )
    if error:
        errors[name] = error
    return f"{'' if m == 1 else f'{m}*'}2^{e}"
