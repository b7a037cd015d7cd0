"""What can be put together: the axes of an experiment, what is refused by name, and each one's gradient by plain loops.

`AXES` and `REFUSED` are what `docs/combinations.md` is made of (`scripts/combinations_page.py`) and what
`test_combinations.py` draws experiments from. A new rule, feedback or neuron is here as soon as it stands in its own
table; whatever is drawn must have the gradient of `reference`, unless `REFUSED` says that it is refused.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from eprop import Bidirectional, Broadcast, Filtered, Learner, Network, Neuron, Readout, Recurrent, Rule, make_rule
from eprop.chips import Quantised
from eprop.learning_signals import FEEDBACKS
from eprop.networks import Embedding, partition
from eprop.neurons import readout_output, recurrent_output, traced
from eprop.rules import RULES, WINDOWED
from models import ELEMENTWISE, MODELS, N_IN, N_OUT, N

TIME, WINDOW, DELAY, SYMBOLS = 12, 4, 2, 5
PENALTY, RATE_STRENGTH, RATE_TARGET, RATE_WINDOW, DISCOUNT = 0.03, 0.7, 0.1, 20.0, 0.9

_PLAIN = {name: of for name, of in (MODELS | ELEMENTWISE).items() if "filter" not in name and name != "linear rtu"}
NEURONS: dict[str, tuple[Neuron, tuple[str, ...]]] = {
    name: (of[0].neuron if isinstance(of[0], Filtered) else of[0], tuple(c for c in of[1] if c != "tau_out"))
    for name, of in _PLAIN.items()
}
"""The models of the ladder without the readout's filter, and constants of theirs to train."""

_FIXED = ("fixed:layers", "fixed:recurrent", "fixed:recurrent_random")
_SYNTHESISES = tuple(name for name in RULES if RULES[name].synthesises)
_WHOLE_ONLY = tuple(name for name in RULES if not RULES[name].streams)

AXES: dict[str, tuple[str, ...]] = {
    "rule": (*(name for name in RULES if name != "fixed"), *_FIXED),
    "rule's window": ("none said", "3 steps", "12 steps"),
    "feedback": ("none said", *FEEDBACKS),
    "neuron": tuple(NEURONS),
    "around it": ("nothing", "filter", "filter (frames of 2)", "quantised", "quantised (stochastic)"),
    "constants": ("fixed", "trained"),
    "connections": ("all", "masked inputs", "masked recurrent", "autapses", "bias"),
    "layers": ("one", "two", "two (both read)", "both directions"),
    "head": ("Readout", "Broadcast", "function"),
    "inputs": ("numbers", "symbols"),
    "data": ("whole", "stream"),
    "sequences": ("full", "padded", "end in between"),
    "targets": ("each step", "masked", "late", "a window without"),
    "loss": ("squared", "cross-entropy"),
    "regulariser": ("none", "rates", "running rates", "weights"),
    "precision": ("float64", "float32"),
    "batch": ("1", "2"),
}
"""What an experiment is made of, and what each part can be."""

_not = lambda axis, *values: tuple(v for v in AXES[axis] if v not in values)  # noqa: E731

_NO_RECURRENT = tuple(name for name, of in NEURONS.items() if of[0].recurrent_currents == ())
_NO_CONSTANTS = tuple(name for name, of in NEURONS.items() if not of[1])

