"""The state of a ReckOn core: weights, neurons, generators; and the integer arithmetic of its registers."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt32

from eprop.chips._checks import integers
from eprop.chips.reckon._settings import SEEDS, ReckOn


class Generators(NamedTuple):
    """Contents of the shift registers, uint32. Where there are two, the even neurons' stands first."""

    neur: UInt32[Array, "2"]
    oneur: UInt32[Array, ""]
    tinp: UInt32[Array, "2"]
    trec: UInt32[Array, "2"]
    tout: UInt32[Array, "2"]
    noise: UInt32[Array, ""]
    inp: UInt32[Array, ""]
    rec: UInt32[Array, ""]
    out: UInt32[Array, ""]

    def seeds(self) -> dict[str, int]:
        """The contents in the form of seeds: a core configured with them goes on from here."""
        halves = {name: np.atleast_1d(np.asarray(value)).tolist() for name, value in self._asdict().items()}
        return {f"seed_{name}": sum(half << 15 * n for n, half in enumerate(both)) for name, both in halves.items()}


class Weights(NamedTuple):
    """Weights of 8 bits, in int32: `[presynaptic, postsynaptic]`."""

    w_in: Int32[Array, "n_in n_rec"]
    w_rec: Int32[Array, "n_rec n_rec"]
    w_out: Int32[Array, "n_rec n_out"]


class Neurons(NamedTuple):
    """Registers, from 0 with each sample, in int32: membranes and outputs of 16 bits, traces of 12, 12 and 10."""

    u: Int32[Array, "n_rec"]  # noqa: F821
    tin: Int32[Array, "n_in"]  # noqa: F821
    trec: Int32[Array, "n_rec"]  # noqa: F821
    tout: Int32[Array, "n_rec"]  # noqa: F821
    o: Int32[Array, "n_out"]  # noqa: F821
    z: Bool[Array, "n_rec"]  # noqa: F821


class ReckOnState(NamedTuple):
    """Registers that go on from one sample to the next."""

    weights: Weights
    generators: Generators


def start(chip: ReckOn, w_in: Any, w_rec: Any, w_out: Any) -> ReckOnState:
    """A core with these weights, its generators at their seeds.

    Args:
        chip: the configuration.
        w_in, w_rec, w_out: integers from -128 to 127, `[n_in, n_rec]`, `[n_rec, n_rec]`, `[n_rec, n_out]`. The diagonal
            of `w_rec` acts as given until a draw succeeds there, which makes it 0: start it from 0.

    Raises:
        InvalidSetting: for another shape, or a weight of more than 8 bits.
    """
    shapes = {"w_in": (chip.n_in, chip.n_rec), "w_rec": (chip.n_rec,) * 2, "w_out": (chip.n_rec, chip.n_out)}
    given = {"w_in": w_in, "w_rec": w_rec, "w_out": w_out}
    weights = Weights(*(jnp.asarray(integers(name, given[name], shapes[name], -128, 127)) for name in shapes))
    return ReckOnState(weights, generators(chip))


def generators(chip: ReckOn) -> Generators:
    """The generators at the configuration's seeds."""
    found = []
    for name in Generators._fields:
        bits, count = SEEDS[f"seed_{name}"]
        seed, width = getattr(chip, f"seed_{name}"), bits // count
        halves = [seed >> (width * n) & (2**width - 1) for n in range(count)]
        found.append(jnp.asarray(halves if count == 2 else halves[0], jnp.uint32))
    return Generators(*found)


def rest(chip: ReckOn) -> Neurons:
    """Neurons at the start of a sample."""
    inputs, neurons, outputs = (jnp.zeros((n,), jnp.int32) for n in (chip.n_in, chip.n_rec, chip.n_out))
    return Neurons(neurons, inputs, neurons, neurons, outputs, neurons.astype(bool))


def wrap(x: Int32[Array, "*shape"], bits: int) -> Int32[Array, "*shape"]:
    """The low bits, read as a signed number."""
    return (x << (32 - bits)) >> (32 - bits)


def saturate16(x: Int32[Array, "*shape"]) -> Int32[Array, "*shape"]:
    """Clipped to 16 bits and sign."""
    return jnp.clip(x, -(2**15), 2**15 - 1)
