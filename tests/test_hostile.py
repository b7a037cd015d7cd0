"""Files that are damaged, or made to do harm: one line each, bounded memory, and nothing written outside."""

import io
import json
import random
import struct
import traceback
import tracemalloc
import wave
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import eprop.workshop.cli._folders as folders
from eprop.errors import InvalidSetting, RunFailed
from eprop.files import DamagedFile, printable, read_npz
from eprop.workshop.cli import main
from eprop.workshop.experiments import reproduction_of
from eprop.workshop.figures._run import learning_figure
from eprop.workshop.figures._stream import newest_predictions
from eprop.workshop.settings import Experiment, NetworkSettings, RunSettings
from eprop.workshop.speech import BadUtterance, read_sound
from eprop.workshop.streams._saved import load_state, save_state
from eprop.workshop.streams._settings import HandlingSettings, StreamSettings
from eprop.workshop.streams._source import Source
from eprop.workshop.streams._start import _check_columns
from eprop.workshop.streams._table import Position, Table, read_names
from eprop.workshop.tasks import PatternGeneration
from eprop.workshop.tasks._arrays import load_arrays
from eprop.workshop.training import Checkpoints, RunFolder, experiment_from_json, experiment_to_json, restore_newest

EXPERIMENT = Experiment(
    task=PatternGeneration(duration=20, inputs=5),
    network=NetworkSettings(neuron="lif", neurons=4),
    run=RunSettings(iterations=6, evaluate_every=2),
)
STATE = {"a": jnp.arange(12.0).reshape(3, 4), "b": jnp.zeros((), jnp.int32), "c": jnp.ones(2, bool)}
MOST = 256 << 20
"""Bytes that reading a small file may take at most."""

VALUES = [
    None, True, -1, 0, 3, 10**30, 1e308, float("nan"), float("inf"), "", "../../etc", "\x1b[31m[red]", "\0", "\ud800",
    [], {}, [[]], {"a": {}}, "x" * 5000, [1, "a", None], "NaN",
]  # fmt: skip


def damaged(random, content: bytes) -> bytes:
    """Bits flipped, cut, doubled, or something else altogether."""
    how, content = random.randrange(6), bytearray(content)
    if how <= 2 and content:
        for _ in range(random.choice([1, 1, 4, 40])):
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    elif how == 3:
        del content[random.randrange(len(content) + 1) :]
    elif how == 4:
        place = random.randrange(len(content) + 1)
        content[place:place] = content[: random.randrange(len(content) + 1)]
    else:
        content = bytearray(random.randbytes(random.randrange(300)))
    return bytes(content)


def hostile_json(random, value):
    """One or a few values put in the place of others, names changed; or damaged text, or nested too deep."""
    text = json.dumps(value)
    how = random.randrange(8)
    if how == 0:
        deep = random.choice(["[", '{"a":'])
        return (deep * 10_000).encode()
    if how == 1:
        return damaged(random, text.encode())
    value = json.loads(text)
    for _ in range(random.choice([1, 1, 2])):
        place = value
        while isinstance(place, (dict, list)) and place:
            key = random.choice(list(place) if isinstance(place, dict) else list(range(len(place))))
            if not isinstance(place[key], (dict, list)) or random.random() < 0.3:
                if isinstance(place, dict) and random.random() < 0.2:
                    place[random.choice(["../x", "a" * 300, "\0", "__class__"])] = place.pop(key)
                elif random.random() < 0.15:
                    del place[key]
                else:
                    place[key] = random.choice(VALUES)
                break
            place = place[key]
    return json.dumps(value).encode()


