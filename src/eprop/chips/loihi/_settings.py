"""Settings of neurons, connections and rules; where public models differ, which one is followed."""

import math
from dataclasses import dataclass, fields
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cached_property
from typing import Literal

from eprop.chips._checks import require_range
from eprop.chips.loihi._grammar import Product, parse
from eprop.errors import require, require_choice

SignMode = Literal["mixed", "excitatory", "inhibitory"]
SENT_TAU = 65535
"""Time constant, in steps, with which a rule sees what neurons sent."""


@dataclass(frozen=True)
class Variant:
    """Where public models of the chip differ: the first choice is that of lava-nc 0.10.0, which is the default.

    Nobody says here which one the silicon does. Other choices follow descriptions of nengo-loihi 1.1.0 and
    brian2-loihi 0.5.2 and were compared with nothing but a twin written from the same descriptions.
    """

    current_wrap: Literal["symmetric", "twos-complement"] = "symmetric"
    """The current's range: -2^23+1 to 2^23, wrapped once; or -2^23 to 2^23-1 (nengo-loihi)."""
    current_decay: Literal["du+1", "du"] = "du+1"
    """The decay of the current, in 1/4096 (brian2-loihi: du)."""
    dendrite: Literal["unlimited", "wrapped", "clipped"] = "unlimited"
    """The sum's width: none; 21 bits and sign after its shift by 6 (nengo-loihi); or each weight, shifted, clipped to
    those bits (brian2-loihi), which in the ranges here changes -256 at exponent 7 alone."""
    exponent: Literal["sum", "each-weight"] = "sum"
    """A negative weight exponent shifts the sum, or each weight before it (nengo-loihi, brian2-loihi)."""
    truncation: Literal["down", "towards-zero"] = "down"
    """Mixed weights are cut to their bits by rounding down, or towards zero (brian2-loihi)."""
    learned_weight: Literal["integers", "rounded"] = "integers"
    """A learned weight is any integer, or rounded stochastically to its bits (nengo-loihi, brian2-loihi)."""
    trace_product: Literal["1/8", "1/4", "exact"] = "1/8"
    """The factor on a product of two traces: a mantissa of 4 bits, of 3 (nengo-loihi), no shift (brian2-loihi)."""
    trace_decay: Literal["exponential", "linear", "once-an-epoch"] = "exponential"
    """A trace's factor: exp(-1/tau) a step; 1 - 1/tau a step (brian2-loihi); or exp(-L/tau) once in an epoch of L steps
    (nengo-loihi), here at its first step. What neurons sent decays as ever."""
    impulse: Literal["fractional", "integer"] = "fractional"
    """Impulses have a fraction that is rounded stochastically, or none (brian2-loihi)."""
    trace_draws: Literal["shared", "each-trace"] = "shared"
    """Both x traces share a random number, and all y traces do; or one a trace (nengo-loihi, brian2-loihi)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            require_choice(field.name, getattr(self, field.name), field.type.__args__)  # pyright: ignore


@dataclass(frozen=True)
class LoihiLIF:
    """A population of LIF neurons: current and voltage of 24 bits. Numbers may be one a neuron.

    u := tz(u (4096 - du - 1) / 4096) + 64 a,     wraps
    v := tz(v (4096 - dv) / 4096) + u + bias,     saturates at +-(2^23 - 1)
    spike if v > 64 vth, then v := 0              (tz: towards zero)
    """

    du: int = 4095
    """Decay of the current, 12 bits; 4095: the current is the plain input."""
    dv: int = 128
    """Decay of the voltage, 12 bits; 0: none."""
    vth: int = 100
    """Threshold, 17 bits."""
    bias_mant: int | tuple[int, ...] = 0
    """Mantissa of the bias, 13 bits with sign."""
    bias_exp: int | tuple[int, ...] = 0
    """Exponent of the bias, 0 to 7. Negative ones, to -7, are the models' and shift right."""

    def __post_init__(self) -> None:
        for name in ("bias_mant", "bias_exp"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, (list, tuple)) else value)
        require_range(du=(self.du, 0, 4095), dv=(self.dv, 0, 4095), vth=(self.vth, 0, 2**17 - 1))
        each = lambda value: value if isinstance(value, tuple) else (value,)  # noqa: E731
        require_range(**{f"bias_mant[{n}]": (m, -(2**12), 2**12 - 1) for n, m in enumerate(each(self.bias_mant))})
        require_range(**{f"bias_exp[{n}]": (e, -7, 7) for n, e in enumerate(each(self.bias_exp))})


