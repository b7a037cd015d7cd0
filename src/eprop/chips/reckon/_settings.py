"""ReckOn's configuration registers, and the limits of the chip."""

from dataclasses import dataclass, fields, replace

from eprop.chips._checks import require_bits, require_range
from eprop.errors import require

ALPHA_ONE = 0x8000
KAPPA_ONE = 0x80


@dataclass(frozen=True)
class ReckOn:
    """Configuration of a ReckOn core; names are those of the chip's registers, in lower case.

    Defaults are the chip's own cue-accumulation bench. Constants a pair of neurons (`alpha`, `thr`) are one number for
    all pairs, or one a pair. Numbers are integers as the registers hold them.

    Raises:
        InvalidSetting: for a value that its register cannot hold, a network too large for the chip, or a
            combination whose outcome on the chip is not known.

    Example:
        >>> from eprop.chips.reckon import ReckOn
        >>> ReckOn(n_rec=64).pairs
        32

    Reference: Frenkel & Indiveri 2022, arXiv 2208.09759; public design, commit 5e5c0be.
    """

    n_in: int = 40
    """Input channels, 1 to 256; at most `n_rec`."""
    n_rec: int = 100
    """Recurrent neurons, 2 to 256, even: the chip walks them in pairs."""
    n_out: int = 2
    """Outputs, 1 to 16."""
    alpha: int | tuple[int, ...] = 32751
    """Decay of membranes and of input and recurrent traces, in 2^-15: 0x7000 to 0x7FFF, or 0x8000 (1, no decay)."""
    kappa: int = 121
    """Decay of outputs and output traces, in 2^-7, 8 bits."""
    thr: int | tuple[int, ...] = 614
    """Firing threshold, 16 bits and sign included."""
    reset_zero: int = 0
    """RST_MODE: 0 subtracts the threshold after the leak, 1 sets the membrane to 0."""
    stoch_round: int = 1
    """EN_STOCH_ROUND: stochastic rounding of decays; 0: towards minus infinity."""
    do_eprop: int = 7
    """Which weights learn: bit 0 input weights, bit 1 recurrent weights, bit 2 output weights."""
    force_traces: int = 0
    """Traces run also where `do_eprop` is off."""
    fp_winp: int = 3
    """Left shift of input weights into the membrane."""
    fp_wrec: int = 3
    """Left shift of recurrent weights into the membrane."""
    fp_wout: int = 3
    """Left shift of output weights into the output."""
    fp_tinp: int = 3
    """Fractional bits of input traces."""
    fp_trec: int = 4
    """Fractional bits of recurrent traces."""
    fp_tout: int = 6
    """Fractional bits of output traces."""
    ls_scale: int = 5
    """LEARN_SIG_SCALE: learning signals are multiplied by 2^(ls_scale - 12)."""
    thr_h: tuple[int, ...] = (205, 205, 205, 205)
    """Membranes between which the pseudo-derivative steps, 16 bits and sign included, tested one after the other."""
    h: tuple[int, ...] = (0, 0, 0, 0, 1)
    """The five steps of the pseudo-derivative, -16 to 15."""
    lr_p_winp: int = 8
    """Left shift of an input weight's update probability."""
    lr_r_winp: int = 0
    """Right shift of it, afterwards."""
    lr_p_wrec: int = 8
    """Left shift of a recurrent weight's update probability."""
    lr_r_wrec: int = 0
    """Right shift of it, afterwards."""
    lr_p_wout: int = 14
    """Left shift of an output weight's update probability."""
    lr_r_wout: int = 0
    """Right shift of it, afterwards."""
    regul_mode: int = 2
    """Rate regularisation: bit 0 multiplicative, bit 1 additive. (Bit 2 is refused: see `docs/chips.md`.)"""
    regul_w: int = 3
    """Which weights the additive one acts on: bit 0 input, bit 1 recurrent."""
    regul_f0: int = 160
    """Recurrent trace above which it acts, 12 bits."""
    k_inp_p: int = 10
    """Left shift of the additive regularisation of input weights."""
    k_inp_r: int = 0
    """Right shift of it, afterwards."""
    k_rec_p: int = 10
    """Left shift of the additive regularisation of recurrent weights."""
    k_rec_r: int = 0
    """Right shift of it, afterwards."""
    k_mul: int = 0
    """Right shift of the multiplicative regularisation."""
    noise_en: int = 0
    """NOISE_EN: a random number is added to every membrane at each event."""
    noise_str: int = 0
    """Right shift of that number."""
    regression: int = 0
    """Targets are numbers, 2048 for 1; otherwise a class."""
    no_out_act: int = 0
    """The error is taken from the output itself, not from its hard sigmoid."""
    seed_inp: int = 0xF0F0
    """Seed of the generator of input weight updates, 25 bits."""
    seed_rec: int = 0xF1F1
    """The same for recurrent weights, 25 bits."""
    seed_out: int = 0xF2F2
    """The same for output weights, 22 bits."""
    seed_neur: int = 0x3F3FF3F3
    """Seeds of the two generators that round membranes: 15 bits for odd neurons, then 15 for even ones."""
    seed_oneur: int = 0x74F4
    """Seed of the generator that rounds outputs, 15 bits."""
    seed_tinp: int = 0x3F5FF5F5
    """Seeds that round input traces, 2 x 15 bits."""
    seed_trec: int = 0x3F6FF6F6
    """Seeds that round recurrent traces, 2 x 15 bits."""
    seed_tout: int = 0x3F7FF7F7
    """Seeds that round output traces, 2 x 15 bits."""
    seed_noise: int = 0x0FF0
    """Seed of the noise, 17 bits."""

    def __post_init__(self) -> None:
        for name in ("alpha", "thr", "thr_h", "h"):  # lists, as a JSON file holds them, become hashable
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, (list, tuple)) else value)
        self._check_sizes()
        self._check_constants()
        self._check_widths()

    def _check_sizes(self) -> None:
        require_range(n_in=(self.n_in, 1, 256), n_rec=(self.n_rec, 2, 256), n_out=(self.n_out, 1, 16))
        require(self.n_rec % 2 == 0, f"n_rec = {self.n_rec}: must be even; the chip walks its neurons in pairs")
        require(
            self.n_in <= self.n_rec,
            f"n_in = {self.n_in}: must be at most n_rec = {self.n_rec}; what the chip does beyond was never run",
        )

    def _check_constants(self) -> None:
        for name in ("alpha", "thr"):
            value = getattr(self, name)
            require(
                isinstance(value, int) or len(value) == self.pairs,
                f"{name}: expected one number, or {self.pairs} (one a pair of neurons), got {value!r}",
            )
        for alpha in self.per_pair("alpha"):
            require(
                isinstance(alpha, int) and 0x7000 <= alpha <= ALPHA_ONE,
                f"alpha = {alpha!r}: must be from 0x7000 to 0x7FFF (below 1), or 0x8000 (1)",
            )
        require_range(**{f"thr[{p}]": (thr, -(2**15), 2**15 - 1) for p, thr in enumerate(self.per_pair("thr"))})
        require(len(self.thr_h) == 4, f"thr_h = {self.thr_h}: expected 4 numbers")
        require(len(self.h) == 5, f"h = {self.h}: expected 5 numbers")
        require_range(**{f"thr_h[{n}]": (value, -(2**15), 2**15 - 1) for n, value in enumerate(self.thr_h)})
        require_range(**{f"h[{n}]": (value, -16, 15) for n, value in enumerate(self.h)})
        require_range(regul_mode=(self.regul_mode, 0, 3))

    def _check_widths(self) -> None:
        for field in fields(self):
            if field.name in WIDTHS:
                require_bits(field.name, getattr(self, field.name), WIDTHS[field.name])
        for name, (bits, generators) in SEEDS.items():
            require_bits(name, getattr(self, name), 32)
            if name != "seed_noise" or self.noise_en:
                width = bits // generators
                halves = [getattr(self, name) >> (width * n) & (2**width - 1) for n in range(generators)]
                require(all(halves), f"{name} = {getattr(self, name)}: a generator that starts from 0 stays there")

    @property
    def pairs(self) -> int:
        """Pairs of neurons."""
        return self.n_rec // 2

    def per_pair(self, name: str) -> tuple[int, ...]:
        """`alpha` or `thr`, one number a pair."""
        value = getattr(self, name)
        return (value,) * self.pairs if isinstance(value, int) else value

    def inference(self) -> "ReckOn":
        """The same chip that does not learn: `do_eprop` 0. Generators of rounding run on."""
        return replace(self, do_eprop=0)


