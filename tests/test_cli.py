"""The program, as a user calls it."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eprop.workshop import memory
from eprop.workshop.cli import main
from eprop.workshop.cli._parse import split_commas
from eprop.workshop.tasks import TASKS

ROOT = Path(__file__).parent.parent
TINY = "--preset tutorial --duration 60 --neurons 8 --iterations 4 --evaluate-every 2".split()


def run(*arguments):
    main([str(a) for a in arguments])


def refused(capsys, *arguments):
    """The one line that bad input gets."""
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.startswith("eprop: ") and len(said.strip().splitlines()) == 1
    return said


def test_help_teaches(capsys):
    run("--help")
    said = capsys.readouterr().out
    assert all(f"eprop {command}" in said for command in ("tasks", "train", "compare", "gradients", "resume", "plot"))
    run("train")
    assert "evidence-accumulation" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        run("train", "store-recall", "--help")
    said = capsys.readouterr().out
    assert stop.value.code == 0 and all(
        flag in said for flag in ("--rule", "--feedback", "--tau-a", "--delay", "Preset")
    )


def test_tasks_are_listed_with_a_line_each(capsys):
    run("tasks")
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split()[0] for line in lines] == list(TASKS)


def test_train_plot_and_resume(tmp_path, capsys):
    out = tmp_path / "run"
    run(
        "train",
        "pattern-generation",
        *TINY,
        "--rule",
        "eprop1",
        "--feedback",
        "adaptive",
        "--tensorboard",
        "--out",
        out,
    )
    said = capsys.readouterr()
    assert "nmse" in said.out and "━" not in said.err  # no progress bar where there is no terminal
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["task"], summary["rule"], summary["feedback"]) == ("pattern-generation", "eprop1", "adaptive")
    assert sorted(p.name for p in (out / "figures").iterdir()) == ["activity.png", "eligibility.png", "learning.png"]
    assert list((out / "tensorboard").iterdir())
    (out / "figures" / "learning.png").unlink()
    run("plot", out)
    assert (out / "figures" / "learning.png").is_file()
    capsys.readouterr()
    run("resume", out)
    assert "has ended already" in capsys.readouterr().out
    assert json.loads((out / "summary.json").read_text()) == summary


def test_compare_ends_with_a_table_and_a_picture(tmp_path, capsys):
    out = tmp_path / "c"
    rules = "bptt,truncated_bptt:20"
    run("compare", "pattern-generation", *TINY, "--neuron", "rate", "--rules", rules, "--seeds", 2, "--out", out)
    said = capsys.readouterr().out
    assert "truncated_bptt:20" in said and "mean" in said
    rows = json.loads((out / "comparison.json").read_text())["rows"]
    assert [row["rule"] for row in rows] == ["bptt", "truncated_bptt:20"]
    assert all(row["seeds"] == 2 and len(row["values"]) == 2 for row in rows)
    assert (out / "comparison.png").is_file()
    run("resume", out)
    assert json.loads((out / "comparison.json").read_text())["rows"] == rows


def test_gradients_measures_alignment(tmp_path, capsys):
    run("gradients", "pattern-generation", *TINY, "--rules", "eprop1:symmetric,eprop1:random", "--out", tmp_path / "g")
    assert "w_rec" in capsys.readouterr().out
    assert (tmp_path / "g" / "figures" / "alignment.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "unknown command 'fly'"),
        (["tran", "chess"], "unknown command 'tran' (did you mean 'train'?)"),
        (["train", "chess"], "unknown task 'chess'"),
        (["train", "store-recal"], "unknown task 'store-recal' (did you mean 'store-recall'?)"),
        (["train", "store-recall", "--out", "x", "--rule", "eprop_1"], "(did you mean 'eprop1'?)"),
        (["train", "store-recall", "--out", "x", "--neuron", "lsnnn"], "(did you mean 'lsnn'?)"),
        (["train", "store-recall", "--out", "x", "--nuerons", "3"], "(did you mean '--neurons'?)"),
        (["reproduce", "nothing"], "unknown figure 'nothing'"),
        (["train", "store-recall", "--preset", "none"], "preset = 'none'"),
        (["train", "store-recall", "--out", "x", "--rule", "magic"], "rule = 'magic'"),
        (["train", "store-recall", "--out", "x", "--batch", "0"], "batch = 0: must be at least 1"),
        (["train", "store-recall", "--out", "x", "--iterations", "many"], "--iterations"),
        (["train", "copy-repeat", "--out", "x", "--stop-below", "9"], "stop_below = 9.0: not for this task"),
        (["train", "copy-repeat", "--out", "x", "--rule", "eprop1"], "is trained window by window"),
        (["train", "store-recall", "--out", "x", "--input-gain", "two"], "--input-gain"),
        (["train", "store-recall", "--out", "x", "--colour", "red"], "--colour"),
        (["train", "store-recall"], "--out"),
        (["train", "arrays", "--out", "x"], "--data FILE.npz"),
        (["train", "speech", "--out", "x"], "eprop data speech --out corpus"),
        (["train", "speech", "--data", "/nowhere", "--out", "x"], "data = /nowhere: is not a folder"),
        (["data", "music", "--out", "x"], "unknown data set 'music'"),
        (["data", "speech", "--out", "x", "--hours", "0"], "hours = 0.0: must be above 0"),
        (["train", "arrays", "--data", "/nowhere.npz", "--out", "x"], "there is no such file"),
        (["compare", "store-recall", "--rules", "bptt,bptt", "--out", "x"], "twice"),
        (["compare", "store-recall", "--rules", "bptt,eprop3:10", "--out", "x"], "is trained window by window"),
        (["compare", "store-recall", "--seeds", "0", "--out", "x"], "seeds = 0"),
        (["resume", "/nowhere"], "no run there"),
        (["plot"], "name one run folder"),
    ],
)
def test_bad_input_gets_one_line(capsys, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_ends_with_one_line_and_status_1(capsys, tmp_path):
    flags = "--preset tutorial --duration 60 --neuron rate --neurons 8 --iterations 9 --learning-rate 1e30".split()
    with pytest.raises(SystemExit) as stop:
        run("train", "pattern-generation", *flags, "--out", tmp_path / "run")
    said = capsys.readouterr().err
    assert stop.value.code == 1 and "is not finite" in said and len(said.strip().splitlines()) == 1


def test_importing_the_core_is_quick_and_pulls_in_nothing_else():
    """Beyond jax itself less than 0.7 s of processor time (the best of three), and no extra's package."""
    code = (
        "import time, sys, jax, jax.numpy; t = time.process_time(); import eprop; print(time.process_time() - t);"
        "print([m for m in ('optax', 'tyro', 'rich', 'orbax', 'matplotlib') if m in sys.modules])"
    )
    said = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    seconds = min(float(run.stdout.splitlines()[0]) for run in said)
    print(f"import eprop beyond jax: {seconds:.2f} s")
    assert said[0].stdout.splitlines()[1] == "[]"
    assert seconds < 0.7


