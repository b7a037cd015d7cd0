"""The program `eprop`: one file a command (or a few that share their options)."""

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from eprop.errors import InvalidSetting, RunFailed, suggestion
from eprop.files import printable
from eprop.workshop._extras import require_extra
from eprop.workshop.memory import restart_with_huge_pages

COMMANDS = {
    "tasks": ("_training", "tasks", "what can be trained"),
    "train": ("_training", "train TASK --out DIR", "train one network"),
    "compare": ("_training", "compare TASK --out DIR", "several rules on the same data and initial weights"),
    "gradients": ("_training", "gradients TASK --out DIR", "how well each rule's gradient is aligned with BPTT's"),
    "stream": ("_stream", "stream --csv FILE --targets A --out DIR", "learn online from a table that keeps coming"),
    "reproduce": ("_reproduce", "reproduce NAME --out DIR", "a published figure: all runs, table and picture"),
    "data": ("_data", "data speech --out DIR", "speak a corpus in TIMIT's layout, with phones and their boundaries"),
    "transcribe": ("_transcribe", "transcribe RUN FILE.wav", "phones of a sound file, with times, and a picture"),
    "bench": ("_bench", "bench --out DIR", "times and memory: BPTT, e-prop whole, streaming and stepwise"),
    "resume": ("_folders", "resume DIR", "go on with an interrupted run, to the same numbers"),
    "export": ("_export", "export DIR --to FORM FILE", "a trained network as NIR, safetensors, npz or a rule of Loihi"),
    "plot": ("_folders", "plot DIR", "draw a run's pictures again"),
    "completion": ("_completion", "completion bash|zsh|fish", "a script for your shell: the tab key completes"),
}
"""Every command: its file here, how it is called, and what it does."""

LONG = ("train", "compare", "gradients", "reproduce", "bench", "resume")
"""Commands that compute long enough to be started anew with larger pages of memory (a second)."""

EXAMPLES = """\
examples:
  eprop train pattern-generation --rule eprop1:random --seed 0 --out runs/first
  eprop train evidence-accumulation --neuron lsnn --batch 32 --iterations 500 --out runs/evidence
  eprop train arrays --data digits.npz --neuron lstm --out runs/digits
  eprop compare pattern-generation --preset tutorial --rules bptt,eprop1:random --seeds 5 --out runs/pattern
"""


def usage() -> str:
    """The text of `eprop --help`."""
    width = max(len(call) for _, call, _ in COMMANDS.values())
    lines = [f"  eprop {call:{width}}  {summary}" for _, call, summary in COMMANDS.values()]
    lines.append(f"  eprop {'COMMAND --help':{width}}  all options of a command, with their defaults")
    title = "eprop: train recurrent networks online with eligibility propagation, beside BPTT"
    return f"{title}\n\nusage: eprop COMMAND ...\n\n" + "\n".join(lines) + f"\n\n{EXAMPLES}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program.

    What goes wrong ends with one line: status 2 for bad input, 1 for a run that failed; 130, 143 and 129 after Ctrl-C,
    SIGTERM and SIGHUP; 75 once the time of `--stop-after` is over.
    """
    if arguments is None and sys.argv[1:2] and sys.argv[1] in LONG and not {"-h", "--help"} & set(sys.argv):
        restart_with_huge_pages()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _dispatch(arguments)
    except (InvalidSetting, RunFailed) as error:
        _end(str(error), 2 if isinstance(error, InvalidSetting) else 1)
    except KeyboardInterrupt:
        _end("stopped", 130)
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:
        named = error.filename is not None
        _end(f"{error.filename}: {error.strerror}" if named else str(error.strerror or error), 1)
    except MemoryError as error:
        _end(f"not enough memory ({error})", 1)
    except RuntimeError as error:
        if type(error).__name__ not in ("JaxRuntimeError", "XlaRuntimeError"):
            raise
        _end(f"the device says: {error}", 1)


def _end(message: str, status: int) -> NoReturn:
    print(f"eprop: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(status)


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return
    if arguments[0] == "--version":
        import eprop

        print(f"eprop {eprop.__version__}")
        return
    command, *rest = arguments
    if command not in COMMANDS:
        raise InvalidSetting(f"unknown command {command!r}{suggestion(command, COMMANDS)}; see 'eprop --help'")
    require_extra("train", f"eprop {command}")
    module = importlib.import_module(f"eprop.workshop.cli.{COMMANDS[command][0]}")
    getattr(module, command)(rest)
