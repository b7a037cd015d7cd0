"""A stream learnt by a stack of linear recurrent units: time and memory against width, and the lower layers' gradient.

    python benchmarks/lru_stack.py

Prints two tables. The first: four blocks (norm, LRU, dense map, residual) on a stream of 16 channels, so that no matrix
has the width twice; beside it the same with as many channels as units, whose dense maps have. The second: the cosine of
each layer's summed gradient, learnt in windows, with that of the whole sequence.
"""

import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from eprop import BPTT, LRU, Block, Dense, EProp1, LayerNorm, Learner, Network, Readout, Recurrent, value_and_grad

WIDTHS = (64, 128, 256, 512, 1024)
WINDOW, BATCH, BLOCKS, CHANNELS, TIME = 10, 1, 4, 16, 200


def squared(y, target, mask):
    return 0.5 * jnp.sum(mask[..., None] * (y - target) ** 2)


def stack(width: int, channels: int, blocks: int = BLOCKS) -> Network:
    """Blocks of `width` units on a residual stream of `channels`."""
    keys = iter(jax.random.split(jax.random.key(0), 3 * blocks + 1))
    layers = []
    for _ in range(blocks):
        units = LRU.ring(next(keys), width, r_min=0.9)
        layer = Recurrent(units, channels, width, key=next(keys), trainable=("nu", "theta"))
        dense = Dense(width, channels, key=next(keys))
        layers.append(Block(layer, (LayerNorm(channels),), (dense,), residual=True))
    return Network(tuple(layers), Readout(channels, 1, key=next(keys)))


def measure(width: int, channels: int) -> tuple[float, float, float]:
    """ms of processor time a step (median of 30 windows), MB carried over windows, MB in all while one runs."""
    learner = Learner(EProp1(), optax.sgd(1e-4), squared)
    state = learner.init(stack(width, channels), BATCH)
    carried = sum(leaf.nbytes for leaf in jax.tree.leaves(state.carry)) / 1e6
    x = jax.random.normal(jax.random.key(1), (WINDOW, BATCH, channels))
    target = x[..., :1]
    arrays, static = eqx.partition(state, eqx.is_array)

    @jax.jit
    def step(arrays, x, target):
        state, _, metrics = learner.step(eqx.combine(arrays, static), x, target)
        return eqx.filter(state, eqx.is_array), metrics.loss

    sizes = step.lower(arrays, x, target).compile().memory_analysis()
    assert sizes is not None
    memory = (sizes.temp_size_in_bytes + sizes.argument_size_in_bytes) / 1e6
    times = []
    for i in range(32):
        begin = time.process_time()
        state, _, metrics = learner.step(state, x, target)
        metrics.loss.block_until_ready()
        times += [1e3 * (time.process_time() - begin) / WINDOW] if i >= 2 else []
    return statistics.median(times), carried, memory


def cosines(window: int) -> list[float]:
    """Of each layer, of a stack of three on 16 channels: the gradient of a stream with that of the whole sequence."""
    network = stack(32, CHANNELS, 3)
    x = jax.random.normal(jax.random.key(2), (TIME, BATCH, CHANNELS))
    target, mask = jnp.roll(x[..., :1], 5, axis=0), jnp.ones((TIME, BATCH))
    whole = value_and_grad(lambda n: squared(n(x, BPTT()).y, target, mask), BPTT())(network)[1]
    learner = Learner(EProp1(), optax.sgd(1.0), squared, update_every=None)
    state = learner.init(network, BATCH)
    for t in range(0, TIME, window):
        state, _, _ = learner.step(state, x[t : t + window], target[t : t + window])
    flat = lambda tree: jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(tree)])  # noqa: E731
    pairs = [(flat(a), flat(b)) for a, b in zip(state.gradient.layers, whole.layers, strict=True)]
    return [float(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b)) for a, b in pairs]


def main() -> None:
    print(f"{BLOCKS} blocks, windows of {WINDOW}: ms of processor time a step, MB carried, MB in all")
    for width in WIDTHS:
        print(width, *(f"{x:.3f}" for x in measure(width, CHANNELS)), flush=True)
    print("the same with as many channels as units")
    for width in WIDTHS[:3]:
        print(width, *(f"{x:.3f}" for x in measure(width, width)), flush=True)
    print("cosine with the whole sequence: window, layers from the lowest")
    for window in (1, 10, 50, 200):
        print(window, *(f"{c:.3f}" for c in cosines(window)), flush=True)


if __name__ == "__main__":
    main()
