"""Learning rules as text: sums of products, read, checked and written out.

2^-5*u0*x1*(y3-32) - 2^-7*u0*w*x1
"""

import re
from dataclasses import dataclass

from eprop.errors import InvalidSetting, require, suggestion

TRACES = ("x1", "x2", "y1", "y2", "y3")
VARIABLES = ("w", "d", "t")
SPIKES = ("x0", "y0")
_TOKEN = re.compile(r"\s*(?:(sgn)|([a-zA-Z]\w*)|(\d+)|(\S))")


@dataclass(frozen=True)
class Factor:
    """`name + constant`, or its sign."""

    name: str
    constant: int = 0
    sign: bool = False

    @property
    def bits(self) -> int:
        """Width without sign: spikes 1, traces 7, weight and tags 9."""
        return 1 if self.name in SPIKES else 7 if self.name in TRACES else 9

    def __str__(self) -> str:
        text = f"{self.name}{self.constant:+d}" if self.constant else self.name
        return f"sgn({text})" if self.sign else f"({text})" if self.constant else text


@dataclass(frozen=True)
class Product:
    """`mantissa * 2^exponent * dependency * factor * ...`; dependency `x0`, `y0` or `u` (every 2^k-th epoch)."""

    dependency: str
    mantissa: int
    exponent: int
    factors: tuple[Factor, ...] = ()
    k: int | None = None

    def __str__(self) -> str:
        dependency = f"u{self.k}" if self.dependency == "u" else self.dependency
        size = abs(self.mantissa)
        number = [] if size == 1 else [str(size)]
        return "*".join([*number, f"2^{self.exponent}", dependency, *map(str, self.factors)])


def parse(text: str) -> tuple[Product, ...]:
    """The products of a rule, in the order written.

    Each product is integers and powers of two, times factors joined by `*`: `x1 x2 y1 y2 y3 w d t`, each alone or with
    an integer constant in brackets, `sgn(...)` of w, d or t, spikes `x0 y0`, and `u0` to `u9` (every 2^k-th epoch).
    The first `x0`, `y0` or `u` of a product is its dependency, and every product needs one.

    Raises:
        InvalidSetting: for a text outside this grammar, with the product and the reason.

    Example:
        >>> from eprop.chips.loihi import parse, write
        >>> write(parse("2^-5*u0*x1*(y3-32)"))
        '2^-5*u0*x1*(y3-32)'
    """
    tokens = _tokens(text)
    require(bool(tokens), "rule = '': needs at least one product")
    products, start, depth = [], 0, 0
    for n, token in enumerate([*tokens, "+"]):
        depth += (token == "(") - (token == ")")
        ends = token in "+-" and depth == 0 and n > start and tokens[n - 1] not in "*^(+-"
        if ends or n == len(tokens):
            products.append(_product(tokens[start:n]))
            start = n
    ks = {product.k for product in products} - {None}
    require(len(ks) <= 1, f"rule = {text!r}: all u_k of a connection must have the same k, got {sorted(ks, key=str)}")
    return tuple(products)


def write(products: tuple[Product, ...]) -> str:
    """The text of a rule; `parse` gives the same products back."""
    text = ""
    for product in products:
        negative = product.mantissa < 0
        text += (" - " if negative else " + ") if text else ("-" if negative else "")
        text += str(product)
    return text


def _tokens(text: str) -> list[str]:
    found, place = [], 0
    text = text.strip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        assert match is not None
        found.append(match.group(match.lastindex or 0))
        place = match.end()
    for token in found:
        require(
            re.fullmatch(r"\w+|[-+*^()]", token) is not None,
            f"rule = {text!r}: {token!r} is not part of the grammar (sums of products of integers, 2^n and factors)",
        )
    return found


def _product(tokens: list[str]) -> Product:
    """One product from its tokens, its sign first."""
    text = "".join(tokens)
    sign = 1
    while tokens and tokens[0] in "+-":
        sign = -sign if tokens[0] == "-" else sign
        tokens = tokens[1:]
    mantissa, exponent, dependency, k, factors = sign, 0, None, None, []
    for part in _parts(tokens, text):
        literal = _literal(part, text)
        if literal is not None:
            mantissa, exponent = mantissa * literal[0], exponent + literal[1]
        elif len(part) == 1 and re.fullmatch(r"u\d+", part[0]):
            require(len(part[0]) == 2, f"product {text!r}: {part[0]}: k must be one digit")
            require(dependency is None, f"product {text!r}: {part[0]} stands there beside another dependency")
            dependency, k = "u", int(part[0][1:])
        elif len(part) == 1 and part[0] in SPIKES and dependency is None:
            dependency = part[0]
        else:
            factors.append(_factor(part, text))
    require(dependency is not None, f"product {text!r}: needs a dependency, x0, y0 or u0 to u9")
    mantissa, exponent = _normalised(mantissa, exponent, text)
    return Product(str(dependency), mantissa, exponent, tuple(factors), k)


def _parts(tokens: list[str], text: str) -> list[list[str]]:
    """The tokens between the `*` outside brackets."""
    parts, depth = [[]], 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        if token == "*" and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    require(depth == 0, f"product {text!r}: brackets do not match")
    require(all(parts), f"product {text!r}: a factor is missing")
    return parts


def _literal(part: list[str], text: str) -> tuple[int, int] | None:
    """Mantissa and exponent of `7`, `2^-3`; None where it is none."""
    if part[0] in ("+", "-") and len(part) > 1:
        inner = _literal(part[1:], text)
        return inner and (-inner[0] if part[0] == "-" else inner[0], inner[1])
    if not part[0].isdigit():
        return None
    if len(part) == 1:
        return int(part[0]), 0
    match = re.fullmatch(r"2\^\(?([-+]?\d+)\)?", "".join(part))
    if match is None:
        raise InvalidSetting(f"product {text!r}: {''.join(part)!r} is no integer and no power of two such as 2^-5")
    return 1, int(match.group(1))


def _factor(part: list[str], text: str) -> Factor:
    """`x1`, `(y3-64)`, `sgn(w-3)`."""
    joined = "".join(part)
    match = re.fullmatch(r"(sgn)?(\()?([a-zA-Z]\w*)([-+]\d+)?(\))?", joined)
    names = (*TRACES, *VARIABLES, *SPIKES)
    if match is None or bool(match[2]) != bool(match[5]):
        raise InvalidSetting(f"product {text!r}: {joined!r} is not one variable with an integer constant")
    sign, bracket, name, constant = match[1], match[2], match[3], match[4]
    near = suggestion(name, names)
    require(name in names, f"product {text!r}: {name!r} is none of {', '.join(names)}, u0 to u9{near}")
    require(not sign or (name in VARIABLES and bool(bracket)), f"product {text!r}: sgn takes w, d or t in brackets")
    require(not constant or bool(bracket), f"product {text!r}: {joined!r}: a constant needs brackets")
    require(not constant or name not in SPIKES, f"product {text!r}: {name} takes no constant")
    return Factor(name, int(constant or 0), bool(sign))


def _normalised(mantissa: int, exponent: int, text: str) -> tuple[int, int]:
    """A mantissa of 4 bits, -8 to 7, and an exponent from -7 to 8."""
    while abs(mantissa) > 7 and mantissa % 2 == 0 and exponent < 8:
        mantissa, exponent = mantissa // 2, exponent + 1
    require(-8 <= mantissa <= 7, f"product {text!r}: its factor {mantissa} does not fit in -8 to 7")
    require(-7 <= exponent <= 8, f"product {text!r}: its power of two, 2^{exponent}, does not fit in 2^-7 to 2^8")
    return mantissa, exponent
