"""What the traces are, beside plasticity experiments: `eprop reproduce plasticity`."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from eprop.errors import require, require_positive
from eprop.neurons import ALIF, LIF, STDPALIF, STDPLIF, Filtered, Izhikevich, Neuron, Triangular
from eprop.workshop.experiments._pairing import JUST_ABOVE, at_times, hold, weight_change
from eprop.workshop.experiments._plasticity_models import DOPAMINE_BAND, pair_rule, triplet_rule, voltage_rule
from eprop.workshop.experiments._plasticity_models import THETA_MINUS as REST
from eprop.workshop.experiments._plasticity_models import THETA_PLUS as ONSET
from eprop.workshop.experiments._reproduction import REPRODUCTIONS, Reproduction
from eprop.workshop.training import RunFolder, write_json

IZHIKEVICH_SETTLES, IZHIKEVICH_PULSE = 300, 10.0
"""Steps until it rests, and the current of one step that makes it fire."""

TRIPLETS = {
    "pre-post-pre": ((5, 5), (10, 10), (15, 5), (5, 15)),
    "post-pre-post": ((5, 5), (10, 10), (15, 5), (5, 15)),
}
"""Intervals between the three spikes, ms."""

MISSING = (
    "The traces of LIF and ALIF are exactly 0 where pre comes after post: the depressing half of STDP is missing. "
    "Depression needs a learning signal of the other sign (e),\n"
    "or a membrane that forgets at a spike (STDP-LIF, STDP-ALIF)."
)
"""What the picture says of the traces."""


@dataclasses.dataclass(frozen=True)
class PlasticitySettings:
    """The neurons, and the protocols."""

    tau_m: float = 20.0
    """Membrane time constant, ms."""
    v_th: float = 1.0
    """Firing threshold."""
    n_refractory: int = 5
    """Smallest interval between spikes, ms."""
    gamma: float = 0.3
    """Dampening factor of the pseudo-derivative."""
    tau_a: float = 200.0
    """Time constant of threshold adaptation, ms."""
    beta: float = 0.1
    """Threshold increase a spike, of adaptive neurons."""
    widest: int = 100
    """Widest interval between the two spikes of a pair, ms."""
    pairings: int = 60
    """Pairs, or triplets, one after the other."""
    periods: tuple[int, ...] = (1000, 500, 200, 100, 50, 25, 20)
    """Time from pair to pair, ms (1000: 1 Hz; 20: 50 Hz)."""
    spacing: int = 10
    """Interval of those pairs, ms."""
    time_constants: tuple[float, ...] = (20.0, 50.0, 200.0, 500.0, 2000.0)
    """Time constants of readout or adaptation for which a late learning signal is tried, ms."""
    longest_delay: int = 6000
    """Longest delay of a late learning signal, ms."""

    def __post_init__(self) -> None:
        require_positive(tau_m=self.tau_m, v_th=self.v_th, gamma=self.gamma, tau_a=self.tau_a, beta=self.beta)
        require_positive(widest=self.widest, pairings=self.pairings, spacing=self.spacing)
        require(self.longest_delay >= 100, f"longest_delay = {self.longest_delay}: must be at least 100 ms")
        require(min(self.time_constants, default=0) > 0, f"time_constants = {self.time_constants}: must be above 0")
        rest = 2 * max(self.spacing, 15)
        require(
            min(self.periods, default=0) > self.n_refractory,
            f"periods = {self.periods}: each must be above the refractory period of {self.n_refractory} ms",
        )
        require(max(self.periods) > rest, f"periods = {self.periods}: triplets need one above {rest} ms")

    def neurons(self) -> dict[str, Neuron]:
        """The four neurons whose membrane adds its currents."""
        membrane: dict[str, Any] = {"tau_m": self.tau_m, "v_th": self.v_th, "n_refractory": self.n_refractory}
        membrane["surrogate"] = Triangular(self.gamma)
        adaptive: dict[str, Any] = {"tau_a": self.tau_a, "beta": self.beta}
        return {
            "LIF": LIF(**membrane),
            "ALIF": ALIF(**membrane, **adaptive),
            "STDP-LIF": STDPLIF(**membrane),
            "STDP-ALIF": STDPALIF(**membrane, **adaptive),
        }


def spikes_at(neuron: Neuron, pre: list[list[int]], post: list[list[int]], steps: int) -> tuple[np.ndarray, Any]:
    """Presynaptic spikes, and the drive that makes the neuron fire at the times `post`: `[time, sample]` each."""
    when, x = at_times(steps, post), at_times(steps, pre).astype(float)
    if isinstance(neuron, Izhikevich):
        return x, np.where(when, IZHIKEVICH_PULSE, 0.0)[..., None]
    return x, hold(neuron, when, np.full(when.shape, JUST_ABOVE * float(neuron.v_th)))  # pyright: ignore[reportAttributeAccessIssue]


def change_after(neuron: Neuron, pre: list[list[int]], post: list[list[int]], steps: int) -> np.ndarray:
    """Each sample's weight change under a steady learning signal of -1: the sum of its traces.

    Raises:
        RuntimeError: if the neuron fired at other times than `post`.
    """
    x, drive = spikes_at(neuron, pre, post, steps)
    change, z = weight_change(neuron, x, drive, -np.ones_like(x))
    if not np.array_equal(np.asarray(z)[..., 0] > 0, at_times(steps, post)):
        raise RuntimeError(f"{type(neuron).__name__}: did not fire when it was to")
    return np.asarray(change)[:, 0]


def pairing_curve(settings: PlasticitySettings) -> dict[str, Any]:
    """(a) One presynaptic and one postsynaptic spike; what the presynaptic one does alone is taken off."""
    intervals = list(range(-settings.widest, settings.widest + 1))
    models = {**settings.neurons(), "Izhikevich": Izhikevich()}
    curves = {}
    for name, neuron in models.items():
        t = settings.widest + (IZHIKEVICH_SETTLES if name == "Izhikevich" else 0)
        pre, post = [[t - d] for d in intervals] + [[t]], [[t]] * len(intervals) + [[]]
        *paired, alone = change_after(neuron, pre, post, t + 4 * settings.widest)
        curves[name] = np.array(paired) - alone
    return {"post_minus_pre_ms": intervals, "change": curves, "experiment": pair_rule(np.array(intervals))}


def repeated(settings: PlasticitySettings) -> dict[str, Any]:
    """(b) Many pairs at several rates, and many triplets; beside them the triplet rule."""
    early, n, d = 2 * max(settings.spacing, 15), settings.pairings, settings.spacing
    protocols: dict[str, tuple[list[int], list[int]]] = {}
    for sign, name in ((1, "post after pre"), (-1, "pre after post")):
        for period in settings.periods:
            times = [early + i * period for i in range(n)]
            protocols[f"{name}, {1000 / period:g} Hz"] = (times, [t + sign * d for t in times])
    slow = [early + i * max(settings.periods) for i in range(n)]
    for kind, intervals in TRIPLETS.items():
        for first, second in intervals:
            outer = sorted([t - first for t in slow] + [t + second for t in slow])
            pair = (outer, slow) if kind == "pre-post-pre" else (slow, outer)
            protocols[f"{kind} {first}, {second} ms"] = pair
    steps = early + n * max(settings.periods)
    pre, post = [p for p, _ in protocols.values()], [q for _, q in protocols.values()]
    curves = {name: change_after(neuron, pre, post, steps) for name, neuron in settings.neurons().items()}
    curves["triplet rule"] = np.array([triplet_rule(p, q) for p, q in zip(pre, post, strict=True)])
    return {"protocols": list(protocols), "rates_hz": [1000 / p for p in settings.periods], "change": curves}


def voltage_curve(settings: PlasticitySettings) -> dict[str, Any]:
    """(c) A presynaptic spike while the membrane is held at v: the trace is psi, as the spike counts 1."""
    v, late = np.linspace(-0.5, 2.5, 121) * settings.v_th, settings.n_refractory - 1
    protocols = {"LIF, ALIF": ("LIF", False, 1), "ALIF after a spike": ("ALIF", True, settings.n_refractory)}
    if late:
        protocols["STDP-LIF, refractory"] = ("STDP-LIF", True, late)
    curves = {}
    for name, (model, fires, after) in protocols.items():
        neuron, t = settings.neurons()[model], 5
        fired = [[t]] * len(v) if fires else [[] for _ in v]
        spike, read = at_times(t + after + 2, fired), at_times(t + after + 2, [[t + after]] * len(v))
        raised = settings.beta * np.exp(-(after - 1) / settings.tau_a) if model == "ALIF" else 0.0
        offset = np.where(read, v - settings.v_th - raised, JUST_ABOVE * settings.v_th)
        drive, x = hold(neuron, spike | read, offset), read.astype(float)
        curves[name] = np.asarray(weight_change(neuron, x, drive, -x)[0])[:, 0]
    millivolts = REST + (ONSET - REST) * v / settings.v_th
    return {"v": v, "change": curves, "u_mv": millivolts, "voltage_rule": voltage_rule(millivolts)}


def delay_curve(settings: PlasticitySettings) -> dict[str, Any]:
    """(d) A pair, and one learning signal after a delay.

    The readout's filter hands the trace on by itself. The trace through the threshold's adaptation shows where the
    membrane is near threshold: it is held half a threshold below it when the learning signal comes.
    """
    t, interval = 20, 5
    delays = np.unique(np.round(np.geomspace(settings.n_refractory + 1, settings.longest_delay, 60)).astype(int))
    steps, taus = t + int(delays[-1]) + 1, np.array(settings.time_constants)
    models, size = settings.neurons(), len(taus)
    spike, read = at_times(steps, [[t]] * len(delays)), at_times(steps, [[t + int(d)] for d in delays])
    x, signal = at_times(steps, [[t - interval]] * len(delays)).astype(float), -1.0 * read
    above = np.full(spike.shape, JUST_ABOVE * settings.v_th)
    filtered = Filtered(models["LIF"], tau_out=jnp.asarray(taus))
    change = np.asarray(weight_change(filtered, x, hold(models["LIF"], spike, above, size), signal)[0])
    found: dict[str, Any] = {"delays_ms": delays, "band_ms": DOPAMINE_BAND, "time_constants_ms": taus}
    found["tau_out"] = {"change": change.T, "measured_ms": time_constants(delays, change)}
    # the same neurons, adaptive and not: the difference is what adaptation remembers
    adaptive = {"tau_a": np.tile(taus, 2), "beta": np.repeat([settings.beta, 0.0], size)}
    neuron = dataclasses.replace(models["ALIF"], **adaptive)  # pyright: ignore[reportArgumentType]
    drive = hold(neuron, spike | read, np.where(spike, above, -0.5 * settings.v_th), 2 * size)
    whole, fast = np.split(np.asarray(weight_change(neuron, x, drive, signal)[0]), 2, axis=1)
    measured = time_constants(delays, whole - fast)
    return found | {"tau_a": {"change": whole.T, "of_adaptation": (whole - fast).T, "measured_ms": measured}}


def time_constants(delays: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Each curve's own, `[neuron]`: from its first value, and the last one above a millionth of that."""
    last = [(np.abs(c) > 1e-6 * np.abs(c[0])).nonzero()[0][-1] for c in change.T]
    fallen = np.array([np.log(c[0] / c[i]) for c, i in zip(change.T, last, strict=True)])
    return (delays[last] - delays[0]) / fallen


