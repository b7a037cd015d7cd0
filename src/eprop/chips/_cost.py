"""The cost of a run on chip, under the names of NeuroBench (Yik et al., arXiv 2304.04640).

Footprint, connection sparsity, activation sparsity and synaptic operations are its static and workload metrics;
updates are counted beside them, since it has no name for on-chip learning.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eprop.chips.loihi import Loihi, LoihiLearnt, LoihiState, LoihiTraining
from eprop.chips.loihi import Record as LoihiRecord
from eprop.chips.reckon import Events, ReckOn, ReckOnState
from eprop.chips.reckon._lfsr import REGISTERS


@dataclass(frozen=True)
class Cost:
    """Costs of a run of one core.

    Bytes are those of the registers' widths; how a chip packs them is not counted. Operations are means a step.
    """

    footprint: float
    """Bytes in all."""
    footprint_weights: float
    """Bytes of weights (and tags, delays, where there are)."""
    footprint_state: float
    """Bytes of membranes, currents, outputs."""
    footprint_traces: float
    """Bytes of traces."""
    connection_sparsity: float
    """Share of weights that are 0."""
    activation_sparsity: float
    """Share of neurons and steps without a spike."""
    synaptic_operations_dense: float
    """Synapses that would be read a step if all inputs and neurons fired."""
    synaptic_operations_effective_macs: float
    """Multiplications with a weight other than 0, a step: none, spikes are 0 or 1."""
    synaptic_operations_effective_acs: float
    """Additions of a weight other than 0, a step."""
    updates: float
    """Synapses for which a learning rule was computed, a step of the run."""
    updates_skipped: float
    """Share of synapses, in steps that learn, that are left out because their update is 0 for sure."""
    synapses_touched: float
    """Share of synapses, in steps that learn, that are read and written; 1 - `updates_skipped`."""
    updates_to_nothing: float
    """Share of the updates computed that changed no weight."""

    def summary(self) -> dict[str, float]:
        """The numbers, as a summary file holds them."""
        return asdict(self)

    def table(self) -> str:
        """The numbers, a line each."""
        return "\n".join(f"{name.replace('_', ' '):38} {value:14.6g}" for name, value in asdict(self).items())


def reckon_cost(chip: ReckOn, state: ReckOnState, events: Events, ticks: int) -> Cost:
    """Costs of a ReckOn core.

    Args:
        chip: the configuration.
        state: weights, for which zeros are counted.
        events: of one sample (`Result.events`), or summed over samples.
        ticks: in all, of those samples.
    """
    w = [np.asarray(weights) for weights in state.weights]
    synapses = sum(weights.size for weights in w)
    traces = (12 * chip.n_in + (12 + 10) * chip.n_rec) / 8
    counts = {"leak": 6, "leak7": 3, "noise": 1, "weights": 2, "readout": 1}
    generators = sum(count * REGISTERS[use].n for use, count in counts.items())  # pyright: ignore[reportArgumentType]
    held = (16 * chip.n_rec + 16 * chip.n_out + chip.n_rec + chip.n_in + generators) / 8
    inputs, spikes = np.asarray(events.inputs, np.int64), np.asarray(events.spikes, np.int64)
    added = sum(int(count @ (weights != 0).sum(1)) for count, weights in zip((inputs, spikes, spikes), w, strict=True))
    touched = int(events.touched_in) + int(events.touched_rec) + int(events.touched_out)
    moved = int(events.moved_in) + int(events.moved_rec) + int(events.moved_out)
    learning = [weights.size for bit, weights in zip((1, 2, 4), w, strict=True) if chip.do_eprop & bit]
    return _cost(
        bytes_of=(synapses, held, traces), w=w, fired=float(spikes.sum()) / (ticks * chip.n_rec), dense=synapses,
        added=added / ticks, touched=touched / ticks, possible=sum(learning) * int(events.learning_ticks) / ticks,
        moved=moved / ticks,
    )  # fmt: skip


def loihi_cost(chip: Loihi, state: LoihiState, inputs: Any, record: LoihiRecord) -> Cost:
    """Costs of a Loihi population: weights and tags of 9 bits (8 and sign), delays of 8, traces of 7, u and v of 24.

    The models compute every synapse's rules at every epoch and skip none; so does this count.

    Args:
        chip, state, inputs: the settings, the state at the end of a run and what went into it.
        record: of that run, with registers (`record=True`) if its connections learn.
    """
    z = np.asarray(record.z)
    parts = [(chip.dense, state.dense, record.dense, np.asarray(inputs).astype(np.int64).sum(0))]
    if chip.rec is not None and state.rec is not None:
        parts.append((chip.rec, state.rec, record.rec, z.astype(np.int64).sum(0)))
    steps, weights, bits, traces, added, updates, moved = len(z), [], 0, 0.0, 0, 0.0, 0.0
    for connection, now, shown, fired in parts:
        w = np.asarray(now.synapses.w)
        weights.append(w)
        added += int(fired @ (w != 0).sum(1))
        bits += 9 * w.size
        if connection.rule is not None:
            bits += sum(width * w.size for name, width in (("t", 9), ("d", 8)) if name in connection.rule.products)
            traces += 7 * (2 * w.shape[0] + 3 * w.shape[1]) / 8
            updates += w.size * (steps // connection.rule.t_epoch)
        if shown is not None:
            moved += float((np.diff(np.asarray(shown.synapses.w), axis=0) != 0).sum())
    return _cost(
        bytes_of=(bits / 8, 2 * 24 * chip.n / 8, traces), w=weights, fired=float(z.mean()),
        dense=sum(w.size for w in weights), added=added / steps, touched=updates / steps, possible=updates / steps,
        moved=moved / steps,
    )  # fmt: skip


def loihi_training_cost(training: LoihiTraining, learnt: LoihiLearnt) -> Cost:
    """Costs of learning on Loihi, over all training samples; the host's work is not counted.

    An ALIF neuron's threshold adds a register of 24 bits. Rules are computed at every step.
    """
    found, steps = learnt.samples, learnt.steps * len(learnt.samples.correct)
    w = [learnt.w_in, learnt.w_rec]
    synapses, n_in, n = sum(x.size for x in w), len(learnt.w_in), training.n
    fired = [np.asarray(x, np.float64).sum(0) for x in (found.inputs, found.spikes)]
    alif = training.kind == "alif"
    return _cost(
        bytes_of=((9 + 9 * alif) * synapses / 8, (2 + alif) * 24 * n / 8, 7 * (2 * (n_in + n) + 2 * 3 * n) / 8), w=w,
        fired=float(fired[1].sum()) / (steps * n), dense=synapses,
        added=float(sum(count @ (x != 0).sum(1) for count, x in zip(fired, w, strict=True))) / steps,
        touched=float(synapses), possible=float(synapses), moved=float(np.sum(found.moved)) / steps,
    )  # fmt: skip


def _cost(bytes_of, w, fired, dense, added, touched, possible, moved) -> Cost:
    share = touched / possible if possible else 0.0
    return Cost(
        footprint=float(sum(bytes_of)), footprint_weights=float(bytes_of[0]), footprint_state=float(bytes_of[1]),
        footprint_traces=float(bytes_of[2]),
        connection_sparsity=float(sum((x == 0).sum() for x in w) / sum(x.size for x in w)),
        activation_sparsity=1 - fired, synaptic_operations_dense=float(dense), synaptic_operations_effective_macs=0.0,
        synaptic_operations_effective_acs=added, updates=touched, updates_skipped=1 - share if possible else 0.0,
        synapses_touched=share, updates_to_nothing=1 - moved / touched if touched else 0.0,
    )  # fmt: skip
