"""How well each rule's gradient is aligned with BPTT's, while one of them trains."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from rich.table import Table

from eprop.networks import Network
from eprop.rules import BPTT, Rule, make_rule
from eprop.workshop.settings import Experiment
from eprop.workshop.training import RunFolder, SequenceTrainer, TrainState, experiment_from_json, purpose_key, train


class Alignment:
    """Measures, at given weights and on one batch, each rule's gradient against BPTT's.

    For each weight matrix: the cosine `<g, g_bptt> / (|g| |g_bptt|)` and the ratio of norms `|g| / |g_bptt|`.
    Regularisation counts on both sides.
    """

    def __init__(self, experiment: Experiment[Any], seed: int, rules: Sequence[str]) -> None:
        self.rules: list[Rule] = [make_rule(name) for name in rules]
        self._trainers = [SequenceTrainer(experiment, [seed], rule) for rule in (BPTT(), *self.rules)]
        self._size = experiment.run.batch
        self._measure = jax.jit(self._all)

    def _all(self, network: Network, data: Any, key: Array) -> list[dict[str, tuple[Array, Array]]]:
        task = self._trainers[0].task
        batch = task.sample(data, key, self._size)
        gradients = [named_weights(trainer.gradient(network, batch)[1]) for trainer in self._trainers]
        exact, others = gradients[0], gradients[1:]
        return [{name: alignment(g[name], exact[name]) for name in exact} for g in others]

    def __call__(self, trainer: SequenceTrainer, state: TrainState, iteration: int) -> dict[str, Any]:
        """The observer that `train` calls: an entry `alignment` for the line of metrics."""
        data = trainer.part(iteration)
        data = data if trainer.task.shared_data else jax.tree.map(lambda x: x[0], data)
        key = purpose_key(trainer.keys[0], EVALUATION_OF_GRADIENTS, iteration)
        measured = self._measure(trainer.network(state), data, key)
        return {
            "alignment": {
                rule.label: {name: [float(c), float(r)] for name, (c, r) in by_weight.items()}
                for rule, by_weight in zip(self.rules, measured, strict=True)
            }
        }


EVALUATION_OF_GRADIENTS = 16
"""A stream of random numbers apart from those of training."""


def alignment(gradient: Array, exact: Array) -> tuple[Array, Array]:
    """Cosine between two gradients, and the ratio of their norms."""
    norm, exact_norm = jnp.linalg.norm(gradient), jnp.linalg.norm(exact)
    tiny = jnp.finfo(gradient.dtype).tiny
    return jnp.sum(gradient * exact) / jnp.maximum(norm * exact_norm, tiny), norm / jnp.maximum(exact_norm, tiny)


def named_weights(gradient: Network) -> dict[str, Array]:
    """Gradients of all that BPTT trains too, by name."""
    named = [
        (jax.tree_util.keystr(path).strip(".").replace("layers[0].", ""), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
    ]
    return {name: leaf for name, leaf in named if name != "readout.feedback_weights"}


def measure_gradients(folder: RunFolder) -> dict[str, Any]:
    """Run, or go on with, the measurement that the folder's configuration describes."""
    config = folder.config
    experiment = experiment_from_json(config["task"], config["experiment"], folder.path)
    observer = Alignment(experiment, experiment.run.seed, config["rules"])
    return train(experiment, folder, task=config["task"], observe=observer)


def gradients_table(folder: RunFolder) -> Table:
    """Alignment at the first and the last evaluation, and its mean."""
    lines = [line for line in folder.metrics() if "alignment" in line]
    table = Table(title="alignment with BPTT's gradient: cosine (ratio of norms)")
    for column in (
        "rule",
        "weights",
        f"iteration {lines[0]['iteration']}",
        f"iteration {lines[-1]['iteration']}",
        "mean",
    ):
        table.add_column(column, justify="left" if column in ("rule", "weights") else "right")
    for rule, by_weight in lines[-1]["alignment"].items():
        for weights in by_weight:
            pairs = [line["alignment"][rule][weights] for line in lines]
            mean = [sum(p[i] for p in pairs) / len(pairs) for i in (0, 1)]
            table.add_row(rule, weights, *(f"{c:.3f} ({r:.3f})" for c, r in (pairs[0], pairs[-1], mean)))
    return table
