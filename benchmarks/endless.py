"""A million steps of a stream in one process: peak memory after 1000 of them and at the end, and how often it compiled.

    python benchmarks/endless.py [STEPS]

An LSTM of 64 units learns after every step (window 1, Adam) to say what its input was three steps ago, from targets
that come three steps late. Its input is made as it goes and never held.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eprop import LSTM, EProp1, Learner, Network, Readout, Recurrent
from eprop.workshop.memory import peak_resident_bytes

CALL, LATE = 250, 3
"""Steps a compiled call; steps that a target comes late."""

traced = []


def squared(y, target, mask):
    traced.append(y.shape)  # runs when the loss is traced, not when it is computed
    return 0.5 * jnp.sum(mask[..., None] * (y - target) ** 2)


def main(steps: int) -> None:
    key, random = jax.random.key(0), np.random.default_rng(0)
    network = Network((Recurrent(LSTM(), 1, 64, key=key, bias=True),), Readout(64, 1, key=key))
    learner = Learner(EProp1(), optax.adam(1e-3), squared, delay=LATE)
    state, start = learner.init(network), time.monotonic()
    past, error, known = np.zeros((2 * LATE, 1, 1), np.float32), 0.0, jnp.ones((CALL, 1))
    for step in range(CALL, steps + 1, CALL):
        inputs = random.uniform(-1.0, 1.0, (CALL, 1, 1)).astype(np.float32)
        signal = np.concatenate([past, inputs])
        # the target of step t is the input at t - LATE, and comes at t + LATE
        state, y, _ = learner.run(state, jnp.asarray(inputs), jnp.asarray(signal[:CALL]), known, window=1)
        error, past = float(np.mean((np.asarray(y) - signal[LATE : CALL + LATE]) ** 2)), signal[CALL:]
        if step == 1000 or step % (steps // 5) == 0:
            megabytes, seconds = peak_resident_bytes() / 2**20, time.monotonic() - start
            shown = f"{step:>9,} steps  {seconds:7.1f} s  peak {megabytes:6.1f} MB  traced {len(traced)} time(s)"
            print(f"{shown}  mean squared error {error:.4f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
