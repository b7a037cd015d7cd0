"""sparxml (imported as `sparx`): its online e-prop, on our neuron written to its contract.

python sparxml_peer.py PROBLEM.npz ANSWER.npz ROUNDS
"""

import json
import math
import sys
import time
from importlib.metadata import version
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sparx.dynamics import Output
from sparx.learn import EPropParams, eprop
from sparx.surrogate import Triangle


class State(NamedTuple):
    v: jax.Array
    b: jax.Array
    r: jax.Array
    z: jax.Array


class ALIF:
    """The ALIF neuron of the benchmark: reset one step after the spike and out of the gradient's way."""

    graded = False
    v_th, beta, refractory = 0.6, 0.1, 2
    alpha, rho = math.exp(-1 / 20), math.exp(-1 / 200)

    def init_state(self, shape, dtype):
        zeros = jnp.zeros(shape, dtype)
        return State(zeros, zeros, zeros, zeros)

    def step(self, state, inputs, dt):
        v = self.alpha * state.v + inputs.jump - self.v_th * jax.lax.stop_gradient(state.z)
        scaled = (v - self.v_th - self.beta * state.b) / self.v_th
        scaled = jnp.where(jax.lax.stop_gradient(state.r) > 0, -jnp.inf, scaled)
        z = Triangle(width=1.0, scale=0.3)(scaled)
        fired = jax.lax.stop_gradient(z)
        r = jnp.clip(jax.lax.stop_gradient(state.r) + self.refractory * fired - 1, 0, self.refractory)
        return State(v, self.rho * state.b + z, r, fired), Output(z, jnp.ones_like(z))


def main(problem: str, answer: str, rounds: str) -> None:
    with np.load(problem) as given:
        w_in, w_rec = given["w_in"][:, 0], given["w_rec"][:, 0]
        w_out = given["w_out"]
        params = EPropParams(*map(jnp.asarray, (w_in, w_rec, w_out)), jnp.zeros(w_out.shape[1]))
        inputs, targets = jnp.asarray(given["inputs"]), jnp.asarray(given["targets"])
    loss = lambda y, target: 0.5 * jnp.sum((y - target) ** 2)  # noqa: E731
    run = jax.jit(lambda params, x, target: eprop(ALIF(), params, x, target, loss, tau=20.0))
    run = run.lower(params, inputs, targets).compile()
    seconds, gradient = [], params
    for _ in range(int(rounds) + 1):
        start = time.perf_counter()
        _, gradient = jax.block_until_ready(run(params, inputs, targets))
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > 60:
            break
    of_recurrent = np.array(gradient.w_rec)
    np.fill_diagonal(of_recurrent, 0)  # no autapses
    np.savez(answer, w_in=np.asarray(gradient.w_in)[:, None], w_rec=of_recurrent[:, None], w_out=gradient.w_out)
    what = f"online e-prop, step by step (jax {jax.__version__})"
    told = {"version": version("sparxml"), "seconds": seconds[1:] or seconds, "kind": "eprop", "what": what}
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
