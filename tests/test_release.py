"""What a stranger installs: declared versions, extras, the shell's completion, other systems, how a version is made."""

import importlib.util
import re
import runpy
import shutil
import subprocess
import sys
import textwrap
import tomllib
import warnings
from pathlib import Path

import pytest

import eprop
from eprop._deprecation import renamed
from eprop.workshop import _extras
from eprop.workshop.cli import COMMANDS, main
from eprop.workshop.cli._completion import DESCRIBED, script, vocabulary

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OPTIONAL = PROJECT["project"]["optional-dependencies"]


def from_scripts(name):
    """A module of the folder `scripts`."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# versions and extras


def test_every_requirement_has_a_lower_bound_that_can_be_installed():
    lowest = from_scripts("lowest").lowest
    extras = ["train", "speech", "examples", "test", "cuda"]
    pins = lowest(PROJECT["project"], extras)
    declared = PROJECT["project"]["dependencies"] + [line for extra in extras for line in OPTIONAL[extra]]
    assert pins == [line.replace(">=", "==") for line in declared]
    with pytest.raises(ValueError, match="has no lower bound"):
        lowest({"dependencies": ["jax"], "optional-dependencies": {}}, [])
    with pytest.raises(ValueError, match="not declared"):
        lowest(PROJECT["project"], ["nothing"])


def test_the_extra_all_is_every_extra_that_a_user_of_any_machine_can_have():
    (itself,) = OPTIONAL["all"]
    named = re.fullmatch(r"eprop\[(.*)\]", itself)
    assert named and set(named[1].split(",")) == set(OPTIONAL) - {"all", "cuda", "test", "dev"}


def test_the_table_of_extras_is_the_declared_one():
    modules = {"orbax-checkpoint": "orbax", "pillow": "PIL", "espeakng-loader": "espeakng_loader"}
    for extra, known in _extras.EXTRAS.items():
        declared = [re.split("[>=]", line)[0] for line in OPTIONAL[extra]]
        assert sorted(known) == sorted(modules.get(name, name) for name in declared)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_the_extra_a_command_says_what_to_install(command, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(SystemExit) as stop:
        main([command])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said == f"eprop: eprop {command} needs optax, not installed here: pip install 'eprop[train]'\n"


def test_help_and_version_need_no_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optax", None)
    main(["--help"])
    main(["--version"])
    assert capsys.readouterr().out.endswith(f"eprop {eprop.__version__}\n")


def test_an_interpreter_that_does_not_run_is_passed_over(tmp_path, monkeypatch):
    pythons = from_scripts("pythons")
    stand_in = tmp_path / "python3.13"
    stand_in.write_text("#!/bin/sh\nexit 127\n")
    stand_in.chmod(0o755)
    here = sys.version_info[:2]
    monkeypatch.setattr(pythons, "candidates", lambda: iter([stand_in, tmp_path / "none", Path(sys.executable)]))
    assert pythons.newest(here, (9, 9)) == Path(sys.executable)
    assert pythons.newest((9, 0), (9, 9)) is None


# the shell's completion


def completed(*words):
    """What a real bash offers for the last word."""
    asked = f"""
    {script("bash")}
    COMP_WORDS=("$@")
    COMP_CWORD=$(($# - 1))
    _eprop
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    ended = subprocess.run([bash, "-c", asked, "bash", *words], capture_output=True, text=True, check=True)
    assert not ended.stderr
    return ended.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["eprop", ""], list(COMMANDS)),
        (["eprop", "tra"], ["train", "transcribe"]),
        (["eprop", "train", "pat"], ["pattern-generation"]),
        (["eprop", "train", "pattern-generation", "--neuro"], ["--neuron", "--neurons"]),
        (["eprop", "train", "pattern-generation", "--preset", "t"], ["tutorial"]),
        (["eprop", "compare", "arrays", "--seeds", "3", "--neuron", "ls"], ["lsnn", "lstm"]),
        (["eprop", "train", "pattern-generation", "--out", ""], []),  # the shell's own: names of files
        (["eprop", "reproduce", "one-shot-a"], ["one-shot-arm"]),
        (["eprop", "bench", "--qui"], ["--quick"]),
        (["eprop", "resume", ""], []),
        (["eprop", "completion", ""], ["bash", "zsh", "fish"]),
    ],
)
def test_bash_completes(words, offered):
    assert completed(*words) == offered