REFUSED: tuple[tuple[dict[str, tuple[str, ...]], str], ...] = (
    ({"rule": _WHOLE_ONLY, "data": ("stream",)}, "does not learn from a stream"),
    ({"rule": _SYNTHESISES, "data": ("whole",)}, "trains its synthetic gradients window by window"),
    ({"rule": _SYNTHESISES, "targets": ("late",)}, "learns its synthetic gradients from targets that come at once"),
    ({"rule": _not("rule", *WINDOWED), "rule's window": ("3 steps", "12 steps")}, "window = .*: rule .* has none"),
    ({"rule": _SYNTHESISES, "rule's window": ("3 steps",)}, "longer than a window of 3 steps"),
    ({"rule": _not("rule", "eprop1", "immediate"), "feedback": tuple(FEEDBACKS)}, "feedback = .*: rule .* has none"),
    ({"rule": ("rtrl",), "layers": ("two", "two (both read)")}, "trains one recurrent layer"),
    ({"rule": ("rtrl",), "inputs": ("symbols",)}, "forms no gradient into its inputs"),
    ({"feedback": _not("feedback", "none said", "symmetric"), "head": ("function",)}, "has no feedback weights"),
    ({"rule": ("fixed:recurrent_random",), "head": ("function",)}, "has no feedback weights"),
    ({"feedback": ("adaptive",), "head": ("Broadcast",)}, "needs the linear head, Readout"),
    ({"neuron": _NO_CONSTANTS, "constants": ("trained",)}, "none of that name"),
    ({"neuron": _NO_RECURRENT, "connections": ("masked recurrent", "autapses")}, "takes no recurrent currents"),
    ({"layers": ("both directions",), "data": ("stream",)}, "needs the whole sequence"),
    ({"data": ("whole",), "targets": ("late",)}, "whole sequences have their targets beside them"),
    ({"data": ("whole",), "sequences": ("end in between",)}, "all of them end with it"),
    ({"targets": ("late",), "sequences": ("padded", "end in between")}, "not with late targets"),
)  # fmt: skip
"""What two parts of an experiment are refused by name, and with which words; all other pairs are tested."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A value for each axis, in the order of `AXES`."""

    values: tuple[str, ...] = tuple(values[0] for values in AXES.values())

    def __getitem__(self, axis: str) -> str:
        return self.values[tuple(AXES).index(axis)]

    @property
    def dtype(self) -> Any:
        return jnp.dtype(self["precision"])

    @property
    def size(self) -> int:
        return int(self["batch"])


def reasons(chosen: dict[str, str]) -> list[str]:
    """The words with which this, or a part of it, is refused."""
    holds = lambda parts: all(chosen.get(axis) in values for axis, values in parts.items())  # noqa: E731
    return [why for parts, why in REFUSED if holds(parts)]


# The experiment, as a user writes it


class Tanh(eqx.Module):
    """A head of a user's own."""

    weight: jax.Array

    def __call__(self, z_bar):
        return jnp.tanh(z_bar @ self.weight)


def make_neuron(e: Experiment) -> Neuron:
    neuron = NEURONS[e["neuron"]][0]
    around: dict[str, Callable[[], Neuron]] = {
        "nothing": lambda: neuron,
        "filter": lambda: Filtered(neuron, tau_out=5.0),
        "filter (frames of 2)": lambda: Filtered(neuron, tau_out=5.0, frame=2),
        "quantised": lambda: Filtered(Quantised(neuron, bits=12, spans=100.0), tau_out=5.0),
        "quantised (stochastic)": lambda: Quantised(neuron, bits=12, spans=100.0, rounding="stochastic", seed=3),
    }
    return around[e["around it"]]()


def make_layer(e: Experiment, n_in: int, seed: int) -> Recurrent:
    neuron, keys = make_neuron(e), jax.random.split(jax.random.key(seed), 4)
    trained = NEURONS[e["neuron"]][1] or ("tau_m",)
    options: dict[str, Any] = {
        "all": {},
        "masked inputs": {"mask_in": jax.random.bernoulli(keys[0], 0.6, (n_in, N))},
        "masked recurrent": {"mask_rec": jax.random.bernoulli(keys[1], 0.6, (N, N))},
        "autapses": {"autapses": True},
        "bias": {"bias": True},
    }[e["connections"]]
    if e["constants"] == "trained":
        # A constant of the model inside is named as if it were the wrapper's own.
        options["trainable"] = trained
    layer = Recurrent(neuron, n_in, N, key=keys[2], dtype=e.dtype, weight_scale=1.5, **options)
    if layer.bias is None:
        return layer
    return eqx.tree_at(lambda m: m.bias, layer, 0.3 * jax.random.normal(keys[3], layer.bias.shape, e.dtype))


def make_network(e: Experiment) -> Network:
    keys = jax.random.split(jax.random.key(9), 3)
    count = 2 if e["layers"].startswith("two") else 1
    layers = []
    for i in range(count):
        n_in = N_IN if i == 0 else N
        layers.append(make_layer(e, n_in, i))
        if e["layers"] == "both directions":
            layers[-1] = Bidirectional(layers[-1], make_layer(e, n_in, 7))
    read = 2 * N if e["layers"] in ("two (both read)", "both directions") else N
    head: Any = Readout(read, N_OUT, key=keys[0], dtype=e.dtype)
    if e["head"] == "Broadcast":
        head = Broadcast(
            eqx.nn.MLP(read, N_OUT, 5, 1, key=keys[0], dtype=e.dtype), read, N_OUT, key=keys[1], dtype=e.dtype
        )
    elif e["head"] == "function":
        head = Tanh(jax.random.normal(keys[0], (read, N_OUT), e.dtype))
    embedding = Embedding(SYMBOLS, N_IN, key=keys[2], dtype=e.dtype) if e["inputs"] == "symbols" else None
    return Network(tuple(layers), head, e["layers"] == "two (both read)", embedding)