@dataclass(frozen=True)
class LearningRule:
    """How a connection learns: rules for weight, tag and delay, and the traces they read.

    Traces are integers of 7 bits; a spike adds an impulse, whose fraction is rounded stochastically.
    Impulses and time constants (in steps; 0: no memory) of a three-factor rule's y traces are not used: the neuron
    sends y1, y2 and y3 itself.
    """

    dw: str | None = None
    """The weight's rule."""
    dt: str | None = None
    """The tag's rule."""
    dd: str | None = None
    """The delay's rule. (A delay delays nothing here: it is a second tag.)"""
    factors: int = 2
    """2: y traces follow the neuron's spikes; 3: the neuron sends them."""
    t_epoch: int = 1
    """Steps an epoch, 1 to 63: learning stands at its end."""
    rounding: Literal["stochastic", "off"] = "stochastic"
    """off: always down (and a second presynaptic spike's impulse in an epoch always up, as in the models)."""
    rng_seed: int = 0
    """Seed of the traces' generators. (Weights' generator is always seeded with 2, as in the models.)"""
    x1_impulse: float = 0.0
    """The amount that a presynaptic spike adds to x1, 0 to 127."""
    x1_tau: float = 0.0
    """Time constant of x1, steps."""
    x2_impulse: float = 0.0
    """The same for x2."""
    x2_tau: float = 0.0
    """The same for x2."""
    y1_impulse: float = 0.0
    """The amount that a postsynaptic spike adds to y1."""
    y1_tau: float = 0.0
    """Time constant of y1, steps."""
    y2_impulse: float = 0.0
    """The same for y2."""
    y2_tau: float = 0.0
    """The same for y2."""
    y3_impulse: float = 0.0
    """The same for y3."""
    y3_tau: float = 0.0
    """The same for y3."""
    x_decay: tuple[tuple[int, int] | None, ...] | None = None
    """Factors of x1, x2 a step as fractions (numerator, power of two), None for tau 0. By default exp(-1/tau) as
    the nearest double; library functions differ from it, and from each other, in the last place."""
    y_decay: tuple[tuple[int, int] | None, ...] | None = None
    """The same for y1, y2, y3 (of a three-factor rule: of tau 65535)."""

    def __post_init__(self) -> None:
        for name in ("x_decay", "y_decay"):
            value = getattr(self, name)
            if value is not None:
                pairs = tuple(None if pair is None else (int(pair[0]), int(pair[1])) for pair in value)
                object.__setattr__(self, name, pairs)
                require(len(pairs) == (2 if name == "x_decay" else 3), f"{name} = {value}: one entry a trace")
        require_range(factors=(self.factors, 2, 3), t_epoch=(self.t_epoch, 1, 63))
        require_range(rng_seed=(self.rng_seed, 0, 2**32 - 1))
        require_choice("rounding", self.rounding, ("stochastic", "off"))
        for trace in ("x1", "x2", "y1", "y2", "y3"):
            impulse, tau = getattr(self, f"{trace}_impulse"), getattr(self, f"{trace}_tau")
            require(0 <= impulse <= 127, f"{trace}_impulse = {impulse}: must be from 0 to 127")
            require(tau >= 0 and math.isfinite(tau), f"{trace}_tau = {tau}: must be 0 (no memory) or above")
        require(any((self.dw, self.dt, self.dd)), "dw, dt, dd: a rule needs at least one of them")
        ks = {product.k for products in self.products.values() for product in products} - {None}
        require(len(ks) <= 1, f"u_k: all rules of a connection share one k, got {sorted(ks, key=str)}")

    @cached_property
    def products(self) -> dict[str, tuple[Product, ...]]:
        """The products of each rule, under `w`, `t`, `d`; only of those there are."""
        texts = {"w": self.dw, "t": self.dt, "d": self.dd}
        return {name: parse(text) for name, text in texts.items() if text}

    def decay(self, side: str, variant: Variant) -> tuple[Fraction, ...]:
        """The factors of the x or y traces, exactly: doubles as fractions."""
        given = self.x_decay if side == "x" else self.y_decay
        once = variant.trace_decay == "once-an-epoch"
        require(
            given is None or not once,
            f"{side}_decay: factors of a step; with trace_decay = 'once-an-epoch' a trace has its time constant alone",
        )
        if given is not None:
            return tuple(Fraction(0) if pair is None else Fraction(*pair) for pair in given)
        taus = [self.x1_tau, self.x2_tau] if side == "x" else [self.y1_tau, self.y2_tau, self.y3_tau]
        if side == "y" and self.factors == 3:
            return (_factor(SENT_TAU, "exponential"),) * 3
        return tuple(_factor(tau, variant.trace_decay, self.t_epoch if once else 1) for tau in taus)

    def impulses(self, side: str, variant: Variant) -> tuple[tuple[int, int], ...]:
        """Whole part and 256ths of the impulses of the x or y traces."""
        names = ("x1", "x2") if side == "x" else ("y1", "y2", "y3")
        values = [getattr(self, f"{name}_impulse") for name in names]
        if side == "y" and self.factors == 3:
            values = [0.0] * 3
        cut = [(math.floor(value), round(256 * (value - math.floor(value)))) for value in values]
        return tuple((whole, part if variant.impulse == "fractional" else 0) for whole, part in cut)


