"""A rule: how recurrence, past and future count, and a run of a layer that follows from it."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eprop.eligibility import Carry, Read, Recurrence, Synapses, settle, unroll, with_traces
from eprop.errors import InvalidSetting, require
from eprop.learning_signals import Feedback, Symmetric, boundary, seeded
from eprop.neurons import Neuron, Outputs, State

Future = Callable[[State, Float[Array, "batch neuron"]], tuple[State, Float[Array, "batch neuron"]]]
"""A synthetic gradient: from state and `z` at a window's end to the gradient of all that follows. Where recurrent
connections have delays, the state is a pair: the neurons', and the outputs on their way, one array a step."""

Result = tuple[Outputs, Float[Array, "time batch output"] | None, Carry]
"""Outputs of all steps, what a head reads of them, and the carry after the last step."""


class Rule(eqx.Module):
    """A learning rule. All its fields are static: a rule is a choice, not a state.

    What a rule is made of stands in the attributes below; `run` follows from them. A new rule is one file: a subclass
    with the attributes that differ, and a line in `RULES`; or, where that does not say it, with a `run` of its own.
    """

    name: ClassVar[str]
    recurrence: ClassVar[Recurrence] = "kept"
    """Whether an output acts on learning through recurrent weights and reset: `"cut"` or `"kept"` (see `unroll`)."""
    stackable: ClassVar[bool] = True
    """Whether the rule hands learning signals to a layer below."""
    streams: ClassVar[bool] = True
    """Whether the rule can learn a sequence that comes piece by piece."""
    synthesises: ClassVar[bool] = False
    """Whether a synthetic gradient stands for what follows a window's end."""

    @property
    def carries_traces(self) -> bool:
        """Whether eligibility vectors hand the past from one window to the next."""
        return False

    @property
    def window(self) -> int | None:
        """Steps a window; None: the rule has none, it takes a sequence as it comes."""
        return None

    @property
    def feedback(self) -> Feedback:
        """The weights that a head's error is multiplied with on its way back."""
        return Symmetric()

    @property
    def trains(self) -> Literal["all", "inputs", "readout"]:
        """Which weights: all; all but the recurrent ones; the readout's alone."""
        return "all"

    @property
    def unread(self) -> "Rule":
        """The rule of a layer that no head reads: its learning signals come through the layer above, undisturbed."""
        return self

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """The rule as it is written on the command line."""

    def run(
        self,
        neuron: Neuron,
        synapses: Synapses,
        inputs: Float[Array, "time batch n_in"],
        carry: Carry,
        read: Read | None = None,
        future: Future | None = None,
    ) -> Result:
        """Run a layer; differentiating the result is the rule's gradient.

        The rule cuts the sequence into its windows itself. From window to window state and `z` are detached, and what
        the future asks of them is `future`'s answer, or nothing; eligibility vectors are handed on where the rule
        carries them. The carry that is returned is that of the last window: a seed behind it counts.

        Args:
            neuron, synapses, inputs, carry, read: as in `unroll`.
            future: the synthetic gradient, for a rule that has one; sequences within one window need none.

        Raises:
            InvalidSetting: for a carry that does not fit the rule, or a future that is missing or not used.
        """
        time = inputs.shape[0]
        window = time if self.window is None else min(self.window, time)
        self._check(carry, future, one_window=window >= time)
        if window >= time:
            return self._run_window(neuron, synapses, inputs, carry, read)
        if self.carries_traces and carry.traces is None:
            carry = with_traces(neuron, synapses, carry)

        def one(carry: Carry, x: Array) -> tuple[Carry, tuple]:
            outputs, y, carry = self._run_window(neuron, synapses, x, carry, read)
            return _handed_over(neuron, carry, future), (outputs, y)

        before = (time - 1) // window * window  # the last window stands apart: nothing follows it here
        windows = inputs[:before].reshape(-1, window, *inputs.shape[1:])
        carry, head = jax.lax.scan(one, carry._replace(traces=settle(neuron, carry.traces)), windows)
        outputs, y, carry = self._run_window(neuron, synapses, inputs[before:], carry, read)
        join = lambda a, b: jnp.concatenate([a.reshape(before, *a.shape[2:]), b])  # noqa: E731
        return *jax.tree.map(join, head, (outputs, y)), carry

    def _run_window(self, neuron: Neuron, synapses: Synapses, inputs: Array, carry: Carry, read: Read | None) -> Result:
        return unroll(neuron, synapses, inputs, carry, recurrence=self.recurrence, read=read)

    def _check(self, carry: Carry, future: Any, one_window: bool) -> None:
        require(
            carry.traces is None or self.carries_traces,
            f"carry: holds eligibility vectors, and rule {self.label!r} has none; start without them",
        )
        require(
            future is None or self.synthesises,
            f"future: a synthetic gradient was given, and rule {self.label!r} has no use for one",
        )
        require(
            one_window or not self.synthesises or future is not None,
            f"rule {self.label!r}: the sequence is longer than a window of {self.window} steps, and what follows a "
            "window is a synthetic gradient's to say: hand one in as `future`, or train with a Learner, which has one; "
            "without any, eligibility_only (with traces) and truncated_bptt (without) are the rules",
        )


def require_rule(rule: Any) -> None:
    """Refuse what is no rule, a rule's name among others."""
    if not isinstance(rule, Rule):
        raise InvalidSetting(f"rule = {rule!r}: must be a rule, as EProp1(); make_rule makes one of a name")


def _handed_over(neuron: Neuron, carry: Carry, future: Future | None) -> Carry:
    """A window's carry as the next one gets it."""
    carry = carry._replace(traces=settle(neuron, carry.traces))
    detached = jax.lax.stop_gradient(carry)
    return detached if future is None else seeded(carry, future(*_seen_by(detached)))


def _seen_by(carry: Carry) -> tuple[State, Float[Array, "batch neuron"]]:
    """What a synthetic gradient is told of a window's end."""
    return (carry.state, carry.z) if carry.line is None else boundary(carry)
