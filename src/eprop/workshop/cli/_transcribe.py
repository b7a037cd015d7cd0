"""`eprop transcribe`: the phones of a sound file."""

from pathlib import Path

from eprop.errors import require
from eprop.files import printable
from eprop.workshop.cli._parse import take_option, wants_help

USAGE = """\
usage: eprop transcribe RUN FILE.wav [--out PICTURE.png]

The phones that a trained speech network hears in a sound file (one channel, at the corpus's sampling rate), a line
each: start and end in seconds, and the phone's name; and a picture of sound, neurons and phones on one time axis.
RUN is the folder of one network: from 'eprop train speech', or a rule's folder in a comparison.
The picture goes to RUN/figures/transcript-FILE.png unless --out names another place.

example:
  eprop transcribe runs/speech hello.wav
"""


def transcribe(arguments: list[str]) -> None:
    if not arguments:
        print(USAGE, end="")
        return
    if wants_help(arguments, USAGE):
        return
    from eprop.workshop.cli._execute import set_precision
    from eprop.workshop.experiments import load_speech_run
    from eprop.workshop.experiments import transcribe as hear
    from eprop.workshop.figures import save, utterance_figure

    out, rest = take_option(arguments, "out", "")
    require(
        len(rest) == 2, "transcribe: name a run folder and a sound file, as in 'eprop transcribe runs/speech x.wav'"
    )
    require(not out or Path(out).suffix.lower() == ".png", f"out = {out}: the picture is a PNG; give it a name in .png")
    folder, sound = Path(rest[0]), Path(rest[1])
    run, facts = load_speech_run(folder)
    set_precision(run.experiment.network.precision)
    transcript = hear(run, facts, sound)
    for start, end, phone in transcript.predicted:
        print(f"{start:.3f} {end:.3f} {printable(phone)}")
    picture = Path(out) if out else run.folder.figures / f"transcript-{sound.stem}.png"
    print(save(utterance_figure(transcript), picture))