def _factor(tau: float, kind: str, steps: int = 1) -> Fraction:
    """A trace's factor, of a step or of several, the nearest double."""
    if tau == 0:
        return Fraction(0)
    if kind == "linear":
        return Fraction(max(0.0, float(1 - 1 / Fraction(tau))))
    with localcontext() as context:
        context.prec = 60
        return Fraction(float(Decimal(-steps / float(tau)).exp()))  # the exponent is a double, too


@dataclass(frozen=True)
class Connection:
    """All-to-all synapses: weights of 8 bits and sign, shifted together.

    Example:
        >>> from eprop.chips.loihi import Connection
        >>> Connection(num_weight_bits=8).cut
        1
    """

    weight_exp: int = 0
    """The sum of weights is shifted left by it, -8 to 7 (below 0: right)."""
    num_weight_bits: int = 8
    """Bits of a weight, 0 to 8; in mixed mode the sign is one of them, so that weights of 8 bits are even."""
    sign_mode: SignMode = "mixed"
    """mixed: -256 to 255; excitatory: 0 to 255; inhibitory: -255 to 0."""
    rule: LearningRule | None = None
    """How it learns; None: it does not."""

    def __post_init__(self) -> None:
        require_range(weight_exp=(self.weight_exp, -8, 7), num_weight_bits=(self.num_weight_bits, 0, 8))
        require_choice("sign_mode", self.sign_mode, ("mixed", "excitatory", "inhibitory"))

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest weight."""
        return {"mixed": (-256, 255), "excitatory": (0, 255), "inhibitory": (-255, 0)}[self.sign_mode]

    @property
    def cut(self) -> int:
        """Low bits that are cleared."""
        return 8 - self.num_weight_bits + (self.sign_mode == "mixed")


@dataclass(frozen=True)
class Loihi:
    """A population with input synapses and, if wanted, recurrent ones.

    Raises:
        InvalidSetting: where sums of weights could leave what 32 bits compute exactly.
    """

    n_in: int
    """Inputs."""
    n: int
    """Neurons."""
    lif: LoihiLIF = LoihiLIF()
    """The neurons."""
    dense: Connection = Connection()
    """Synapses from inputs."""
    rec: Connection | None = None
    """Synapses from the neurons themselves; None: there are none."""
    variant: Variant = Variant()
    """Which public model is followed where they differ."""

    def __post_init__(self) -> None:
        require_range(n_in=(self.n_in, 1, 2**20), n=(self.n, 1, 2**20))
        for name in ("bias_mant", "bias_exp"):
            value = getattr(self.lif, name)
            require(
                not isinstance(value, tuple) or len(value) == self.n,
                f"lif.{name}: expected one number, or {self.n} (one a neuron), got {value}",
            )
        parts = [(self.n_in, self.dense)] + ([(self.n, self.rec)] if self.rec else [])
        largest = sum(256 * n << max(c.weight_exp, 0) for n, c in parts)
        require(
            largest < 2**24,
            f"n_in = {self.n_in}, n = {self.n}: all spikes at once could add up to {largest}, above 2^24 - 1, "
            "beyond which the sum does not fit in 32 bits; use fewer neurons or a smaller weight_exp",
        )
