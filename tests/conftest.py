"""Strict numerics: float64 is at hand, no silent promotion of types; keys by fixture."""

import os

# The tests' networks are tiny: compiling them costs more than running them, so XLA optimises less.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)


@pytest.fixture
def getkey():
    """A function that gives a new random key at each call."""
    keys = iter(range(10**6))
    return lambda: jax.random.key(next(keys))
