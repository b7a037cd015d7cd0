"""From arguments to settings: flags are made from the dataclasses by tyro; its complaints become one line."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from eprop.errors import InvalidSetting, require, suggestion

T = TypeVar("T")

SETTING_GROUPS = ("task", "network", "optimiser", "run", "rule", "settings", "stream", "handling")
"""Fields that hold settings of their own: their flags carry no prefix."""


class Described(Exception):
    """Raised instead of running a command while `describing`: what may follow on the command line."""

    def __init__(self, names: Iterable[str] = (), options: Mapping[str, tuple[str, ...]] | None = None):
        self.names = tuple(names)
        self.options = dict(options or {})


_described: ContextVar[dict[str, tuple[str, ...]] | None] = ContextVar("described", default=None)


@contextlib.contextmanager
def describing() -> Iterator[None]:
    """Within this, a command that is called without its next argument, or whose arguments are parsed, is not run."""
    token = _described.set({})
    try:
        yield
    finally:
        _described.reset(token)


def parse(kind: type[T], arguments: list[str], *, prog: str, description: str, default: T) -> T:
    """The dataclass `kind` from flags.

    Raises:
        InvalidSetting: with what tyro complains of, as one line.
    """
    described = _described.get()
    if described is not None:
        raise Described(options=described | options_of(default))
    import tyro

    arguments = [re.sub("^--optimizer(?=$|=|-options(=|$))", "--optimiser", argument) for argument in arguments]
    arguments = split_commas(arguments, "optimiser-options")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                kind,
                prog=prog,
                description=description,
                args=arguments,
                default=default,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if stop.code:
            said = _one_line(complaint.getvalue())
            raise InvalidSetting(said + _nearest(said, default)) from None
        raise


def take_option(arguments: list[str], name: str, default: str) -> tuple[str, list[str]]:
    """The value of `--name VALUE` or `--name=VALUE`, and the arguments without it."""
    described = _described.get()
    if described is not None:
        described[f"--{name}"] = ()
    rest, found = [], default
    remaining = iter(arguments)
    for argument in remaining:
        flag, equals, value = argument.partition("=")
        if flag != f"--{name}":
            rest.append(argument)
            continue
        found = value if equals else next(remaining, "")
    return found, rest


def split_commas(arguments: list[str], name: str) -> list[str]:
    """The arguments, those that follow `--name` split at commas: lists may be written with commas or with spaces."""
    split, inside = [], False
    for argument in arguments:
        listed = argument
        if argument.startswith("-"):
            flag, _, listed = argument.partition("=")
            inside = flag == f"--{name}"
            split.append(flag if inside else argument)
        elif not inside:
            split.append(argument)
        if inside:
            split += [value.strip() for value in listed.split(",") if value.strip()]
    return split


def choose(what: str, name: str, known: Mapping[str, T] | Iterable[str]) -> str:
    """`name`, if it is known.

    Raises:
        InvalidSetting: with the nearest known name otherwise.
    """
    known = tuple(known)
    if not name and _described.get() is not None:
        raise Described(names=known)
    require(name in known, f"unknown {what} {name!r}{suggestion(name, known)} (known: {', '.join(known)})")
    return name


def wants_help(arguments: list[str], usage: str) -> bool:
    """Print `usage` if help is asked for."""
    if any(a in ("-h", "--help") for a in arguments):
        print(usage, end="")
        return True
    return False


def missing() -> Any:
    """The default of a flag that must be given."""
    import tyro

    return tyro.MISSING


def _one_line(box: str) -> str:
    """A message that tyro sets in a box of several lines, as one line."""
    lines = [line.strip("\u2502 ") for line in box.splitlines() if line.startswith("\u2502")]
    rule = next((i for i, line in enumerate(lines) if line and set(line) == {"\u2500"}), len(lines))
    said = " ".join(lines[:rule])
    if not said:  # where boxes can't be drawn there are lines of dashes: title, complaint, advice
        parts = re.split(r"^\s*-{8,}\s*$", box, flags=re.MULTILINE)
        said = " ".join(parts[1 if len(parts) > 1 else 0].split())
    for prefix in SETTING_GROUPS:
        said = said.removeprefix(f"Error parsing {prefix}: ")
    return said


def _nearest(said: str, default: Any) -> str:
    """The nearest valid name to the one that tyro complains of."""
    wrong = re.search(r"invalid choice '([^']*)'", said)
    if wrong:
        return suggestion(wrong[1], re.findall(r"'([^']*)'", said.partition("Expected one of")[2]))
    wrong = re.search(r"Unrecognized options: (--[^\s,=]+)", said)
    return suggestion(wrong[1], options_of(default)) if wrong else ""


def options_of(settings: Any) -> dict[str, tuple[str, ...]]:
    """All flags of a dataclass of settings, with the values that each may have where they are named ones."""
    hints = get_type_hints(type(settings))
    found = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        flag = f"--{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(value):
            found |= options_of(value)
        elif hints[field.name] is bool:
            found |= {flag: (), flag.replace("--", "--no-", 1): ()}
        else:
            found[flag] = _choices(hints[field.name])
    return found


def _choices(hint: Any) -> tuple[str, ...]:
    """The named values of a type: of a `Literal`, or of one within a union or a tuple."""
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return tuple(str(value) for value in arguments)
    return tuple(dict.fromkeys(name for argument in arguments for name in _choices(argument)))
