"""A run: neurons, synapses, traces and learning in the order of a step."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32

from eprop.chips._checks import integers
from eprop.chips.loihi import _neuron
from eprop.chips.loihi._draws import Draws, StepDraws, by_step, draw, never
from eprop.chips.loihi._evaluate import Seen, Synapses, learnt
from eprop.chips.loihi._neuron import LIFState
from eprop.chips.loihi._settings import Connection, Loihi
from eprop.chips.loihi._synapse import dendrite, truncate
from eprop.chips.loihi._trace import SENT, TraceConstants, again, history, trace_constants
from eprop.errors import require

Send = Callable[[Array, Array, Array], Array]
"""The values that neurons send: a function from their voltage before its reset, their spikes and the step's row of
`sent`, to y1, y2 and y3, int32 `[3, n]`."""


class ConnectionState(NamedTuple):
    """A connection's registers.

    a: the sum that arrives with the next step. x, y: trace registers. x_time, y_time: last spike of the epoch, 0: none.
    """

    synapses: Synapses
    a: Int32[Array, "n"]  # noqa: F821
    x: Int32[Array, "2 pre"]
    y: Int32[Array, "3 n"]
    x_time: Int32[Array, "pre"]  # noqa: F821
    y_time: Int32[Array, "n"]  # noqa: F821


class LoihiState(NamedTuple):
    """Everything that goes on to the next step; `step` counts those done."""

    neurons: LIFState
    dense: ConnectionState
    rec: ConnectionState | None
    step: Int32[Array, ""]


class ConnectionRecord(NamedTuple):
    """Of each step: trace registers, synapses and trace values after it, learning included.

    x_values, y_values: values `h(k)` of all traces, `[epoch, step, trace, neuron]`; 0 in epochs that have not ended.
    """

    synapses: Synapses
    x: Int32[Array, "time 2 pre"]
    y: Int32[Array, "time 3 n"]
    x_values: Int32[Array, "epoch step 2 pre"]
    y_values: Int32[Array, "epoch step 3 n"]


class Record(NamedTuple):
    """Registers of every step; `a`: the sums that arrived. Connections: where asked for, and they learn."""

    a: Int32[Array, "time n"]
    u: Int32[Array, "time n"]
    v: Int32[Array, "time n"]
    z: Bool[Array, "time n"]
    dense: ConnectionRecord | None
    rec: ConnectionRecord | None


def start(chip: Loihi, w_in: Any, w_rec: Any = None, tag: Any = None, delay: Any = None) -> LoihiState:
    """Neurons and traces at 0, weights as given and cut to their bits.

    Args:
        chip: the settings.
        w_in, w_rec: integer weights `[n_in, n]` and `[n, n]`, -256 to 255. `w_rec` where there is such a connection.
        tag, delay: initial t and d of the synapses from inputs, `[n_in, n]`; 0 by default.
    """
    require((w_rec is None) == (chip.rec is None), "w_rec: expected with a recurrent connection, and only then")
    shapes = {"w_in": (chip.n_in, chip.n), "w_rec": (chip.n, chip.n)}
    zero = np.zeros((chip.n,), np.int32)
    connections = []
    for name, given, connection in (("w_in", w_in, chip.dense), ("w_rec", w_rec, chip.rec)):
        if connection is None:
            connections.append(None)
            continue
        shape = shapes[name]
        w = truncate(connection, chip.variant, integers(name, given, shape, -256, 255))
        t, d = (np.zeros(shape, np.int32),) * 2
        if name == "w_in":
            t = t if tag is None else integers("tag", tag, shape, -257, 255)
            d = d if delay is None else integers("delay", delay, shape, 0, 255)
        pre = np.zeros((shape[0],), np.int32)
        state = ConnectionState(Synapses(w, t, d), zero, np.stack([pre] * 2), np.stack([zero] * 3), pre, zero)  # pyright: ignore
        connections.append(jax.tree.map(jnp.asarray, state))
    neurons = LIFState(jnp.asarray(zero), jnp.asarray(zero))
    return LoihiState(neurons, connections[0], connections[1], jnp.zeros((), jnp.int32))


def run(
    chip: Loihi,
    state: LoihiState,
    inputs: Any,
    sent: Any = None,
    draws: tuple[Draws | None, Draws | None] | None = None,
    send: Send | None = None,
    record: bool = False,
) -> tuple[LoihiState, Record]:
    """Run so many steps. In each: neurons take the sums that were stored in the step before, and spike; synapses read
    the spikes and store the next sums; traces mark the spikes; at an epoch's end, rules change the synapses.

    Args:
        chip: the settings.
        state: where to go on.
        inputs: spikes, 0 or 1, `[time, n_in]`.
        sent: y1, y2 and y3 of each step for three-factor rules, integers of 16 bits, `[time, 3, n]`; or, with `send`,
            whatever that takes, an array `[time, ...]`.
        draws: random numbers of the two connections; by default drawn from their rules' seeds (`draw`), or none that
            rounds up where `rounding` is off.
        send: makes y1, y2 and y3 from the neurons' own state, as a neuron's program does; must be jittable and keep to
            16 bits and sign.
        record: return trace registers, synapses and trace values of each step, too.

    Returns:
        The state after the last step and the registers of each.

    Example:
        >>> import numpy as np
        >>> from eprop.chips import loihi
        >>> chip = loihi.Loihi(n_in=3, n=2, lif=loihi.LoihiLIF(dv=200, vth=40))
        >>> state = loihi.start(chip, np.array([[90, 40], [20, 60], [-30, 8]]))
        >>> state, record = loihi.run(chip, state, np.ones((6, 3), int))
        >>> record.z[:, 0].tolist()
        [False, True, True, True, True, True]
    """
    steps = len(inputs)
    spikes = jnp.asarray(integers("inputs", inputs, (steps, chip.n_in), 0, 1).astype(bool))
    needed = any(c is not None and c.rule is not None and c.rule.factors == 3 for c in (chip.dense, chip.rec))
    require(not needed or sent is not None, "sent: a three-factor rule needs what the neurons send, y1, y2 and y3")
    if sent is None:
        sent = np.zeros((steps, 3, chip.n), np.int32)
    elif send is None:
        sent = integers("sent", sent, (steps, 3, chip.n), -SENT, SENT - 1)
    require(len(sent) == steps, f"sent: expected {steps} steps, got {len(sent)}")
    given = draws or (None, None)
    parts = zip((chip.dense, chip.rec), given, strict=True)
    rows = tuple(_rows(connection, chip, one, steps, int(state.step)) for connection, one in parts)
    return _run(chip, send, record, constants(chip), state, (spikes, jnp.asarray(sent), rows))


def _rows(connection: Connection | None, chip: Loihi, given: Draws | None, steps: int, done: int) -> StepDraws | None:
    """The random numbers of a connection in the order of steps."""
    if connection is None or connection.rule is None:
        return None
    rule = connection.rule
    if given is None:
        given = draw(rule, steps, chip.variant, done) if rule.rounding == "stochastic" else never(steps)
    return by_step(given, rule, steps, done)


@lru_cache(maxsize=8)
def constants(chip: Loihi) -> tuple[TraceConstants | None, TraceConstants | None]:
    """Trace constants of both connections, where they learn."""
    parts = (chip.dense, chip.rec)
    return tuple(trace_constants(c.rule, chip.variant) if c and c.rule else None for c in parts)  # pyright: ignore


@partial(jax.jit, static_argnames=("chip", "send", "record"))
def _run(chip, send, record, tables, state, xs):
    """`run`, once its arguments are arrays."""
    return jax.lax.scan(partial(_step, chip, send, record, tables), state, xs)


def _step(chip, send, record, tables, state, xs):
    """One step, in the order that `run` says."""
    spikes, sent, rows = xs
    a = state.dense.a + (0 if state.rec is None else state.rec.a)
    neurons, z, before = _neuron.step(chip.lif, chip.variant, state.neurons, a)
    y = sent if send is None else send(before, z, sent)
    step = state.step + 1
    both, shown = [], []
    for connection, old, pre, table, row in zip(
        (chip.dense, chip.rec), (state.dense, state.rec), (spikes, z), tables, rows, strict=True
    ):
        new, seen = old, None
        if old is not None:
            new = old._replace(a=dendrite(connection, chip.variant, old.synapses.w, pre))
            if connection.rule is not None:
                new, seen = _learn(connection, chip.variant, new, pre, z, y, step, table, row)
        both.append(new)
        shown.append(seen if record else None)
    return LoihiState(neurons, both[0], both[1], step), Record(a, neurons.u, neurons.v, z, *shown)


def _learn(connection, variant, state, pre, post, y, step, table, row):
    """Traces of a step, and at an epoch's end the rules."""
    rule, length = connection.rule, connection.rule.t_epoch
    k = (step - 1) % length + 1
    # the models compare a second presynaptic spike's impulse with 0, so that any fraction rounds up
    x, x_time = again(state.x, state.x_time, pre, k, table.x_impulse, jnp.zeros((2,), jnp.int32))
    y_register, y_time = again(state.y, state.y_time, post, k, table.y_impulse, row.y_again)
    if rule.factors == 3:
        y_register = y.astype(jnp.int32)
    marked = state._replace(x=x, y=y_register, x_time=x_time, y_time=y_time)
    if length == 1:
        return _epoch(connection, variant, marked, step, table, row)
    empty = tuple(jnp.zeros((length, *register.shape), jnp.int32) for register in (x, y_register))
    rest = ConnectionRecord(marked.synapses, x, y_register, *empty)
    end = partial(_epoch, connection, variant, marked, step // length, table, row)
    return jax.lax.cond(k == length, end, lambda: (marked, rest))


def _epoch(connection, variant, state, epoch, table, row):
    """The end of an epoch: values of traces, rules, registers; spike times are cleared."""
    rule = connection.rule
    three = rule.factors == 3
    once, length = variant.trace_decay == "once-an-epoch", rule.t_epoch
    x = history(table.x, False, table.x_impulse, state.x, state.x_time, row.x_decay, row.x_impulse, length, once)
    once = once and not three
    y = history(table.y, three, table.y_impulse, state.y, state.y_time, row.y_decay, row.y_impulse, length, once)
    synapses = learnt(connection, variant, Seen(state.synapses, x, y, state.x_time, state.y_time, epoch), row.w)
    zero = jnp.zeros_like
    registers = state._replace(
        synapses=synapses, x=x[-1], y=state.y if three else y[-1], x_time=zero(state.x_time), y_time=zero(state.y_time)
    )
    return registers, ConnectionRecord(synapses, registers.x, registers.y, x, y)
