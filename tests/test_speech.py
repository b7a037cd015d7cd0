"""Speech corpora: what is read is what stands in the files, and what cannot be used is named."""

import json
import sys
from itertools import pairwise

import numpy as np
import pytest
import python_speech_features as psf
import soundfile

from eprop import InvalidSetting
from eprop.workshop.speech import (
    FOLDED,
    FOLDING,
    SPLITS,
    Synthesis,
    features_of,
    find_utterances,
    load_corpus,
    synthesise,
)
from eprop.workshop.speech import frame_labels as labels_of
from eprop.workshop.speech._corpus import Segments
from eprop.workshop.speech._phones import CORE_TEST, DEVELOPMENT
from eprop.workshop.speech._synthesis import plan
from eprop.workshop.speech._voices import FEMALE, MALE

RATE = 16_000
PHONES = [(0, 1600, "h#"), (1600, 2900, "ix"), (2900, 4000, "q"), (4000, 4800, "zh")]

pytestmark = pytest.mark.usefixtures("cache")


def sound(*seed, samples=4800):
    return (3000 * np.random.default_rng(seed).standard_normal(samples)).astype(np.int16)


def write(folder, name, samples, *, phones=PHONES, container="NIST", case=str.upper):
    """One utterance, as TIMIT has it; the path of its sound."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / case(f"{name}.wav")
    soundfile.write(path, samples, RATE, format=container, subtype="PCM_16")
    (folder / case(f"{name}.phn")).write_text("".join(f"{start} {end} {phone}\n" for start, end, phone in phones))
    return path


def corpus(root, *, case=str.upper, container="NIST", train=("fabc0", "mdef0"), test=("mghi0",), dev=()):
    """A small corpus: two sentences a speaker, and one of the two that all speakers say."""
    for split, speakers in (("train", train), ("test", test), ("dev", dev)):
        for speaker in speakers:
            folder = root / case(split) / case("dr1") / case(speaker)
            for name in ("sx1", "si20", "sa1"):
                write(folder, name, sound(ord(speaker[1]), len(name)), case=case, container=container)
    return root


def names_of(read):
    return [read.name(i) for i in range(len(read.paths))]


@pytest.mark.parametrize("container", ["NIST", "WAV"])
@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_both_formats_and_cases_are_read_alike(tmp_path, container, case):
    read = load_corpus(corpus(tmp_path / "c", case=case, container=container))
    names = names_of(read)
    assert sorted(names) == sorted(f"{s}/{n}" for s in ("fabc0", "mdef0", "mghi0") for n in ("sx1", "si20"))
    place = names.index("mghi0/si20")
    assert SPLITS[read.split[place]] == "test"
    expected = features_of(sound(ord("g"), 4).astype(float), RATE, "mfcc")
    assert np.array_equal(read.features[read.frames(place)], expected)
    assert [read.phones[i] for i in read.sequence[read.segments(place)]] == ["h#", "ix", "q", "zh"]
    assert read.rate == RATE and read.bad == ()


def test_a_corpus_may_lie_in_a_folder_timit_and_bring_its_own_development_set(tmp_path):
    found = find_utterances(corpus(tmp_path / "c" / "TIMIT", dev=("mxyz0",)).parent)
    assert {(u.split, u.speaker) for u in found} == {
        ("train", "fabc0"), ("train", "mdef0"), ("test", "mghi0"), ("dev", "mxyz0"),
    }  # fmt: skip


def test_a_corpus_without_development_set_gets_every_tenth_training_speaker(tmp_path):
    names = tuple(f"m{chr(ord('a') + i)}xx0" for i in range(21))
    found = find_utterances(corpus(tmp_path / "c", train=names))
    assert {u.speaker for u in found if u.split == "dev"} == {names[9], names[19]}
    assert {u.speaker for u in found if u.split == "train"} == set(names) - {names[9], names[19]}


def test_timit_gets_its_standard_speakers(tmp_path):
    others = ("mabc1", "fxyz1")
    found = find_utterances(corpus(tmp_path / "c", test=(*sorted(CORE_TEST | DEVELOPMENT), *others)))
    of = lambda split: {u.speaker for u in found if u.split == split}  # noqa: E731
    assert of("test") == CORE_TEST and of("dev") == DEVELOPMENT and of("train") == {"fabc0", "mdef0"}
    assert len(CORE_TEST) == 24 and len(DEVELOPMENT) == 50 and not CORE_TEST & DEVELOPMENT
    assert sum(name.startswith("f") for name in CORE_TEST) == 8  # two men and a woman of each of eight regions


def test_the_folding_has_61_phones_and_39_classes():
    assert len(FOLDING) == 61 and len(FOLDED) == 39
    assert {phone for phone in FOLDING.values() if phone is not None} == set(FOLDED)
    assert [p for p, c in FOLDING.items() if c is None] == ["q"]
    kept = {phone for phone, folded in FOLDING.items() if phone == folded}
    assert kept == set(FOLDED) - {"sil"}


def missing_phn(path):
    path.with_suffix(".PHN").unlink()


def truncated_header(path):
    path.write_bytes(path.read_bytes()[:500])


def boundary_past_the_end(path):
    path.with_suffix(".PHN").write_text("0 1600 h#\n1600 5201 ix\n")


def empty(path):
    soundfile.write(path, sound(samples=0), RATE, format="NIST", subtype="PCM_16")


def no_phones(path):
    path.with_suffix(".PHN").write_text("")


def not_a_line(path):
    path.with_suffix(".PHN").write_text("0 1600 h#\nhello\n")


def overlapping(path):
    path.with_suffix(".PHN").write_text("0 1600 h#\n1500 2000 ix\n")


def stereo(path):
    soundfile.write(path, np.zeros((100, 2), np.int16), RATE, format="NIST", subtype="PCM_16")


def another_rate(path):
    soundfile.write(path, sound(1), 8000, format="NIST", subtype="PCM_16")


BAD = {
    missing_phn: "SX1.WAV: has no .PHN beside it",
    truncated_header: r"SX1.WAV: cannot be read as sound \(.*header",
    boundary_past_the_end: r"SX1.PHN: its last boundary, 5201, lies past the end of the sound \(4800 samples\)",
    empty: "SX1.WAV: holds no samples",
    no_phones: "SX1.PHN: holds no phones",
    not_a_line: "SX1.PHN: line 2: expected 'start end phone', got 'hello'",
    overlapping: "SX1.PHN: line 2: phone from 1500 to 2000 is empty, or overlaps",
    stereo: "SX1.WAV: has 2 channels",
    another_rate: "SX1.WAV: has 8000 samples a second, where .* has 16000",
}


@pytest.mark.parametrize("damage", BAD, ids=lambda f: f.__name__)
def test_an_utterance_that_cannot_be_used_is_named_or_left_out_and_counted(tmp_path, damage):
    root = corpus(tmp_path / "c")
    folder = root / "TEST" / "DR1" / "MGHI0"
    damage(folder / "SX1.WAV")
    with pytest.raises(InvalidSetting, match=f"{folder}/{BAD[damage]}.*--skip-bad"):
        load_corpus(root)
    read = load_corpus(root, skip_bad=True)
    assert len(read.bad) == 1 and "mghi0/sx1" not in names_of(read) and len(read.paths) == 5


def test_boundaries_may_end_up_to_a_window_past_the_sound(tmp_path):
    root = corpus(tmp_path / "c")
    (root / "TEST" / "DR1" / "MGHI0" / "SX1.PHN").write_text("0 1600 h#\n1600 5200 ix\n")
    assert load_corpus(root).bad == ()


def test_folders_that_are_no_corpus_are_refused(tmp_path):
    with pytest.raises(InvalidSetting, match="is not a folder"):
        find_utterances(tmp_path / "none")
    (tmp_path / "c" / "train").mkdir(parents=True)
    with pytest.raises(InvalidSetting, match=r"TRAIN|holds no .WAV"):
        find_utterances(tmp_path / "c")
    corpus(tmp_path / "d", train=("mabc0",))
    with pytest.raises(InvalidSetting, match="no speakers for development"):
        find_utterances(tmp_path / "d")


def test_the_cache_is_used_until_files_or_settings_change(tmp_path, monkeypatch):
    root = corpus(tmp_path / "c")
    first = load_corpus(root)
    load_corpus.cache_clear()
    calls = []
    monkeypatch.setattr("eprop.workshop.speech._cache.analyse", lambda task: calls.append(task))
    again = load_corpus(root)
    assert not calls and np.array_equal(again.features, first.features) and again.paths == first.paths
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert load_corpus(root, "fbank").features.shape[1] == 123
    load_corpus.cache_clear()
    write(root / "TEST" / "DR1" / "MGHI0", "sx1", sound(99))
    assert load_corpus(root).key != first.key
    (kept,) = [path for path in (tmp_path / "cache").rglob("*.npz") if first.key in path.name]
    kept.write_bytes(kept.read_bytes()[:1000])  # damaged: built again
    write(root / "TEST" / "DR1" / "MGHI0", "sx1", sound(ord("g"), 3))
    load_corpus.cache_clear()
    assert np.array_equal(load_corpus(root).features, first.features)


@pytest.mark.parametrize("kind", ["mfcc", "fbank"])
def test_features_are_those_of_python_speech_features(kind):
    signal = 2000 * np.sin(np.arange(8000) ** 1.3 / 50) + sound(3, samples=8000)
    found = features_of(signal, RATE, kind)
    if kind == "mfcc":
        static = psf.mfcc(signal, RATE)
    else:
        energy = psf.fbank(signal, RATE, nfilt=40)[1]
        static = np.hstack([np.log(energy)[:, None], psf.logfbank(signal, RATE, nfilt=40)])
    n = static.shape[1]
    assert found.shape == (1 + -(-(8000 - 400) // 160), {"mfcc": 39, "fbank": 123}[kind]) and found.std() > 0.1
    assert np.allclose(found[:, :n], static, rtol=1e-6)
    assert np.allclose(found[:, n : 2 * n], psf.delta(static, 2), rtol=1e-5, atol=1e-6)
    assert np.allclose(found[:, 2 * n :], psf.delta(psf.delta(static, 2), 2), rtol=1e-5, atol=1e-6)


def test_a_frame_has_the_label_of_the_phone_at_its_midpoint():
    segments = Segments(np.array([0, 520, 900]), np.array([520, 700, 1000]), ["a", "b", "c"])
    found = labels_of(8, RATE, segments)
    midpoints = [160 * k + 200 for k in range(8)]  # 200, 360, 520, 680, 840, 1000, ...
    expected = [0, 0, 1, 1, -1, 2, 2, 2]  # 840 lies in a gap; from 1000 on the last phone's label
    assert midpoints[:3] == [200, 360, 520] and found.tolist() == expected


def test_a_missing_package_gets_one_line_that_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(InvalidSetting, match=r"needs the package soundfile.*pip install 'eprop\[speech\]'"):
        load_corpus(corpus_without_sound(tmp_path))
    with pytest.raises(InvalidSetting, match=r"needs the package soundfile"):
        synthesise(tmp_path / "new", Synthesis())


def corpus_without_sound(root):
    for split in ("train", "test", "dev"):
        (root / split / "m").mkdir(parents=True)
        (root / split / "m" / "x.wav").write_bytes(b"")
    return root


SHORT = Synthesis(hours=0.001, sentences=1)


def test_a_spoken_corpus_is_the_same_to_the_bit_for_a_seed(spoken, tmp_path):
    synthesise(tmp_path / "again", SHORT)
    files = sorted(path.relative_to(spoken) for path in spoken.rglob("*.*"))
    assert len(files) >= 31 and sum(path.suffix == ".WAV" for path in files) >= 10
    for path in files:
        assert (spoken / path).read_bytes() == (tmp_path / "again" / path).read_bytes()


def test_a_spoken_corpus_is_one_in_timits_layout(spoken):
    read = load_corpus(spoken)
    assert read.bad == () and set(read.phones) <= set(FOLDING) and read.rate == RATE
    assert all(len(read.of(split)) > 0 for split in SPLITS)
    report = json.loads((spoken / "corpus.json").read_text())
    assert sum(count["seconds"] for count in report["splits"].values()) >= 3.6
    for path in spoken.rglob("*.PHN"):
        lines = [line.split() for line in path.read_text().splitlines()]
        assert lines[0][0] == "0" and all(a[1] == b[0] for a, b in pairwise(lines))
        assert int(lines[-1][1]) == soundfile.info(path.with_suffix(".WAV")).frames
        assert len(lines) > 10 and lines[0][2] == lines[-1][2] == "h#"


def test_boundaries_lie_where_the_sound_changes(tmp_path):
    """Sibilants have high frequencies, vowels low ones: most so with the labels just where they are."""
    synthesise(tmp_path / "clean", Synthesis(hours=0.001, sentences=1, snr_low=40.0, snr_high=40.0))
    read = load_corpus(tmp_path / "clean", "fbank")
    bands = read.features[:, 1:41]
    high, energy = bands[:, 25:].mean(1) - bands[:, 3:15].mean(1), read.features[:, 0]
    of = lambda *names: np.isin(read.labels, [read.phones.index(n) for n in names if n in read.phones])  # noqa: E731
    vowels = of("iy", "ae", "ah", "aa", "ay", "ey", "ow", "eh", "ao", "aw")
    sibilants = of("s", "sh")
    assert sibilants.sum() > 30 and vowels.sum() > 200
    contrast = [
        np.roll(high, -shift)[sibilants].mean() - np.roll(high, -shift)[vowels].mean() for shift in range(-5, 6)
    ]
    assert contrast[5] > 3 and abs(np.argmax(contrast) - 5) <= 1
    assert np.median(energy[vowels]) - np.median(energy[of("h#")]) > 1


def test_splits_share_neither_sentences_nor_voices():
    tasks = [task for task, _ in zip(plan(Synthesis(seed=3)), range(150), strict=False)]
    voices = {split: {t.speaker.voice for t in tasks if t.split == split} for split in SPLITS}
    assert not voices["train"] & voices["test"] and not voices["train"] & voices["dev"]
    assert not voices["dev"] & voices["test"]
    assert all(split & set(FEMALE) and split & set(MALE) for split in voices.values())
    said = [sentence for t in tasks for sentence in t.sentences]
    assert len(set(said)) == len(said) == 4 * 150
    assert len({(t.speaker.pitch, t.speaker.rate) for t in tasks}) > 140
    assert [t.speaker for t in tasks] != [t.speaker for t, _ in zip(plan(Synthesis(seed=4)), range(150), strict=False)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hours": 0.0}, "hours = 0.0: must be above 0"),
        ({"snr_low": 40.0}, "snr_low = 40.0: must not be above snr_high"),
        ({"reverberant": 2.0}, "reverberant = 2.0"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_settings_of_a_spoken_corpus_are_checked(settings, message):
    with pytest.raises(InvalidSetting, match=message):
        Synthesis(**settings)


def test_an_occupied_folder_is_not_written_to(tmp_path):
    (tmp_path / "c").mkdir()
    with pytest.raises(InvalidSetting, match="is there already"):
        synthesise(tmp_path / "c", SHORT)
    assert not list((tmp_path / "c").iterdir())
