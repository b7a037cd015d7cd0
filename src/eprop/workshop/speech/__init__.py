"""Speech: corpora in TIMIT's layout read and synthesised, features, labels. Needs the extra `speech`."""

from eprop.workshop.speech._cache import Corpus as Corpus
from eprop.workshop.speech._cache import load_corpus as load_corpus
from eprop.workshop.speech._corpus import SPLITS as SPLITS
from eprop.workshop.speech._corpus import BadUtterance as BadUtterance
from eprop.workshop.speech._corpus import Utterance as Utterance
from eprop.workshop.speech._corpus import find_utterances as find_utterances
from eprop.workshop.speech._corpus import read_segments as read_segments
from eprop.workshop.speech._corpus import read_sound as read_sound
from eprop.workshop.speech._features import CHANNELS as CHANNELS
from eprop.workshop.speech._features import HOP as HOP
from eprop.workshop.speech._features import WINDOW as WINDOW
from eprop.workshop.speech._features import Features as Features
from eprop.workshop.speech._features import features_of as features_of
from eprop.workshop.speech._features import frame_labels as frame_labels
from eprop.workshop.speech._features import frame_midpoints as frame_midpoints
from eprop.workshop.speech._phones import FOLDED as FOLDED
from eprop.workshop.speech._phones import FOLDING as FOLDING
from eprop.workshop.speech._phones import is_timits as is_timits
from eprop.workshop.speech._synthesis import Synthesis as Synthesis
from eprop.workshop.speech._synthesis import synthesise as synthesise
