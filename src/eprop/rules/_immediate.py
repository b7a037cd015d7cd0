"""A control: e-prop 1 with its traces cut."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.eligibility import Carry, Read, Synapses
from eprop.learning_signals import Feedback
from eprop.neurons import Neuron, Wrapper
from eprop.rules._base import Future, Result, Rule
from eprop.rules._eprop1 import EProp1


class Immediate(EProp1):
    """The learning signal times what a synapse does to the output at once: e-prop 1 without any trace.

        dE/dW_ji = sum_t L_j^t (dz_j^t/dI_j^t) x_i^t,     L_j^t = sum_k B_jk dE/dy_k^t

    What e-prop's traces are worth is the difference to this rule (the claim that they are worth nothing under an
    optimiser that scales each weight's gradient: arXiv 2603.28750, of which only the abstract was known here).

    Approximation: beside what e-prop 1 cuts, all that a current does to the neuron's state after its own step: to the
    membrane, the adaptation, and the leak of the readout, whose filter is a trace as well. An error counts for the
    outputs of its own step alone; where the readout sees frames, for those of a frame's last step. The gradient is the
    same whatever windows a stream is cut into.

    Args:
        feedback: as in `EProp1`.

    Example:
        >>> from eprop import Immediate
        >>> Immediate("random").label
        'immediate:random'
    """

    name: ClassVar[str] = "immediate"

    def __init__(self, feedback: str | Feedback = "symmetric") -> None:
        super().__init__(feedback)

    @property
    def carries_traces(self) -> bool:
        return False

    @property
    def window(self) -> int:
        """One step: nothing is handed on for learning from one to the next. (`run` has no need to cut them apart.)"""
        return 1

    @property
    def unread(self) -> Rule:
        return Immediate()

    def run(
        self,
        neuron: Neuron,
        synapses: Synapses,
        inputs: Float[Array, "time batch n_in"],
        carry: Carry,
        read: Read | None = None,
        future: Future | None = None,
    ) -> Result:
        self._check(carry, future, one_window=True)
        return self._run_window(_Forgetful(neuron), synapses, inputs, carry, read)


class _Forgetful(Wrapper):
    """A neuron whose step takes the state before it as given: D = 0, no eligibility vector lives on."""

    def init(self, shape, dtype=jnp.float32):
        return self.neuron.init(shape, dtype)

    def step(self, state, currents, z_prev):
        return self.neuron.step(jax.tree.map(jax.lax.stop_gradient, state), currents, z_prev)