def rule_of(e: Experiment) -> Rule:
    said = lambda axis: None if e[axis] == "none said" else e[axis]  # noqa: E731
    window = said("rule's window")
    return make_rule(e["rule"], said("feedback"), None if window is None else int(window.split()[0]))


def squared(y, target, mask):
    return 0.5 * jnp.sum(mask[..., None] * (y - target) ** 2)


def cross_entropy(y, target, mask):
    right = jnp.take_along_axis(jax.nn.log_softmax(y), target[..., None], axis=-1)[..., 0]
    return -jnp.sum(mask * right)


LOSSES = {"squared": squared, "cross-entropy": cross_entropy}


def learner_of(e: Experiment) -> Learner:
    rule, regulariser = rule_of(e), e["regulariser"]
    return Learner(
        rule,
        optax.sgd(1.0),
        LOSSES[e["loss"]],
        update_every=None,
        delay=DELAY if e["targets"] == "late" else 0,
        rate_target=RATE_TARGET,
        rate_strength=RATE_STRENGTH if "rates" in regulariser else 0.0,
        rate_window=RATE_WINDOW if regulariser == "running rates" else None,
        weight_penalty=PENALTY if regulariser == "weights" else 0.0,
        synthesiser_optimiser=optax.sgd(0.0) if rule.synthesises else None,
        synthesiser_discount=DISCOUNT,
    )


def data_of(e: Experiment) -> dict[str, Any]:
    """Inputs, targets, mask, valid steps, and which samples' sequences end with each window: of all steps."""
    keys, size = jax.random.split(jax.random.key(5), 4), e.size
    x = 1.5 * jax.random.normal(keys[0], (TIME, size, N_IN), e.dtype)
    if e["inputs"] == "symbols":
        x = jax.random.randint(keys[0], (TIME, size), 0, SYMBOLS)
    target = jax.random.normal(keys[1], (TIME, size, N_OUT), e.dtype)
    if e["loss"] == "cross-entropy":
        target = jax.random.randint(keys[1], (TIME, size), 0, N_OUT)
    mask = (
        jax.random.bernoulli(keys[2], 0.6, (TIME, size)) if e["targets"] == "masked" else jnp.ones((TIME, size), bool)
    )
    valid = ended = None
    if e["sequences"] == "padded":
        valid = jnp.arange(TIME)[:, None] < jnp.array([9, 7])[:size]
        mask = mask & valid
    if e["sequences"] == "end in between":
        ended = jnp.array([[False, True], [True, False], [False, False]])[:, :size]
    return {"inputs": x, "targets": target, "mask": mask.astype(e.dtype), "valid": valid, "ended": ended}


def windows_of(e: Experiment) -> list[slice]:
    length = TIME if e["data"] == "whole" else WINDOW
    return [slice(t, t + length) for t in range(0, TIME, length)]


def known_synthesisers(state: Any, dtype: Any) -> Any:
    """Synthetic gradients that say something, and go on saying it."""
    if state.synthesisers is None:
        return state
    noise = lambda w: 0.3 * jax.random.normal(jax.random.key(w.size), w.shape, dtype)  # noqa: E731
    modules = jax.tree.map(lambda w: noise(w) if eqx.is_inexact_array(w) else w, state.synthesisers.modules)
    return state._replace(synthesisers=state.synthesisers._replace(modules=modules))


def found(e: Experiment) -> tuple[Any, jax.Array]:
    """The gradient that the learner sums up, and the outputs.

    Raises:
        InvalidSetting: where the experiment is refused.
    """
    learner, data = learner_of(e), data_of(e)
    network = make_network(e)
    state = learner.init(network, None if e["data"] == "whole" else e.size)
    state = known_synthesisers(state, e.dtype)
    outputs, late = [], e["targets"] == "late"
    for i, part in enumerate(windows_of(e)):
        here = {name: None if array is None else array[part] for name, array in data.items() if name != "ended"}
        if e["sequences"] == "end in between":
            here["ended"] = data["ended"][i]
        if e["targets"] == "a window without" and i == 0:
            here |= {"targets": None, "mask": None}
        if late:
            roll = lambda a, part=part: jnp.roll(a, DELAY, axis=0)[part]  # noqa: E731
            here |= {"targets": roll(data["targets"]), "mask": roll(data["mask"])}
        state, y, _ = learner.step(state, **here)
        outputs.append(y)
    return state.gradient, jnp.concatenate(outputs)


