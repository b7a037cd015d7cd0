"""Run folders: nothing removed that no run wrote, one writer at a time, nothing lost to a kill or a full disk."""

import dataclasses
import errno
import fcntl
import hashlib
import io
import itertools
import json
import math
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import eprop
from eprop.errors import InvalidSetting, RunFailed
from eprop.workshop.cli import main
from eprop.workshop.figures import save
from eprop.workshop.figures._style import new_figure
from eprop.workshop.settings import Experiment, NetworkSettings, RunSettings
from eprop.workshop.streams import stream_table
from eprop.workshop.tasks import ArraysTask, PatternGeneration
from eprop.workshop.training import (
    Interrupted,
    RunFolder,
    SequenceTrainer,
    experiment_to_json,
    keep_locks,
    load_run,
    make_trainer,
    train,
    writing,
)
from eprop.workshop.training import _lock as lock
from eprop.workshop.training._loop import data_facts
from writes import before_each_write, snapshots

pytestmark = pytest.mark.usefixtures("compiled_quickly")

TASK = "pattern-generation"
TINY = "--preset tutorial --duration 20 --neurons 4 --iterations 4 --evaluate-every 2".split()


def tiny(**run) -> Experiment:
    return Experiment(
        task=PatternGeneration(duration=20, inputs=5),
        network=NetworkSettings(neuron="lif", neurons=4),
        run=RunSettings(**{"iterations": 6, "evaluate_every": 2} | run),
    )


@pytest.fixture(scope="module")
def trainer(compiled_quickly):
    """Compiled once for all runs here, its first state, too."""
    trainer = SequenceTrainer(tiny(), [0])
    first = trainer.init()
    trainer.init = lambda: jax.tree.map(jnp.copy, first)
    return trainer


@pytest.fixture
def often(monkeypatch):
    """A checkpoint at every evaluation, however fast the machine is."""
    monkeypatch.setattr("eprop.workshop.training._loop.CHECKPOINT_SECONDS", -1.0)


@pytest.fixture(autouse=True)
def unsaid(monkeypatch):
    """What was said once is said again in the next test."""
    monkeypatch.setattr("eprop.workshop.training._folder._said", set())


def config(experiment):
    return {"command": "train", "task": TASK, "experiment": experiment_to_json(experiment)}


def run(path, trainer, go_on=False, **kwargs):
    experiment = kwargs.pop("experiment", tiny())
    folder = RunFolder.create(path, config(experiment), go_on=go_on)
    return train(experiment, folder, task=TASK, trainer=trainer, **kwargs), folder


def numbers(folder):
    return [{k: v for k, v in line.items() if k != "wall_s"} for line in folder.metrics()]


def tree(path):
    """All files in a folder, with digests."""
    files = [p for p in sorted(path.rglob("*")) if p.is_file()]
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def ended(capsys, *arguments):
    """Status of the program, and the line that it said on stderr."""
    capsys.readouterr()
    try:
        main([str(a) for a in arguments])
        status = 0
    except SystemExit as stop:
        status = stop.code
    return status, capsys.readouterr().err.strip()


# Folders


def test_overwrite_removes_what_a_run_wrote_and_nothing_else(tmp_path, trainer):
    """Whatever else lies there is listed, and then nothing is removed."""
    _, folder = run(tmp_path / "run", trainer)
    for name in ("learning.png", "transcript-a sound.wav of mine.png"):
        (folder.figures / name).write_bytes(b"")
    (folder.path / ".config.json.123").write_text("half")  # left by a kill
    before = tree(folder.path)
    for name in ("notes.txt", "figures/mine.png", "checkpoints/12/mine", "checkpoints/mine.npz", "sub/config.json"):
        mine = folder.path / name
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("{}")
        with pytest.raises(InvalidSetting, match=f"there is more: .*{name.split('/')[0]}.*; nothing was removed"):
            RunFolder.create(folder.path, config(tiny(seed=1)), overwrite=True)
        mine.unlink()
        if mine.parent not in (folder.path, folder.figures, folder.path / "checkpoints"):
            mine.parent.rmdir()
    (folder.path / "figures").rename(tmp_path / "elsewhere")
    (folder.path / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidSetting, match="there is more: figures"):
        RunFolder.create(folder.path, config(tiny(seed=1)), overwrite=True)
    (folder.path / "figures").unlink()
    (tmp_path / "elsewhere").rename(folder.path / "figures")
    assert tree(folder.path) == before
    other = RunFolder.create(folder.path, config(tiny(seed=1)), overwrite=True)
    assert (
        set(tree(folder.path)) == {"eprop.json", "config.json", "writer.lock"}
        and not (folder.path / "figures").exists()
    )
    assert other.config["experiment"]["run"]["seed"] == 1 and not other.finished


