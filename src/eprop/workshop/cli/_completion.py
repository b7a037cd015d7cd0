"""`eprop completion`: a script with which a shell completes commands, tasks, options and their values."""

import contextlib
import importlib
from collections.abc import Iterable, Mapping

from eprop.errors import InvalidSetting, require
from eprop.workshop.cli._parse import Described, choose, describing, wants_help

USAGE = """\
usage: eprop completion bash|zsh|fish

Print a script with which the shell completes commands, tasks, options and their values.

  bash   eval "$(eprop completion bash)"                 in ~/.bashrc
  zsh    eval "$(eprop completion zsh)"                  in ~/.zshrc, after compinit
  fish   eprop completion fish > ~/.config/fish/completions/eprop.fish

The first two ask the program at each start of the shell, which takes a few seconds. Written to a file that the shell
reads instead (`eprop completion bash > FILE`), it is at once; write it anew after an upgrade.
"""

SHELLS = ("bash", "zsh", "fish")

DESCRIBED = ("train", "compare", "gradients", "stream", "reproduce", "data", "bench")
"""Commands that say themselves what may follow. After the others come names of files."""

BASH = """\
_eprop() {
    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" words
    COMPREPLY=()
    _eprop_words "${COMP_WORDS[1]}" "${COMP_WORDS[2]}" "$previous" "$COMP_CWORD" "$current"
    local IFS=$' \\t\\n'
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _eprop eprop
"""

ZSH = """\
_eprop() {
    local words_before=("${words[@]}") previous="${words[CURRENT-1]}" place=$((CURRENT - 1))
    _eprop_find() { local words; _eprop_words "$@"; found=(${=words}); }
    local -a found
    _eprop_find "${words_before[2]}" "${words_before[3]}" "$previous" "$place" "$PREFIX"
    if ((${#found})); then compadd -- "${found[@]}"; else _files; fi
}
compdef _eprop eprop
"""

FISH = """\
function __eprop
    set -l before (commandline -opc)
    set -l place (count $before)
    __eprop_words "$before[2]" "$before[3]" "$before[-1]" $place (commandline -ct)
end
complete -c eprop -n 'test (count (commandline -opc)) -lt 3' -f -a '(__eprop)'
complete -c eprop -n 'test (count (commandline -opc)) -ge 3' -a '(__eprop)'
"""


def completion(arguments: list[str]) -> None:
    if not arguments:
        print(USAGE, end="")
        return
    if wants_help(arguments, USAGE):
        return
    shell, *rest = arguments
    choose("shell", shell, SHELLS)
    require(not rest, f"completion: takes one argument, the shell's name, got {' '.join(arguments)!r}")
    print(script(shell), end="")


def script(shell: str) -> str:
    """The whole script for one shell: a function that finds the words, and how the shell asks it."""
    names, options, values = vocabulary()
    if shell == "fish":
        return _fish_words(names, options, values) + FISH
    return _posix_words(names, options, values) + (BASH if shell == "bash" else ZSH)


Words = dict[str, tuple[str, ...]]


def vocabulary() -> tuple[Words, Words, Words]:
    """The words that may follow, read off the commands themselves.

    Returns:
        names: after nothing or a command: the commands, or the tasks and the like.
        options: after `COMMAND` or `COMMAND NAME`: the flags.
        values: after a flag, or `COMMAND NAME FLAG` where it differs from command to command: what the flag may be.
    """
    from eprop.workshop.cli import COMMANDS

    names: Words = {"": tuple(COMMANDS), "completion": SHELLS}
    options: Words = {}
    values: Words = {}
    for command in DESCRIBED:
        first = _describe(command, [""])
        if first.names:
            names[command] = first.names
        for name in first.names or ("",):
            described = _describe(command, [name]) if name else first
            place = f"{command} {name}".strip()
            options[place] = (*described.options, "--help")
            values |= {f"{place} {flag}": _values(name, flag, found) for flag, found in described.options.items()}
    return names, options, _shared(values)