# The same by plain loops and automatic differentiation: nothing of the engine


def run(layer: Recurrent, x, starts, restarts, *, cut: bool, detached: bool, nudge=None):
    """A layer step by step: `z`, what a head sees, and states, `[time, batch, neuron]`.

    Args:
        starts: `[time]`, where a window starts; `restarts`: `[time, batch]`, where a sequence does.
        cut: outputs do not act on learning through recurrent weights and reset.
        detached: nothing goes back over a window's start.
        nudge: added to the outputs, as everybody but the neuron's own state sees them.
    """
    neuron, n, w_rec, batch = layer.neuron, layer.size, layer.w_rec, x.shape[1]
    places = lambda of: range(neuron.num_currents) if of is None else of  # noqa: E731
    w_in = layer.w_in if layer.mask_in is None else jnp.where(layer.mask_in[:, None], layer.w_in, 0)
    if w_rec is not None:
        there = jnp.ones((n, n), bool) if layer.mask_rec is None else layer.mask_rec
        there = there if layer.autapses else there & ~jnp.eye(n, dtype=bool)
        w_rec = jnp.where(there[:, None], w_rec, 0)
    zero = jnp.zeros((batch, n), x.dtype)
    begin = neuron.init((batch, n), x.dtype), zero
    nudge = jnp.zeros((2, len(x), batch, n), x.dtype) if nudge is None else nudge

    def step(carry, now):
        x_t, start, restart, (p, p_bar) = now
        state, z = jax.tree.map(lambda new, old: jnp.where(restart[:, None], new, old), begin, carry)
        if detached:
            state, z = jax.tree.map(lambda s: jnp.where(start, jax.lax.stop_gradient(s), s), (state, z))
        seen = jax.lax.stop_gradient(z) if cut else z
        currents = [zero + (0 if layer.bias is None else layer.bias[q]) for q in range(neuron.num_currents)]
        for i, q in enumerate(places(neuron.input_currents)):
            currents[q] += x_t @ w_in[:, i]
        for i, q in enumerate(places(neuron.recurrent_currents) if w_rec is not None else ()):
            currents[q] += seen @ w_rec[:, i]
        state, outputs = neuron.step(state, tuple(currents), seen)
        z = recurrent_output(outputs) + p
        z_bar = readout_output(outputs) + p_bar if len(jax.tree.leaves(outputs)) == 2 else z
        return (state, z), (z, z_bar, state)

    return jax.lax.scan(step, begin, (x, starts, restarts, (nudge[0], nudge[1])))[1]


@dataclasses.dataclass(frozen=True)
class Plain:
    """How a rule is differentiated, in words of automatic differentiation."""

    cut: bool
    traces: bool
    hands_down: bool
    trains: bool

    @classmethod
    def of(cls, rule: Rule) -> "Plain":
        kind = rule.name
        cut = kind in ("eprop1", "fixed")
        nothing = rule.trains == "readout"
        return cls(cut, cut or kind in ("eligibility_only", "eprop3"), not nothing and kind != "rtrl", not nothing)


def layer_terms(how: Plain, layer, values, x, places, direct, seed):
    """A number whose gradient over the layer is the rule's; and the learning signal of what lies below.

    Args:
        layer: to be differentiated; `values`: the same, with no gradient.
        x: inputs, with no gradient; places: starts of windows and of sequences.
        direct: dE/d(z, z_bar) as their readers have it.
        seed: of the states and `z` of all steps, what windows ends add to the loss.
    """

    def total(layer, x, cut, detached, signals, seeded, nudge=None):
        z, z_bar, states = run(layer, x, *places, cut=cut, detached=detached, nudge=nudge)
        value = jnp.sum(signals[0] * z) + jnp.sum(signals[1] * z_bar)
        return value + (seed(states, z) if seeded else 0.0)

    signals, seeded = direct, not how.cut
    if how.traces and not how.cut:
        nothing = jnp.zeros((2, *direct[0].shape), x.dtype)
        signals = jax.grad(lambda p: total(values, x, False, True, direct, True, p))(nothing)
    if how.traces:
        term = total(layer, x, True, False, jax.lax.stop_gradient(signals), False)
    else:
        term = total(layer, x, False, True, direct, seeded)
    below = jax.grad(lambda x: total(values, x, how.cut, True, direct, seeded))(x)
    return (term if how.trains else 0.0), (below if how.hands_down else jnp.zeros_like(x))


