"""TIMIT's 61 phones, their folding to 39, and its standard speakers."""

from collections.abc import Iterable

FOLDED = tuple(
    """
    aa ae ah aw ay b ch d dh dx eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh sil t th uh uw v w y z
    """.split()
)
"""The 39 classes (Lee & Hon 1989, doi:10.1109/29.46546)."""

_ALIASES = {
    "aa": "ao",
    "ah": "ax ax-h",
    "er": "axr",
    "hh": "hv",
    "ih": "ix",
    "l": "el",
    "m": "em",
    "n": "en nx",
    "ng": "eng",
    "sh": "zh",
    "uw": "ux",
    "sil": "pcl tcl kcl bcl dcl gcl h# pau epi",
}
FOLDING: dict[str, str | None] = {phone: phone for phone in FOLDED if phone != "sil"}
FOLDING |= {alias: phone for phone, aliases in _ALIASES.items() for alias in aliases.split()}
FOLDING |= {"q": None}
"""Each of the 61 phones and its class; the glottal stop `q` has none: its frames count nowhere."""

CORE_TEST = frozenset(
    """
    mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0
    mbpm0 mklt0 fnlp0 mcmj0 mjdh0 fmgd0 mgrt0 mnjm0 fdhc0 mjln0 mpam0 fmld0
    """.split()
)
"""The 24 speakers of the core test set (TIMIT's documentation: two men and a woman of each dialect region)."""

DEVELOPMENT = frozenset(
    """
    faks0 mmdb1 mbdg0 fedw0 mtdt0 fsem0 mdvc0 mrjm4 mjsw0 mteb0 fdac1 mmdm2 mbwm0 mgjf0 mthc0 mbns0 mers0
    fcal1 mreb0 mjfc0 fjem0 mpdf0 mcsh0 mglb0 mwjg0 mmjr0 fmah0 mmwh0 fgjd0 mrjr0 mgwt0 fcmh0 fadg0 mrtk0
    fnmr0 mdls0 fdrw0 fjsj0 fjmg0 fmml0 mjar0 fkms0 fdms0 mtaa0 frew0 mdlf0 mrcs0 majc0 mroa0 mrws1
    """.split()
)
"""The 50 speakers of the development set: of the folder TEST, none of them in the core test set (Halberstadt 1998)."""


def is_timits(phones: Iterable[str]) -> bool:
    """Whether all labels are among TIMIT's 61."""
    return set(phones) <= set(FOLDING)
