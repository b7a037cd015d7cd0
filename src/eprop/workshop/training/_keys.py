"""Random numbers: a key for each seed, purpose and iteration."""

import jax
from jaxtyping import Array, PRNGKeyArray

WEIGHTS, DATA, TRAINING, EVALUATION, TEST = range(5)
"""Purposes of a seed's random numbers."""

SYNTHESISER = 17
"""Another purpose, apart from those that experiments use."""


def purpose_key(seed_key: PRNGKeyArray, purpose: int, iteration: int | Array = 0) -> PRNGKeyArray:
    """The key of one purpose at one iteration: no key is carried, so a resumed run draws the same numbers."""
    return jax.random.fold_in(jax.random.fold_in(seed_key, purpose), iteration)
