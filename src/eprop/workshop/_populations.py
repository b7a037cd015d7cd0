"""Populations from a file: a TOML table each, kept as text in the settings so that a run folder needs no file."""

import json
import tomllib
from pathlib import Path
from typing import Any

from eprop.errors import InvalidSetting, require
from eprop.networks import Population


def populations_as_text(given: str) -> str:
    """What `--populations` names, as JSON: the contents of a TOML file, or the text of an earlier call.

    Raises:
        InvalidSetting: for a file that cannot be read or is no TOML of populations.
    """
    if not given.lstrip().startswith("{"):
        try:
            tables = tomllib.loads(Path(given).read_text(encoding="utf-8"))
        except OSError as error:
            raise InvalidSetting(f"populations = {given}: cannot be read ({error.strerror})") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidSetting(f"populations = {given}: is no TOML file ({error})") from None
        try:
            given = json.dumps(tables)
        except TypeError:  # dates
            raise InvalidSetting(f"populations = {given}: a constant must be a number") from None
    parse_populations(given)
    return given


def parse_populations(text: str) -> tuple[Population, ...]:
    """The populations of a settings' text, in the order of the file."""
    try:
        tables = json.loads(text)
    except json.JSONDecodeError:
        raise InvalidSetting("populations: is no JSON of populations") from None
    require(bool(tables) and isinstance(tables, dict), "populations: names none; each is a table, as [fast]")
    return tuple(_population(name, table) for name, table in tables.items())


def _population(name: str, table: Any) -> Population:
    require(isinstance(table, dict), f"populations: {name} = {table!r}: each population is a table, as [{name}]")
    rest = dict(table)
    require("neurons" in rest, f"population {name!r}: says no number of neurons, as neurons = 80")
    for key, value in rest.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        require(number or key == "sign", f"population {name!r}: {key} = {value!r}: must be a number")
    size, sign, delay = rest.pop("neurons"), rest.pop("sign", "free"), rest.pop("delay", 0)
    return Population(name, size, sign, delay, constants=rest)
