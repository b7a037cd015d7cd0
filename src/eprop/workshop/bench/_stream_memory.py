"""The stream's real peak memory: a process of its own, whose input is made window by window and never held."""

import json
import os
import subprocess
import sys

import jax

from eprop.errors import RunFailed
from eprop.workshop.bench._problem import input_spikes, make_network, targets_of
from eprop.workshop.bench._ways import learner
from eprop.workshop.memory import peak_resident_bytes


def stream(model: str, neurons: int, batch: int, window: int, steps: int) -> list[dict[str, int]]:
    """Learn from `steps` steps of a stream; how large the process had grown after a tenth of them, and at the end."""
    online = learner()
    state = online.init(make_network(model, neurons), batch)
    spikes = jax.jit(input_spikes, static_argnums=(1, 2))
    grown, windows = [], steps // window
    for i in range(windows):
        inputs = spikes(jax.random.fold_in(jax.random.key(1), i), window, batch)
        state, _, metrics = online.step(state, inputs, targets_of(window, batch, i * window))
        jax.block_until_ready(metrics)
        if i + 1 in (max(windows // 10, 1), windows):
            grown.append({"steps": (i + 1) * window, "peak_bytes": peak_resident_bytes()})
    return grown


def measure_stream(model: str, neurons: int, batch: int, window: int, steps: int) -> list[dict[str, int]]:
    """`stream` in a fresh process, in pages of the usual size, as `eprop stream` has them.

    Raises:
        RunFailed: if that process fails.
    """
    program = "import json, sys; from eprop.workshop.bench._stream_memory import stream; "
    program += "print(json.dumps(stream(sys.argv[1], *map(int, sys.argv[2:]))))"
    arguments = [str(value) for value in (model, neurons, batch, window, steps)]
    environment = os.environ | {"GLIBC_TUNABLES": ""}
    done = subprocess.run([sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunFailed(f"bench: the stream's own process ended with status {done.returncode}: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])
