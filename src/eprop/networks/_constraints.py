"""Biology's constraints on a layer: which synapses exist, which sign and size their weights have, what is plastic."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Int8, PRNGKeyArray

from eprop.errors import require, require_choice, require_entries, whole_number
from eprop.networks._constants import owner
from eprop.neurons import Neuron, keep_in_range

SIGNS: dict[str, int] = {"excitatory": 1, "inhibitory": -1, "free": 0}

PLASTIC = ("w_in", "w_rec", "bias")
"""What of a layer can be frozen."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Population:
    """Some of a layer's neurons, side by side: what they have in common, and others don't.

    Args:
        name: for `frozen` (`"w_rec:NAME"`).
        size: number of neurons.
        sign: of the weights of all synapses that start from these neurons (Dale's law): `"excitatory"` keeps them at 0
            or above, `"inhibitory"` at 0 or below, `"free"` leaves them.
        delay: steps that a spike takes longer than one step to the neurons of the layer (an axonal delay).
        constants: constants of the neuron model that are these neurons' own, by name.

    Example:
        >>> import jax
        >>> from eprop import LIF, Population, Recurrent
        >>> parts = (Population("fast", 3, constants={"tau_m": 5.0}), Population("slow", 2, sign="inhibitory"))
        >>> layer = Recurrent(LIF(tau_m=20.0), 4, parts, key=jax.random.key(0))
        >>> layer.neuron.tau_m.tolist(), bool((layer.w_rec[3:] <= 0).all())
        ([5.0, 5.0, 5.0, 20.0, 20.0], True)

    Raises:
        InvalidSetting: for a name, size, sign or delay that is none.
    """

    name: str
    size: int
    sign: str = "free"
    delay: int = 0
    constants: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        named = isinstance(self.name, str) and bool(self.name) and not set(self.name) & set(":, ")
        require(named, f"name = {self.name!r}: a population's name is a word without colon, comma or space")
        object.__setattr__(self, "size", whole_number(f"population {self.name!r}: size", self.size, 1))
        object.__setattr__(self, "delay", whole_number(f"population {self.name!r}: delay", self.delay, 0))
        require_choice(f"population {self.name!r}: sign", self.sign, SIGNS)


@dataclasses.dataclass(frozen=True)
class Rewiring:
    """Synapses that vanish and grow while their number stays: DEEP R (Bellec et al. 2018), after each update.

        w <- w - s l1 + noise xi,   xi ~ N(0, 1)           of the synapses there are; s: the sign that each one has
        one whose s w is now below 0 vanishes; as many grow, with w = 0, drawn evenly from the places without one

    Args:
        l1: what a weight shrinks by at each update (the authors' learning rate times their `l1`); 0 or above.
        noise: standard deviation of the noise (theirs: `sqrt(2 learning_rate temperature)`); 0 or above.

    This is the form with a hard bound on the number of synapses ("DEEP R", not "soft-DEEP R"), as in the authors'
    released LSNN code (`rewiring_optimizer_wrapper`). A place keeps its sign: that of its presynaptic neuron, or one
    drawn at the start.

    Departs from the source: each matrix keeps its own number of synapses (theirs: the sum over matrices). A new weight
    is 0 (theirs 1e-12). The optimiser sees a gradient of 0 where there is no synapse (theirs: that of a weight 0).

    Raises:
        InvalidSetting: for a negative number.

    Reference: Bellec, Kappel, Maass, Legenstein 2018, arXiv 1711.05136.
    """

    l1: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("l1", "noise"):
            require_entries(name, getattr(self, name), lambda x: x >= 0, "must be 0 or above")


