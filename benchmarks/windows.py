"""Time of one training window of each rule, as ratios of truncated BPTT's: `python benchmarks/windows.py`.

A window is all that training does: forward, backward, clipped Adam on the weights, and where the rule has them
the synthetic gradient, its own training and the carried traces. Copy-repeat, an LSTM, batch 100, windows of 4.
The rules take turns, window by window, in one process, so that they share whatever else the machine does; given
are medians over the rounds of each round's ratio. Before it measures, it checks that a rule with the true
boundary gradient is BPTT (rung 5 of the ladder), and reports nothing if that fails.
"""

import argparse
import dataclasses
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from eprop.rules import WINDOWED
from eprop.workshop.settings import RuleSettings
from eprop.workshop.tasks import TASKS
from eprop.workshop.training import StreamTrainer

CHECK = "tests/test_eprop3.py::test_with_the_true_boundary_gradient_the_windows_sum_is_bptt[lstm]"


def trainer(rule: str, neurons: int, batch: int) -> StreamTrainer:
    published = TASKS["copy-repeat"]["published"]
    return StreamTrainer(
        dataclasses.replace(
            published,
            network=dataclasses.replace(published.network, neurons=neurons),
            run=dataclasses.replace(published.run, batch=batch),
            rule=RuleSettings(rule=rule),
        ),
        [0],
    )


def measure(neurons: int, batch: int, window: int, rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each round, by rule."""
    trainers = {f"{name}:{window}": trainer(f"{name}:{window}", neurons, batch) for name in WINDOWED}
    states = {rule: one.init() for rule, one in trainers.items()}
    seconds = {rule: [] for rule in trainers}
    for i in range(rounds + 2):
        for rule, one in trainers.items():
            start = time.perf_counter()
            states[rule], loss = one.update(states[rule], one.data, jnp.asarray(i))
            jax.block_until_ready((states[rule], loss))
            seconds[rule].append(time.perf_counter() - start)
    return {rule: np.array(s[2:]) for rule, s in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--neurons", type=int, nargs="+", default=[100, 256])
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--window", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    if subprocess.run([sys.executable, "-m", "pytest", "-q", CHECK], capture_output=True).returncode != 0:
        sys.exit(f"benchmark not run: {CHECK} fails")
    for neurons in options.neurons:
        seconds = measure(neurons, options.batch, options.window, options.rounds)
        base = seconds[f"truncated_bptt:{options.window}"]
        print(f"LSTM of {neurons}, batch {options.batch}, windows of {options.window}, {options.rounds} rounds")
        for rule, s in seconds.items():
            low, ratio, high = np.percentile(s / base, (25, 50, 75))
            fastest = s.min() / base.min()
            print(
                f"  {rule:24} {1e3 * np.median(s):7.1f} ms   ratio {ratio:.2f} (quartiles {low:.2f} to {high:.2f}), "
                f"of the fastest rounds {fastest:.2f}"
            )


if __name__ == "__main__":
    main()
