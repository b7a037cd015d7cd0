"""The check that a neuron's step is elementwise: eligibility traces hold for no other."""

from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from eprop.errors import require
from eprop.neurons import Neuron

BATCH, NEURONS, DRAWS = 2, 3, 16
MOVES = (0.0, 0.1, 1.0, 30.0, -30.0)


def require_elementwise(neuron: Neuron) -> None:
    """Refuse a model whose `step` lets one neuron, or one sample, see another.

    A probe: at a few random states the entry of one neuron is moved, a little and a lot, and no other neuron's new
    state or output may move with it. Each kind of model is probed once; the values of its array constants are made up,
    since they may not be known yet.

    Raises:
        InvalidSetting: naming the model and what depends on what.
    """
    arrays, rest = eqx.partition(neuron, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    require(
        all(leaf.ndim <= 1 for leaf in leaves),
        f"neuron: {type(neuron).__name__} has an array of shape {[x.shape for x in leaves if x.ndim > 1]}; constants "
        "are scalar or [neuron]",
    )
    static, of_static = jax.tree.flatten(rest)
    kinds = tuple((leaf.ndim, str(leaf.dtype)) for leaf in leaves)
    try:
        _probe(structure, kinds, tuple(static), of_static)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        _probe.__wrapped__(structure, kinds, tuple(static), of_static)


@lru_cache(maxsize=256)
def _probe(structure: Any, kinds: tuple, static: tuple, of_static: Any) -> None:
    with jax.ensure_compile_time_eval():
        shapes = [(NEURONS,) if ndim else () for ndim, _ in kinds]
        made_up = [jnp.asarray(np.full(shape, 0.7), dtype) for shape, (_, dtype) in zip(shapes, kinds, strict=True)]
        neuron = eqx.combine(structure.unflatten(made_up), of_static.unflatten(static))
        seen = _moved(neuron)
        require(
            not seen,
            f"neuron: the step of {type(neuron).__name__} is not elementwise: what a neuron becomes or shows depends "
            "on another neuron's (or another sample's) state, currents or z_prev; only recurrent weights may join them",
        )


def _moved(neuron: Neuron) -> bool:
    """Whether anything but the entry `[0, 0]` moves when that entry of all arguments is moved."""
    shape = (BATCH, NEURONS)
    floating, integer = eqx.partition(neuron.init(shape), eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten((floating, (jnp.zeros(shape),) * neuron.num_currents, jnp.zeros(shape)))
    one = np.zeros(shape, bool)
    one[0, 0] = True
    random = np.random.default_rng(0)
    drawn = [random.normal(size=(DRAWS, 1, *shape)) * random.choice((0.3, 3.0), (DRAWS, 1, 1, 1)) for _ in leaves]
    moves = np.array(MOVES)[None, :, None, None] * one
    moved = [jnp.asarray((x + moves).reshape(-1, *shape), leaf.dtype) for x, leaf in zip(drawn, leaves, strict=True)]

    @jax.jit
    @jax.vmap
    def step(moved: list[jax.Array]) -> list[jax.Array]:
        floating, currents, z_prev = structure.unflatten(moved)
        state, outputs = neuron.step(eqx.combine(floating, integer), currents, z_prev)
        return jax.tree.leaves(eqx.filter((state, outputs), eqx.is_array))

    for result in step(moved):
        others = np.asarray(result).reshape(DRAWS, len(MOVES), -1)[..., 1:].astype(float)
        if np.any(np.abs(others[:, 1:] - others[:, :1]) > 1e-5 * np.abs(others[:, :1])):
            return True
    return False
