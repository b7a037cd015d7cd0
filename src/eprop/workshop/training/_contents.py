"""The contents of a run folder, by name: how one is told from any other folder, and what `--overwrite` may remove."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from eprop.errors import InvalidSetting, require
from eprop.files import TEMPORARY, printable, read_json
from eprop.rules import make_rule
from eprop.workshop.training._lock import LOCK, WRITER, writing

MARK, CONFIG = "eprop.json", "config.json"
FORMAT, VERSION = "eprop run folder", 1

FORMS: dict[str, tuple[dict[str, type], dict[str, type]]] = {
    "train": ({"task": str, "experiment": dict}, {"seeds": list, "tensorboard": bool}),
    "compare": ({"task": str, "experiment": dict, "rules": list, "seeds": list, "tensorboard": bool}, {}),
    "gradients": ({"task": str, "experiment": dict, "rules": list}, {}),
    "reproduce": ({"name": str, "settings": dict}, {}),
    "stream": ({"stream": dict, "network": dict, "optimiser": dict, "handling": dict}, {}),
    "bench": ({"settings": dict}, {}),
    "part": ({"settings": dict}, {}),
}
"""Names that `config.json` must hold, by command, and names that it may hold beside."""

FILES = frozenset(
    f"{MARK} {CONFIG} {LOCK} {WRITER} metrics.jsonl summary.json data.json comparison.json comparison.png bench.json "
    "bench.md time.png memory.png predictions.csv state.npz speech.json speeds.json results.json copy-repeat.png "
    "words.png digits.npz chip-bits.png chip-evidence.png plasticity.json plasticity.png long-range.json "
    "long-range.png".split()
)
"""Files that commands write into a run folder."""

_ORBAX = (
    r"\d+(\.orbax-checkpoint-tmp[^/]*)?(/default[^/]*)?/(_CHECKPOINT_METADATA|_METADATA|_sharding|commit_success\.txt|"
    r"manifest\.ocdbt|array_metadatas/process_\d+|d/[0-9a-f]{32}|ocdbt\.process_\d+/(manifest\.ocdbt|d/[0-9a-f]{32}))"
    r"(\.__lock)?"
)
_FIGURES = (
    r"\.?(\d+\.)?(learning|activity|eligibility|alignment|utterance|confusion|error|forecast|errors|comparison|lesson|"
    r"utterance-\w+|confusion-\w+|transcript-[^/]+)\.png(\.\d+)?|\.?(\d+\.)?arm\.gif(\.\d+)?"
)
FOLDERS = {
    "checkpoints": re.compile(rf"\d+\.npz|\.\d+\.npz\.\d+|{_ORBAX}"),
    "figures": re.compile(_FIGURES),
    "tensorboard": re.compile(r"events\.out\.tfevents\.[^/]+"),
}
"""Folders that commands write, and what they put there."""

CORPUS = re.compile(r"corpus\.json|(TRAIN|DEV|TEST)/DR\d/\w+/SX\d+\.(WAV|PHN|TXT)")
"""Files that `eprop reproduce speech` speaks into its folder `corpus`."""


def checked_config(path: Path, config: Any, exact: bool) -> dict[str, Any]:
    """A configuration, if it is one of a run.

    Args:
        path: the run folder, for messages.
        config: what its `config.json` holds.
        exact: nothing else may be in it (so are folders told that carry no mark).

    Raises:
        InvalidSetting: if it isn't.
    """
    file = path / CONFIG
    known = isinstance(config, dict) and config.get("command") in list(FORMS)
    require(known, f"{file}: is not the configuration of a run of eprop")
    needed, allowed = FORMS[config["command"]]
    missing = [name for name in needed if name not in config]
    require(not missing, f"{file}: is not the configuration of a run of eprop (it has no {', '.join(missing)})")
    for name, kind in (needed | allowed).items():
        value = config.get(name)
        right = isinstance(value, kind) or (value is None and name not in needed)
        require(right, f"{file}: {name} is {type(value).__name__}, expected {kind.__name__}")
    more = set(config) - {"command"} - set(needed) - set(allowed)
    require(not (exact and more), f"{file}: is not the configuration of a run of eprop (it has {', '.join(more)})")
    for name, kind in (("rules", str), ("seeds", int)):
        for value in config.get(name) or ():
            right = isinstance(value, kind) and not isinstance(value, bool)
            require(right, f"{file}: {name} holds {printable(str(value))[:40]}, expected {kind.__name__}s alone")
    return config


def read_mark(path: Path) -> dict[str, Any] | None:
    """The mark of a run folder; None if there is none (those of eprop 0.1.0 don't).

    Raises:
        InvalidSetting: for a mark that is damaged, or of a later format.
    """
    file = path / MARK
    if not file.is_file():
        return None
    mark = read_json(file)
    right = isinstance(mark, dict) and mark.get("format") == FORMAT
    made = mark.get("made_with", []) if right else None
    right = right and isinstance(made, list) and all(isinstance(each, dict) for each in made)
    require(right, f"{file}: is not the mark of a run folder of eprop")
    version = mark.get("version")
    require(
        version == VERSION, f"{path}: is a run folder of format {str(version)[:40]}; this eprop knows format {VERSION}"
    )
    return mark


def is_ours(path: Path) -> bool:
    """Whether a folder is a run folder: marked, or with the exact configuration of eprop 0.1.0."""
    try:
        if read_mark(path) is not None:
            return True
        return (path / CONFIG).is_file() and bool(checked_config(path, read_json(path / CONFIG), exact=True))
    except InvalidSetting:
        return False


def occupied(path: Path) -> list[str]:
    """Names in a folder that is not ours which a run would write."""
    names = (FILES - {LOCK, WRITER}) | FOLDERS.keys()
    return sorted(name for name in names if os.path.lexists(path / name))


def contents(path: Path, depth: int = 3) -> tuple[list[Path], list[Path], list[Path]]:
    """The contents of a run folder: files that runs write, anything else, and the run folders in it (itself first)."""
    config = _config(path)
    parts = _parts(config)
    ours: list[Path] = []
    foreign: list[Path] = []
    runs = [path]
    for entry in sorted(path.iterdir()):
        name = entry.name
        temporary = TEMPORARY.fullmatch(name)
        if entry.is_symlink():
            foreign.append(entry)
        elif entry.is_file() and (temporary["name"] if temporary else name) in FILES:
            ours.append(entry)
        elif entry.is_dir() and name in parts and depth > 0 and is_ours(entry):
            found = contents(entry, depth - 1)
            ours, foreign, runs = ours + found[0], foreign + found[1], runs + found[2]
        elif entry.is_dir() and (name in FOLDERS or (name == "corpus" and config.get("name") == "speech")):
            _sort(entry, FOLDERS.get(name, CORPUS), ours, foreign)
        else:
            foreign.append(entry)
    return ours, foreign, runs


def _sort(folder: Path, pattern: re.Pattern[str], ours: list[Path], foreign: list[Path]) -> None:
    for place, folders, files in os.walk(folder):
        for name in files + [name for name in folders if (Path(place) / name).is_symlink()]:
            path = Path(place) / name
            right = pattern.fullmatch(path.relative_to(folder).as_posix()) and not path.is_symlink()
            (ours if right else foreign).append(path)


def clear(path: Path) -> None:
    """Remove what runs wrote into a run folder, but for its lock and its mark; the folder stays.

    Raises:
        InvalidSetting: if there is anything else in it: then nothing is removed.
    """
    check_clear(path)
    ours, _, runs = contents(path)
    with ExitStack() as stack:
        for run in runs[1:]:
            stack.enter_context(writing(run))
    keep = {path / LOCK, path / WRITER, path / MARK}
    for file in ours:
        if file not in keep:
            file.unlink(missing_ok=True)
    for folder in _folders(path):
        try:
            folder.rmdir()
        except OSError:
            pass  # not empty: none of ours


def check_clear(path: Path) -> None:
    """Raise `InvalidSetting` if a run folder holds anything that no run writes."""
    foreign = [printable(str(entry.relative_to(path))) for entry in contents(path)[1]]
    more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
    require(
        not foreign,
        f"out = {path}: --overwrite removes what a run wrote, and there is more: {', '.join(foreign[:5])}{more}; "
        "nothing was removed: move it elsewhere, or name another folder",
    )


def check_links(path: Path) -> None:
    """Raise `InvalidSetting` if something that runs write to is a link: it might lead out of the folder."""
    for name in sorted(FILES | FOLDERS.keys()):
        require(not (path / name).is_symlink(), f"{path / name}: is a link; a run writes into its own folder alone")


def _folders(path: Path) -> Iterator[Path]:
    """Folders in a folder, the innermost first; links are none."""
    for place, folders, _ in os.walk(path, topdown=False):
        yield from (Path(place) / name for name in folders if not (Path(place) / name).is_symlink())


def _config(path: Path) -> dict[str, Any]:
    try:
        return checked_config(path, read_json(path / CONFIG), exact=False)
    except InvalidSetting:
        return {}


_LONG_RANGE = ("tasks", "models", "windows")
"""Settings of `eprop reproduce long-range` that its parts are named after."""


def _parts(config: dict[str, Any]) -> set[str]:
    """Names of the run folders that a run makes in its own."""
    command, name = config.get("command"), config.get("name")
    if command == "compare":
        return {_label(rule) for rule in config["rules"]}
    if command != "reproduce":
        return set()
    if name == "speech":
        return {"lstm", "lsnn"}
    settings = config["settings"]
    if name == "long-range":
        listed = {key: settings.get(key) if isinstance(settings.get(key), list) else [] for key in _LONG_RANGE}
        rules = [f"{rule}-{w}" for rule in ("eligibility_only", "truncated_bptt") for w in listed["windows"]] + ["bptt"]
        return {f"{t}-{m}-{rule}" for t in listed["tasks"] for m in listed["models"] for rule in rules}
    if name == "chip-evidence":
        seeds = settings.get("seeds")
        count = min(seeds, 1000) if isinstance(seeds, int) else 0
        return {f"{chip}-{seed}" for chip in ("reckon", "loihi-lif", "loihi-alif") for seed in range(count)}
    if name == "chip-bits":
        ends = {"float", "bptt"} | {f"{r}-{u}" for r in ("nearest", "stochastic") for u in ("collected", "units")}
        return {f"{task}-{end}" for task in ("evidence", "pattern", "digits") for end in ends}
    windows = {f"{rule}-{settings.get('window')}" for rule in settings.get("rules") or () if isinstance(rule, str)}
    return {"eprop2", "eprop1-random"} | windows


def _label(rule: str) -> str:
    try:
        return make_rule(rule).label.replace(":", "-")
    except InvalidSetting:
        return ""
