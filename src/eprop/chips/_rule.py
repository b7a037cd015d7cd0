"""e-prop 1 with eligibility traces and learning signals on grids of b bits, and what their grids should span."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from eprop.chips._checks import require_range
from eprop.chips._grid import Grid, Rounding, digest, drawn, each, generators, on_grid, require_grid
from eprop.eligibility import Carry, Read, Recurrence, Synapses, Traces, Trajectory, record, split_presynaptic, unroll
from eprop.eligibility.stepwise import dense_zero_traces, eligibility_step, through_head
from eprop.eligibility.tools import filled, gather, split_constants, with_gradient
from eprop.errors import InvalidSetting, require, require_choice
from eprop.learning_signals import Feedback, as_feedback
from eprop.networks import Network, Recurrent
from eprop.neurons import Neuron, Outputs, PyTree, readout_output
from eprop.rules import EProp1, Future, Result, Rule


class QuantisedEProp1(Rule):
    """e-prop 1, step by step and synapse by synapse, with what a chip stores on grids.

        eps_t = Q_traces(D_{t-1} eps_{t-1} + ds_t/dW),   e_t = dz_t/ds_t . (D_{t-1} eps_{t-1} + ds_t/dW)
        dE/dW = sum_t Q_signals(L_t) e_t

    Each component of the eligibility vector of each synapse stands on a grid; behind `Filtered` the filtered trace is
    one of them. Learning signals, of `z` and of the filtered output, stand on another. Products of a step and their sum
    over time are exact: an update is collected in float. `Quantised` puts the neuron's state on a grid, and
    `GridUpdates` the weights.

    Stochastic rounding draws for each number. The draws depend on `seed`, on the inputs and on the weights, and so are
    others at each update, the same after a kill and resume, and the same on every machine.

    Approximation: that of `EProp1`, and rounding. The gradient into `inputs` is not formed: one recurrent layer.

    Args:
        feedback: as in `EProp1`.
        traces: the grid of eligibility vectors; one span, or one a component of the neuron's state, in its order.
        signals: the grid of learning signals.
        rounding: nearest, or stochastic (unbiased).
        seed: of the draws, 0 to 2^32 - 1; or an array of JAX.

    Example:
        >>> from eprop.chips import Grid, QuantisedEProp1
        >>> QuantisedEProp1("random", traces=Grid(8, 16.0), signals=Grid(8, 1.0)).label
        'quantised-eprop1:random'
    """

    name: ClassVar[str] = "quantised-eprop1"
    recurrence: ClassVar[Recurrence] = "cut"
    stackable: ClassVar[bool] = False
    streams: ClassVar[bool] = False
    kind: Feedback = eqx.field(static=True)
    traces: Grid
    signals: Grid
    rounding: Rounding = eqx.field(static=True)
    seed: int | UInt32[Array, ""]

    def __init__(
        self,
        feedback: str | Feedback = "symmetric",
        *,
        traces: Grid,
        signals: Grid,
        rounding: Rounding = "nearest",
        seed: int | UInt32[Array, ""] = 0,
    ) -> None:
        require_choice("rounding", rounding, ("nearest", "stochastic"))
        if not isinstance(seed, jax.Array):
            require_range(seed=(seed, 0, 2**32 - 1))
        require_grid("signals", signals, 1)
        require_grid("traces", traces, len(traces.span) if isinstance(traces.span, tuple) else 1)
        self.kind, self.traces, self.signals = as_feedback(feedback), traces, signals
        self.rounding, self.seed = rounding, seed

    @property
    def window(self) -> int | None:
        """One step: the filtered trace is carried on, and no error is ever filtered backwards in time."""
        return 1

    @property
    def feedback(self) -> Feedback:
        return self.kind

    @property
    def label(self) -> str:
        return f"{self.name}:{self.kind.name}"

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
        components = len(jax.tree.leaves(eqx.filter(carry.state, eqx.is_inexact_array)))
        require_grid("traces", self.traces, components)
        constants, rest = split_constants(neuron)

        def forward(constants, synapses, inputs, carry, read):
            outputs, _, last = unroll(eqx.combine(constants, rest), synapses, inputs, carry)
            y = None if read is None else readout_output(outputs) @ read[0]
            return (outputs, y, last), (constants, synapses, inputs, carry, read, outputs)

        def backward(kept, cotangents):
            constants, synapses, inputs, carry, read, outputs = kept
            model = eqx.combine(constants, rest)
            signals, of_read = _signals(outputs, cotangents[0], cotangents[1], read)
            _, trajectory = record(model, synapses, inputs, carry)
            seed = None if self.rounding == "nearest" else digest(inputs, synapses.w_in) + jnp.uint32(self.seed)
            weights, of_constants, _ = _contract(model, trajectory, signals, self.traces, self.signals, seed)
            of_inputs = jnp.zeros_like(inputs)
            return of_constants, split_presynaptic(weights, synapses), of_inputs, None, of_read

        arguments = (constants, synapses, _given(inputs), carry, read)
        outputs, y, last = with_gradient(forward, backward)(*arguments)
        return outputs, y, jax.lax.stop_gradient(last)


def _signals(outputs: Outputs, given: Outputs, error: Array | None, read: Read | None) -> tuple[Outputs, Read | None]:
    """Learning signals at the outputs, those through `B` among them, and the gradient of `W_out` and `B`."""
    signals = filled(given, outputs)
    return (signals, None) if error is None or read is None else through_head(signals, outputs, error, read)


class _Largest(NamedTuple):
    """The largest magnitudes of a run: of each state component, each trace component, and of learning signals."""

    state: tuple[Array, ...]
    traces: tuple[Array, ...]
    signals: Array


def _contract(
    neuron: Neuron,
    trajectory: Trajectory,
    signals: Outputs,
    traces: Grid | None,
    learning: Grid | None,
    seed: Array | None,
) -> tuple[Float[Array, "pre current neuron"], PyTree, _Largest]:
    """`sum_t Q(L_t) e_t` over `[x, z_prev, 1]` and over the neuron's constants; `seed`: None rounds to the nearest."""
    constants, _ = split_constants(neuron)
    vectors = dense_zero_traces(neuron, trajectory.state, trajectory.presynaptic.shape[-1])
    stored = _stored(vectors)
    shown, count = jax.tree.leaves(signals), len(vectors.synapses)
    fresh = lambda shapes, at: [generators(shape, seed + jnp.uint32(at + i)) for i, shape in enumerate(shapes)]  # noqa: E731
    random = None if seed is None else fresh([x.shape for x in stored], 0)
    drawn_for = None if seed is None else fresh([x.shape[1:] for x in shown], len(stored))
    grids = None if traces is None else _one_each(traces, count, len(stored))
    signal_grids = None if learning is None else [learning] * len(shown)
    floating = lambda state: jax.tree.leaves(eqx.filter(state, eqx.is_inexact_array))  # noqa: E731
    zero = jnp.zeros((), trajectory.z_prev.dtype)
    nothing = _Largest((zero,) * count, (zero,) * count, zero)
    n_pre, (_, _, k, n) = trajectory.presynaptic.shape[-1], trajectory.currents.shape
    total = jnp.zeros((n_pre, k, n), zero.dtype), jax.tree.map(jnp.zeros_like, constants)

    def step(carry, given):
        state, vectors, (weights, of_constants), largest, random, drawn_for = carry
        presynaptic, currents, z_prev, signal = given
        state, vectors, now = eligibility_step(neuron, state, vectors, presynaptic, currents, z_prev)
        largest = _Largest(
            tuple(map(_larger, largest.state, floating(state))),
            tuple(map(_larger, largest.traces, vectors.synapses)),
            _larger(largest.signals, jnp.stack(signal)),
        )
        signal, drawn_for = _rounded(signal, signal_grids, drawn_for)
        for one, trace, of in zip(signal, *now, strict=True):
            weights = weights + (one[:, None, None, :] * trace).sum(0)
            of_constants = jax.tree.map(
                jnp.add, of_constants, gather(constants, jax.tree.map(lambda e, s=one: s * e, of))
            )
        rounded, random = _rounded(_stored(vectors), grids, random)
        return (state, _restored(vectors, rounded), (weights, of_constants), largest, random, drawn_for), None

    begin = (trajectory.state, vectors, total, nothing, random, drawn_for)
    last, _ = jax.lax.scan(step, begin, (*trajectory[1:], shown))
    return *last[2], last[3]