SEEDS = {
    "seed_inp": (25, 1), "seed_rec": (25, 1), "seed_out": (22, 1), "seed_neur": (30, 2), "seed_oneur": (15, 1),
    "seed_tinp": (30, 2), "seed_trec": (30, 2), "seed_tout": (30, 2), "seed_noise": (17, 1),
}  # fmt: skip
"""Bits of each seed that count, of how many generators. A wider seed is cut, as on the chip."""

WIDTHS = {
    "kappa": 8, "reset_zero": 1, "stoch_round": 1, "do_eprop": 3, "force_traces": 1, "fp_winp": 3, "fp_wrec": 3,
    "fp_wout": 3, "fp_tinp": 3, "fp_trec": 3, "fp_tout": 3, "ls_scale": 4, "lr_p_winp": 5, "lr_r_winp": 5,
    "lr_p_wrec": 5, "lr_r_wrec": 5, "lr_p_wout": 5, "lr_r_wout": 5, "regul_w": 2, "regul_f0": 12, "k_inp_p": 5,
    "k_inp_r": 5, "k_rec_p": 5, "k_rec_r": 5, "k_mul": 5, "noise_en": 1, "noise_str": 4, "regression": 1,
    "no_out_act": 1,
}  # fmt: skip
"""Bits of each unsigned register."""
