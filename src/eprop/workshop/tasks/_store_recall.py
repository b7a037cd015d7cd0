"""Store-recall: keep a bit in working memory from a STORE to a RECALL command."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from eprop.errors import require, require_positive
from eprop.workshop.settings import Experiment, NetworkSettings, OptimiserSettings, RunSettings
from eprop.workshop.tasks._base import Batch, Task, cross_entropy

STORE, RECALL = 2, 3


@dataclass(frozen=True)
class StoreRecall(Task):
    """A sequence of symbols: bits, STORE and RECALL; at each RECALL say the bit that came with the last STORE.

    Law (released code of Bellec et al. 2019): symbols are bits; while the last command is RECALL each
    becomes STORE with probability 1/(1+delay), while it is STORE each becomes RECALL likewise; drawn
    again until there is a STORE, every STORE is followed by a bit, and the last command is a RECALL.
    The bit to store (the one that follows STORE) is shown together with STORE; the bit after it
    is then inverted with probability 1/2. Groups of input neurons code bit 0, bit 1, STORE, RECALL.

    Metric: recall error; the answer at a RECALL is the class with the larger mean sign of its output.
    """

    metric_name: ClassVar[str] = "recall error"

    symbols: int = 12
    """Symbols a sequence."""
    symbol_duration: int = 200
    """Steps (ms) a symbol."""
    delay: int = 6
    """Expected number of symbols between STORE and RECALL."""
    group: int = 25
    """Input neurons for each of bit 0, bit 1, STORE, RECALL."""
    input_rate: float = 50.0
    """Rate of an active input neuron, Hz."""

    def __post_init__(self) -> None:
        require_positive(symbol_duration=self.symbol_duration, delay=self.delay, group=self.group,
                         input_rate=self.input_rate)  # fmt: skip
        require(self.symbols >= 3, f"symbols = {self.symbols}: STORE, a bit and RECALL need at least 3")

    @property
    def n_in(self) -> int:
        return 4 * self.group

    @property
    def n_out(self) -> int:
        return 2

    def sequences(self, key: PRNGKeyArray, size: int) -> Int[Array, "batch symbol"]:
        """Valid symbol sequences (0, 1, STORE = 2, RECALL = 3)."""

        def redraw(state):
            symbols, valid, key = state
            key, subkey = jax.random.split(key)
            drawn = self._draw(subkey, size)
            symbols = jnp.where(valid[:, None], symbols, drawn)
            return symbols, self._valid(symbols), key

        nothing = (jnp.zeros((size, self.symbols), jnp.int32), jnp.zeros(size, bool), key)
        return jax.lax.while_loop(lambda state: ~state[1].all(), redraw, nothing)[0]

    def _draw(self, key: PRNGKeyArray, size: int) -> Int[Array, "batch symbol"]:
        key_bits, key_commands = jax.random.split(key)
        bits = jax.random.bernoulli(key_bits, 0.5, (self.symbols, size)).astype(jnp.int32)
        commands = jax.random.bernoulli(key_commands, 1.0 / (1 + self.delay), (self.symbols, size))

        def step(last, inputs):
            bit, command = inputs
            last = jnp.where(command, STORE + RECALL - last, last)
            return last, jnp.where(command, last, bit)

        _, symbols = jax.lax.scan(step, jnp.full((size,), RECALL), (bits, commands))
        return symbols.T

    def _valid(self, symbols: Int[Array, "batch symbol"]) -> Array:
        store, recall = symbols == STORE, symbols == RECALL
        followed_by_bit = jnp.all(~store[:, :-1] | (symbols[:, 1:] < STORE), axis=1) & ~store[:, -1]
        return store.any(1) & followed_by_bit & (store.sum(1) == recall.sum(1))

    def sample(self, data: Any, key: PRNGKeyArray, size: int) -> Batch:
        key_symbols, key_inverted, key_spikes = jax.random.split(key, 3)
        symbols = self.sequences(key_symbols, size)
        store = symbols == STORE
        following = jnp.concatenate([symbols[:, 1:], jnp.zeros((size, 1), jnp.int32)], axis=1)
        after_store = jnp.concatenate([jnp.zeros((size, 1), bool), store[:, :-1]], axis=1)
        inverted = after_store & jax.random.bernoulli(key_inverted, 0.5, symbols.shape)
        shown = jnp.where(inverted, 1 - symbols, symbols)
        active = jax.nn.one_hot(shown, 4) + jnp.where(store[..., None], jax.nn.one_hot(following, 4), 0.0)

        def remember(stored, inputs):
            is_store, bit = inputs
            stored = jnp.where(is_store, bit, stored)
            return stored, stored

        _, stored = jax.lax.scan(remember, jnp.zeros((size,), jnp.int32), (store.T, following.T))

        in_time = lambda x: jnp.repeat(x, self.symbol_duration, axis=0)  # noqa: E731
        rates = in_time(jnp.repeat(jnp.swapaxes(active, 0, 1), self.group, axis=-1)) * self.input_rate / 1000.0
        spikes = (jax.random.uniform(key_spikes, rates.shape) < rates).astype(jnp.float32)
        recall = in_time((symbols == RECALL).T)
        return Batch(spikes, in_time(stored), recall, jnp.ones_like(recall))

    def loss(self, y: Array, batch: Batch) -> Array:
        return cross_entropy(y, batch)

    def window_loss(self, y: Array, part: Batch, whole: Batch) -> Array:
        return cross_entropy(y, part, whole)

    def metric(self, y: Array, batch: Batch) -> tuple[Array, Array]:
        by_symbol = lambda x: x.reshape(self.symbols, self.symbol_duration, *x.shape[1:])  # noqa: E731
        answer = by_symbol(jnp.sign(y)).mean(1).argmax(-1)
        recall, target = by_symbol(batch.mask)[:, 0], by_symbol(batch.targets)[:, 0]
        return jnp.sum(recall & (answer != target)).astype(y.dtype), recall.sum().astype(y.dtype)


PRESETS = {
    "published": Experiment(
        task=StoreRecall(),
        network=NetworkSettings(
            neuron="lsnn",
            neurons=100,
            adaptive_fraction=0.4,
            tau_m=20.0,
            tau_a=1200.0,
            tau_out=20.0,
            v_th=0.03,
            beta=1.7,
            n_refractory=1,
            input_gain="one-minus-alpha",
            adaptation_gain="one-minus-rho",
            threshold_scaling="adaptive",
            readout_gain="one-minus-kappa",
        ),
        optimiser=OptimiserSettings(learning_rate=0.002, rate_strength=1.0),
        run=RunSettings(iterations=300, batch=128, evaluate_every=10, stop_below=0.05),
    ),
}
"""`published`: 60 LIF and 40 adaptive neurons, the authors' released code of 2019."""