def turned(x, lengths, frame):
    """Each sample's first steps backwards; `lengths` count frames."""
    if lengths is None:
        return x[::-1]
    t, ends = jnp.arange(len(x))[:, None], lengths * frame
    return jnp.take_along_axis(x, jnp.where(t < ends, ends - 1 - t, t)[..., None], axis=0)


def _sides(layer, values):
    """Backwards in time?, the layer in that direction, its neurons among those of both."""
    if isinstance(layer, Recurrent):
        return [(False, (layer, values), slice(None))]
    ahead, behind = (layer.forward, values.forward), (layer.backward, values.backward)
    return [(False, ahead, slice(N)), (True, behind, slice(N, None))]


def _frames(ran, frame):
    """`z` of all steps, and `z_bar` at each frame's last."""
    return ran[0], ran[1][frame - 1 :: frame]


def _spread(x, frame):
    return jnp.zeros((len(x) * frame, *x.shape[1:]), x.dtype).at[frame - 1 :: frame].set(x)


def reference(e: Experiment) -> tuple[Any, jax.Array]:
    """Gradient and outputs of an experiment that is not refused."""
    network, rule = make_network(e), rule_of(e)
    chosen, rest = partition(network, rule)
    seeds = known_synthesisers(learner_of(e).init(network, None if e["data"] == "whole" else e.size), e.dtype)
    data = data_of(e)
    modules = None if seeds.synthesisers is None else seeds.synthesisers.modules
    return eqx.filter_jit(_reference)(e, rule, chosen, rest, data, modules)


def _reference(e: Experiment, rule: Rule, chosen, rest, data, modules):
    frozen = jax.lax.stop_gradient
    values = eqx.combine(chosen, rest)
    learnt = TIME - WINDOW if e["targets"] == "late" else TIME
    frame = 2 if "frames" in e["around it"] else 1
    windows = [w for w in windows_of(e) if w.start < learnt]
    how = Plain.of(rule)
    places = _places(e, rule, data, frame)
    lengths = None if data["valid"] is None else data["valid"].sum(0)
    x = data["inputs"] if values.embedding is None else values.embedding.weight[data["inputs"]]
    x = jnp.repeat(x, frame, axis=0)

    # forwards; what a head sees are frames, and the backward layer's are its own
    fed, shown = [], []
    for layer in values.layers:
        fed.append(x)
        z, z_bar = _frames(run(getattr(layer, "forward", layer), x, *places, cut=False, detached=False), frame)
        if isinstance(layer, Bidirectional):
            behind = run(layer.backward, turned(x, lengths, frame), *places, cut=False, detached=False)
            behind = _frames(behind, frame)
            z = jnp.concatenate([z, turned(behind[0], lengths, frame)], -1)
            z_bar = jnp.concatenate([z_bar, turned(behind[1], lengths, 1)], -1)
        shown.append((z, z_bar))
        x = z
    read = shown if values.read_all else shown[-1:]
    z_bar = jnp.concatenate([of[1] for of in read], -1)
    y = _head(values.readout, z_bar)

    # the head's error, and what each neuron hears of it
    counted = data["mask"].at[learnt:].set(0.0)
    if e["targets"] == "a window without":
        counted = counted.at[windows[0]].set(0.0)
    error = jax.grad(lambda y: LOSSES[e["loss"]](y, data["targets"], counted))(y)
    heard = _heard(values.readout, z_bar, error, rule.feedback)
    sizes = [of[0].shape[-1] for of in read]
    parts = jnp.split(heard, [sum(sizes[:i]) for i in range(1, len(sizes))], axis=-1)
    signals = [jnp.zeros_like(of[1]) for of in shown[: len(shown) - len(read)]] + parts

    def terms(chosen):
        net = eqx.combine(chosen, rest)
        value = jnp.sum(error * _head(net.readout, z_bar))
        above = [_rate_signal(e, of[0], data["valid"], windows, frame) for of in shown]
        for i in reversed(range(len(net.layers))):
            seed = _seed_of(e, rule, data, modules and modules[i], windows, frame)
            below, sides = 0.0, _sides(net.layers[i], values.layers[i])
            for there, (part, fixed), cut in sides:
                turn = (lambda a, f: turned(a, lengths, f)) if there else (lambda a, f: a)
                direct = turn(above[i][..., cut], frame), _spread(turn(signals[i][..., cut], 1), frame)
                term, into = layer_terms(how, part, fixed, turn(fed[i], frame), places, direct, seed)
                value, below = value + term, below + turn(into, frame)
            if i:
                above[i - 1] = above[i - 1] + frozen(below)
        if net.embedding is not None:
            into = frozen(below).reshape(TIME, frame, *below.shape[1:]).sum(1)
            value = value + jnp.sum(into * net.embedding.weight[data["inputs"]])
        if e["regulariser"] == "weights":
            value = value + len(windows) * PENALTY * sum(jnp.sum(w**2) for w in jax.tree.leaves(chosen))
        return value

    gradient = jax.grad(terms)(chosen)
    if rule.feedback.adapts:
        like = lambda g: g.readout.feedback_weights  # noqa: E731
        extra = 2 * len(windows) * PENALTY if e["regulariser"] == "weights" else 0.0
        of_weight = gradient.readout.weight - extra * values.readout.weight + extra * values.readout.feedback_weights
        gradient = eqx.tree_at(like, gradient, of_weight)
    return gradient, y


