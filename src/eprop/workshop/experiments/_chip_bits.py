"""How many bits a task needs: `eprop reproduce chip-bits`."""

import dataclasses
import importlib.util
import itertools
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from rich.table import Table

from eprop.chips import Grid, GridUpdates, Quantised, QuantisedEProp1, Spans, measure_spans, on_grids, weight_spans
from eprop.errors import InvalidSetting, require, require_choice, require_positive
from eprop.files import write_json, write_npz
from eprop.learner import Learner, LearnerState
from eprop.networks import Network, partition
from eprop.workshop.experiments._reproduction import REPRODUCTIONS, Reproduction
from eprop.workshop.settings import Experiment, NetworkSettings, OptimiserSettings, RuleSettings, RunSettings
from eprop.workshop.tasks import TASKS, ArraysTask, EvidenceAccumulation, PatternGeneration
from eprop.workshop.training import RunFolder, SequenceTrainer, TrainState, experiment_to_json, purpose_key, train

Rounding = Literal["nearest", "stochastic"]
Form = Literal["collected", "units"]
Size = Literal["small", "published"]
BITS_TASKS = {"evidence": "evidence-accumulation", "pattern": "pattern-generation", "digits": "arrays"}
"""The tasks by their names here, and as they are trained."""
BASELINES = {"float": "eprop1:random", "bptt": "bptt"}
TRAINING, STATE_ROUNDING = 1, 9
"""Purposes of random keys: batches, and the neurons' own rounding."""


