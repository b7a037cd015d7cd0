"""Learning a task by e-prop's rule on the chip: synapses, traces and tags in its integers, errors sent by neurons."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eprop.chips.loihi import _neuron
from eprop.chips.loihi._draws import by_step, draw
from eprop.chips.loihi._eprop import ZERO, EPropRule, eprop_alif, eprop_lif
from eprop.chips.loihi._run import ConnectionState, LoihiState, _learn, constants, start
from eprop.chips.loihi._settings import Connection, Loihi, LoihiLIF
from eprop.chips.loihi._synapse import dendrite
from eprop.errors import require, require_choice, require_positive
from eprop.neurons import PyTree

FRACTION = 64
"""Units of the voltage for one of the threshold's and of a weight's."""


@dataclass(frozen=True)
class LoihiTraining:
    """A population that learns classes on the chip, and what its host computes.

    Neurons, synapses, traces and tags are integers, as the models have them. An ALIF neuron's threshold is raised by
    `beta vth` a spike and sinks back with `tau_a`, a register of 24 bits that decays as the voltage does. The host, in
    float, filters spikes, reads them out, and hands each neuron its learning signal; the neuron sends psi and -L psi,
    rounded to 7 bits.

        psi_j = max(0, 1 - |v_j - A_j| / vth),   L_j = sum_k B_jk (softmax(y)_k - target_k),   y = W_out z_bar

    Departs from e-prop 1 in float: the eligibility trace is not filtered by the readout's leak (a rule cannot say it),
    the reset is hard, and the trace of a neuron is not wiped by it. `W_out` learns on the host, by the delta rule.
    """

    kind: Literal["lif", "alif"] = "lif"
    """The neurons."""
    n: int = 32
    """Neurons."""
    dv: int = 200
    """Decay of the voltage (4096ths): 200 is about 20 steps."""
    vth: int = 160
    """Threshold, in units of weights."""
    tau_a: float = 128.0
    """Time constant of an ALIF neuron's threshold, steps, at most about 128."""
    beta: float = 0.25
    """What a spike raises it by, in thresholds."""
    kappa: float = 0.95
    """The readout's factor a step."""
    exponent: int = -7
    """Of the weight's product: the learning rate."""
    signal: float = 1 / 64
    """What one unit of y3 stands for."""
    readout_rate: float = 0.005
    """Learning rate of `W_out`, on the host."""
    spread: tuple[float, float] = (60.0, 25.0)
    """Standard deviations of initial weights, of inputs and recurrent."""

    def __post_init__(self) -> None:
        require_choice("kind", self.kind, ("lif", "alif"))
        require_positive(n=self.n, tau_a=self.tau_a, beta=self.beta, signal=self.signal, readout_rate=self.readout_rate)
        require(0 < self.kappa < 1, f"kappa = {self.kappa}: must be between 0 and 1")

    @property
    def rule(self) -> EPropRule:
        """e-prop for the neurons; a unit of y2 is 1/64."""
        if self.kind == "lif":
            return eprop_lif(self.dv, exponent=self.exponent)
        return eprop_alif(self.dv, self.tau_a, self.beta, 1 / 64, exponent=self.exponent)

    def chip(self, n_in: int) -> Loihi:
        """The population, both of its connections learning."""
        rule = self.rule.rule
        again = Connection(rule=rule)
        return Loihi(n_in, self.n, LoihiLIF(dv=self.dv, vth=self.vth), Connection(rule=rule), again)


class Sampled(NamedTuple):
    """Of one training sample.

    correct: whether it was decided rightly before it was learnt. cosine: between the change of all weights in integers
    and e-prop's update in float, given the same spikes, psi and signals. size: `<d, g> / <g, g>`. nothing: of the
    synapses and steps whose float update was not 0, the share that changed no weight; NaN where there was none. inputs,
    spikes: how often each input and neuron fired, `[n_in]`, `[n]`. moved: changes of a weight, over synapses and steps.
    """

    correct: Array
    cosine: Array
    size: Array
    nothing: Array
    inputs: Array
    spikes: Array
    moved: Array


class LoihiLearnt(NamedTuple):
    """After learning: the weights, each sample's record and steps, and the share of test samples decided rightly."""

    w_in: np.ndarray
    w_rec: np.ndarray
    w_out: np.ndarray
    samples: Sampled
    steps: int
    tested: float


class _Weights(NamedTuple):
    """What goes on from sample to sample."""

    chip: LoihiState
    w_out: Float[Array, "neuron output"]


