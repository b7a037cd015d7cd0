"""The part of a network that a rule trains, and the gradient of just that part."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from eprop.networks._block import Block
from eprop.networks._constants import marked
from eprop.networks._layers import Bidirectional, Recurrent
from eprop.networks._network import Network
from eprop.networks._readout import Broadcast, Readout
from eprop.neurons import PyTree
from eprop.rules import Rule


def trainable(network: Network, rule: Rule) -> PyTree:
    """A tree of booleans: which leaves of the network `rule` trains.

    All weights, or those that a control trains; the neuron constants that were marked; the feedback weights
    where they adapt. Nothing that is frozen; where one population alone is frozen, the whole array, of which
    `apply_updates` keeps that population's part.
    """

    def of_layer(layer: Recurrent) -> Recurrent:
        mask = jax.tree.map(eqx.is_inexact_array, layer)
        if rule.trains == "readout":
            return jax.tree.map(lambda _: False, mask)
        if rule.trains == "inputs" and layer.w_rec is not None:
            mask = eqx.tree_at(lambda m: m.w_rec, mask, False)
        for part in layer.frozen:
            if ":" not in part:
                mask = eqx.tree_at(lambda m, part=part: getattr(m, part), mask, False)
        return eqx.tree_at(lambda m: m.neuron, mask, marked(layer.neuron, layer.trainable))

    def of_any(layer: Recurrent | Bidirectional | Block) -> Recurrent | Bidirectional | Block:
        if isinstance(layer, Block):
            mask = jax.tree.map(lambda x: eqx.is_inexact_array(x) and rule.trains != "readout", layer)
            return eqx.tree_at(lambda m: m.layer, mask, of_layer(layer.layer))
        if isinstance(layer, Bidirectional):
            return Bidirectional(of_layer(layer.forward), of_layer(layer.backward))
        return of_layer(layer)

    mask = jax.tree.map(eqx.is_inexact_array, network)
    mask = eqx.tree_at(lambda n: n.layers, mask, tuple(map(of_any, network.layers)))
    if rule.trains == "readout" and network.embedding is not None:
        mask = eqx.tree_at(lambda n: n.embedding.weight, mask, False)
    if isinstance(network.readout, Readout | Broadcast):
        mask = eqx.tree_at(lambda n: n.readout.feedback_weights, mask, rule.feedback.adapts)
    for part in network.frozen:
        none = jax.tree.map(lambda _: False, getattr(mask, part))
        mask = eqx.tree_at(lambda n, part=part: getattr(n, part), mask, none)
    return mask


def partition(network: Network, rule: Rule) -> tuple[Network, Network]:
    """The part that `rule` trains, and all the rest: two networks with None in the other's places.

    Differentiate with respect to the first, hand the first to the optimiser, put them together with `equinox.combine`.

    Example:
        >>> import jax
        >>> from eprop import EProp1, LIF, Network, Readout, Recurrent, partition
        >>> key = jax.random.key(0)
        >>> network = Network((Recurrent(LIF(), 3, 5, key=key),), Readout(5, 2, key=key))
        >>> parameters, fixed = partition(network, EProp1("random"))
        >>> parameters.readout.feedback_weights is None  # they are random, and stay so
        True
    """
    return eqx.partition(network, trainable(network, rule))


def value_and_grad(loss: Callable[..., Any], rule: Rule, has_aux: bool = False) -> Callable[..., tuple[Any, Network]]:
    """`(network, ...) -> (loss, gradient)`: `rule`'s gradient of all that it trains, and None for all else.

    Args:
        loss: `loss(network, ...)`, which runs the network under the same rule.
        rule: says what is trained.
        has_aux: `loss` returns a pair, whose second part is handed on.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from eprop import EProp1, LIF, Network, Readout, Recurrent, value_and_grad
        >>> key, rule = jax.random.key(0), EProp1("random")
        >>> network = Network((Recurrent(LIF(), 3, 5, key=key),), Readout(5, 2, key=key))
        >>> loss = lambda network, x: jnp.sum(network(x, rule).y ** 2)
        >>> value, gradient = value_and_grad(loss, rule)(network, jnp.ones((4, 1, 3)))
        >>> gradient.layers[0].w_in.shape, gradient.readout.feedback_weights
        ((3, 1, 5), None)
    """

    def of(network: Network, *arguments: Any, **keywords: Any) -> tuple[Any, Network]:
        chosen, rest = partition(network, rule)
        whole = lambda c: loss(eqx.combine(c, rest), *arguments, **keywords)  # noqa: E731
        return jax.value_and_grad(whole, has_aux=has_aux)(chosen)

    return of


def kolen_pollack_decay(network: Network, decay: float) -> Network:
    """`W_out` and `B` both times `1 - decay`: with equal gradients they become equal (Kolen & Pollack 1994)."""
    weights = lambda n: (n.readout.weight, n.readout.feedback_weights)  # noqa: E731
    return eqx.tree_at(weights, network, jax.tree.map(lambda w: (1.0 - decay) * w, weights(network)))
