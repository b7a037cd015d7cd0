"""Strict numerics: float64 is at hand, no silent promotion of types; keys by fixture."""

import jax
import pytest

jax.config.update("jax_enable_x64", True)


@pytest.fixture
def getkey():
    """A function that gives a new random key at each call."""
    keys = iter(range(10**6))
    return lambda: jax.random.key(next(keys))