def learn_on_loihi(
    task: Any, training: LoihiTraining | None = None, *, samples: int = 300, test: int = 200, seed: int = 0
) -> LoihiLearnt:
    """Learn a task of classes on the chip: new samples one by one, weights changing at each step with a target.

    Args:
        task: draws samples of spikes with a class each (`n_in`, `n_out`, `sample`), as `eprop.workshop.tasks` do.
        training: the population.
        samples, test: training samples, and samples of the test after them, in which nothing learns.
        seed: of weights, samples and feedback. The chip's draws are its own, and go on from sample to sample.

    Example:
        >>> from eprop.chips.loihi import LoihiTraining, learn_on_loihi
        >>> from eprop.workshop.tasks import EvidenceAccumulation
        >>> task = EvidenceAccumulation(cues=1, slot=20, cue_duration=15, delay=30, recall_duration=10, group=2)
        >>> learn_on_loihi(task, LoihiTraining(n=8), samples=2, test=2).samples.cosine.shape
        (2,)
    """
    require_positive(samples=samples, test=test)
    training = LoihiTraining() if training is None else training
    rng, chip = np.random.default_rng(seed), training.chip(task.n_in)
    drawn = lambda spread, *shape: np.clip(np.rint(spread * rng.standard_normal(shape)), -256, 255).astype(int)  # noqa: E731
    w_rec = drawn(training.spread[1], chip.n, chip.n) * (1 - np.eye(chip.n, dtype=int))
    begin = start(chip, drawn(training.spread[0], task.n_in, chip.n), w_rec)
    scale = chip.n**-0.5
    w_out = jnp.asarray(scale * rng.standard_normal((chip.n, task.n_out)), jnp.float32)
    feedback = jnp.asarray(rng.standard_normal((chip.n, task.n_out)), jnp.float32)
    weights, key_train, key_test = _Weights(begin, w_out), *jax.random.split(jax.random.key(seed))
    weights, found = _many(training, task, True, feedback, weights, jax.random.split(key_train, samples))
    _, tested = _many(training, task, False, feedback, weights, jax.random.split(key_test, test))
    assert weights.chip.rec is not None
    w_in, w_rec = (np.asarray(c.synapses.w) for c in (weights.chip.dense, weights.chip.rec))
    steps = int(weights.chip.step) // samples
    return LoihiLearnt(w_in, w_rec, np.asarray(weights.w_out), found, steps, float(np.mean(tested.correct)))


@partial(jax.jit, static_argnames=("training", "task", "learns"))
def _many(training, task, learns, feedback, weights, keys):
    """Samples one after the other."""
    chip, time = training.chip(task.n_in), jax.eval_shape(lambda: task.sample(None, keys[0], 1)).mask.shape[0]
    rule = training.rule.rule
    rows = by_step(draw(rule, time * len(keys), chip.variant, 0), rule, time * len(keys), 0)
    rows = jax.tree.map(lambda x: jnp.asarray(x).reshape(len(keys), time, *x.shape[1:]), rows)

    def one(weights, given):
        key, rows = given
        batch = task.sample(None, key, 1)
        return _sample(training, chip, learns, feedback, weights, batch, rows)

    return jax.lax.scan(one, weights, (keys, rows))


def _sample(training, chip, learns, feedback, weights, batch, rows):
    """One sample from rest: the chip's steps, the host's readout, and the float update beside them."""
    before, n, pre = weights.chip, chip.n, chip.n_in + chip.n
    target = jax.nn.one_hot(batch.targets[:, 0], feedback.shape[1], dtype=jnp.float32)
    zeros = lambda *shape: jnp.zeros(shape, jnp.float32)  # noqa: E731
    memory = _Memory(
        raised=zeros(n).astype(jnp.int32), z_bar=zeros(n), trace=zeros(pre), eps=zeros(pre, n), update=zeros(pre, n),
        counts=zeros(3), spikes=zeros(n), w_out=zeros(*weights.w_out.shape),
    )  # fmt: skip
    xs = (batch.inputs[:, 0] > 0.5, batch.mask[:, 0], target, rows)
    step = partial(_step, training, chip, learns, feedback, weights.w_out)
    (after, memory), y = jax.lax.scan(step, (_rested(before), memory), xs)
    moved = _stacked(after) - _stacked(before)
    product, d, g = (moved * memory.update).sum(), jnp.linalg.norm(moved), jnp.linalg.norm(memory.update)
    w_out = weights.w_out - training.readout_rate * memory.w_out if learns else weights.w_out
    decided = jnp.where(batch.mask[:, 0, None], y, 0.0).sum(0).argmax() == batch.targets[-1, 0]
    wanted, lost, changes = memory.counts
    found = Sampled(
        decided, jnp.where(d * g > 0, product / jnp.maximum(d * g, 1e-30), 0.0), product / jnp.maximum(g**2, 1e-30),
        lost / wanted, xs[0].sum(0), memory.spikes, changes,
    )  # fmt: skip
    return _Weights(after, w_out), found


