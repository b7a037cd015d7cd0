"""Real-time recurrent learning: the exact gradient, forwards in time."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from eprop.eligibility import Carry, Read, Synapses, unroll
from eprop.eligibility.tools import (
    contract_presynaptic,
    filled,
    input_currents,
    pushed,
    seen,
    split_constants,
    unstack_currents,
    with_gradient,
    zeros_of,
)
from eprop.errors import InvalidSetting
from eprop.neurons import Neuron, Outputs, readout_output, recurrent_output, traced
from eprop.rules._base import Future, Result, Rule


class RTRL(Rule):
    """Real-time recurrent learning (Williams & Zipser 1989): BPTT's gradient without a backward pass.

        J_t = F_t J_{t-1} + d(s_t, z_t)/dtheta,     dE/dtheta = sum_t dE/do_t . do_t/dtheta

    with `F_t` the Jacobian of the whole network's step. e-prop is RTRL with the recurrent part of `F` cut.
    The influence matrix `J` has a row for each parameter and a column for each state variable of
    each sample: for small networks only.

    Approximation: none, but for the pseudo-derivative of spikes. The gradient into `inputs` is not formed
    (it would need the future), so one recurrent layer at a time.

    Args:
        memory_limit: bytes the influence matrix may take.

    Example:
        >>> from eprop import RTRL
        >>> RTRL().label
        'rtrl'
    """

    name: ClassVar[str] = "rtrl"
    stackable: ClassVar[bool] = False
    streams: ClassVar[bool] = False
    memory_limit: float = eqx.field(default=2e9, static=True)

    @property
    def label(self) -> str:
        return self.name

    def run(
        self,
        neuron: Neuron,
        synapses: Synapses,
        inputs: Array,
        carry: Carry,
        read: Read | None = None,
        future: Future | None = None,
    ) -> Result:
        self._check(carry, future, one_window=True)
        self.check_memory(neuron, synapses, carry)
        outputs, last = _run_rtrl(neuron, synapses, inputs, carry)
        return outputs, None if read is None else readout_output(outputs) @ read[0], last

    def check_memory(self, neuron: Neuron, synapses: Synapses, carry: Carry) -> None:
        """Raise `InvalidSetting` if the influence matrix would take more than `memory_limit`."""
        parameters = sum(x.size for x in jax.tree.leaves((split_constants(neuron)[0], synapses)))
        past = None if carry.line is None else carry.line.past
        states = sum(x.size for x in jax.tree.leaves((traced(carry.state), carry.z, past)))
        needed = carry.z.dtype.itemsize * parameters * (2 * states + parameters)
        if needed > self.memory_limit:
            raise InvalidSetting(
                f"rule 'rtrl' would need {needed / 1e9:.1f} GB for its influence matrix ({parameters} parameters, "
                f"{states} state variables in the batch), above its limit of {self.memory_limit / 1e9:.1f} GB: "
                "use fewer neurons or a smaller batch, or the rule bptt, which gives the same gradient"
            )


def _run_rtrl(neuron: Neuron, synapses: Synapses, inputs: Array, carry: Carry) -> tuple[Outputs, Carry]:
    constants, rest = split_constants(neuron)

    def forward(constants, synapses, inputs, carry):
        outputs, _, last = unroll(eqx.combine(constants, rest), synapses, inputs, carry, recurrence="kept")
        return (outputs, last), (constants, synapses, inputs, carry)

    def backward(residuals, cotangents):
        constants, synapses, inputs, carry = residuals
        parameters, unravel = ravel_pytree((constants, synapses))
        floating, integer = eqx.partition(carry.state, eqx.is_inexact_array)
        shown = zeros_of(lambda: unroll(eqx.combine(constants, rest), synapses, inputs, carry)[0])
        errors = filled(cotangents[0], shown)

        def step(parameters, floating, z_prev, line, integer, x):
            constants, synapses = unravel(parameters)
            currents = input_currents(synapses, x[None])[0]
            if synapses.w_rec is not None:
                currents = currents + contract_presynaptic(seen(line, z_prev), synapses.w_rec)
            model = eqx.combine(constants, rest)
            state, outputs = model.step(eqx.combine(floating, integer), unstack_currents(currents), z_prev)
            floating, integer = eqx.partition(state, eqx.is_inexact_array)
            line = pushed(line, z_prev)
            return (floating, recurrent_output(outputs), None if line is None else line.past, outputs), integer

        def advance(recursion, step_inputs):
            (floating, z_prev, past, integer), influence, gradient = recursion
            x, error = step_inputs

            def along(direction, influence):
                """One row of J: the tangent of (state, z) along one parameter, and what it does to the loss."""
                primals, tangents = (parameters, floating, z_prev, past), (direction, *influence)

                def at_t(parameters, floating, z_prev, past):
                    line = None if carry.line is None else carry.line._replace(past=past)
                    return step(parameters, floating, z_prev, line, integer, x)

                new, tangent, new_integer = jax.jvp(at_t, primals, tangents, has_aux=True)
                effects = jax.tree.map(lambda e, o: jnp.sum(e * o), error, tangent[3])
                return (*new[:3], new_integer), tangent[:3], sum(jax.tree.leaves(effects))

            eye = jnp.eye(parameters.size, dtype=parameters.dtype)
            new, influence, effect = jax.vmap(along, out_axes=(None, 0, 0))(eye, influence)
            return (new, influence, gradient + effect), None

        past = None if carry.line is None else carry.line.past
        none = jax.tree.map(lambda s: jnp.zeros((parameters.size, *s.shape), s.dtype), (floating, carry.z, past))
        start = ((floating, carry.z, past, integer), none, jnp.zeros_like(parameters))
        (_, _, gradient), _ = jax.lax.scan(advance, start, (inputs, errors))
        return (*unravel(gradient), None, None)

    outputs, last = with_gradient(forward, backward)(constants, synapses, inputs, carry)
    return outputs, jax.lax.stop_gradient(last)