def third_factor_curve(settings: PlasticitySettings) -> dict[str, Any]:
    """(e) Pairs under learning signals of either sign and several sizes."""
    sizes, t, models = np.linspace(-2.0, 2.0, 17), 40, settings.neurons()
    curves = {}
    for name, interval in (("LIF", 10), ("STDP-LIF", 10), ("STDP-LIF", -2), ("LIF", -2)):
        samples = len(sizes)
        x, drive = spikes_at(models[name], [[t - interval]] * samples, [[t]] * samples, 3 * t)
        change = weight_change(models[name], x, drive, np.broadcast_to(sizes, x.shape))[0]
        curves[f"{name}, {interval:+d} ms"] = np.asarray(change)[:, 0]
    return {"learning_signal": sizes, "change": curves}


def measure_plasticity(settings: PlasticitySettings) -> dict[str, Any]:
    """All five, in float64, as JSON has them."""
    with jax.enable_x64(True):
        return as_json(
            {
                "pairing": pairing_curve(settings),
                "repeated": repeated(settings),
                "voltage": voltage_curve(settings),
                "delay": delay_curve(settings),
                "third_factor": third_factor_curve(settings),
                "missing": MISSING,
            }
        )


def as_json(tree: Any) -> Any:
    """Arrays as lists, all the way down."""
    if isinstance(tree, dict):
        return {name: as_json(value) for name, value in tree.items()}
    return np.asarray(tree).tolist() if isinstance(tree, np.ndarray) else tree


def _run_plasticity(folder: RunFolder, settings: PlasticitySettings) -> Table:
    found = measure_plasticity(settings)
    write_json(folder.path / "plasticity.json", found)
    table = Table(title="change by one pair, -sum of L e at L = -1; ms")
    at = [d for d in (-20, -10, -2, 0, 2, 10, 20) if abs(d) <= settings.widest]
    for column in ("post - pre", *(f"{d:+d}" for d in at)):
        table.add_column(column, justify="right" if column[0] in "+-" else "left", no_wrap=True)
    for name, change in found["pairing"]["change"].items():
        table.add_row(name, *(f"{change[d + settings.widest]:+.3f}" for d in at))
    return table


REPRODUCTIONS["plasticity"] = Reproduction(
    summary="the traces beside plasticity experiments: pairs, rates, voltage, late and signed third factors",
    presets={"default": PlasticitySettings()},
    run=_run_plasticity,
)
