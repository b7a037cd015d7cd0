"""Strict numerics: float64 is at hand, no silent promotion of types; keys by fixture."""

import os
import shutil
import signal
from pathlib import Path

COMPILED = Path(__file__).parent.parent / ".compiled"
"""What XLA compiled, by the program's digest: most tests compile programs that others compile too, in this process, in
another worker, in a program that is started, or in the run before. `make clean` removes it."""
COMPILED_LARGEST = 2 << 30

if "PYTEST_XDIST_WORKER" not in os.environ and COMPILED.is_dir():
    if sum(file.stat().st_size for file in COMPILED.iterdir()) > COMPILED_LARGEST:
        shutil.rmtree(COMPILED)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(COMPILED))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)

# A shell starts what it runs in the background with Ctrl-C ignored, and the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def getkey():
    """A function that gives a new random key at each call."""
    keys = iter(range(10**6))
    return lambda: jax.random.key(next(keys))


@pytest.fixture(autouse=True, scope="module")
def drop_compiled():
    """What a file's tests compiled goes with the file: code holds memory maps, and a process may have 65 530 of them.

    Beyond that the compiler crashes (seen after 300 tests in one process).
    """
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def compiled_quickly():
    """For files that compile much and run it once: the compiler leaves out what takes long; a third less time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def spoken(tmp_path_factory):
    """A small spoken corpus: ten speakers, a sentence each."""
    from eprop.workshop.speech import Synthesis, synthesise

    path = tmp_path_factory.mktemp("spoken") / "corpus"
    synthesise(path, Synthesis(hours=0.001, sentences=1))
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache of features in a folder of this test's own."""
    from eprop.workshop.speech import load_corpus

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load_corpus.cache_clear()


def pytest_addoption(parser):
    parser.addoption("--every", type=int, default=1, metavar="N", help="run every Nth of the chosen tests only")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """A part of the tests that touches every file: for other versions of JAX and Python (`scripts/lane.py`)."""
    every = config.getoption("--every")
    if every > 1:
        config.hook.pytest_deselected(items=[item for i, item in enumerate(items) if i % every])
        items[:] = items[::every]
