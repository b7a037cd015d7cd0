"""The stream's real peak memory: a process of its own, whose input is made window by window and never held.

python -m eprop.bench._stream_memory MODEL NEURONS BATCH WINDOW STEPS
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import jax

from eprop.bench._paths import learner
from eprop.bench._problem import input_spikes, make_network, targets_of
from eprop.errors import RunFailed


def peak_resident_bytes() -> int:
    """This process' largest resident size so far.

    Linux's `ru_maxrss` starts from the parent's, so that a small child of a large process looks large; `VmHWM` doesn't.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def stream(model: str, neurons: int, batch: int, window: int, steps: int) -> dict[str, int]:
    """Learn from `steps` steps of a stream, and say how large the process grew."""
    online = learner()
    state = online.init(make_network(model, neurons), batch)
    spikes = jax.jit(input_spikes, static_argnums=(1, 2))
    for i in range(steps // window):
        inputs = spikes(jax.random.fold_in(jax.random.key(1), i), window, batch)
        state, _, metrics = online.step(state, inputs, targets_of(window, batch, i * window))
        jax.block_until_ready(metrics)
    return {"steps": steps // window * window, "peak_bytes": peak_resident_bytes()}


def measure_stream(model: str, neurons: int, batch: int, window: int, steps: int) -> dict[str, int]:
    """`stream` in a fresh process.

    Raises:
        RunFailed: if that process fails.
    """
    arguments = [str(value) for value in (model, neurons, batch, window, steps)]
    command = [sys.executable, "-m", "eprop.bench._stream_memory", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunFailed(f"bench: the stream's own process ended with status {done.returncode}: {last}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    model, *numbers = sys.argv[1:]
    print(json.dumps(stream(model, *map(int, numbers))))