def random_mask(
    key: PRNGKeyArray, n_pre: int, n_post: int, density: float, *, autapses: bool = True
) -> Bool[Array, "n_pre n_post"]:
    """Random connectivity with a fixed number of synapses: that share of all possible ones, rounded, at least one.

    Args:
        density: share of the synapses that exist, above 0 and up to 1.
        autapses: whether `i -> i` is possible.

    Example:
        >>> import jax
        >>> from eprop import random_mask
        >>> int(random_mask(jax.random.key(0), 10, 10, 0.2, autapses=False).sum())
        18

    Raises:
        InvalidSetting: for a density of 0 or below, or above 1.
    """
    require_entries("density", density, lambda x: (x > 0) & (x <= 1), "must be above 0 and at most 1")
    possible = jnp.ones((n_pre, n_post), bool) if autapses else ~jnp.eye(n_pre, n_post, dtype=bool)
    number = max(1, round(density * (n_pre * n_post - (0 if autapses else min(n_pre, n_post)))))
    return _draw(key, possible, number)


def apply_updates(network: T, updates: Any) -> T:
    """The network after an optimiser's update, within its constraints: `equinox.apply_updates` and what must follow it.

    - frozen parts stay bit for bit;
    - weights keep their sign and their bounds: what would cross 0 is exactly 0 (a projection on the nearest value);
    - weights of synapses that don't exist are 0; where there is a `Rewiring`, synapses vanish and grow;
    - constants of neurons stay in their ranges (`keep_in_range`).

    A projection, so that it holds with any optimiser. `Learner` and the program use it.

    Args:
        network: a network, a layer, or anything that holds some.
        updates: from an optax transformation: like the network, None for what is not trained.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from eprop import LIF, Population, Recurrent, apply_updates
        >>> layer = Recurrent(LIF(), 2, (Population("all", 3, sign="excitatory"),), key=jax.random.key(0))
        >>> updates = jax.tree.map(lambda w: -9.0 * jnp.ones_like(w), eqx.filter(layer, eqx.is_inexact_array))
        >>> float(apply_updates(layer, updates).w_rec.max())
        0.0
    """
    new = keep_in_range(eqx.apply_updates(network, updates))
    is_layer = lambda x: hasattr(x, "constrained")  # noqa: E731
    return jax.tree.map(lambda n, o: n.constrained(o) if is_layer(n) else n, new, network, is_leaf=is_layer)


# What `Recurrent` is made with


def population_constants(neuron: Neuron, populations: Sequence[Population]) -> Neuron:
    """The neuron with arrays `[neuron]` for the constants that populations have of their own."""
    n = sum(p.size for p in populations)
    own = dict.fromkeys(name for p in populations for name in p.constants)
    for name in own:
        has = next(p for p in populations if name in p.constants)
        model: Any = owner(neuron, name, f"population {has.name!r}: constant")
        static = {f.name for f in dataclasses.fields(model) if f.metadata.get("static")}
        others = f"{type(model).__name__} has one {name!r} for all neurons"
        require(name in model.ranges and name not in static, f"population {has.name!r}: constant {name!r}: {others}")
        values = jnp.broadcast_to(jnp.asarray(getattr(model, name), float), (n,))
        at = 0
        for p in populations:
            if name in p.constants:
                model.ranges[name].check(f"population {p.name!r}: {name}", p.constants[name])
                values = values.at[at : at + p.size].set(p.constants[name])
            at += p.size
        neuron = eqx.tree_at(lambda m, name=name: getattr(owner(m, name), name), neuron, values)
    return neuron


def check_populations(n: int | Sequence[Population]) -> tuple[Population, ...]:
    """The populations, if `n` names any.

    Raises:
        InvalidSetting: for none, something else, or two of one name.
    """
    if isinstance(n, int | np.integer):
        return ()
    parts = tuple(n)
    require(bool(parts) and all(isinstance(p, Population) for p in parts), f"n = {n!r}: a number, or Populations")
    names = [p.name for p in parts]
    twice = next((name for name in names if names.count(name) > 1), None)
    require(twice is None, f"n: two populations are called {twice!r}")
    return parts


def of_each_neuron(populations: Sequence[Population], value: Any) -> np.ndarray:
    """`value(population)` for each neuron, `[neuron]`."""
    return np.concatenate([np.full(p.size, value(p)) for p in populations])