def _describe(command: str, arguments: list[str]) -> Described:
    """The words that may follow a command and these arguments; the command isn't run."""
    from eprop.workshop.cli import COMMANDS

    module = importlib.import_module(f"eprop.workshop.cli.{COMMANDS[command][0]}")
    with describing(), contextlib.suppress(InvalidSetting):
        try:
            getattr(module, command)(arguments)
        except Described as described:
            return described
    return Described()


def _values(name: str, flag: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The values of a flag, those included that no type says."""
    from eprop.rules import RULES
    from eprop.workshop.experiments import REPRODUCTIONS
    from eprop.workshop.optimisers import optimiser_names
    from eprop.workshop.tasks import TASKS

    if flag == "--preset":
        return tuple(TASKS[name] if name in TASKS else REPRODUCTIONS[name].presets)
    if flag == "--optimiser":
        return optimiser_names()
    return tuple(RULES) if flag in ("--rule", "--rules") else known


def _shared(values: Words) -> Words:
    """The same with one entry for a flag that has the same values everywhere; flags without named values left out."""
    of_flag: dict[str, set[tuple[str, ...]]] = {}
    for place, found in values.items():
        of_flag.setdefault(place.rpartition(" ")[2], set()).add(found)
    short: Words = {}
    for place, found in values.items():
        flag = place.rpartition(" ")[2]
        if found:
            short[flag if len(of_flag[flag]) == 1 else place] = found
    return short


def _posix_words(names: Words, options: Words, values: Words) -> str:
    """A function for bash and zsh that sets `words`.

    Its arguments: command, name, the word before, the place of the word that is typed, and what is typed of it. After a
    flag without named values it finds nothing, so that the shell completes names of files.
    """
    return f"""\
_eprop_words() {{
    words=""
    case "$1 $2 $3" in
{_cases({place: found for place, found in values.items() if " " in place})}
    esac
    [ -n "$words" ] && return
    case "$3" in
{_cases({flag: found for flag, found in values.items() if " " not in flag})}
    esac
    [ -n "$words" ] && return
    case "$3:$5" in
    --*:-*) ;;
    --*) return ;;
    esac
    if [ "$4" = 1 ]; then
        words="{" ".join(names[""])}"
        return
    fi
    if [ "$4" = 2 ]; then
        case "$1" in
{_cases({command: found for command, found in names.items() if command})}
        esac
        [ -n "$words" ] && return
    fi
    case "$1 $2" in
{_cases({place: found for place, found in options.items() if " " in place})}
    esac
    [ -n "$words" ] && return
    case "$1" in
{_cases({command: found for command, found in options.items() if " " not in command})}
    esac
}}
"""


def _cases(table: Mapping[str, Iterable[str]]) -> str:
    return "\n".join(f"    '{key}') words='{' '.join(found)}' ;;" for key, found in table.items())


def _fish_words(names: Words, options: Words, values: Words) -> str:
    """The same function for fish; it prints a word a line."""
    first: Words = {"1 *": names[""]}
    questions = (
        ("$argv[1] $argv[2] $argv[3]", {place: found for place, found in values.items() if " " in place}),
        ("$argv[3]", {flag: found for flag, found in values.items() if " " not in flag}),
        ("$argv[4] $argv[1]", first | {f"2 {command}": found for command, found in names.items() if command}),
        ("$argv[1] $argv[2]", {place: found for place, found in options.items() if " " in place}),
        ("$argv[1]", {command: found for command, found in options.items() if " " not in command}),
    )
    lines = ["function __eprop_words"]
    for place, (question, answers) in enumerate(questions):
        if place == 2:
            files = ["        case '--*:-*'", "        case '--*'", "            return"]
            lines += ['    switch "$argv[3]:$argv[5]"', *files, "    end"]
        lines += [f'    switch "{question}"', *_fish_cases(answers), "    end"]
    return "\n".join([*lines, "end", ""])


def _fish_cases(table: Mapping[str, Iterable[str]]) -> list[str]:
    said = []
    for key, found in table.items():
        said += [f"        case '{key}'", f"            string split ' ' -- '{' '.join(found)}'", "            return"]
    return said
