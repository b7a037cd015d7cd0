"""Weights on grids of b bits: how an update gets there."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from eprop.chips._checks import require_range
from eprop.chips._grid import Bits, Rounding, quantise, require_bits_of, unit, unit_update
from eprop.errors import require_choice
from eprop.neurons import PyTree

Form = Literal["collected", "units"]


class GridState(NamedTuple):
    """What stands between two updates.

    optimiser: the inner optimiser's state. rest: what was collected and not written yet, like the parameters; None
    where nothing is. updates: how many so far, for the draws.
    """

    optimiser: PyTree
    rest: PyTree | None
    updates: Int[Array, ""]


class GridUpdates:
    """An optimiser around another, after which parameters stand on a grid of b bits; for `Learner` and optax's own use.

        collected:  a = w + r + u,  w' = Q(a),  r' = a - w'
        units:      w' = w + sign(u) unit with probability min(1, |u| / unit), else w

    `u` is the inner optimiser's update, `unit` the grid's. Collected, the float sum is kept beside the weights and
    rounded when applied: no update is lost, and it costs a float a weight. By units nothing is kept. Both saturate
    where the register ends; what saturates is not collected. Parameters that stand off their grid are put on it at the
    first update; `on_grids` does so before.

    A `Learner`'s decay of adaptive feedback (Kolen & Pollack) comes after the optimiser, and leaves the grid until the
    next update.

    Args:
        optimiser: an optax gradient transformation.
        bits: bits of each weight, sign included, 2 to 32.
        spans: what each array's grid spans: a tree like the parameters (`weight_spans`), or one number for all.
        form: `"collected"` or `"units"`.
        rounding: of what was collected: nearest, or stochastic (unbiased).
        seed: of the draws. The same seed draws the same at the same update.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from eprop.chips import GridUpdates
        >>> updates = GridUpdates(optax.sgd(0.1), bits=4, spans=1.0)
        >>> w = jnp.array([0.5])
        >>> state = updates.init(w)
        >>> for _ in range(2):  # 0.05 each; the unit is 0.125
        ...     change, state = updates.update(jnp.array([-0.5]), state, w)
        ...     w = w + change
        >>> w.tolist()
        [0.625]
    """

    def __init__(
        self,
        optimiser: Any,
        bits: Bits,
        spans: float | PyTree,
        form: Form = "collected",
        rounding: Rounding = "nearest",
        seed: int | Array = 0,
    ) -> None:
        require_bits_of("bits", bits, 2)
        require_choice("form", form, ("collected", "units"))
        require_choice("rounding", rounding, ("nearest", "stochastic"))
        if isinstance(seed, int):
            require_range(seed=(seed, 0, 2**31 - 1))
        for span in jax.tree.leaves(spans):
            unit(2, span)
        self.optimiser: Any = optimiser
        self.bits: Bits = bits
        self.spans: Any = spans
        self.form: Form = form
        self.rounding: Rounding = rounding
        self.seed: int | Array = seed

    def init(self, parameters: PyTree) -> GridState:
        """The state before the first update."""
        rest = jax.tree.map(jnp.zeros_like, parameters) if self.form == "collected" else None
        return GridState(self.optimiser.init(parameters), rest, jnp.zeros((), jnp.int32))

    def update(self, gradient: PyTree, state: GridState, parameters: PyTree) -> tuple[PyTree, GridState]:
        """What is to be added to the parameters, and the state after it."""
        updates, inner = self.optimiser.update(gradient, state.optimiser, parameters)
        leaves, structure = jax.tree.flatten(parameters)
        key = jax.random.fold_in(jax.random.key(self.seed), state.updates)
        keys = list(jax.random.split(key, len(leaves)))
        spans = _spans(self.spans, structure)
        rests = [None] * len(leaves) if state.rest is None else jax.tree.leaves(state.rest)
        each = zip(leaves, jax.tree.leaves(updates), rests, spans, keys, strict=True)
        found = [self._written(*one) for one in each]
        changes = structure.unflatten([new - w for (new, _), w in zip(found, leaves, strict=True)])
        rest = None if state.rest is None else structure.unflatten([rest for _, rest in found])
        return changes, GridState(inner, rest, state.updates + 1)

    def _written(self, w: Array, update: Array, rest: Array | None, span: float, key: Array) -> tuple[Array, Any]:
        """The new weight, and what is collected."""
        if rest is None:
            return unit_update(w, update, self.bits, span, key), None
        whole = w + rest + update
        new = quantise(whole, self.bits, span, key if self.rounding == "stochastic" else None)
        step = jnp.asarray(unit(self.bits, span), w.dtype)
        return new, jnp.clip(whole - new, -step, step)


def weight_spans(parameters: PyTree, factor: float = 2.0) -> PyTree:
    """A span for each array: `factor` times its largest magnitude now; 1 for an array of zeros."""
    largest = lambda w: float(jnp.abs(w).max())  # noqa: E731
    return jax.tree.map(lambda w: factor * largest(w) if largest(w) > 0 else 1.0, parameters)


def on_grids(parameters: PyTree, bits: Bits, spans: float | PyTree) -> PyTree:
    """Parameters rounded to the nearest neighbour on their grids."""
    leaves, structure = jax.tree.flatten(parameters)
    pairs = zip(leaves, _spans(spans, structure), strict=True)
    return structure.unflatten([quantise(w, bits, span) for w, span in pairs])


def _spans(spans: Any, structure: Any) -> list[float]:
    return [float(spans)] * structure.num_leaves if isinstance(spans, (int, float)) else structure.flatten_up_to(spans)
