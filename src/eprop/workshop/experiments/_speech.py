"""Frame-wise phoneme recognition with e-prop 1, LSTM and LSNN (Bellec et al. 2020, Fig. 2; 2019, task 1.3)."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from eprop.errors import require, require_positive
from eprop.workshop.experiments._compare import run_comparison, start_comparison
from eprop.workshop.experiments._reproduction import REPRODUCTIONS, Reproduction
from eprop.workshop.settings import Experiment, RuleSettings
from eprop.workshop.speech import Synthesis, synthesise
from eprop.workshop.tasks import TASKS, Speech
from eprop.workshop.training import LoadedRun, RunFolder, SequenceTrainer, read_json, write_json

RULES = (
    "bptt",
    "eprop1:symmetric",
    "eprop1:random",
    "eprop1:adaptive",
    "eprop1:uniform",
    "fixed:recurrent",
    "fixed:recurrent_random",
    "fixed:layers",
)
NEURONS = ("lstm", "lsnn")


@dataclasses.dataclass(frozen=True)
class SpeechFigure:
    """Settings of the reproduction."""

    data: str | None = None
    """A corpus in TIMIT's layout; None: one is spoken (see 'eprop data speech')."""
    hours: float = 0.5
    """Hours of the spoken corpus, 80 % of them for training."""
    corpus_seed: int = 0
    """Its seed."""
    rules: tuple[str, ...] = RULES
    """Rules and controls; bptt is what the others are held against."""
    seeds: int = 3
    """Seeds, side by side."""
    batch: int = 8
    """Utterances an update."""
    buckets: int = 3
    """Groups of utterances of like length."""
    lstm_units: int = 64
    """LSTM units in each direction."""
    lstm_iterations: int = 600
    """Updates of the LSTM."""
    lstm_weight_penalty: float = 1e-4
    """L2 penalty on the LSTM's weights (1e-5 in the authors' code, for more speech)."""
    lsnn_neurons: int = 100
    """Spiking neurons in each direction, a quarter of them adaptive."""
    lsnn_iterations: int = 300
    """Updates of the LSNN."""
    steps_per_frame: int = 2
    """Steps (ms) of the LSNN for each frame of 10 ms."""
    learning_rate: float = 0.01
    """Adam's learning rate; in the last quarter of the updates 0.3 of it."""
    warmup: int = 20
    """Updates in which the LSNN's learning rate rises linearly from zero."""
    rate_strength: float = 1.0
    """Strength of the LSNN's firing-rate regularisation (50 in the authors' code)."""

    def __post_init__(self) -> None:
        require_positive(hours=self.hours, seeds=self.seeds, batch=self.batch, buckets=self.buckets,
                         lstm_units=self.lstm_units, lsnn_neurons=self.lsnn_neurons,
                         steps_per_frame=self.steps_per_frame)  # fmt: skip
        require("bptt" in self.rules, "rules: bptt must be among them: the others are held against it")

    def experiment(self, neuron: str, data: Path) -> Experiment[Any]:
        """The experiment with the LSTM or the LSNN: the authors' settings, but for what stands above."""
        published = TASKS["speech"][neuron]
        size = {"lstm": self.lstm_units, "lsnn": self.lsnn_neurons}[neuron]
        iterations = {"lstm": self.lstm_iterations, "lsnn": self.lsnn_iterations}[neuron]
        if neuron == "lstm":  # feedback weights of the readout's size: penalties weigh the same with all rules
            own: dict[str, Any] = dict(feedback_scale=None, adaptive_feedback_scale=None)
        else:
            own = dict(steps_per_frame=self.steps_per_frame, tau_out=3.0 * self.steps_per_frame)
        network = dataclasses.replace(published.network, neurons=size, **own)
        return dataclasses.replace(
            published,
            task=Speech(data=data, buckets=self.buckets),
            network=network,
            optimiser=dataclasses.replace(
                published.optimiser,
                learning_rate=self.learning_rate,
                decay_factor=0.3,
                decay_every=max(3 * iterations // 4, 1),
                warmup=self.warmup if neuron == "lsnn" else 0,
                rate_strength=self.rate_strength if neuron == "lsnn" else 0.0,
                weight_penalty=self.lstm_weight_penalty if neuron == "lstm" else published.optimiser.weight_penalty,
            ),
            run=dataclasses.replace(
                published.run, batch=self.batch, iterations=iterations, evaluate_every=max(iterations // 8, 1)
            ),
        )


PRESETS = {
    "quick": SpeechFigure(),
    "paper": SpeechFigure(
        hours=2.5,
        batch=32,
        buckets=3,
        lstm_units=200,
        lstm_iterations=1500,
        lstm_weight_penalty=1e-5,
        lsnn_neurons=400,
        lsnn_iterations=1500,
        steps_per_frame=5,
        warmup=100,
    ),
}


def run_speech(folder: RunFolder, settings: SpeechFigure) -> Table:
    """Speak the corpus, train all networks, measure their speed; go on where an earlier call was stopped."""
    data = folder.path / "corpus" if settings.data is None else Path(settings.data)
    if not data.exists():
        synthesise(data, Synthesis(hours=settings.hours, seed=settings.corpus_seed))
    rows = []
    for neuron in NEURONS:
        experiment = settings.experiment(neuron, data)
        path = folder.path / neuron
        begun = (path / "config.json").is_file()
        comparison = (
            RunFolder.open(path)
            if begun
            else start_comparison("speech", experiment, settings.rules, settings.seeds, path)
        )
        result = run_comparison(comparison)
        speeds = _speeds(path, experiment, settings.rules)
        rows += [{"neuron": neuron, "speed": speeds[row["rule"]]} | row for row in result["rows"]]
    _relate(rows)
    write_json(folder.path / "speech.json", {"rows": rows})
    return speech_table(rows)


def _relate(rows: list[dict[str, Any]]) -> None:
    """Each mean over that of BPTT with the same neurons."""
    exact = {row["neuron"]: row["mean"] for row in rows if row["rule"] == "bptt"}
    for row in rows:
        row["over_bptt"] = row["mean"] / exact[row["neuron"]]


def _speeds(path: Path, experiment: Experiment[Any], rules: tuple[str, ...]) -> dict[str, float]:
    """Seconds of speech trained a second, by rule: measured once, the rules in turn, and written down."""
    file = path / "speeds.json"
    if not file.is_file():
        write_json(file, measure_speeds(experiment, rules))
    return read_json(file)


def measure_speeds(experiment: Experiment[Any], rules: tuple[str, ...], rounds: int = 5) -> dict[str, float]:
    """Seconds of speech trained a second (one network), for each rule.

    One update after the other of one network of each rule, in turn, so that a busy machine slows all down alike; the
    median over the rounds, compilation apart. The batch is the first iteration's; padding is not counted as speech.
    """
    settings = [dataclasses.replace(experiment, rule=RuleSettings(rule=rule)) for rule in rules]
    trainers = [SequenceTrainer(each, [experiment.run.seed]) for each in settings]
    states = [trainer.init() for trainer in trainers]
    data = trainers[0].part(0)
    lengths = data.train[0].lengths
    seconds = 0.01 * float(lengths.mean()) * experiment.run.batch
    times = np.zeros((rounds + 1, len(rules)))
    for i in range(rounds + 1):
        for k, trainer in enumerate(trainers):
            start = time.perf_counter()
            states[k], loss = trainer.update(states[k], data, jnp.asarray(i))
            loss.block_until_ready()
            times[i, k] = time.perf_counter() - start
    return {
        trainer.rule.label: seconds / float(median)
        for trainer, median in zip(trainers, np.median(times[1:], 0), strict=True)
    }


def speech_table(rows: list[dict[str, Any]]) -> Table:
    """The table the reproduction ends with."""
    seeds = rows[0]["seeds"]
    table = Table(title=f"frame error on the test set (lower is better), {seeds} seed(s)")
    for column in ("network", "rule", "mean", "std", "÷ BPTT", "trained, s/s"):
        table.add_column(column, justify="left" if column in ("network", "rule") else "right")
    for row in rows:
        cells = (f"{row['mean']:.4f}", f"{row['std']:.4f}", f"{row['over_bptt']:.2f}", f"{row['speed']:.0f}")
        table.add_row(row["neuron"], row["rule"], *cells)
    return table


def confusion(run: LoadedRun) -> np.ndarray:
    """How many of the test set's frames of each phone (row) are taken for each phone (column), first seed."""
    trainer, network, n = run.trainer, run.network, run.trainer.task.n_out
    assert isinstance(trainer, SequenceTrainer)
    heard = jax.jit(lambda batch: trainer.forward(network, batch).y.argmax(-1))
    size = run.experiment.run.evaluation_batch or run.experiment.run.batch
    counts = np.zeros((n, n), int)
    for batch in trainer.task.final(trainer.data, trainer.keys[0], size):
        mask = np.asarray(batch.mask)
        np.add.at(counts, (np.asarray(batch.targets)[mask], np.asarray(heard(batch))[mask]), 1)
    return counts


REPRODUCTIONS["speech"] = Reproduction(
    summary="frame-wise phoneme recognition: e-prop 1 against BPTT and controls, LSTM and LSNN (2020, Fig. 2)",
    presets=PRESETS,
    run=run_speech,
)