class _Memory(NamedTuple):
    """Beside the chip: raised threshold, filtered spikes, and the float update with its traces."""

    raised: Array
    z_bar: Array
    trace: Array  # [pre], of inputs and neurons
    eps: Array  # [pre, n]
    update: Array  # [pre, n]
    counts: Array  # [3]: updates wanted, of them those that moved nothing, and weights moved
    spikes: Array  # [n]
    w_out: Array


def _step(training, chip, learns, feedback, w_out, carry, xs):
    """One step, in the order of `eprop.chips.loihi.run`; the neurons' program and the host between spikes and rules."""
    (state, memory), (spikes, supervised, target, rows) = carry, xs
    a = state.dense.a + state.rec.a
    adapts = training.kind == "alif"
    threshold = FRACTION * training.vth + memory.raised
    neurons, z, v = _neuron.step(chip.lif, chip.variant, state.neurons, a, threshold)
    psi = jnp.maximum(0.0, 1.0 - jnp.abs(v - threshold).astype(jnp.float32) / (FRACTION * training.vth))
    z_bar = training.kappa * memory.z_bar + z
    y = z_bar @ w_out
    error = jnp.where(supervised & learns, jax.nn.softmax(y) - target, 0.0)
    sent = jnp.clip(jnp.rint(-(feedback @ error) * psi / training.signal), -ZERO, ZERO - 1)
    ys = jnp.stack([jnp.zeros_like(sent), jnp.rint(64 * psi), ZERO + sent]).astype(jnp.int32)
    step, tables = state.step + 1, constants(chip)
    both = []
    for connection, old, pre, table in zip(
        (chip.dense, chip.rec), (state.dense, state.rec), (spikes, z), tables, strict=True
    ):
        new = old._replace(a=dendrite(connection, chip.variant, old.synapses.w, pre))
        both.append(_learn(connection, chip.variant, new, pre, z, ys, step, table, rows)[0] if learns else new)
    after = LoihiState(neurons, both[0], both[1], step)
    raised = _neuron.shrink(memory.raised, round(4096 * (1 - 1 / training.tau_a)))
    raised = raised + jnp.where(z, round(FRACTION * training.beta * training.vth), 0) if adapts else memory.raised
    memory = _float_update(training, memory._replace(raised=raised, z_bar=z_bar), psi, sent, (spikes, z))
    moved = _stacked(after) != _stacked(state)
    wanted = memory.now != 0
    counts = memory.memory.counts + jnp.stack([wanted.sum(), (wanted & ~moved).sum(), moved.sum()])
    kept = memory.memory._replace(
        counts=counts, spikes=memory.memory.spikes + z, w_out=memory.memory.w_out + jnp.outer(z_bar, error)
    )
    return (after, kept), y


class _Updated(NamedTuple):
    memory: _Memory
    now: Array


def _float_update(training, memory, psi, sent, spikes):
    """`dw = c y (xbar^{t-1} alpha - beta eps)` in float, of what was sent."""
    alpha, beta = 1 - training.dv / 4096, training.beta if training.kind == "alif" else 0.0
    seen = alpha * memory.trace[:, None] - beta * memory.eps
    now = training.rule.weight * sent * seen
    eps = (1 - 1 / training.tau_a) * memory.eps + psi * seen
    trace = alpha * memory.trace + jnp.concatenate(spikes)
    return _Updated(memory._replace(trace=trace, eps=eps, update=memory.update + now), now)


def _rested(state: LoihiState) -> LoihiState:
    """Everything but weights at rest."""

    def rest(connection: ConnectionState) -> ConnectionState:
        zero: PyTree = jax.tree.map(jnp.zeros_like, connection)
        return zero._replace(synapses=zero.synapses._replace(w=connection.synapses.w))

    assert state.rec is not None
    zero = jax.tree.map(jnp.zeros_like, state)
    return zero._replace(dense=rest(state.dense), rec=rest(state.rec), step=state.step)


def _stacked(state: LoihiState) -> Array:
    assert state.rec is not None
    return jnp.concatenate([state.dense.synapses.w, state.rec.synapses.w])
