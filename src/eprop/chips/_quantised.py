"""Any neuron on a grid of b bits, in float carriers: to find out how many bits a task needs."""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

from eprop.chips._checks import require_range
from eprop.chips._grid import Bits, Grid, Rounding, drawn, each, generators, on_grid, require_bits_of, require_grid
from eprop.errors import require, require_choice
from eprop.neurons import TIME_CONSTANT, Neuron, Outputs, PyTree, Wrapper

Decay = Literal["multiply", "shift"]


class QuantisedState(NamedTuple):
    neuron: PyTree
    random: UInt32[Array, "batch neuron"] | None  # a generator a neuron, where rounding is stochastic


class Quantised(Wrapper):
    """A neuron whose state stands on a grid of b bits after every step.

        s_t = Q(f(s_{t-1}, I_t))

    Straight-through: derivatives are those of the model itself, so traces, e-prop and BPTT all go through. Spikes are
    decided within the step, before rounding. Around `Filtered` the readout's filter stands on a grid too. Traces and
    learning signals are another matter, the rule's: `QuantisedEProp1`.

    Decay by multiplication is a product with the model's own factor, rounded with the step: where currents stand on
    the state's grid (weights do, inputs are spikes) that is multiply-and-round. Decay by a shift takes from a component
    its 2^k-th part: each `exp(-dt/tau)` becomes `1 - 2^-k` with the nearest `k`, at least 1 (straight-through, too).

    Departs from a chip: numbers are floats that happen to stand on a grid, and the step's own products are exact.
    `eprop.chips.reckon` and `eprop.chips.loihi` compute two chips' own arithmetic.

    Args:
        neuron: the model to wrap.
        bits: bits of each state component, sign included, 2 to 32 (floats of 32 bits hold 24 of them); one number, or
            one a component in the order of the state's floating leaves.
        spans: what each component's grid spans, in its own units, above 0; one number or one a component
            (`measure_spans` finds them).
        rounding: nearest, or stochastic (unbiased, a draw for each number).
        seed: of the draws, 0 to 2^32 - 1: each run from rest begins them anew. An array of JAX may change from run to
            run.
        decay: `"multiply"`, or `"shift"` for models that have time constants.

    Raises:
        InvalidSetting: for bits, spans or options out of range, a shift in a model without time constants, and a
            `Filtered` model whose frames are longer than a step.

    Example:
        >>> import jax.numpy as jnp
        >>> from eprop import LIF
        >>> from eprop.chips import Quantised
        >>> neuron = Quantised(LIF(), bits=4, spans=1.0)
        >>> state, z = neuron.step(neuron.init((1, 2)), (jnp.array([[0.3, 0.7]]),), jnp.zeros((1, 2)))
        >>> state.neuron.v.tolist(), z.tolist()
        ([[0.25, 0.75]], [[0.0, 1.0]])
    """

    bits: Bits | tuple[Bits, ...] = 8
    spans: float | tuple[float, ...] = eqx.field(default=2.0, static=True)
    rounding: Rounding = eqx.field(default="nearest", static=True)
    seed: int | UInt32[Array, ""] = 0
    decay: Decay = eqx.field(default="multiply", static=True)

    def __check_init__(self) -> None:
        require_choice("rounding", self.rounding, ("nearest", "stochastic"))
        require_choice("decay", self.decay, ("multiply", "shift"))
        if not isinstance(self.seed, jax.Array):
            require_range(seed=(self.seed, 0, 2**32 - 1))
        components = len(jax.tree.leaves(eqx.filter(self.neuron.init((1, 1)), eqx.is_inexact_array)))
        for name in ("bits", "spans"):
            value = getattr(self, name)
            require(
                not isinstance(value, tuple) or len(value) == components,
                f"{name} = {value}: {type(self.neuron).__name__} has {components} state components",
            )
        for bits, span in zip(each(self.bits, components), each(self.spans, components), strict=True):
            require_bits_of("bits", bits, 2)
            require_grid("spans", Grid(2, span), 1)
        frame = getattr(self.neuron, "frame", 1)
        require(frame == 1, f"frame = {frame}: Filtered with longer frames stands around Quantised, not within")
        require(
            self.decay == "multiply" or bool(_decays(self.neuron)),
            f"decay = 'shift': {type(self.neuron).__name__} has no time constant whose decay could be a shift",
        )

    def init(self, shape: tuple[int, ...], dtype: Any = jnp.float32) -> QuantisedState:
        random = generators(shape, self.seed) if self.rounding == "stochastic" else None
        return QuantisedState(self.neuron.init(shape, dtype), random)

    def step(self, state: QuantisedState, currents: tuple[Array, ...], z_prev: Array) -> tuple[QuantisedState, Outputs]:
        model = _by_shifts(self.neuron) if self.decay == "shift" else self.neuron
        new, outputs = model.step(state.neuron, currents, z_prev)
        floating, rest = eqx.partition(new, eqx.is_inexact_array)
        leaves, structure = jax.tree.flatten(floating)
        random, rounded = state.random, []
        for leaf, bits, span in zip(leaves, each(self.bits, len(leaves)), each(self.spans, len(leaves)), strict=True):
            draw = None
            if random is not None:
                random, draw = drawn(random, leaf.dtype)
            rounded.append(on_grid(leaf, bits, span, draw))
        return QuantisedState(eqx.combine(structure.unflatten(rounded), rest), random), outputs

    def observe(self, before: QuantisedState, state: QuantisedState) -> dict[str, Array]:
        return self.neuron.observe(before.neuron, state.neuron)


def _decays(neuron: Neuron) -> list[str]:
    """Names of a model's time constants, of those within it too."""
    inner = getattr(neuron, "neuron", None)
    names = [name for name, allowed in neuron.ranges.items() if allowed is TIME_CONSTANT]
    return names + (_decays(inner) if isinstance(inner, Neuron) else [])


def _by_shifts(neuron: Neuron) -> Neuron:
    """The model with each `exp(-dt/tau)` moved to the nearest `1 - 2^-k`."""
    inner = getattr(neuron, "neuron", None)
    if isinstance(inner, Neuron):
        neuron = eqx.tree_at(lambda n: n.neuron, neuron, _by_shifts(inner))
    for name, allowed in neuron.ranges.items():
        if allowed is TIME_CONSTANT:
            tau = jnp.asarray(getattr(neuron, name))
            lost = -jnp.expm1(-neuron.time_step / jax.lax.stop_gradient(tau))
            shift = jnp.maximum(jnp.round(-jnp.log2(lost)), 1.0)
            moved = -neuron.time_step / jnp.log1p(-(2.0**-shift))
            neuron = eqx.tree_at(
                lambda n, name=name: getattr(n, name), neuron, tau + jax.lax.stop_gradient(moved - tau)
            )
    return neuron