def signs_of(name: str, signs: Any, n_pre: int, n_post: int) -> Int8[Array, "n_pre _"] | None:
    """Signs as `[n_pre, 1]` or `[n_pre, n_post]`: 1, -1, or 0 for any sign.

    Raises:
        InvalidSetting: for another shape or value.
    """
    if signs is None:
        return None
    signs = jnp.asarray(signs)
    shapes = ((n_pre,), (n_pre, n_post))
    require(signs.shape in shapes, f"{name}: expected shape {shapes[0]} or {shapes[1]}, got {signs.shape}")
    known = isinstance(signs, Tracer) or bool(jnp.isin(signs, jnp.array([-1, 0, 1])).all())
    require(known, f"{name}: must be 1 (excitatory), -1 (inhibitory) or 0 (either)")
    return signs.reshape(n_pre, -1).astype(jnp.int8)


def with_signs(w: Float[Array, "pre k post"], signs: Int8[Array, "pre _"] | None) -> Array:
    """Drawn weights with their signs; excitatory and inhibitory neurons in balance.

    Where a layer has `n_E` excitatory and `n_I` inhibitory neurons, weights are `|w| sqrt(n_I/n_E)` and
    `-|w| sqrt(n_E/n_I)`: their sum over all presynaptic neurons has mean zero, their squares' sum what it had.
    """
    if signs is None:
        return w
    factor = signs.astype(w.dtype)
    if signs.shape[1] == 1:
        n_e, n_i = (signs > 0).sum().astype(w.dtype), (signs < 0).sum().astype(w.dtype)
        ratio = jnp.where((n_e > 0) & (n_i > 0), jnp.sqrt(n_i / jnp.maximum(n_e, 1)), 1.0).astype(w.dtype)
        ratio = jnp.where(ratio > 0, ratio, 1.0)
        factor = jnp.where(signs > 0, ratio, -1.0 / ratio) * (signs != 0)
    return jnp.where((signs == 0)[:, None], w, jnp.abs(w) * factor[:, None])


def check_bounds(bounds: Any, signed: bool) -> tuple[float, float] | None:
    """Bounds as a pair of numbers.

    Raises:
        InvalidSetting: for no such pair, or one without 0 where weights have a sign.
    """
    if bounds is None:
        return None
    pair: list[Any] = list(bounds) if isinstance(bounds, (tuple, list)) else []
    real = len(pair) == 2 and all(isinstance(b, (int, float)) and not isinstance(b, bool) for b in pair)
    require(real and pair[0] < pair[1], f"bounds = {bounds!r}: must be two numbers, the lower one first")
    require(not signed or pair[0] <= 0 <= pair[1], f"bounds = {bounds!r}: must hold 0, where weights have a sign")
    return float(pair[0]), float(pair[1])


def check_frozen(frozen: Any, populations: Sequence[tuple[str, int]], layer: Any) -> tuple[str, ...]:
    """Names of frozen parts: `w_in`, `w_rec`, `bias`, each also as `part:population`.

    Raises:
        InvalidSetting: for a part or a population that isn't there.
    """
    require(not isinstance(frozen, str), f"frozen = {frozen!r}: must be a tuple of names")
    for name in frozen:
        part, colon, population = name.partition(":")
        require_choice("frozen", part, PLASTIC)
        require(getattr(layer, part) is not None, f"frozen = {name!r}: this layer has no {part}")
        if colon:
            require(bool(populations), f"frozen = {name!r}: this layer has no populations")
            require_choice(f"frozen = {name!r}: population", population, [p for p, _ in populations])
    return tuple(frozen)


def frozen_neurons(part: str, frozen: Sequence[str], populations: Sequence[tuple[str, int]]) -> np.ndarray | None:
    """Whether each postsynaptic neuron's `part` is frozen, `[neuron]`; None: nobody's."""
    names = {name.partition(":")[2] for name in frozen if name.partition(":")[0] == part and ":" in name}
    if not names:
        return None
    return np.concatenate([np.full(size, name in names) for name, size in populations])


