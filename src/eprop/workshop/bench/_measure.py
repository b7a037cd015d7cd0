"""Times and peak memory, in one process: compiled ahead, checked, then run in turns."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array

from eprop.rules import BPTT
from eprop.workshop.bench._problem import Case, Problem, check_alive, make_problem
from eprop.workshop.bench._reference import TOLERANCE, largest_error, reference_gradient
from eprop.workshop.bench._ways import (
    Way,
    candidate_windows,
    learner,
    product_operands,
    products,
    streaming,
    whole_ways,
)

PATHS = ("products", "forward", "bptt", "whole", "streaming", "stepwise")
SLOW = 4.0
"""A path whose first run takes longer, seconds, has that run counted (it is compiled ahead) and one more."""


@dataclass
class Measurement:
    """One path at one size."""

    path: str
    seconds: list[float] = field(default_factory=list)
    bytes: int = 0
    error: float | None = None
    window: int | None = None
    refused: str | None = None

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None


def measure_case(
    case: Case,
    rounds: int,
    paths: Sequence[str] = PATHS,
    say: Callable[[str], None] = lambda said: None,
    windows: Sequence[int] = (),
) -> tuple[float, list[Measurement]]:
    """The mean output, and every path's times and memory: those whose gradient is right; the others are refused.

    Args:
        rounds: repetitions; in each every path has one turn, so that a busy moment hits all alike.
        say: told what is being done.
        windows: steps a window to choose the stream's from; none: those of `candidate_windows`.

    Raises:
        RunFailed: if the network is silent or saturated.
    """
    problem = make_problem(case)
    rate = check_alive(jax.jit(lambda x: problem.network(x, BPTT()).z[0])(problem.inputs), case)
    references: dict[str, Any] = {}
    prepared = []
    for way in _all_ways(problem, paths):
        say(f"{case}: {way.name}, compiling and checking its gradient")
        window, function = _with_window(problem, way, windows)
        operands = product_operands(problem) if way.name == "products" else ()
        arguments, compiled = _compile(function, problem, *operands)
        row = Measurement(way.name, bytes=_peak(compiled), window=window)
        seconds, result = _timed(compiled, arguments)
        if way.gradient is not None:
            if way.gradient not in references:
                references[way.gradient] = reference_gradient(way.gradient, problem)
            row.error = largest_error(result[1], references[way.gradient])
            if row.error > TOLERANCE:
                row.refused = f"its gradient is wrong: error {row.error:.1e} against the reference, above {TOLERANCE}"
        if window is not None:
            row.bytes = _window_bytes(problem, window)
        if seconds > SLOW and not row.refused:
            row.seconds.append(seconds)
        prepared.append((row, compiled, arguments))
    for turn in range(rounds):
        say(f"{case}: round {turn + 1} of {rounds}")
        for row, compiled, arguments in prepared:
            slow = bool(row.seconds) and row.seconds[0] > SLOW
            if not row.refused and not (slow and len(row.seconds) > 1):
                row.seconds.append(_timed(compiled, arguments)[0])
    return rate, [row for row, _, _ in prepared]


def _all_ways(problem: Problem, names: Sequence[str]) -> list[Way]:
    known = {way.name: way for way in whole_ways()}
    known["products"] = Way("products", products, None)
    known["streaming"] = Way("streaming", streaming, "eprop")
    return [known[name] for name in names]


def _with_window(problem: Problem, way: Way, windows: Sequence[int]) -> tuple[int | None, Callable[..., Any]]:
    """For the stream: the fastest of a few windows; for the others the function as it is."""
    if way.name != "streaming":
        return None, way.function
    steps, batch = problem.inputs.shape[:2]
    fastest = {}
    windows = windows or candidate_windows(problem.network, steps, batch)
    for window in windows if len(windows) > 1 else ():
        arguments, compiled = _compile(way.function(window), problem)
        _timed(compiled, arguments)
        fastest[window] = min(_timed(compiled, arguments)[0] for _ in range(3))
    window = min(windows, key=lambda w: fastest.get(w, 0.0))
    return window, way.function(window)


def _compile(function: Callable[..., Any], problem: Problem, *operands: Array) -> tuple[tuple, Any]:
    """Arguments, on the device, and the compiled function of them; what is no array (fixed constants) is built in."""
    arrays, static = eqx.partition(problem, eqx.is_array)
    whole = lambda arrays, *operands: function(*eqx.combine(arrays, static), *operands)  # noqa: E731
    arguments = (arrays, *operands)
    return arguments, jax.jit(whole).lower(*arguments).compile()


def _timed(compiled: Callable[..., Any], arguments: tuple) -> tuple[float, Any]:
    jax.block_until_ready(arguments)
    start = time.perf_counter()
    result = jax.block_until_ready(compiled(*arguments))
    return time.perf_counter() - start, result


def _peak(compiled: Any) -> int:
    """Memory that XLA sets aside while a function runs: arguments, results and temporaries, those used twice once."""
    memory = compiled.memory_analysis()
    whole = memory.temp_size_in_bytes + memory.output_size_in_bytes + memory.argument_size_in_bytes
    return int(whole - memory.alias_size_in_bytes)


def _window_bytes(problem: Problem, window: int) -> int:
    """The stream's peak memory: of one window's step, for nothing else is alive then."""
    online = learner()
    inputs, targets = problem.inputs[:window], problem.targets[:window]
    state, static = eqx.partition(online.init(problem.network, inputs.shape[1]), eqx.is_array)

    def step(state, inputs, targets):
        state, y, metrics = online.step(eqx.combine(state, static), inputs, targets)
        return eqx.filter(state, eqx.is_array), y, metrics

    return _peak(jax.jit(step, donate_argnums=0).lower(state, inputs, targets).compile())