def test_the_core_adds_little_to_what_jax_installs():
    """equinox, jaxtyping, their own requirements and eprop itself: less than 30 MB."""
    names = ("eprop", "equinox", "jaxtyping", "wadler-lindig", "typing-extensions")
    sizes = {}
    for name in names:
        files = importlib.metadata.files(name) or []
        sizes[name] = sum(f.locate().stat().st_size for f in files if f.locate().is_file())
    sizes["eprop"] = sum(f.stat().st_size for f in (ROOT / "src").rglob("*.py"))
    print("bytes installed beyond jax:", sizes)
    assert all(sizes.values()) and sum(sizes.values()) < 30e6


@pytest.mark.slow
def test_the_digits_example_learns_real_data(tmp_path):
    """e-prop 1 above 90 % on held-out digits, with an LSTM, BPTT beside it."""
    command = [sys.executable, ROOT / "examples" / "digits.py", tmp_path, "--seeds", "1", "--iterations", "600"]
    subprocess.run(command, check=True)
    rows = json.loads((tmp_path / "lstm" / "comparison.json").read_text())["rows"]
    assert [row["rule"] for row in rows] == ["bptt", "eprop1:symmetric", "eprop1:random"]
    assert all(row["mean"] < 0.10 for row in rows)


def test_long_commands_are_started_anew_with_huge_pages_once(monkeypatch, tmp_path):
    offer, begun = tmp_path / "enabled", []
    monkeypatch.setattr(memory, "HUGE_PAGES", offer)
    monkeypatch.setattr(os, "execve", lambda *arguments: begun.append(arguments))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    memory.restart_with_huge_pages()
    offer.write_text("always madvise [never]")
    memory.restart_with_huge_pages()
    assert not begun  # the system does not offer them
    offer.write_text("always [madvise] never")
    memory.restart_with_huge_pages()
    ((program, arguments, environment),) = begun
    assert (program, arguments[1:]) == (sys.executable, sys.orig_argv[1:])
    monkeypatch.setenv("GLIBC_TUNABLES", environment["GLIBC_TUNABLES"])
    memory.restart_with_huge_pages()
    assert len(begun) == 1


@pytest.mark.parametrize("given", [["--rules", "bptt,rtrl"], ["--rules", "bptt", "rtrl"], ["--rules=bptt,rtrl"]])
def test_lists_may_be_written_with_commas_or_with_spaces(given):
    assert split_commas([*given, "--out", "a,b"], "rules") == ["--rules", "bptt", "rtrl", "--out", "a,b"]