def _places(e: Experiment, rule: Rule, data, frame: int):
    """Where windows and sequences start."""
    starts, steps = jnp.zeros((TIME * frame,), bool), TIME * frame
    for part in windows_of(e):
        begin, end = part.start * frame, part.stop * frame
        starts = starts.at[begin : end : rule.window or steps].set(True)
    restarts = jnp.zeros((steps, e.size), bool)
    if data["ended"] is not None:
        for i, part in enumerate(windows_of(e)[1:]):
            restarts = restarts.at[part.start * frame].set(data["ended"][i])
    return starts, restarts


def _head(head, z_bar):
    if isinstance(head, Readout):
        return z_bar @ head.weight + head.bias
    return jax.vmap(jax.vmap(head.head))(z_bar) if isinstance(head, Broadcast) else head(z_bar)


def _heard(head, z_bar, error, feedback):
    """The error as it comes back to the neurons that are read."""
    if feedback.name == "symmetric":
        return jax.vjp(lambda z_bar: _head(head, z_bar), z_bar)[1](error)[0]
    b = head.feedback_weights
    return error @ (jnp.full_like(b, N_OUT**-0.5) if feedback.name == "uniform" else b).T


def _rate_signal(e: Experiment, z, valid, windows: Iterable[slice], frame: int):
    """dE_reg/dz, window after window."""
    signal, running = jnp.zeros_like(z), jnp.full(z.shape[-1], RATE_TARGET, z.dtype)
    if "rates" not in e["regulariser"]:
        return signal
    for i, part in enumerate(windows):
        here = slice(part.start * frame, part.stop * frame)
        length = (part.stop - part.start) * frame
        weight = jnp.ones((length, z.shape[1]), z.dtype)
        if valid is not None:
            weight = jnp.repeat(valid[part], frame, axis=0).astype(z.dtype)
        share = (weight / weight.sum())[..., None]
        rate = (z[here] * share).sum((0, 1))
        compared = running if e["regulariser"] == "running rates" else rate
        if not (e["targets"] == "a window without" and i == 0):
            signal = signal.at[here].set(2 * RATE_STRENGTH * (compared - RATE_TARGET) * share)
        decay = jnp.exp(jnp.asarray(-(part.stop - part.start) / RATE_WINDOW, z.dtype))
        running = decay * running + (1 - decay) * rate
    return signal


def _seed_of(e: Experiment, rule: Rule, data, module, windows: Iterable[slice], frame: int):
    """What the synthetic gradient adds to the loss at each window's end, as a function of states and `z`."""

    def seed(states, z):
        if module is None:
            return 0.0
        value = 0.0
        for i, part in enumerate(windows):
            if e["targets"] == "a window without" and i == 0 and "rates" not in e["regulariser"]:
                if e["regulariser"] != "weights":
                    continue  # a window that teaches nothing has no gradient at all
            last = part.stop * frame - 1
            at = (traced(jax.tree.map(lambda s, last=last: s[last], states)), z[last])
            said = jax.lax.stop_gradient(module(*jax.lax.stop_gradient(at)))
            goes_on = jnp.ones((e.size, 1)) if data["ended"] is None else ~data["ended"][i][:, None]
            pairs = zip(jax.tree.leaves(said), jax.tree.leaves(at), strict=True)
            value = value + sum(jnp.sum(DISCOUNT / e.size * goes_on * a * b) for a, b in pairs)
        return value

    return seed