def test_runs_kept_in_a_run_folder_are_no_part_of_it(tmp_path):
    """`--out runs` by mistake, once: the runs in it are not removed with it."""
    folder = RunFolder.create(tmp_path / "runs", config(tiny()))
    RunFolder.create(tmp_path / "runs" / "mine", config(tiny()))
    with pytest.raises(InvalidSetting, match="there is more: mine; nothing"):
        RunFolder.create(folder.path, config(tiny()), overwrite=True)


def test_a_run_folder_of_0_1_0_is_told_by_its_configuration(tmp_path):
    """It has no mark: it opens, and may be replaced; with anything else in the configuration it is not ours."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(config(tiny())))
    old = tmp_path / "run" / "checkpoints" / "12" / "default"
    old.mkdir(parents=True)
    (old / "manifest.ocdbt").write_bytes(b"")
    assert RunFolder.open(tmp_path / "run").config["task"] == TASK
    RunFolder.create(tmp_path / "run", config(tiny()), overwrite=True)
    assert not (tmp_path / "run" / "checkpoints").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps(config(tiny()) | {"model_type": "bert"}))
    with pytest.raises(InvalidSetting, match="is not the configuration of a run of eprop .it has model_type"):
        RunFolder.open(tmp_path / "other")
    mark = tmp_path / "run" / "eprop.json"
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"version": 2}))
    with pytest.raises(InvalidSetting, match="is a run folder of format 2; this eprop knows format 1"):
        RunFolder.open(tmp_path / "run")


def test_checkpoints_of_0_1_0_are_read(tmp_path, trainer, often):
    """They are orbax's, a folder each; damaged ones are none."""
    import orbax.checkpoint as ocp

    _, whole = run(tmp_path / "whole", trainer)
    _, folder = run(tmp_path / "run", trainer, experiment=tiny(iterations=4))
    state, iteration = load_newest(folder, trainer)
    for file in [*(folder.path / "checkpoints").iterdir(), folder.path / "summary.json"]:
        file.unlink()
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    manager = ocp.CheckpointManager(folder.path / "checkpoints", options=options)
    plain = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(state))}
    manager.save(iteration, args=ocp.args.StandardSave(plain))
    manager.close()
    train(tiny(), folder, task=TASK, trainer=trainer)
    assert numbers(folder) == numbers(whole) and folder.checkpoints().all_steps() == [4, 6]
    RunFolder.create(folder.path, config(tiny()), overwrite=True)
    assert not folder.checkpoints().all_steps()


COMMANDS = {
    "train": ["train", TASK, *TINY],
    "compare": ["compare", TASK, *TINY],
    "gradients": ["gradients", TASK, *TINY],
    "reproduce": ["reproduce", "one-shot-sinusoids"],
    "stream": ["stream", "--csv", "t.csv", "--targets", "x"],
    "bench": ["bench", "--quick"],
}


def test_a_folder_of_another_program_survives_every_command_with_every_flag(tmp_path, capsys, monkeypatch):
    """Its `config.json` made `--overwrite` take it for a run: all that lay in it was removed."""
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("x,y\n" + "1,2\n" * 5)
    foreign = tmp_path / "model"
    (foreign / "figures").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "figures/mine.png", "metrics.jsonl"):
        (foreign / name).write_text('{"model_type": "bert"}')
    before = tree(foreign)
    for command in COMMANDS.values():
        for flags in ([], ["--overwrite"], ["--continue-or-start"]):
            if flags == ["--continue-or-start"] and command[0] == "stream":
                continue
            status, said = ended(capsys, *command, *flags, "--out", foreign)
            assert status == 2 and "of a run of eprop" in said and len(said.splitlines()) == 1, (command, said)
    for command in (
        ["resume", foreign],
        ["resume", foreign, "--iterations", 9],
        ["plot", foreign],
        ["transcribe", foreign, "x.wav"],
        ["data", "speech", "--out", foreign],
    ):
        status, said = ended(capsys, *command)
        assert status == 2 and len(said.splitlines()) == 1, (command, said)
    assert tree(foreign) == before
    (foreign / "config.json").unlink()  # other names that a run writes are no invitation either
    assert ended(capsys, *COMMANDS["train"], "--overwrite", "--out", foreign)[0] == 2
    assert set(tree(foreign)) == set(before) - {"config.json"}


