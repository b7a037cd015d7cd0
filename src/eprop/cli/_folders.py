"""`eprop resume` and `eprop plot`: commands on a folder that a run left behind."""

from eprop.cli._execute import draw_all, execute, named_folder, prepare
from eprop.cli._parse import wants_help
from eprop.training import RunFolder


def resume(arguments: list[str]) -> None:
    usage = "usage: eprop resume DIR\n\nGo on with an interrupted run of any command, to the same numbers.\n"
    if not wants_help(arguments, usage):
        execute(RunFolder.open(named_folder("resume", arguments)))


def plot(arguments: list[str]) -> None:
    usage = "usage: eprop plot DIR\n\nDraw the pictures of a run or a comparison again, from what is in its folder.\n"
    if not wants_help(arguments, usage):
        folder = RunFolder.open(named_folder("plot", arguments))
        prepare(folder.config)
        draw_all(folder)