def test_every_offered_option_is_one_of_the_commands(capsys):
    _, options, values = vocabulary()
    for place in ("train pattern-generation", "reproduce one-shot-arm", "stream", "bench", "data speech"):
        with pytest.raises(SystemExit):
            main([*place.split(), "--help"])
        said = capsys.readouterr().out
        assert len(options[place]) > 5 and all(option in said for option in options[place])
    assert all(found for found in values.values())


def test_each_command_is_described_or_takes_files():
    assert set(COMMANDS) - set(DESCRIBED) == {"tasks", "transcribe", "resume", "plot", "export", "completion"}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_their_script(shell, tmp_path):
    where = shutil.which(shell)
    if where is None:
        pytest.skip(f"there is no {shell}")
    path = tmp_path / "completion"
    path.write_text(script(shell))
    subprocess.run([where, "-n", path], check=True)


# other systems


def test_no_module_or_signal_that_only_unix_has_is_needed(tmp_path):
    """With them hidden every module of the package is imported; what others import is there before."""
    hiding = """
    import concurrent.futures.process, importlib, multiprocessing, pkgutil, signal, subprocess, sys, tempfile
    import equinox, jax, matplotlib.figure, optax, orbax.checkpoint, rich.progress, rich.table, tensorboardX, tyro
    import matplotlib.backends.backend_agg, os

    for name in ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog"):
        sys.modules[name] = None
    for name in ("SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE", "SIGCHLD"):
        delattr(signal, name)
    for name in ("fork", "getuid", "geteuid", "sched_getaffinity", "killpg", "O_NONBLOCK"):
        delattr(os, name)

    import eprop

    found = [module.name for module in pkgutil.walk_packages(eprop.__path__, "eprop.")]
    for name in found:
        if not name.endswith(("__main__", "_preload")):
            importlib.import_module(name)
    assert len(found) > 50
    from eprop.workshop.memory import peak_resident_bytes

    assert peak_resident_bytes() >= 0
    print("imported")
    """
    assert ran(hiding, tmp_path).split() == ["imported"]


def test_processes_start_by_spawn_and_by_fork(tmp_path):
    starting = """
    import multiprocessing

    import jax.numpy as jnp

    import eprop


    def spikes(n):
        neuron = eprop.LIF()
        state, z = neuron.step(neuron.init((1, n)), (jnp.full((1, n), 10.0),), jnp.zeros((1, n)))
        return f"{multiprocessing.get_start_method(allow_none=True)} {int(z.sum())}"


    if __name__ == "__main__":
        from eprop.workshop.speech import _processes

        multiprocessing.get_all_start_methods = lambda: ["spawn"]
        print(*_processes.ordered_map(spikes, [3]))
        if hasattr(__import__("os"), "fork"):
            child = multiprocessing.get_context("fork").Process(target=lambda: print("fork:", spikes(4), flush=True))
            child.start()
            child.join()
            assert child.exitcode == 0
    """
    said = ran(starting, tmp_path)
    assert said.split("\n")[0] == "spawn 3" and (re.search(r"fork: \w+ 4", said) or sys.platform == "win32")