def test_overwrite_where_no_run_was_leaves_what_is_there(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "note.txt").write_text("mine")
    folder = RunFolder.create(tmp_path / "notes", {"command": "train"}, overwrite=True)
    assert (folder.path / "note.txt").read_text() == "mine" and (folder.path / "config.json").is_file()
    with pytest.raises(InvalidSetting, match=r"there is more: note\.txt; nothing was removed"):
        RunFolder.create(tmp_path / "notes", {"command": "train"}, overwrite=True)
    assert (folder.path / "config.json").is_file()


def test_links_that_lead_out_of_a_folder_are_not_followed(tmp_path):
    folder = RunFolder.create(tmp_path / "run", config(tiny()))
    (tmp_path / "outside").write_text("mine")
    (folder.path / "metrics.jsonl").symlink_to(tmp_path / "outside")
    with pytest.raises(InvalidSetting, match="metrics.jsonl: is a link"):
        RunFolder.open(folder.path)


# One writer


def test_a_second_writer_is_refused_by_name_and_reading_is_free(tmp_path, trainer):
    _, folder = run(tmp_path / "run", trainer)
    with open(folder.path / "writer.lock", "rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        writer = {"process": os.getppid(), "host": "here", "command": "eprop train"}
        (folder.path / "writer.json").write_text(json.dumps(writer))
        for refused in (
            lambda: train(tiny(), folder, task=TASK, trainer=trainer),
            lambda: RunFolder.create(folder.path, config(tiny()), overwrite=True),
            lambda: RunFolder.create(folder.path, config(tiny()), go_on=True),
        ):
            with pytest.raises(InvalidSetting, match=rf"written by process {os.getppid()} on here \(eprop train\)"):
                refused()
        assert len(numbers(RunFolder.open(folder.path))) == 3 and folder.summary is not None


def test_a_writer_that_was_killed_leaves_the_folder_free_and_that_is_said(tmp_path, capsys, monkeypatch):
    """On a disk that other hosts share, where their locks cannot be seen, nobody guesses."""
    left = {"process": 4711, "host": lock._host(), "boot": lock._boot(), "command": "eprop train"}
    (tmp_path / "writer.json").write_text(json.dumps(left))
    with writing(tmp_path), writing(tmp_path):
        assert json.loads((tmp_path / "writer.json").read_text())["process"] == os.getpid()
    assert "process 4711" in (said := capsys.readouterr().err) and "ended without a word; its lock is free" in said
    assert not (tmp_path / "writer.json").exists()
    elsewhere = json.dumps(left | {"host": "elsewhere"})
    assert lock.file_system(Path("/proc"))[0] in ("proc", "unknown")
    seen = {("nfs4", "rw,local_lock=none"): True, ("ext4", "rw"): True, ("lustre", "rw,flock"): True,
            ("nfs", "rw,nolock"): False, ("lustre", "rw"): False, ("fuse.sshfs", "rw"): False}  # fmt: skip
    for system, free in seen.items():
        monkeypatch.setattr(lock, "file_system", lambda path, system=system: system)
        (tmp_path / "writer.json").write_text(elsewhere)
        if free:
            with writing(tmp_path):
                assert "process 4711 on elsewhere" in capsys.readouterr().err
        else:
            with pytest.raises(
                InvalidSetting, match=r"process 4711 on elsewhere .*If it has ended, remove .*writer.json"
            ):
                with writing(tmp_path):
                    pass
            assert (tmp_path / "writer.json").read_text() == elsewhere


def test_locks_are_kept_between_making_a_folder_and_running_in_it(tmp_path):
    with keep_locks():
        with writing(tmp_path):
            pass
        assert (tmp_path / "writer.json").exists()
        with writing(tmp_path):
            pass
        assert (tmp_path / "writer.json").exists()
    assert not (tmp_path / "writer.json").exists()


WRITER = """
import sys, types
for name in ("eprop", "eprop.workshop", "eprop.workshop.training"):  # without jax: quick
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [sys.argv[1] + name.removeprefix("eprop").replace(".", "/")]
from eprop.workshop.training._lock import writing
try:
    with writing(sys.argv[2]):
        print("in", flush=True)
        sys.stdin.read()
except ValueError as error:
    print(error, flush=True)
"""


def test_of_eight_processes_at_once_one_writes_and_seven_are_refused(tmp_path, capsys):
    """After kill -9 of the one the next goes on."""
    command = [sys.executable, "-c", WRITER, str(Path(eprop.__file__).parent), str(tmp_path)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    processes = [subprocess.Popen(command, **pipes) for _ in range(8)]
    said = [process.stdout.readline().strip() for process in processes]
    inside = [process for process, line in zip(processes, said, strict=True) if line == "in"]
    refused = [line for line in said if line != "in"]
    assert len(inside) == 1 and all(f"is being written by process {inside[0].pid} on" in line for line in refused), said
    inside[0].kill()
    for process in processes:
        process.communicate()
    with writing(tmp_path):
        assert f"process {inside[0].pid} on" in capsys.readouterr().err


# Kills, full disks, signals


def test_killed_at_any_write_it_resumes_to_the_same_numbers(tmp_path, trainer, often, capsys):
    """kill -9 before each write of a run, from its first file on: no reader finds anything half-written."""
    _, whole = run(tmp_path / "whole", trainer)
    with snapshots(tmp_path / "run", tmp_path / "kills") as kills:
        run(tmp_path / "run", trainer)
    assert len(kills) > 20, len(kills)
    for path in kills:
        if (path / "config.json").is_file():
            folder = RunFolder.open(path)
            _ = folder.summary, folder.facts, folder.finished, numbers(folder)
            assert not folder.checkpoints().all_steps() or load_newest(folder, trainer)
        summary, folder = run(path, trainer, go_on=True)
        assert numbers(folder) == numbers(whole) and summary["value"] == whole.summary["value"]
        assert "damaged" not in capsys.readouterr().err
        shutil.rmtree(path)


def load_newest(folder, trainer):
    from eprop.workshop.training import restore_newest

    return restore_newest(folder.checkpoints(), trainer.init())


def test_a_line_of_metrics_that_was_cut_short_does_not_count(tmp_path, trainer, often):
    _, whole = run(tmp_path / "whole", trainer)
    _, folder = run(tmp_path / "run", trainer, experiment=tiny(iterations=4))
    (folder.path / "summary.json").unlink()
    with open(folder.path / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 6, "lo')
    train(tiny(), folder, task=TASK, trainer=trainer)
    assert numbers(folder) == numbers(whole)


@pytest.mark.parametrize("tensorboard", [False, True])
def test_a_full_disk_ends_a_run_with_one_line_and_nothing_is_lost(tmp_path, trainer, often, tensorboard):
    """A limit on the size of files stands in for it: every write beyond it fails, as on a full disk."""
    _, whole = run(tmp_path / "whole", trainer)
    folder = RunFolder.create(tmp_path / "run", config(tiny()))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(trainer, state, iteration):
        if iteration == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
        return {}

    try:
        with pytest.raises(RunFailed) as failed:
            train(tiny(), folder, task=TASK, trainer=trainer, observe=fill, tensorboard=tensorboard)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written" in str(failed.value) and "'eprop resume" in str(failed.value)
    assert folder.checkpoints().all_steps() == [2] and not list((folder.path / "checkpoints").glob(".*"))
    assert not (folder.path / "writer.json").exists()
    train(tiny(), folder, task=TASK, trainer=trainer)
    assert numbers(folder) == numbers(whole) and folder.summary["value"] == whole.summary["value"]


@pytest.mark.parametrize("number", [errno.EDQUOT, pytest.param(errno.EACCES, marks=pytest.mark.slow)])
def test_a_disk_that_refuses_any_write_ends_a_run_with_one_line_and_nothing_is_lost(tmp_path, trainer, often, number):
    """A quota, a permission that was lost: all writes from the n-th on fail, for every n."""
    _, whole = run(tmp_path / "whole", trainer)
    for n in itertools.count(1):
        path, left = tmp_path / str(n), itertools.count(n - 1, -1)

        def refuse(left=left):
            if next(left) <= 0:
                raise OSError(number, os.strerror(number))

        try:
            with before_each_write(path, refuse):
                run(path, trainer, go_on=True)
        except (RunFailed, InvalidSetting) as failed:
            assert os.strerror(number) in str(failed) and len(str(failed).splitlines()) == 1, (n, failed)
        else:
            break
        summary, folder = run(path, trainer, go_on=True)
        assert numbers(folder) == numbers(whole) and summary["value"] == whole.summary["value"], n
        shutil.rmtree(path)
    assert n > 20


def test_a_permission_that_is_lost_in_mid_run_ends_it_with_one_line(tmp_path, trainer, often):
    """The real thing: another user, in a folder that is no longer writable."""
    _, whole = run(tmp_path / "whole", trainer)
    folder = RunFolder.create(tmp_path / "run", config(tiny()))
    me, nobody = os.geteuid(), 65534

    def lose(trainer, state, iteration):
        if iteration == 4:
            for part in (folder.path, folder.path / "checkpoints"):
                part.chmod(0o555)
            os.seteuid(nobody if me == 0 else me)
        return {}

    try:
        with pytest.raises(RunFailed, match="cannot be written"):
            train(tiny(), folder, task=TASK, trainer=trainer, observe=lose)
    finally:
        os.seteuid(me)
        for part in (folder.path, folder.path / "checkpoints"):
            part.chmod(0o755)
    assert folder.checkpoints().all_steps() == [2]
    train(tiny(), folder, task=TASK, trainer=trainer)
    assert numbers(folder) == numbers(whole)


def test_scalars_are_records_that_tensorboard_reads(tmp_path, trainer):
    """Framed by length and check sums, a scalar each; held against the reader's side of the format."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    _, folder = run(tmp_path / "run", trainer, tensorboard=True)
    (file,) = (folder.path / "tensorboard").iterdir()
    data, events = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        body = data[12 : 12 + length]
        assert struct.unpack("<I", data[8:12]) == (masked_crc32c(data[:8]),)
        assert struct.unpack("<I", data[12 + length : 16 + length]) == (masked_crc32c(body),)
        events.append(Event.FromString(body))
        data = data[16 + length :]
    found = [(event.step, event.summary.value[0].simple_value) for event in events[1:]]
    assert [value for step, value in found if step == 4][1] == pytest.approx(folder.metrics()[1]["metric"])
    assert events[0].file_version == "brain.Event:2" and len(found) == 9


def test_a_folder_removed_in_mid_run_ends_it_with_one_line(tmp_path, trainer, often):
    folder = RunFolder.create(tmp_path / "run", config(tiny()))
    remove = lambda *of_run: shutil.rmtree(folder.path) or {}  # noqa: E731
    with pytest.raises(RunFailed, match="was removed while a run wrote there"):
        train(tiny(), folder, task=TASK, trainer=trainer, observe=remove)
    assert not folder.path.exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_with_a_checkpoint_and_its_status(tmp_path, trainer, number, status):
    folder = RunFolder.create(tmp_path / "run", config(tiny()))
    send = lambda trainer, state, iteration: os.kill(os.getpid(), number) or {}  # noqa: E731
    with pytest.raises(Interrupted) as stop:
        train(tiny(), folder, task=TASK, trainer=trainer, observe=send)
    assert stop.value.status == status and folder.checkpoints().all_steps() == [2]
    _, whole = run(tmp_path / "whole", trainer)
    train(tiny(), folder, task=TASK, trainer=trainer)
    assert numbers(folder) == numbers(whole)


def test_a_signal_that_is_ignored_stays_ignored(tmp_path, trainer):
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        summary, _ = run(tmp_path / "run", trainer, observe=lambda *of_run: os.kill(os.getpid(), signal.SIGHUP) or {})
    finally:
        signal.signal(signal.SIGHUP, before)
    assert summary["iterations"] == 6


# Going on


def test_a_run_says_what_it_was_made_with_and_what_differs(tmp_path, trainer, capsys):
    _, folder = run(tmp_path / "run", trainer)
    made = json.loads((folder.path / "eprop.json").read_text())["made_with"]
    assert len(made) == 1 and {
        "eprop",
        "commit",
        "python",
        "jax",
        "jaxlib",
        "numpy",
        "platform",
        "devices",
        "command",
    } < set(made[0])
    made[0] |= {"jax": "0.1.0", "devices": "8 x TPU v9"}
    mark = json.loads((folder.path / "eprop.json").read_text()) | {"made_with": made}
    (folder.path / "eprop.json").write_text(json.dumps(mark))
    capsys.readouterr()
    load_run(folder.path)
    said = capsys.readouterr().err
    assert (
        len(said.splitlines()) == 1 and "was made with jax 0.1.0 (here " in said and "devices 8 x TPU v9 (here" in said
    )


def test_a_run_that_has_ended_is_trained_further(tmp_path, trainer, often, capsys):
    """As if it had been asked for so many iterations at once; an edited configuration is not passed over in silence."""
    _, whole = run(tmp_path / "whole", trainer, experiment=tiny(iterations=10))
    _, folder = run(tmp_path / "run", trainer)
    edited = folder.config
    edited["experiment"]["run"]["iterations"] = 10
    (folder.path / "config.json").write_text(json.dumps(edited))
    capsys.readouterr()
    assert train(tiny(iterations=10), folder, task=TASK, trainer=trainer)["iterations"] == 6
    assert "was edited since the run ended (iterations was 6, is 10)" in capsys.readouterr().err
    with pytest.raises(InvalidSetting, match=r"iterations = 5: the run in .* has 6 already"):
        folder.extend(5)
    folder.extend(10)
    assert train(tiny(iterations=10), folder, task=TASK, trainer=trainer)["iterations"] == 10
    assert numbers(folder) == numbers(whole) and not capsys.readouterr().err


def test_what_cannot_be_trained_further_is_refused_by_name(tmp_path, trainer):
    cosine = dataclasses.replace(tiny(), optimiser=dataclasses.replace(tiny().optimiser, cosine_decay=True))
    with pytest.raises(InvalidSetting, match="iterations = 9: not with cosine_decay"):
        RunFolder.create(tmp_path / "cosine", config(cosine)).extend(9)
    with pytest.raises(InvalidSetting, match="is of 'eprop bench'; only train, compare and gradients"):
        RunFolder.create(tmp_path / "bench", {"command": "bench", "settings": {}}).extend(9)
    _, folder = run(tmp_path / "below", trainer, experiment=tiny(stop_below=1e9))
    with pytest.raises(InvalidSetting, match="was ended by stop_below"):
        folder.extend(9)


def test_the_same_command_starts_goes_on_and_does_nothing(tmp_path, capsys, monkeypatch):
    """For job queues: `--stop-after` ends with 75, which is neither the end nor a failure."""
    monkeypatch.setattr("eprop.workshop.cli._execute.draw_all", lambda folder: None)
    command = ["train", TASK, *TINY, "--out", tmp_path / "run", "--continue-or-start"]
    status, said = ended(capsys, *command, "--stop-after", "0s")
    assert status == 75 and "go on with 'eprop resume" in said and len(said.splitlines()) == 1
    assert RunFolder(tmp_path / "run").checkpoints().all_steps() == [1]
    assert ended(capsys, *command, "--stop-after", "1000h") == (0, "")
    before = tree(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["iterations"] == 4
    assert ended(capsys, *command) == (0, "")
    assert tree(tmp_path / "run") == before
    status, said = ended(capsys, *command, "--learning-rate", "0.5")
    assert status == 2 and "holds a run with other settings (learning_rate was 0.0001, is 0.5 now)" in said
    assert ended(capsys, *command, "--overwrite")[0] == 2
    for wrong in ("soon", "-5m", "5w", ""):
        assert ended(capsys, *command, f"--stop-after={wrong}")[0] == (2 if wrong else 0)


# Data


def write_data(path, flip=False):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(30, 10, 3)).astype("f4")
    targets = (inputs[:, -1, 0] > 0).astype(int)
    np.savez(path, inputs=inputs, targets=1 - targets if flip else targets)


def test_a_run_on_arrays_goes_on_from_anywhere_but_not_with_other_data(tmp_path, capsys, monkeypatch):
    """Its path is absolute; a file written anew is told by its content; drawing needs it only for what it shows."""
    (tmp_path / "project").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    write_data("data.npz")
    options = "--neuron rate --neurons 4 --batch 4 --iterations 4 --evaluate-every 2 --out run --stop-after 0".split()
    assert ended(capsys, "train", "arrays", "--data", "data.npz", *options)[0] == 75
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert ended(capsys, "resume", "../project/run", "--stop-after", "0")[0] == 75
    write_data(tmp_path / "project" / "data.npz", flip=True)
    status, said = ended(capsys, "resume", "../project/run")
    assert status == 2 and "its data have changed since the run began: targets (sha256)" in said
    write_data(tmp_path / "project" / "data.npz")
    loaded = load_run(Path("../project/run"))
    assert loaded.missing is None
    weights = jax.tree.leaves(loaded.network.layers[0].synapses())
    (tmp_path / "project" / "data.npz").unlink()
    away = load_run(Path("../project/run"))
    assert "there is no such file" in away.missing
    assert all(map(np.array_equal, weights, jax.tree.leaves(away.network.layers[0].synapses())))
    status, said = ended(capsys, "plot", "../project/run")
    assert status == 0 and "drawn is what needs no data" in said
    status, said = ended(capsys, "resume", "../project/run")
    assert status == 2 and "there is no such file" in said


@pytest.mark.parametrize(
    "settings", [{"update_window": 5}, {"layers": 2}, {"trainable": ("tau_m",)}], ids=lambda s: next(iter(s))
)
def test_a_run_loads_without_its_data_whatever_it_trained(tmp_path, settings):
    of_run = {name: settings[name] for name in settings if name == "update_window"}
    of_network = {name: settings[name] for name in settings if name not in of_run}
    rng, data = np.random.default_rng(0), tmp_path / "data.npz"
    np.savez(data, inputs=rng.normal(size=(6, 10, 3)).astype("f4"), targets=rng.normal(size=(6, 10, 1)).astype("f4"))
    experiment = Experiment(
        task=ArraysTask(data=data),
        network=NetworkSettings(neuron="rate", neurons=4, **of_network),
        run=RunSettings(iterations=1, batch=2, **of_run),
    )
    folder = RunFolder.create(tmp_path / "run", config(experiment) | {"task": "arrays"})
    made = make_trainer(experiment, [0])
    folder.keep_facts(data_facts(made.task, made.facts()))
    state = made.init()
    folder.checkpoints().save(1, state)
    before = jax.tree.leaves(eqx.filter(made.network(state), eqx.is_array))
    data.unlink()
    loaded = load_run(folder.path)
    assert "there is no such file" in loaded.missing
    after = jax.tree.leaves(eqx.filter(loaded.network, eqx.is_array))
    assert len(before) == len(after) > 2 and all(map(np.array_equal, before, after))


# Text from files


def test_text_from_a_file_is_neither_markup_nor_a_formula_nor_a_terminals_command(tmp_path):
    name = "[red]a[/red] :smile: $\\frac$ \x1b[31m"
    summary = {"rows": 3, "horizon": 1, "rows_per_s": 0.0, "skipped": 0, "rmse": {name: 1.0}, "naive_rmse": {name: 1.0}}
    shown = Console(file=io.StringIO(), width=200)
    shown.print(stream_table(summary))
    assert "[red]a[/red] :smile: $\\frac$ \\x1b[31m" in shown.file.getvalue()
    figure = new_figure(12.0, 9.0)
    axes = figure.subplots()
    axes.set_title(name)
    axes.set_yscale("log")
    axes.plot([1, 10], [1, 1000], label=name)
    axes.set_xticks([1, 10], [name, name])
    axes.legend()
    assert save(figure, tmp_path / "figure.png").stat().st_size > 1000


def test_files_are_written_whole_or_not_at_all(tmp_path):
    from eprop.files import write_json, write_text

    write_text(tmp_path / "a.txt", "before")
    seen = []
    with before_each_write(tmp_path, lambda: seen.append((tmp_path / "a.txt").read_text())):
        write_text(tmp_path / "a.txt", "after" * 1000)
    assert set(seen) == {"before"} and (tmp_path / "a.txt").read_text() == "after" * 1000
    with pytest.raises(TypeError):
        write_json(tmp_path / "b.json", {(1, 2): math.nan})
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


# kill -9 itself, of whole programs: slow

COMPILED = Path(tempfile.gettempdir()) / f"eprop-test-{os.getpid()}-compiled"
"""What one program compiled the others need not."""

KILLED = """
import os, signal, sys
count, folder = int(sys.argv[1]), os.path.abspath(sys.argv[2])

def hook(event, arguments):
    global count
    writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if not (writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")):
        return
    path = arguments[0]
    if isinstance(path, (str, bytes, os.PathLike)) and os.path.abspath(os.fsdecode(path)).startswith(folder):
        count -= 1
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)

import eprop.workshop.training._loop
eprop.workshop.training._loop.CHECKPOINT_SECONDS = -1.0
from eprop.workshop.cli import main
sys.addaudithook(hook)
main(sys.argv[3:])
"""


def killed_at(write, folder, *arguments):
    """The program, killed at its n-th write to a folder; whether it came to that."""
    command = [sys.executable, "-c", KILLED, str(write), str(folder), *map(str, arguments)]
    environment = {"JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(COMPILED)
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.returncode != 0


def results(path):
    """What a command leaves, without times."""
    found = {}
    for file in sorted(path.rglob("*")):
        name = str(file.relative_to(path))
        if file.name == "metrics.jsonl":
            lines = map(json.loads, file.read_text().splitlines())
            timed = ("wall_s", "rows_per_s", "memory_mb")
            found[name] = [{k: v for k, v in line.items() if k not in timed} for line in lines]
        elif file.name in ("summary.json", "comparison.json"):
            value = json.loads(file.read_text())
            found[name] = [value.get("value"), value.get("rmse")]
            found[name] += [row["values"] for row in value["rows"]] if "seeds" in value else []
        elif file.suffix in (".csv", ".WAV", ".PHN"):
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    yield
    shutil.rmtree(COMPILED, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("command", ["train", "resume", "compare", "stream", "data"])
def test_a_program_killed_at_a_random_write_leaves_nothing_half_written(tmp_path, tmp_path_factory, command, seed):
    """kill -9 at a write drawn by a seed; the same command again ends as an unbroken one."""
    table = tmp_path / "t.csv"
    table.write_text("x,y\n" + "".join(f"{i % 7},{i % 5}\n" for i in range(80)))
    out = tmp_path / "out"
    arguments = {
        "train": ["train", TASK, *TINY, "--out", out, "--continue-or-start"],
        "resume": ["train", TASK, *TINY, "--out", out, "--continue-or-start"],
        "compare": ["compare", TASK, *TINY, "--rules", "bptt,eprop1", "--seeds", 1, "--out", out,
                    "--continue-or-start"],
        "stream": ["stream", "--csv", table, "--targets", "x", "--neurons", 4, "--report-every", 20, "--save-rows", 20,
                   "--out", out],
        "data": ["data", "speech", "--out", out, "--hours", 0.0005, "--sentences", 1],
    }[command]  # fmt: skip
    writes = {"train": 40, "resume": 25, "compare": 90, "stream": 40, "data": 30}[command]
    write = int(np.random.default_rng([seed, writes]).integers(1, writes + 1))
    whole = tmp_path_factory.getbasetemp() / f"whole-{command}"
    if not whole.exists():
        assert not killed_at(0, whole, *[whole if a is out else a for a in arguments])
    killed_at(write, tmp_path if command == "data" else out, *arguments)
    if command == "resume":
        killed_at(1 + seed, out, "resume", out) if (out / "config.json").is_file() else None
    for file in out.rglob("*.json"):
        json.loads(file.read_text())
    if command != "data" or not out.exists():
        assert not killed_at(0, out, *arguments)
    assert results(out) == results(whole)
