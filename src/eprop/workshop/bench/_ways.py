"""The ways to one gradient that are measured beside each other, each a function of `(network, inputs, targets)`."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from eprop.eligibility import stepwise
from eprop.learner import Learner, suggested_window
from eprop.networks import Network, Recurrent, value_and_grad
from eprop.rules import BPTT, EProp1, Rule
from eprop.workshop.bench._problem import Problem, squared_error

GradientKind = Literal["bptt", "eprop"]


class Way(NamedTuple):
    """One way: what it is called, what it computes, and which gradient that must be (None: none is made)."""

    name: str
    function: Callable[..., Any]
    gradient: GradientKind | None


class Stepwise(Rule):
    """e-prop 1 by the paper's recursion, synapse by synapse and step by step (`stepwise.unroll`).

    Approximation: that of e-prop 1.
    """

    name: ClassVar[str] = "stepwise"

    @property
    def label(self) -> str:
        return self.name

    def run(self, neuron, synapses, inputs, carry, read=None, future=None):
        return stepwise.unroll(neuron, synapses, inputs, carry, recurrence="cut", read=read)


def loss_of(network: Network, rule: Rule, inputs: Array, targets: Array) -> Array:
    return squared_error(network(inputs, rule).y, targets, jnp.ones(inputs.shape[:2], inputs.dtype))


def forward(network: Network, inputs: Array, targets: Array) -> Array:
    """The network and its loss, nothing else."""
    return loss_of(network, BPTT(), inputs, targets)


def products(network: Network, inputs: Array, targets: Array, presynaptic: Array, adjoint: Array) -> Any:
    """The work of every exact way: `[x_t, z_{t-1}] W` step by step, and ONE gradient product over time and batch.

    Args:
        presynaptic: `[x, z, 1]` of all steps and samples, `[time * batch, pre]`; made before the clock starts.
        adjoint: in the place of the currents' adjoint, `[time * batch, current * neuron]`; made before, too.
    """
    (layer,) = network.layers
    assert isinstance(layer, Recurrent) and layer.w_rec is not None
    weights = jnp.concatenate([layer.w_in.reshape(layer.w_in.shape[0], -1), layer.w_rec.reshape(layer.size, -1)])

    def step(z, x):
        currents = jnp.concatenate([x, z], axis=-1) @ weights
        return 0.1 * currents.reshape(z.shape[0], -1, z.shape[1]).mean(1), None  # 0.1: it must not grow for ever

    last, _ = jax.lax.scan(step, jnp.zeros((inputs.shape[1], layer.size), inputs.dtype), inputs)
    return last, presynaptic.T @ adjoint


def product_operands(problem: Problem) -> tuple[Array, Array]:
    """`presynaptic` and `adjoint` for `products`: of the right sizes, and not zero."""
    (layer,) = problem.network.layers
    assert isinstance(layer, Recurrent)
    steps = problem.inputs.shape[0] * problem.inputs.shape[1]
    columns = layer.w_in.shape[0] + layer.size + 1
    key_pre, key_adjoint = jax.random.split(jax.random.key(2))
    currents = layer.neuron.num_currents * layer.size
    return jax.random.normal(key_pre, (steps, columns)), jax.random.normal(key_adjoint, (steps, currents))


def gradient_under(rule: Rule) -> Callable[..., tuple[Array, Network]]:
    """Loss and gradient of the whole sequence, by `jax.grad` under a rule."""
    loss = lambda network, inputs, targets: loss_of(network, rule, inputs, targets)  # noqa: E731
    return value_and_grad(loss, rule)


def learner() -> Learner:
    """The streaming learner with frozen weights: the gradient adds up, no optimiser runs."""
    return Learner(EProp1(), optax.identity(), squared_error, update_every=None)


def streaming(window: int) -> Callable[..., tuple[Array, Network]]:
    """Loss and gradient of a stream, met window by window with carried traces."""

    def gradient(network: Network, inputs: Array, targets: Array) -> tuple[Array, Network]:
        online, mask = learner(), jnp.ones(inputs.shape[:2], inputs.dtype)
        state = online.init(network, inputs.shape[1])
        state, _, metrics = online.run(state, inputs, targets, mask, window=window)
        return metrics.loss, state.gradient

    return gradient


def candidate_windows(network: Network, steps: int, batch: int) -> list[int]:
    """Windows to choose from: divisors of `steps` near half, once and twice the suggested one, at least two windows."""
    suggested = suggested_window(network, batch)
    divisors = [d for d in range(1, steps + 1) if steps % d == 0 and (d < steps or d == 1)]
    nearest = lambda aim: min(divisors, key=lambda d: abs(d / aim - 1) + abs(aim / d - 1))  # noqa: E731
    return sorted({nearest(factor * suggested) for factor in (0.5, 1.0, 2.0)})


def whole_ways() -> list[Way]:
    """All ways but streaming, which needs its window, and the products, which need their operands."""
    return [
        Way("forward", forward, None),
        Way("bptt", gradient_under(BPTT()), "bptt"),
        Way("whole", gradient_under(EProp1()), "eprop"),
        Way("stepwise", gradient_under(Stepwise()), "eprop"),
    ]
