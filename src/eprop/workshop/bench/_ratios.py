"""The figures to reach: ratios of what was measured in one process, each beside what it must and what it should be."""

from typing import Any, NamedTuple

SIZES = ((100, 1000, 16), (400, 300, 32), (400, 1000, 16))
"""Neurons, steps and batch at which the figures are asked for; elsewhere ratios are shown without a verdict."""


class Goal(NamedTuple):
    """One figure: which path's time over which, and what is asked of it."""

    label: str
    over: str
    under: str
    at_least: float
    aim: dict[str, float]  # by model; "": any
    smaller_is_better: bool = False
    min_neurons: int = 0
    at_least_below_400: float | None = None
    """The figure to reach for fewer than 400 neurons, where it differs."""

    def bound(self, neurons: int) -> float:
        """The figure to reach at a size."""
        small = self.at_least_below_400
        return self.at_least if small is None or neurons >= 400 else small


GOALS = (
    Goal("BPTT ÷ whole-sequence e-prop", "bptt", "whole", 1.5, {"": 3.0}, at_least_below_400=1.3),
    Goal("whole-sequence e-prop ÷ its products", "whole", "products", 2.0, {"": 1.5}, smaller_is_better=True),
    Goal("BPTT ÷ streaming e-prop", "bptt", "streaming", 0.5, {"alif": 0.75, "lstm": 1.0, "": 0.75}),
    Goal("stepwise ÷ streaming e-prop", "stepwise", "streaming", 30.0, {"": 100.0}, min_neurons=400),
)
MEMORY = Goal("stream's memory, long ÷ short", "", "", 1.05, {"": 1.0}, smaller_is_better=True)
RIVAL_GOAL = Goal("sparxml's online e-prop ÷ streaming", "sparxml", "streaming", 5.0, {"": 10.0}, min_neurons=400)
ROUNDING = 0.005
"""A ratio of memory is shown with two digits, and its aim met to that."""


def ratios_of(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """All figures that one size's measurements (and its peers' and memory) give."""
    case, found = entry["case"], []
    seconds = {row["path"]: row["median_s"] for row in entry["paths"] if row["median_s"] is not None}
    seconds |= {peer["name"]: peer["median_s"] for peer in entry.get("peers", []) if peer.get("median_s")}
    for goal in (*GOALS, RIVAL_GOAL):
        if goal.over in seconds and goal.under in seconds and case["neurons"] >= goal.min_neurons:
            found.append(_judged(goal, case, seconds[goal.over] / seconds[goal.under]))
    memory = entry.get("stream_memory")
    if memory:
        short, long = memory
        figure = _judged(MEMORY, case, long["peak_bytes"] / short["peak_bytes"])
        found.append(figure | {"label": f"stream's memory, {long['steps']} ÷ {short['steps']} steps"})
    return found


def _judged(goal: Goal, case: dict[str, Any], value: float) -> dict[str, Any]:
    aim = goal.aim.get(case["model"], goal.aim[""])
    reached = lambda bound: value <= bound if goal.smaller_is_better else value >= bound  # noqa: E731
    aimed = aim + ROUNDING if goal is MEMORY else aim
    at_least = goal.bound(case["neurons"])
    verdict = "aim" if reached(aimed) else "pass" if reached(at_least) else "fail"
    asked = case["model"] in ("alif", "lstm") and (case["neurons"], case["steps"], case["batch"]) in SIZES
    return {
        "label": goal.label,
        "case": case,
        "value": value,
        "at_least": at_least,
        "aim": aim,
        "smaller_is_better": goal.smaller_is_better,
        "verdict": verdict if asked else "",
    }
