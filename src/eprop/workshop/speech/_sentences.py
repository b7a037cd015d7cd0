"""Sentences composed of a word list: what the synthesised speakers say."""

from collections.abc import Sequence

from numpy.random import Generator

DETERMINERS = "the a her his their our my your this that every each some another no".split()
ADJECTIVES = """
    big small young old quiet loud yellow purple orange green blue white black brown strange curious careful lazy
    busy happy angry gentle rough smooth thick thin heavy light golden silver wooden plastic rusty shiny dirty clean
    frozen burning hollow empty crowded narrow broad shallow deep ancient modern foolish clever brave shy jealous noisy
    cheerful gloomy thirsty hungry sleepy famous secret usual royal loyal joyful useless southern northern foreign
    cloudy foggy sour spicy bitter sweet juicy crunchy fuzzy dizzy
""".split()
NOUNS = """
    fox dog cat judge teacher doctor sailor farmer painter boy girl child mother father brother uncle cousin king queen
    baker lawyer pilot driver butcher musician student stranger neighbour giant lizard pigeon rabbit tiger monkey
    dolphin chicken goose sheep horse zebra donkey spider turtle bear wolf
    boat ship carriage train bicycle engine bridge tower castle church school village harbour garden orchard meadow
    river ocean lake island mountain valley forest desert beach road street corner kitchen window door ceiling
    table chair cushion carpet mirror candle lantern basket bottle kettle saucer spoon knife hammer shovel rope
    jacket trousers shirt glove button zipper feather jewel necklace treasure coin wallet letter message picture
    book journal newspaper puzzle violin trumpet guitar drum whistle radio television camera telephone computer
    apple cherry orange banana lemon melon peach pear onion carrot cabbage pepper garlic mushroom potato
    bread butter cheese yoghurt sausage sandwich soup sugar honey chocolate coffee juice water vinegar
    weather thunder lightning shower cloud fog winter summer autumn spring morning evening vision pleasure
    measure thought choice voice noise point oil youth truth health breath thumb tongue finger shoulder cheek
""".split()
VERBS = """
    watches follows carries touches pushes pulls catches throws washes polishes measures paints repairs borrows
    finds loses buys sells likes hates loves remembers forgets describes ignores praises judges welcomes chases
    admires avoids covers opens closes breaks burns cleans counts draws enjoys examines feeds guards hides
    ignites joins kisses leaves notices offers orders packs picks plants reads records sees sends shares shows
    squeezes steals studies teaches tastes uses visits wants weighs writes
""".split()
ADVERBS = """
    slowly quickly quietly loudly often never always sometimes usually gladly badly carefully rather
    together again today yesterday tomorrow tonight already early forever outside upstairs
""".split()
PREPOSITIONS = "in on near behind under beyond above beside with without before after through across along for".split()
NUMBERS = """
    two three four five six seven eight nine ten eleven twelve thirteen fifteen twenty thirty forty fifty
    seventy hundred thousand
""".split()
PLURALS = """
    dogs cats boxes judges garages churches bridges roses houses shoes socks watches oranges peaches leaves
    voices choices toys boys joys thoughts months clothes pictures measures machines engines children women
""".split()


def compose(random: Generator) -> str:
    """One sentence, of 4 to 12 words."""

    def pick(words: Sequence[str]) -> str:
        return words[int(random.integers(len(words)))]

    def thing() -> str:
        if random.random() < 0.25:
            return f"{pick(NUMBERS)} {pick(ADJECTIVES)} {pick(PLURALS)}"
        adjective = f"{pick(ADJECTIVES)} " if random.random() < 0.5 else ""
        return f"{pick(DETERMINERS)} {adjective}{pick(NOUNS)}"

    subject = f"{pick(DETERMINERS)} {pick(ADJECTIVES)} {pick(NOUNS)}"
    parts = [subject, pick(VERBS), thing()]
    if random.random() < 0.5:
        parts.append(f"{pick(PREPOSITIONS)} {thing()}")
    if random.random() < 0.4:
        parts.append(pick(ADVERBS))
    sentence = " ".join(parts)
    return sentence[0].upper() + sentence[1:] + "."
