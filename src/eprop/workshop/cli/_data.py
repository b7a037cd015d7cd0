"""`eprop data`: data made on this machine."""

import dataclasses
from pathlib import Path

from eprop.workshop.cli._parse import choose, missing, parse
from eprop.workshop.speech import Synthesis, synthesise

USAGE = """\
usage: eprop data speech --out DIR [--hours H] [--seed S] [options]

Speak a corpus in TIMIT's layout (sound, phones with their boundaries, text) with the espeak-ng engine: many voices,
pitches and speeds, noise and rooms; train, dev and test share neither sentences nor voices.

examples:
  eprop data speech --out corpus --hours 0.5 --seed 0
  eprop train speech --data corpus --out runs/speech

'eprop data speech --help' lists all options.
"""


@dataclasses.dataclass(frozen=True)
class DataOptions:
    out: Path
    """Folder for the corpus; a new one."""
    settings: Synthesis


def data(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    name, *rest = arguments
    choose("data set", name, ("speech",))
    options = parse(
        DataOptions,
        rest,
        prog="eprop data speech",
        description="Speak a corpus in TIMIT's layout with the espeak-ng engine.",
        default=DataOptions(out=missing(), settings=Synthesis()),
    )
    report = synthesise(options.out, options.settings)
    for split, count in report["splits"].items():
        minutes = count["seconds"] / 60
        print(f"{split}: {minutes:.1f} minutes, {count['utterances']} utterances, {count['speakers']} speakers")
    print(options.out)
