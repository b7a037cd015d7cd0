"""`eprop resume` and `eprop plot`: commands on a folder that a run left behind."""

from pathlib import Path

from eprop.errors import InvalidSetting
from eprop.workshop.cli._execute import draw_all, named_folder, prepare, run_in, seconds_of
from eprop.workshop.cli._parse import take_option, wants_help
from eprop.workshop.training import RunFolder

RESUME = """\
usage: eprop resume DIR [--iterations N] [--stop-after TIME]

Go on with an interrupted run of any command, to the same numbers.

  --iterations N     train on until so many iterations, also a run that has ended (train, compare, gradients)
  --stop-after TIME  end by itself after this time (55m, 11.5h), to be continued, with status 75
"""


def resume(arguments: list[str]) -> None:
    if wants_help(arguments, RESUME):
        return
    limit, rest = take_option(arguments, "stop-after", "")
    iterations, rest = take_option(rest, "iterations", "")
    seconds = seconds_of(limit)
    path = named_folder("resume", rest)
    run_in(lambda: _opened(path, iterations), seconds)


def _opened(path: Path, iterations: str) -> RunFolder:
    folder = RunFolder.open(path)
    if iterations:
        if not (iterations.isascii() and iterations.isdigit() and len(iterations) < 16):
            raise InvalidSetting(f"iterations = {iterations!r}: must be a whole number")
        folder.extend(int(iterations))
    elif folder.finished and folder.config["command"] in ("train", "compare", "gradients"):
        print(f"{folder.path}: has ended already; its pictures are drawn again (--iterations N trains on)")
    return folder


def plot(arguments: list[str]) -> None:
    usage = "usage: eprop plot DIR\n\nDraw the pictures of a run or a comparison again, from what is in its folder.\n"
    if not wants_help(arguments, usage):
        folder = RunFolder.open(named_folder("plot", arguments))
        folder.say_what_differs()
        prepare(folder.config)
        draw_all(folder)