class Delays(eqx.Module):
    """Delays of a matrix of weights, of each presynaptic neuron or in groups of equal delay.

    columns: the delay of each column of presynaptic activity (see `DelayLine`).
    group: the group of each synapse, where each synapse has a delay of its own.
    longest: the longest delay.
    """

    columns: Int[Array, "column"]  # noqa: F821
    group: Int[Array, "pre post"] | None
    longest: int = eqx.field(static=True)

    def in_groups(self, w: Float[Array, "pre k post"]) -> Float[Array, "column k post"]:
        """The weights of each column: where delays are of each synapse, a group's weights after another's."""
        if self.group is None:
            return w
        groups = self.columns.shape[0] // w.shape[0]
        here = jnp.arange(groups)[:, None, None] == self.group[None]  # [group, pre, post]
        return (w[None] * here[:, :, None].astype(w.dtype)).reshape(-1, *w.shape[1:])


def delays_of(name: str, delays: Any, n_pre: int, n_post: int) -> Delays | None:
    """Delays, `[n_pre]` or `[n_pre, n_post]`; None where none is above 0.

    Raises:
        InvalidSetting: for another shape, a negative delay, or one that is not a whole number of steps.
    """
    if delays is None:
        return None
    require(not isinstance(delays, Tracer), f"{name}: must be known before jax.jit, which makes arrays as long")
    known, shapes = np.asarray(delays), ((n_pre,), (n_pre, n_post))
    require(known.shape in shapes, f"{name}: expected shape {shapes[0]} or {shapes[1]}, got {known.shape}")
    require_entries(name, known, lambda d: (d >= 0) & (d == np.floor(d)), "must be a whole number of steps, 0 or above")
    known = known.astype(int)
    if not known.any():
        return None
    if known.ndim == 1:
        return Delays(jnp.asarray(known), None, int(known.max()))
    groups, group = np.unique(known, return_inverse=True)
    return Delays(jnp.asarray(np.repeat(groups, n_pre)), jnp.asarray(group.reshape(known.shape)), int(known.max()))


# The projection


def within(
    w: Float[Array, "pre k post"],
    mask: Bool[Array, "pre post"] | None,
    signs: Int8[Array, "pre _"] | None,
    bounds: tuple[float, float] | None,
) -> Array:
    """The nearest weights with their signs, in their bounds, and 0 where there is no synapse."""
    if bounds is not None:
        w = jnp.clip(w, *(jnp.asarray(b, w.dtype) for b in bounds))
    if signs is not None:
        s, zero = signs[:, None], jnp.zeros((), w.dtype)
        w = jnp.where((s > 0) & (w < 0) | (s < 0) & (w > 0), zero, w)
    return w if mask is None else jnp.where(mask[:, None], w, jnp.zeros((), w.dtype))


def rewired(
    key: PRNGKeyArray,
    rewiring: Rewiring,
    w: Float[Array, "pre 1 post"],
    mask: Bool[Array, "pre post"],
    signs: Int8[Array, "pre _"],
    possible: Bool[Array, "pre post"],
) -> tuple[Float[Array, "pre 1 post"], Bool[Array, "pre post"]]:
    """One step of DEEP R (see `Rewiring`). `possible`: where synapses may vanish and grow."""
    key_noise, key_places = jax.random.split(key)
    s, moves = signs.astype(w.dtype), mask & possible
    noise = rewiring.noise * jax.random.normal(key_noise, mask.shape, w.dtype) if rewiring.noise > 0 else 0.0
    moved = w[:, 0] - rewiring.l1 * s + noise
    vanish = moves & (s * moved < 0)
    left = mask & ~vanish
    grown = _draw(key_places, possible & ~left, vanish.sum())
    values = jnp.where(moves & ~vanish, moved, jnp.where(vanish | grown, 0.0, w[:, 0])).astype(w.dtype)
    return values[:, None], left | grown


def _draw(key: PRNGKeyArray, possible: Bool[Array, "pre post"], number: Any) -> Bool[Array, "pre post"]:
    """So many of the possible places, each set of them as likely as another."""
    scores = jnp.where(possible, jax.random.uniform(key, possible.shape), 2.0).reshape(-1)
    order = jnp.argsort(scores)
    chosen = jnp.zeros(possible.size, bool).at[order].set(jnp.arange(possible.size) < number)
    return chosen.reshape(possible.shape)
