"""e-prop 3: with the true gradient at the boundaries it is BPTT; what each of its halves leaves out."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from eprop.eligibility import (
    Synapses,
    eligibility_step,
    trace_structure,
    unroll_exact,
    unroll_with_boundary,
    with_late_traces,
    with_traces,
)
from eprop.eligibility._trajectory import contract_presynaptic, input_drive, unstack_currents
from eprop.neurons import readout_output, recurrent_output, traced
from models import BATCH, MODELS, N_IN, SMOOTH, TIME, N, check_alive, difference, inputs, make, targets

EXACT = 1e-10
every_model = pytest.mark.parametrize("name", MODELS)


class Case:
    """A layer, its inputs, and the whole sequence's loss: a sum over steps, so that windows add up."""

    def __init__(self, name, time=TIME):
        self.network = make(name)
        self.layer = self.network.layers[0]
        self.neuron, self.synapses = self.layer.neuron, self.layer.synapses()
        self.constants, self.rest = eqx.partition(self.neuron, eqx.is_inexact_array)
        self.x, self.target, self.start = inputs(time), targets(time), self.layer.start(BATCH)
        self.gradient = jax.jit(self._gradient, static_argnums=0)

    def loss(self, outputs, target):
        y, z = readout_output(outputs) @ self.network.readout.weight, recurrent_output(outputs)
        return 0.5 * jnp.sum((y - target) ** 2) + 0.05 * jnp.sum((z - 0.1) ** 2)

    def bptt(self):
        """Plain automatic differentiation: over (constants, synapses), and over (state, z) after every step."""
        x = input_drive(self.synapses, self.x)

        def loss(parameters, perturbations):
            constants, synapses = parameters
            model = eqx.combine(constants, self.rest)
            drive = input_drive(synapses, self.x)

            def step(carry, inputs):
                state, z = carry
                drive, of_state, of_z = inputs
                currents = drive + contract_presynaptic(z, synapses.w_rec)
                state, outputs = model.step(state, unstack_currents(currents), z)
                floating, others = eqx.partition(state, eqx.is_inexact_array)
                floating = jax.tree.map(jnp.add, floating, of_state)
                state, z = eqx.combine(floating, others), recurrent_output(outputs) + of_z
                return (state, z), (outputs, state, z)

            _, (outputs, *carries) = jax.lax.scan(step, (self.start.state, self.start.z), (drive, *perturbations))
            return self.loss(outputs, self.target), (outputs, carries)

        every = lambda s: jnp.zeros((len(x), *s.shape), s.dtype)  # noqa: E731
        nothing = jax.tree.map(every, (traced(self.start.state), self.start.z))
        parameters = (self.constants, self.synapses)
        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(parameters, nothing)

    def _gradient(self, unroll, carry, x, target, seed):
        def loss(constants, synapses, floating, z):
            first = carry._replace(state=eqx.combine(floating, carry.state), z=z)
            outputs, last = unroll(eqx.combine(constants, self.rest), synapses, x, first)
            pairs = zip(jax.tree.leaves((traced(last.state), last.z)), jax.tree.leaves(seed), strict=True)
            return self.loss(outputs, target) + sum(jnp.sum(a * b) for a, b in pairs), last

        arguments = (self.constants, self.synapses, traced(carry.state), carry.z)
        return jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(*arguments)

    def window(self, carry, part, seed, unroll=unroll_with_boundary):
        """One window's gradients, over constants, synapses, state and z, with a seed at its end; the last carry."""
        return self.gradient(unroll, carry, self.x[part], self.target[part], seed)


def cuts(lengths):
    first = 0
    for length in lengths:
        yield slice(first, first + length)
        first += length


def windows_of(length, time):
    return [min(length, time - t) for t in range(0, time, length)]


# 5. with the true boundary gradient = BPTT, any window


@every_model
def test_with_the_true_boundary_gradient_the_windows_sum_is_bptt(name):
    time = 5
    case = Case(name, time)
    (expected, by_step), (outputs, _) = case.bptt()
    check_alive(recurrent_output(outputs), expected)
    for lengths in (*(windows_of(k, time) for k in range(1, time + 1)), (2, 1, 2)):
        carry = with_late_traces(case.neuron, case.synapses, case.start, lengths[0])
        total = jax.tree.map(jnp.zeros_like, expected)
        for part in cuts(lengths):
            last = part.stop == time
            seed = jax.tree.map(lambda g, t=part.stop - 1, last=last: (0.0 if last else 1.0) * g[t], by_step)
            (constants, synapses, *at_start), carry = case.window(carry, part, seed)
            if part.start > 0:
                true = jax.tree.map(lambda g, t=part.start - 1: g[t], by_step)
                assert difference(tuple(at_start), true) < EXACT, lengths
            total = jax.tree.map(jnp.add, total, (constants, synapses))
        assert difference(total, expected) < EXACT, lengths