def ran(program, folder):
    """What a program prints, as a process of its own."""
    path = folder / "program.py"
    path.write_text(textwrap.dedent(program))
    ended = subprocess.run([sys.executable, "-W", "ignore", path], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


# types


def test_the_typed_users_file_uses_the_whole_public_face():
    used = set(re.findall(r"\beprop\.(\w+)", (ROOT / "tests/typed_user.py").read_text()))
    public = set(re.findall(r"^from \S+ import \w+ as (?!_)(\w+)$", (ROOT / "src/eprop/__init__.py").read_text(), re.M))
    assert len(public) > 20 and public - used == set()


@pytest.mark.slow
def test_the_typed_users_file_runs(capsys):
    runpy.run_path(str(ROOT / "tests/typed_user.py"), run_name="__main__")
    assert "stream" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("checker", [["mypy", "--strict"], ["pyright"]])
def test_a_users_file_passes_strict_type_checkers(checker):
    name, *options = checker
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    asked = [sys.executable, "-m", name, *options, str(ROOT / "tests/typed_user.py")]
    ended = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout


# how a version is made


def test_an_old_name_works_with_a_warning_that_names_the_new_one():
    look_up = renamed("eprop.old", {"Layer": "eprop.networks.Recurrent"}, removed_in="0.4.0")
    with pytest.warns(DeprecationWarning, match=r"eprop\.old\.Layer .* 0\.4\.0: use eprop\.networks\.Recurrent"):
        assert look_up("Layer") is eprop.Recurrent
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        look_up("Other")


def test_a_package_that_moved_is_the_same_under_its_old_name_with_a_warning(monkeypatch):
    for name in [name for name in sys.modules if re.match(r"eprop\.tasks\b", name)]:
        monkeypatch.delitem(sys.modules, name)
    tasks = importlib.import_module("eprop.workshop.tasks")
    with pytest.warns(DeprecationWarning, match=r"eprop\.tasks is deprecated .* 0\.4\.0: use eprop\.workshop\.tasks"):
        old = importlib.import_module("eprop.tasks")
    with pytest.warns(DeprecationWarning, match=r"use eprop\.workshop\.tasks\._base") as caught:
        exec("import eprop.tasks._base as base", globals(), found := {})
    assert old is tasks and found["base"].Task is tasks.Task and tasks.__spec__.name == "eprop.workshop.tasks"
    assert caught[0].filename == "<string>", "the user's line"
    with pytest.raises(ModuleNotFoundError, match=r"eprop\.workshop\.tasks\.nothing"):
        importlib.import_module("eprop.tasks.nothing")


def test_a_warning_of_deprecation_points_at_the_users_line():
    look_up = renamed("eprop.old", {"Layer": "eprop.networks.Recurrent"}, removed_in="0.4.0")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        look_up("Layer")
    assert caught[0].filename == __file__


@pytest.fixture
def checkout(tmp_path):
    for name in ("CHANGELOG.md", "CITATION.cff", "src/eprop/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_a_version_is_written_where_it_is_named(checkout):
    log = (checkout / "CHANGELOG.md").read_text()
    (checkout / "CHANGELOG.md").write_text(log.replace("## [Unreleased]\n", "## [Unreleased]\n\n### Added\n\n- It.\n"))
    from_scripts("release").prepare(checkout, "97.1.0", "2031-02-03")
    log = (checkout / "CHANGELOG.md").read_text()
    assert "## [Unreleased]\n\n## [97.1.0] - 2031-02-03\n\n### Added\n\n- It.\n" in log
    assert '__version__ = "97.1.0"\n' in (checkout / "src/eprop/__init__.py").read_text()
    assert "\nversion: 97.1.0\n" in (checkout / "CITATION.cff").read_text()


@pytest.mark.parametrize(("version", "why"), [("0.2", "three numbers"), ("0.1.0", "above")])
def test_a_version_that_cannot_be_is_refused(checkout, version, why):
    release = from_scripts("release")
    before = (checkout / "CHANGELOG.md").read_text()
    with pytest.raises(release.Refused, match=why):
        release.prepare(checkout, version, "2031-02-03")
    assert (checkout / "CHANGELOG.md").read_text() == before


def test_a_version_without_changes_is_refused(checkout):
    release = from_scripts("release")
    release.prepare(checkout, "97.1.0", "2031-02-03")
    with pytest.raises(release.Refused, match="says nothing"):
        release.prepare(checkout, "97.2.0", "2031-02-03")


def test_the_change_log_has_dated_versions_newest_first():
    log = (ROOT / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## (.*)$", log, re.MULTILINE)
    assert sections[0] == "[Unreleased]"
    dated = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d{2}-\d{2})", section) for section in sections[1:]]
    assert dated and all(dated)
    order = [(tuple(int(n) for n in d.groups()[:3]), d[4]) for d in dated if d]
    assert order == sorted(order, reverse=True)
    last = ".".join(str(n) for n in order[0][0])
    assert f"\nversion: {last}\n" in (ROOT / "CITATION.cff").read_text()


def test_a_packages_page_needs_nothing_of_the_checkout():
    page = (ROOT / "README.md").read_text()
    for rule in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        page = re.sub(rule["pattern"], rule["replacement"], page)
    assert "![" not in page and "!`" not in page and len(page) > 1000
    assert all(link.startswith("https://") for link in re.findall(r"\]\(([^)]*)\)", page))
    assert "`docs/notation.md`" in page
