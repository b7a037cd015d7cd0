"""A user's file that uses every public name of `eprop`: mypy and pyright check it, both strict; it runs as a test."""

# What equinox, jax and optax leave without a type (trees, stubs) is not counted.
# pyright: strict, reportUnknownMemberType=false, reportMissingTypeStubs=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]
from jaxtyping import Array

import eprop


class Leaky(eprop.Neuron):
    """A neuron model of one's own."""

    decay: float = 0.9

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jnp.zeros(shape, dtype)

    def step(self, state: Array, currents: tuple[Array, ...], z_prev: Array) -> tuple[Array, Array]:
        state = self.decay * state + currents[0]
        return state, jnp.tanh(state)


def models() -> list[eprop.Neuron]:
    spiking: list[eprop.Neuron] = [
        eprop.Filtered(eprop.LIF(tau_m=20.0), tau_out=20.0),
        eprop.Filtered(eprop.ALIF(beta=0.1), tau_out=20.0),
    ]
    spiking += [eprop.STDPLIF(), eprop.STDPALIF(), eprop.CubaLIF(), eprop.Izhikevich(), eprop.AdEx()]
    key = jax.random.key(5)
    alone: list[eprop.Neuron] = [
        eprop.LRU.ring(key, 4),
        eprop.RTU.ring(key, 4),
        eprop.MinGRU(),
        eprop.ELSTM.random(key, 4),
    ]
    return [*spiking, *alone, eprop.LSTM(), eprop.GRU(), eprop.Rate(), Leaky()]


def network(neuron: eprop.Neuron) -> eprop.Network:
    key = jax.random.key(0)
    below = eprop.Bidirectional(eprop.Recurrent(neuron, 3, 4, key=key), eprop.Recurrent(neuron, 3, 4, key=key))
    return eprop.Network((below,), eprop.Readout(8, 2, key=key))


def constrained() -> eprop.Network:
    """A layer with populations, masks, delays and rewiring, between maps; one update of it."""
    keys = jax.random.split(jax.random.key(6), 6)
    parts = (eprop.Population("i", 2, sign="inhibitory"), eprop.Population("e", 2, sign="excitatory", delay=1))
    mask = eprop.random_mask(keys[0], 4, 4, 0.5, autapses=False)
    layer = eprop.Recurrent(
        eprop.LIF(), 3, parts, key=keys[1], mask_rec=mask, bounds=(-1.0, 1.0), rewiring=eprop.Rewiring(l1=1e-3)
    )
    glu, dense = eprop.GatedLinearUnit(4, 4, key=keys[2]), eprop.Dense(4, 3, key=keys[3])
    block = eprop.Block(layer, (eprop.LayerNorm(3),), (glu, dense), residual=True)
    model = eprop.Network((block,), eprop.Readout(3, 2, key=keys[4]))
    parameters, _ = eprop.partition(model, eprop.EProp1())
    updates: Any = jax.tree.map(jnp.zeros_like, parameters)
    return eprop.apply_updates(model, updates)


def rules() -> list[eprop.Rule]:
    return [
        eprop.BPTT(),
        eprop.TruncatedBPTT(5),
        eprop.RTRL(),
        eprop.EProp1("random"),
        eprop.Immediate("random"),
        eprop.EProp3(7),
        eprop.make_rule("eprop1"),
    ]


def with_a_head(neuron: eprop.Neuron, inputs: Array) -> Array:
    """A head of one's own, behind random feedback weights."""
    head = eprop.Broadcast(eqx.nn.Linear(4, 2, key=jax.random.key(7)), 4, 2, key=jax.random.key(8))
    model = eprop.Network((eprop.Recurrent(neuron, 3, 4, key=jax.random.key(9)),), head)
    parameters, _ = eprop.partition(model, eprop.EProp1("random"))

    def total(n: eprop.Network) -> Array:
        return jnp.sum(n(inputs, eprop.EProp1("random")).y)

    value: Array = eprop.value_and_grad(total, eprop.EProp1("random"))(model)[0]
    assert isinstance(parameters, eprop.Network)
    return value


def loss(model: eprop.Network, rule: eprop.Rule, inputs: Array, targets: Array) -> Array:
    return 0.5 * jnp.sum((model(inputs, rule).y - targets) ** 2)


def gradient(model: eprop.Network, rule: eprop.Rule, inputs: Array, targets: Array) -> Array:
    """The gradient of one array of weights, out of all that the rule trains."""
    chosen: Any = eprop.trainable(model, rule)
    trained: Any
    fixed: Any
    trained, fixed = eqx.partition(model, chosen)

    def of_trained(part: Any) -> Array:
        whole: eprop.Network = eqx.combine(part, fixed)
        return loss(whole, rule, inputs, targets)

    found: eprop.Network = jax.grad(of_trained)(trained)
    weight: Array = found.readout.weight
    return weight


def squared(y: Array, target: Array, mask: Array) -> Array:
    return jnp.sum((y - target) ** 2)


def learn(inputs: Array, targets: Array) -> float:
    """A stream, learnt in windows; the loss of the last one."""
    layer = eprop.Recurrent(Leaky(), 3, 4, key=jax.random.key(1))
    model = eprop.Network((layer,), eprop.Readout(4, 2, key=jax.random.key(2)))
    learner = eprop.Learner(eprop.EProp1("adaptive"), optax.adam(1e-3), squared)
    state: eprop.LearnerState = learner.init(model, batch=1)
    window: int = eprop.suggested_window(model, batch=1)
    metrics: eprop.LearnerMetrics | None = None
    for begin in range(0, inputs.shape[0], window):
        state, _, metrics = learner.step(state, inputs[begin : begin + window], targets[begin : begin + window])
    decayed: eprop.Network = eprop.kolen_pollack_decay(model, 1e-4)
    assert decayed.readout.weight.shape == model.readout.weight.shape
    assert metrics is not None
    return float(metrics.loss)


def main() -> None:
    inputs, targets = jnp.ones((7, 1, 3)), jnp.zeros((7, 1, 2))
    for rule in rules():
        print(rule.label, float(jnp.abs(gradient(network(models()[0]), rule, inputs, targets)).sum()))
    print("stream", learn(inputs, targets))
    print("block", float(jnp.abs(gradient(constrained(), eprop.EProp1(), inputs, targets)).sum()))
    layer = eprop.Recurrent(models()[1], 3, 5, key=jax.random.key(4))
    print(eprop.keep_in_range(models()[0]).spiking, type(eprop.Range).__name__)
    print("head", float(with_a_head(Leaky(), inputs)))
    module = eprop.ErrorModule(layer, 4, key=jax.random.key(3))
    print(type(module).__name__)
    try:
        eprop.LIF(tau_m=-1.0)
    except eprop.InvalidSetting as refused:
        print(refused)


if __name__ == "__main__":
    main()