@dataclasses.dataclass(frozen=True)
class ChipBitsFigure:
    """Accuracy against bits of weights and of traces, rounding, and the form of the update."""

    weight_bits: tuple[int, ...] = (3, 4, 6, 8)
    """Bits of a weight, sign included."""
    trace_bits: tuple[int, ...] = (3, 4, 6, 8)
    """Bits of a component of an eligibility vector, and of a learning signal."""
    roundings: tuple[Rounding, ...] = ("nearest", "stochastic")
    """How state, traces, learning signals and collected updates are rounded."""
    updates: tuple[Form, ...] = ("collected", "units")
    """Updates collected in float and rounded when applied, or written as one unit with a probability."""
    tasks: tuple[str, ...] = ("evidence", "pattern", "digits")
    """Tasks: evidence (accumulation), pattern (generation), digits (scikit-learn's, row by row)."""
    size: Size = "small"
    """Small tasks and networks, or the published ones."""
    state_bits: int = 16
    """Bits of a component of a neuron's state (16 to 24 on chips)."""
    margin: float = 2.0
    """Grids span so much more than a float run met before it learnt."""
    seeds: int = 1
    """Seeds, from 0."""
    evidence_iterations: int = 140
    """Updates on evidence accumulation."""
    pattern_iterations: int = 300
    """Updates on pattern generation."""
    digits_iterations: int = 500
    """Updates on handwritten digits."""

    def __post_init__(self) -> None:
        require_positive(seeds=self.seeds, margin=self.margin)
        for name in ("weight_bits", "trace_bits", "roundings", "updates", "tasks"):
            values = getattr(self, name)
            require(len(values) >= 1, f"{name}: name at least one")
            require(len(set(values)) == len(values), f"{name} = {','.join(map(str, values))}: one stands there twice")
        for name in ("weight_bits", "trace_bits", "state_bits"):
            for bits in np.atleast_1d(getattr(self, name)):
                require(2 <= bits <= 32, f"{name} = {bits}: must be an integer from 2 to 32")
        for task in self.tasks:
            require_choice("tasks", task, BITS_TASKS)
            require_positive(**{f"{task}_iterations": getattr(self, f"{task}_iterations")})

    def experiment(self, task: str, data: Path) -> Experiment[Any]:
        """The float experiment of a task, by its name here; `data`: where the digits are."""
        made = (_small if self.size == "small" else _published)(task, data)
        iterations = getattr(self, f"{task}_iterations")
        every = max(iterations // 4, 1)
        run = dataclasses.replace(made.run, iterations=iterations, evaluate_every=every, stop_below=None)
        return dataclasses.replace(made, run=run, rule=RuleSettings(rule="eprop1:random"))


def _small(task: str, data: Path) -> Experiment[Any]:
    if task == "evidence":
        return Experiment(
            EvidenceAccumulation(
                cues=3, slot=30, cue_duration=20, delay=50, recall_duration=20, group=5, cue_rate=100.0
            ),
            NetworkSettings(neuron="lsnn", neurons=32, tau_a=200.0, beta=0.1, tau_out=20.0, n_refractory=3),
            OptimiserSettings(learning_rate=0.01, rate_strength=0.1),
            RunSettings(batch=8, evaluation_batch=64),
        )
    if task == "pattern":
        return Experiment(
            PatternGeneration(duration=300, inputs=20, outputs=1, frequencies=(4.0, 7.0, 10.0)),
            NetworkSettings(neuron="lif", neurons=50, tau_out=20.0, n_refractory=3),
            OptimiserSettings(learning_rate=0.01, rate_strength=0.1),
            RunSettings(),
        )
    return Experiment(
        ArraysTask(data=data),
        NetworkSettings(neuron="lstm", neurons=32, tau_out=None, bias=True),
        OptimiserSettings(learning_rate=0.005),
        RunSettings(batch=16, evaluation_batch=256),
    )


def _published(task: str, data: Path) -> Experiment[Any]:
    made = next(iter(TASKS[BITS_TASKS[task]].values()))
    return dataclasses.replace(made, task=ArraysTask(data=data)) if task == "digits" else made


class Row(NamedTuple):
    """One network of a block."""

    weight_bits: int
    trace_bits: int
    seed: int


class ChipBitsTrainer(SequenceTrainer):
    """Trains a network for each pair of bits and each seed, one compiled function for all.

    Args:
        experiment: the float experiment.
        settings: bits, and how many seeds.
        rounding, form: of this block.
        spans: what state, traces and learning signals should span, margin and all.
    """

    def __init__(
        self, experiment: Experiment, settings: ChipBitsFigure, rounding: Rounding, form: Form, spans: Spans
    ) -> None:
        self.settings, self.spans = settings, spans
        self.rounding: Rounding = rounding
        self.form: Form = form
        product = itertools.product(settings.weight_bits, settings.trace_bits, range(settings.seeds))
        self.rows = [Row(*row) for row in product]
        super().__init__(experiment, [row.seed for row in self.rows])
        self.weight_spans = weight_spans(partition(self._network(self.keys[0]), self.rule)[0])

    @property
    def label(self) -> str:
        return f"{self.rounding}, {self.form}"

    @cached_property
    def bits(self) -> tuple[Int[Array, "row"], Int[Array, "row"]]:  # noqa: F821
        return tuple(jnp.array([row[i] for row in self.rows], jnp.int32) for i in (0, 1))  # pyright: ignore[reportReturnType]

    def _network(self, key: Array) -> Network:
        network = super()._network(key)
        neuron = Quantised(
            network.layers[0].neuron,  # pyright: ignore[reportAttributeAccessIssue]
            bits=self.settings.state_bits,
            spans=self.spans.state,
            rounding=self.rounding,
            seed=jnp.zeros((), jnp.uint32),
        )
        return eqx.tree_at(lambda n: n.layers[0].neuron, network, neuron)

    def _grid_updates(self, bits: Array, seed: Array | int = 0) -> GridUpdates:
        return GridUpdates(self.optimiser, bits, self.weight_spans, self.form, self.rounding, seed)

    def _first(self, key: Array) -> LearnerState:
        optimiser = self._grid_updates(jnp.asarray(2))
        return self._learner(optimiser, lambda y, batch, mask: self.task.loss(y, batch)).init(self._network(key), None)

    def init(self) -> TrainState:
        state = super().init()

        def rounded(arrays: Any, bits: Array) -> Any:
            whole = self.whole(arrays)
            chosen, rest = partition(whole.network, self.rule)
            network = eqx.combine(on_grids(chosen, bits, self.weight_spans), rest)
            return eqx.filter(whole._replace(network=network), eqx.is_array)

        return state._replace(learner=jax.jit(jax.vmap(rounded))(state.learner, self.bits[0]))

    def _update(self, state: TrainState, data: Any, iteration: Array) -> tuple[TrainState, Array]:
        s = self.experiment.optimiser

        def one(row: tuple) -> tuple[Any, Array]:
            arrays, key, weight_bits, trace_bits, its_data = row
            batch = self.task.sample(
                data if its_data is None else its_data, purpose_key(key, TRAINING, iteration), self.experiment.run.batch
            )
            seed = jax.random.bits(purpose_key(key, STATE_ROUNDING, iteration), dtype=jnp.uint32)
            whole = self.whole(arrays)
            network = eqx.tree_at(lambda n: n.layers[0].neuron.seed, whole.network, seed)
            rule = QuantisedEProp1(
                self.rule.feedback,
                traces=Grid(trace_bits, self.spans.traces),
                signals=Grid(trace_bits, self.spans.signals),
                rounding=self.rounding,
            )
            learner = Learner(
                rule, self._grid_updates(weight_bits, seed), lambda y, batch, mask: self.task.loss(y, batch),
                rate_target=s.rate_target / 1000.0, rate_strength=s.rate_strength if self.spiking else 0.0,
                rate_window=None,
            )  # fmt: skip
            new, _, metrics = learner.step(
                whole._replace(network=network), batch.inputs, batch, batch.mask, valid=batch.valid
            )
            return eqx.filter(new, eqx.is_array), metrics.loss

        rows = (state.learner, self.keys, *self.bits, None if self.task.shared_data else data)
        learner, loss = jax.lax.map(one, rows)
        return TrainState(learner, state.active), loss


def run_chip_bits(folder: RunFolder, settings: ChipBitsFigure) -> Table:
    """All blocks, or those that an earlier call left; `results.json` after each of them, and a table."""
    data = folder.path / "digits.npz"
    if "digits" in settings.tasks and not data.is_file():
        write_digits(data)
    rows: list[dict[str, Any]] = []
    for found in _parts(folder, settings, data):
        rows += found
        write_json(folder.path / "results.json", {"settings": folder.config["settings"], "rows": rows})
    return bits_table(rows, settings)


def _parts(folder: RunFolder, settings: ChipBitsFigure, data: Path) -> Iterator[list[dict[str, Any]]]:
    """The rows of each part, one part after the other."""
    for task in settings.tasks:
        experiment = settings.experiment(task, data)
        for name, rule in BASELINES.items():
            yield _baseline(folder, task, name, rule, experiment, settings)
        for rounding, form in itertools.product(settings.roundings, settings.updates):
            yield _block(folder, task, rounding, form, experiment, settings)


def write_digits(path: Path) -> None:
    """scikit-learn's handwritten digits as sequences of their 8 rows of 8 grey levels; 360 of 1797 are held out."""
    if importlib.util.find_spec("sklearn") is None:
        raise InvalidSetting("tasks = digits: needs scikit-learn, not installed here: pip install scikit-learn")
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    split = np.where(np.random.default_rng(0).permutation(len(digits.target)) < 360, "test", "train")
    write_npz(path, {"inputs": digits.images / 16.0, "targets": digits.target, "split": split})


def _baseline(
    folder: RunFolder, task: str, name: str, rule: str, experiment: Experiment, settings: ChipBitsFigure
) -> list[dict[str, Any]]:
    """The same network in float, learnt by e-prop or BPTT."""
    experiment = dataclasses.replace(experiment, rule=RuleSettings(rule=rule))
    seeds = list(range(settings.seeds))
    config = {
        "command": "train", "task": BITS_TASKS[task], "experiment": experiment_to_json(experiment), "seeds": seeds
    }  # fmt: skip
    summary = train(
        experiment,
        RunFolder.open_or_create(folder.path / f"{task}-{name}", lambda: config),
        task=BITS_TASKS[task],
        seeds=seeds,
    )
    return [_result(task, name, summary, value, seed=seed) for seed, value in enumerate(summary["value"])]


def _block(
    folder: RunFolder, task: str, rounding: Rounding, form: Form, experiment: Experiment, settings: ChipBitsFigure
) -> list[dict[str, Any]]:
    """A network for each pair of bits and each seed."""

    def config() -> dict[str, Any]:
        own = {"task": task, "rounding": rounding, "form": form, "spans": _spans(experiment, settings)._asdict()}
        return {"command": "part", "settings": own}

    run = RunFolder.open_or_create(folder.path / f"{task}-{rounding}-{form}", config)
    kept = run.config["settings"]["spans"]
    spans = Spans(tuple(kept["state"]), tuple(kept["traces"]), kept["signals"])
    trainer = ChipBitsTrainer(experiment, settings, rounding, form, spans)
    summary = train(experiment, run, task=BITS_TASKS[task], seeds=trainer.seeds, trainer=trainer)
    return [
        _result(task, "quantised", summary, value, rounding=rounding, form=form, **row._asdict())
        for row, value in zip(trainer.rows, summary["value"], strict=True)
    ]


def _result(task: str, network: str, summary: dict[str, Any], value: float, **what: Any) -> dict[str, Any]:
    return {"task": task, "network": network, **what, "metric": summary["metric"], "value": float(value)}


def _spans(experiment: Experiment, settings: ChipBitsFigure) -> Spans:
    """What a float run of the first seed meets before it learns, and the margin."""
    trainer = SequenceTrainer(experiment, [0])
    network = trainer.network(trainer.init())
    data = trainer.data if trainer.task.shared_data else jax.tree.map(lambda x: x[0], trainer.data)
    batch = trainer.task.sample(data, purpose_key(trainer.keys[0], TRAINING), experiment.run.batch)
    found = measure_spans(network, batch.inputs, lambda y: trainer.task.loss(y, batch), trainer.rule.feedback)
    wider = lambda spans: tuple(settings.margin * span for span in spans)  # noqa: E731
    return Spans(wider(found.state), wider(found.traces), settings.margin * found.signals)


def mean_value(rows: list[dict[str, Any]], **what: Any) -> float:
    """The mean over seeds of the rows that agree with `what`."""
    values = [row["value"] for row in rows if all(row.get(name) == value for name, value in what.items())]
    return float(np.mean(values)) if values else float("nan")


def bits_table(rows: list[dict[str, Any]], settings: ChipBitsFigure) -> Table:
    """A line for each task, rounding, form and bits of weights; a column for each number of bits of traces."""
    metrics = {row["task"]: row["metric"] for row in rows}
    measured = ", ".join(f"{metrics[task]} of {task}" for task in settings.tasks)
    title = (
        f"bits a task needs, {settings.seeds} seed(s): {measured} (lower is better); a column for each bits of traces"
    )
    table = Table(title=title)
    for column in ("task", "rounding, update", "weights"):
        table.add_column(column, no_wrap=True)
    for bits in settings.trace_bits:
        table.add_column(str(bits), justify="right", no_wrap=True, min_width=5)
    for task in settings.tasks:
        for network in BASELINES:
            value = mean_value(rows, task=task, network=network)
            shown = [f"{value:.3f}", *[""] * (len(settings.trace_bits) - 1)]
            table.add_row(task, "BPTT" if network == "bptt" else "e-prop", "float", *shown)
        for rounding, form, bits in itertools.product(settings.roundings, settings.updates, settings.weight_bits):
            what = {"task": task, "rounding": rounding, "form": form, "weight_bits": bits}
            cells = [f"{mean_value(rows, **what, trace_bits=b):.3f}" for b in settings.trace_bits]
            table.add_row(task, f"{rounding}, {form}", str(bits), *cells)
    return table


REPRODUCTIONS["chip-bits"] = Reproduction(
    summary="how many bits a task needs: weights, traces, rounding and update form, beside float and BPTT",
    presets={
        "quick": ChipBitsFigure(),
        "paper": ChipBitsFigure(
            weight_bits=(2, 3, 4, 5, 6, 8, 10, 12),
            trace_bits=(2, 3, 4, 5, 6, 8, 10, 12),
            size="published",
            seeds=3,
            evidence_iterations=300,
            pattern_iterations=1000,
            digits_iterations=1000,
        ),
    },
    run=run_chip_bits,
)