def _one_each(grid: Grid, components: int, stored: int) -> list[Grid]:
    """A grid for each array that is stored: of the components, then of as many constants for each of them."""
    spans = each(grid.span, components)
    constants = (stored - components) // components
    return [Grid(grid.bits, span) for span in (*spans, *(span for span in spans for _ in range(constants)))]


def _larger(so_far: Array, x: Array) -> Array:
    return jnp.maximum(so_far, jnp.abs(x).max())


def _stored(vectors: Traces) -> list[Array]:
    """All numbers that are stored, component by component: of synapses, then of constants."""
    return [*vectors.synapses, *jax.tree.leaves(vectors.constants)]


def _restored(vectors: Traces, stored: list[Array]) -> Traces:
    count = len(vectors.synapses)
    structure = jax.tree.structure(vectors.constants)
    return Traces(tuple(stored[:count]), structure.unflatten(stored[count:]))


def _rounded(values: list[Array], grids: list[Grid] | None, random: Any) -> tuple[list[Array], Any]:
    """Numbers on their grids (None: as they are), and the generators one draw on."""
    if grids is None:
        return values, random
    found, after = [], []
    for i, (value, grid) in enumerate(zip(values, grids, strict=True)):
        draw = None
        if random is not None:
            generator, draw = drawn(random[i], value.dtype)
            after.append(generator)
        found.append(on_grid(value, grid.bits, grid.span, draw))  # pyright: ignore[reportArgumentType]
    return found, None if random is None else after


