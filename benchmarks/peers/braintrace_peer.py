"""braintrace: its online e-prop on the same LIF and ALIF network.

Its `EProp` with `kappa_filter_decay = 0` is its D-RTRL; the readout's filter is a hidden state here, as it is in our
network. What the reset and the other neurons see of a spike is detached. Its learning signal counts a path through two
hidden states of one step twice, so here a step begins with the spike of the step before, from carried states alone: the
same network, whose outputs come one step later.

    python braintrace_peer.py PROBLEM.npz ANSWER.npz ROUNDS
"""

import json
import math
import sys
import time
from importlib.metadata import version

import brainstate
import braintrace
import jax
import jax.numpy as jnp
import numpy as np


@jax.custom_jvp
def spike(v_scaled, scale):
    return (v_scaled > 0).astype(v_scaled.dtype)


@spike.defjvp
def _(primals, tangents):
    v_scaled, scale = primals
    return spike(v_scaled, scale), 0.3 * scale * jnp.maximum(0, 1 - jnp.abs(v_scaled)) * tangents[0]


class Network(brainstate.nn.Module):
    v_th, refractory = 0.6, 2
    alpha, rho, kappa = math.exp(-1 / 20), math.exp(-1 / 200), math.exp(-1 / 20)

    def __init__(self, weight, beta):
        super().__init__()
        self.weight = brainstate.ParamState(weight)
        self.beta, self.size = beta, weight.shape[1]

    def init_state(self, batch_size=None, **_):
        zeros = jnp.zeros((batch_size, self.size))
        self.v, self.z_bar = brainstate.HiddenState(zeros), brainstate.HiddenState(zeros)
        if self.beta:
            self.b = brainstate.HiddenState(zeros)
        self.r = brainstate.ShortTermState(zeros)

    def reset_state(self, **_):
        for state in (self.v, self.z_bar, self.r, *((self.b,) if self.beta else ())):
            state.value = jnp.zeros_like(state.value)

    def update(self, x):
        v_prev = self.v.value
        threshold = self.v_th + self.beta * self.b.value if self.beta else self.v_th
        ready = jax.lax.stop_gradient((self.r.value == 0).astype(v_prev.dtype))
        z = ready * spike((v_prev - threshold) / self.v_th, ready)  # of the step before
        fired = jax.lax.stop_gradient(z)
        current = braintrace.matmul(jnp.concatenate([x, fired], axis=-1), self.weight.value)
        self.v.value = self.alpha * v_prev + current - self.v_th * fired
        if self.beta:
            self.b.value = self.rho * self.b.value + z
        self.z_bar.value = self.kappa * self.z_bar.value + z
        self.r.value = jnp.clip(self.r.value + self.refractory * fired - 1, 0, self.refractory)
        return self.z_bar.value


def main(problem: str, answer: str, rounds: str) -> None:
    with np.load(problem) as given:
        weight = jnp.concatenate([given["w_in"][:, 0], given["w_rec"][:, 0]])
        inputs, targets = jnp.asarray(given["inputs"]), jnp.asarray(given["targets"])
        n_in = inputs.shape[2]
        inputs = jnp.concatenate([inputs, jnp.zeros_like(inputs[:1])])
        targets = jnp.concatenate([jnp.zeros_like(targets[:1]), targets])  # a step late; at first y = 0 = target
        model = Network(weight, 0.1 if str(given["model"]) == "alif" else 0.0)
        readout = brainstate.ParamState(jnp.asarray(given["w_out"]))
    learner = braintrace.compile(model, braintrace.EProp, inputs[0], batch_size=inputs.shape[1])

    @brainstate.transform.jit
    def gradient_of(inputs, targets):
        model.reset_state()
        learner.reset_state(batch_size=inputs.shape[1])
        step = lambda x, target: 0.5 * jnp.sum((learner(x) @ readout.value - target) ** 2)  # noqa: E731
        weights = {"weight": model.weight, "readout": readout}
        return learner.etrace_grad(inputs, targets, step_fn=step, weights=weights, reduction="sum")

    seconds, found = [], {}
    for _ in range(int(rounds) + 2):
        start = time.perf_counter()
        found = jax.block_until_ready(gradient_of(inputs, targets))
        seconds.append(time.perf_counter() - start)
        if len(seconds) > 2 and sum(seconds) > 60:
            break
    of_weight = found["weight"]
    of_recurrent = np.array(of_weight[n_in:])
    np.fill_diagonal(of_recurrent, 0)  # no autapses
    np.savez(answer, w_in=of_weight[:n_in, None], w_rec=of_recurrent[:, None], w_out=found["readout"])
    what = "online e-prop, step by step"
    told = {"version": version("braintrace"), "seconds": seconds[1:], "kind": "eprop", "what": what}
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
