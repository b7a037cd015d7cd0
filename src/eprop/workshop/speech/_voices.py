"""Who speaks: the engine's voices, and speakers made of them."""

from typing import NamedTuple

from numpy.random import Generator

FEMALE = tuple("Andrea Annie anika aunty belinda f1 f2 f3 f4 f5 grandma linda steph2".split())
MALE = tuple(
    """
    Alex Denis Diogo Gene Gene2 Henrique Hugo Mario Michael Mike RicishayMax RicishayMax2 RicishayMax3 adam antonio
    benjamin boris caleb ed edward edward2 grandpa gustave iven iven3 iven4 john klatt3 klatt5 klatt6 m1 m2 m3 m4 m5 m6
    m7 m8 max michel miguel mike2 norbert pablo paul pedro quincy rob robert sandro victor
    """.split()
)
"""The engine's voices that sound like a person. Left out: robots, whispers and the like, and 14 so far from
the others that a linear classifier of frames, trained on those, errs in more than 68 % of theirs (mean: 58 %)."""


class Speaker(NamedTuple):
    """A voice with a pitch (0 to 99), its range, and a speed (words a minute); named as TIMIT names speakers."""

    name: str
    voice: str
    pitch: int
    range: int
    rate: int


def voices_of_splits(random: Generator) -> dict[str, list[str]]:
    """Which voices speak for train, dev and test: none for two of them, each has both sexes."""
    split: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for voices in (FEMALE, MALE):
        order = [voices[i] for i in random.permutation(len(voices))]
        dev, test = len(order) // 8, len(order) // 5
        split["dev"] += order[:dev]
        split["test"] += order[dev : dev + test]
        split["train"] += order[dev + test :]
    return {name: [voices[i] for i in random.permutation(len(voices))] for name, voices in split.items()}


def draw_speaker(number: int, voice: str, random: Generator) -> Speaker:
    """The `number`-th speaker."""
    letters = "".join(chr(ord("a") + number // 26**i % 26) for i in (2, 1, 0))
    name = f"{'f' if voice in FEMALE else 'm'}{letters}0"
    pitch, span, rate = (int(random.integers(*limits)) for limits in ((25, 76), (25, 76), (140, 216)))
    return Speaker(name, voice, pitch, span, rate)