@jax.custom_vjp
def _given(inputs: Array) -> Array:
    """Inputs that get no gradient: asking for one is refused."""
    return inputs


def _refuse(_: None, cotangent: Array) -> tuple:
    raise InvalidSetting(
        f"rule {QuantisedEProp1.name!r}: forms no gradient into a layer's inputs; train no embedding or layer below"
    )


_given.defvjp(lambda inputs: (inputs, None), _refuse)


class Spans(NamedTuple):
    """Largest magnitudes that a float run met: what grids should span.

    state, traces: one a state component, in its order; signals: of all learning signals.
    """

    state: tuple[float, ...]
    traces: tuple[float, ...]
    signals: float


def measure_spans(
    network: Network, inputs: Float[Array, "time batch n_in"], loss: Any, feedback: str | Feedback = "symmetric"
) -> Spans:
    """What the grids of state, eligibility vectors and learning signals should span, from a run in float.

    A component that stayed 0 gets 1. Traces of constants are not looked at: they share their component's grid.

    Args:
        network: one recurrent layer and a `Readout`.
        inputs: `[time, batch, n_in]`, as they will come.
        loss: function of the outputs `y` `[time, batch, output]` to a scalar: it says what the errors are.
        feedback: of the rule that will learn.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from eprop import LIF, Filtered, Network, Readout, Recurrent
        >>> from eprop.chips import measure_spans
        >>> key = jax.random.key(0)
        >>> network = Network((Recurrent(Filtered(LIF(), 20.0), 3, 5, key=key),), Readout(5, 2, key=key))
        >>> spans = measure_spans(network, jnp.ones((9, 1, 3)), lambda y: (y**2).sum())
        >>> len(spans.state), len(spans.traces)
        (2, 2)
    """
    layer = network.layers[0]
    require(
        len(network.layers) == 1 and isinstance(layer, Recurrent) and network.embedding is None and layer.frame == 1,
        "network: spans are measured in one recurrent layer, without an embedding or frames longer than a step",
    )
    assert isinstance(layer, Recurrent)
    rule = EProp1(feedback)
    error = jax.grad(loss)(network(inputs, rule).y)
    synapses, carry = layer.synapses(), layer.start(inputs.shape[1])
    outputs, trajectory = record(layer.neuron, synapses, jnp.asarray(inputs, layer.w_in.dtype), carry)
    readout = network.readout
    read = rule.feedback.read(readout.weight, readout.feedback_weights)
    nothing = jax.tree.map(jnp.zeros_like, outputs)
    signals, _ = _signals(outputs, nothing, error, read)
    found = jax.jit(lambda: _contract(layer.neuron, trajectory, signals, None, None, None)[2])()
    positive = lambda x: float(x) if float(x) > 0 else 1.0  # noqa: E731
    return Spans(tuple(map(positive, found.state)), tuple(map(positive, found.traces)), positive(found.signals))
