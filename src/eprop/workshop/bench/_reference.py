"""The gradients that every measured path must reproduce: plain differentiation of a plain loop over time."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from eprop.networks import Network, Recurrent, trainable
from eprop.neurons import readout_output, recurrent_output
from eprop.rules import BPTT
from eprop.workshop.bench._problem import Problem
from eprop.workshop.bench._ways import GradientKind

TOLERANCE = 1e-4
"""Largest error allowed, relative to each weight array's largest entry. Float32 summed in another order over ten
thousand steps and samples was seen to differ by 1e-6 to 3e-6; a wrong term is wrong by far more than this."""


def reference_gradient(kind: GradientKind, problem: Problem) -> Network:
    """Autodiff of the network written out: as it is (`"bptt"`), or with recurrent signals cut (`"eprop"`).

    It shares `step` with the engine, and nothing else: no engine, no trace, no rule.
    """
    chosen, rest = eqx.partition(problem.network, trainable(problem.network, BPTT()))

    def loss(chosen, inputs, targets):
        network: Network = eqx.combine(chosen, rest)
        (layer,) = network.layers
        assert isinstance(layer, Recurrent)
        weights = layer.synapses()
        shape = (inputs.shape[1], layer.size)

        def step(carry, inputs_t):
            (x, target), (state, z_prev) = inputs_t, carry
            if kind == "eprop":
                z_prev = jax.lax.stop_gradient(z_prev)  # what e-prop leaves out: recurrent weights and reset
            currents = jnp.einsum("bi,iqj->qbj", x, weights.w_in) + jnp.einsum("bi,iqj->qbj", z_prev, weights.w_rec)
            state, outputs = layer.neuron.step(state, tuple(currents), z_prev)
            y = readout_output(outputs) @ network.readout.weight + network.readout.bias[None]
            return (state, recurrent_output(outputs)), 0.5 * jnp.sum((y - target) ** 2)

        start = (layer.neuron.init(shape, inputs.dtype), jnp.zeros(shape, inputs.dtype))
        return jax.lax.scan(step, start, (inputs, targets))[1].sum()

    return jax.jit(jax.grad(loss))(chosen, problem.inputs, problem.targets)


def largest_error(gradient: Any, reference: Any) -> float:
    """Largest error over weight arrays, each relative to the largest entry of its reference."""
    errors = jax.tree.map(_error, gradient, reference)
    return max(jax.tree.leaves(errors))


def _error(a: Array, b: Array) -> float:
    scale = float(jnp.abs(b).max())
    error = float(jnp.abs(a - b).max()) / (scale if scale > 0 else 1.0)
    return error if math.isfinite(error) else math.inf