def hostile_npz(random, arrays):
    """An archive whose members lie about their size, have objects, strange names, or a bomb inside."""
    how = random.randrange(7)
    content = io.BytesIO()
    if how <= 1:
        np.savez(content, **arrays)
        return damaged(random, content.getvalue())
    name = random.choice(list(arrays))
    with zipfile.ZipFile(content, "w", random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for each, array in arrays.items():
            one = io.BytesIO()
            np.save(one, array)
            data = one.getvalue()
            if each == name and how == 2:  # a shape that is not there
                shape = random.choice([(10**12,), (2**62, 8), (10**6, 10**6), (-3,), (0, 10**18)])
                header = repr(
                    {"descr": random.choice(["<f8", "|O", "<U99999999", "|V0"]), "fortran_order": False, "shape": shape}
                )
                header = header.ljust(117) + "\n"
                data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + b"\0" * 64
            elif each == name and how == 3:  # pickled objects
                header = repr({"descr": "|O", "fortran_order": False, "shape": (1,)}).ljust(117) + "\n"
                data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
                data += b"cos\nsystem\n(S'touch pwned'\ntR."
            elif each == name and how == 4:
                data = damaged(random, data)
            place = f"{each}.npy"
            if each == name and how == 5:
                place = random.choice(["../../x.npy", "/etc/x.npy", "a\\..\\x.npy", "\x1b[31m.npy", "x.exe"])
            archive.writestr(place, data)
        if how == 6:
            archive.writestr("deep.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000)
    return content.getvalue()


def hostile_wav(random):
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(b"\1\2" * 400)
    data = bytearray(content.getvalue())
    how = random.randrange(4)
    if how == 0:
        return damaged(random, bytes(data))
    place, kind, values = random.choice(
        [(4, "<I", [0, 2**32 - 1]), (22, "<H", [0, 2, 65535]), (24, "<I", [0, 1, 2**31, 2**32 - 1]),
         (34, "<H", [0, 7, 64, 65535]), (40, "<I", [0, 2**31, 2**32 - 1]), (16, "<I", [0, 2**32 - 1])]
    )  # fmt: skip
    data[place : place + struct.calcsize(kind)] = struct.pack(kind, random.choice(values))
    return bytes(data)


def hostile_csv(random):
    lines = ["x,y,z", *(f"{i % 7},{i % 5}.5,{i}" for i in range(20))]
    how = random.randrange(8)
    bad = ['"' * 3 + "a" * 200_000, "1,2,3\r4", '1,"2,3', "1" * 5000 + ",1,1", "nan,inf,-inf", ",,", "1,2", "1e999,1,1",
           "\ufeff1,2,3", '"a\rb",1,2',           "=cmd(),1,1", "1_0,2,3"]  # fmt: skip
    if how <= 2:
        lines[random.randrange(len(lines))] = random.choice(bad)
    elif how == 3:
        lines[0] = ",".join(str(i) + "c" for i in range(random.choice([50, 60_000])))
    elif how == 4:
        lines[0] = random.choice(["x,x,y", "x,,y", "[red]x,../y,$z$", "\x1b[31mx,y,z", '"x"",y,z', "1,2,3"])
    text = "\n".join(lines).encode() + b"\n"
    if how == 5:
        return b"a" * (3 << 20)
    return damaged(random, text) if how > 5 else text


@pytest.fixture
def readers(tmp_path, monkeypatch, capsys):
    """A function of seed and kind that has a hostile file read as the program does."""
    config = {"command": "train", "task": "pattern-generation", "experiment": experiment_to_json(EXPERIMENT)}
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    place = tmp_path / "place"
    folder = RunFolder.create(place / "run", config)
    line = {"iteration": 2, "loss": 1.0, "metric": 0.5, "activity": 0.1, "wall_s": 1.0}
    summary = {"task": "pattern-generation", "iterations": 6, "metric": "nmse", "value": 0.5, "wall_s": 1.0}
    whole = {"config": config, "mark": json.loads((place / "run" / "eprop.json").read_text()), "summary": summary,
             "data": {"arrays": ["a"], "n_in": 3, "n_out": 2}}  # fmt: skip
    files = {"config": "config.json", "mark": "eprop.json", "summary": "summary.json", "data": "data.json"}

    def look(folder):
        """What drawing reads, but for the checkpoint."""
        config = folder.config
        if config["command"] == "reproduce":
            reproduction_of(folder)
        elif "task" in config:
            experiment_from_json(config["task"], config["experiment"], folder.path)
        _ = folder.summary, folder.facts, folder.finished
        folder.check_facts({"arrays": ["a"], "n_in": 3, "n_out": 2})
        if folder.metrics():
            learning_figure(folder, True)

    monkeypatch.setattr(folders, "draw_all", look)

    def read_json(random, kind):
        for name, value in whole.items():
            content = hostile_json(random, value) if name == kind else json.dumps(value).encode()
            (place / "run" / files[name]).write_bytes(content)
        lines = [line, line | {"iteration": 4}]
        content = "".join(json.dumps(each) + "\n" for each in lines).encode()
        if kind == "metrics":
            bad = hostile_json(random, lines[random.randrange(2)])
            content = damaged(random, content) if random.random() < 0.3 else content + bad + b"\n"
        (place / "run" / "metrics.jsonl").write_bytes(content)
        main(["plot", str(place / "run")])

    def read_checkpoint(random):
        checkpoints = Checkpoints(place / "other")
        (place / "other").mkdir(exist_ok=True)
        checkpoints.save(1, STATE)
        arrays = {str(i): np.asarray(x) for i, x in enumerate(STATE.values())}
        types = {"types": np.array([str(x.dtype) for x in arrays.values()])}
        (place / "other" / "checkpoints" / "2.npz").write_bytes(hostile_npz(random, arrays | types))
        state, iteration = restore_newest(checkpoints, STATE)
        assert iteration in (1, 2) and all(state[name].shape == x.shape for name, x in STATE.items())

    def read_arrays(random):
        x = np.random.default_rng(0).normal(size=(6, 5, 2))
        arrays = {"inputs": x, "targets": np.arange(6) % 2, "mask": np.ones((6, 5), bool), "lengths": np.full(6, 5)}
        (place / "data.npz").write_bytes(hostile_npz(random, arrays))
        load_arrays(place / "data.npz", 0.3, random.randrange(2**30), 1)

    def read_state(random):
        facts = {"position": [9, 3, 2, 0], "names": ["x"], "learnt": 2, "since_report": 1, "predictions": 9,
                 "metrics": 9, "total": [[1.0]] * 3, "recent": [[1.0]] * 3, "wall_s": 0.1}  # fmt: skip
        path = place / "state.npz"
        save_state(path, facts, [np.zeros(1, np.int64), np.zeros((1, 1)), np.ones(3)])
        with np.load(path) as found:
            arrays = dict(found)
        if random.random() < 0.5:
            arrays["facts"] = np.array(hostile_json(random, facts).decode(errors="replace"))
            np.savez(path, **arrays)
        else:
            path.write_bytes(hostile_npz(random, arrays))
        load_state(path)

    def read_wav(random):
        (place / "sound.wav").write_bytes(hostile_wav(random))
        read_sound(place / "sound.wav")

    def read_csv(random):
        path = place / "table.csv"
        path.write_bytes(hostile_csv(random))
        settings = StreamSettings(csv=str(path), targets="x", inputs=random.choice([None, "y"]))
        _check_columns(settings, HandlingSettings())
        source = Source(str(path))
        try:
            table = None
            while lines := source.read():
                if table is None:
                    names, _ = read_names(settings, lines.pop(0))
                    table = Table(settings, names, Position(), random.random() < 0.5)
                _, problem = table.parse(lines)
                if problem is not None:
                    raise problem
        finally:
            source.close()

    def read_predictions(random):
        text = "row,x,x_forecast,x_naive,x_ahead\n" + "".join(f"{i},1.0,2.0,3.0,4.0\n" for i in range(9))
        (place / "predictions.csv").write_bytes(damaged(random, text.encode()))
        newest_predictions(place / "predictions.csv", 5)

    kinds = {name: lambda random, name=name: read_json(random, name) for name in (*whole, "metrics")}
    kinds |= {"checkpoint": read_checkpoint, "arrays": read_arrays, "state": read_state, "wav": read_wav,
              "csv": read_csv, "predictions": read_predictions}  # fmt: skip

    def read(seed):
        chosen = random.Random(seed)
        kind = list(kinds)[seed % len(kinds)]
        said = ""
        try:
            kinds[kind](chosen)
        except (InvalidSetting, RunFailed, BadUtterance) as error:
            said = printable(" ".join(str(error).split()))  # as the program says it
        except SystemExit as stop:
            assert stop.code in (1, 2)
        said = capsys.readouterr().err.strip() or said
        assert len([line for line in said.splitlines() if "damaged; going on" not in line]) <= 1, said
        assert {path.name for path in tmp_path.iterdir()} == {"outside", "place"}
        assert [path.name for path in outside.iterdir()] == ["mine"] and not Path("pwned").exists()
        return bool(said)

    assert folder.holds_run
    return read


@pytest.mark.parametrize(
    ("dtype", "shape", "message"),
    [
        ("<f8", (10**12,), "says that it is larger than it is"),
        ("<f8", (2**62, 8), "says that it is larger than it is"),
        ("|O", (1,), "holds no numbers and no text"),
        ("|V0", (10**18,), "holds no numbers and no text"),
    ],
)
def test_an_array_is_looked_at_before_memory_is_taken_or_objects_are_made(tmp_path, dtype, shape, message):
    header = (repr({"descr": dtype, "fortran_order": False, "shape": shape}).ljust(117) + "\n").encode()
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 64)
    with pytest.raises(DamagedFile, match=message):
        read_npz(tmp_path / "a.npz")


def test_an_archive_larger_than_memory_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(10**6))
    assert (tmp_path / "bomb.npz").stat().st_size < 20_000
    monkeypatch.setattr("eprop.files.physical_memory", lambda: 10**6)
    with pytest.raises(DamagedFile, match="its arrays take 0.0 GB, and this machine has 0.0 GB"):
        read_npz(tmp_path / "bomb.npz")


def read_all(readers, seeds):
    """How many were refused."""
    refused, wrong = 0, []
    tracemalloc.start()
    try:
        for seed in seeds:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                refused += readers(seed)
                assert tracemalloc.get_traced_memory()[1] - before < MOST
            except BaseException as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                wrong.append(f"{seed}: {type(error).__name__}: {str(error)[:200]} ({place.filename}:{place.lineno})")
    finally:
        tracemalloc.stop()
    assert not wrong, "\n".join(wrong)
    return refused


def test_hostile_files_get_one_line_each(readers):
    assert read_all(readers, range(44)) > 20


@pytest.mark.slow
def test_a_thousand_hostile_files_get_one_line_each(readers):
    assert read_all(readers, range(1000, 2000)) > 500
