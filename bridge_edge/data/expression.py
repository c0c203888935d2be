"""Numbers and expressions in free text: tokens, and exact values of + - * / and small powers with parentheses.

What: `tokens(text)` cuts a text into numbers, operators, relations and words; `numbers_in(text)` gives its numbers
alone, each with its place and value; `evaluate(tokens)` gives the value of an expression as a fraction, or raises
`Unreadable` saying why it is none.
Why: what a model wrote is never evaluated as code, and its size must cost neither time nor memory: numbers, nesting
and powers are bounded.
Not covered: functions, roots, and multiplication without a sign.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

NUM, OP, OPEN, CLOSE, REL, WORD, STOP = "number", "operator", "open", "close", "relation", "word", "stop"
DIGITS, DEPTH, BITS, LENGTH = 30, 40, 512, 60  # bounds that keep hostile text from costing time or memory
COMPARISONS = {
    "more than": ">", "greater than": ">", "higher than": ">", "larger than": ">", "above": ">", "over": ">",
    "less than": "<", "lower than": "<", "smaller than": "<", "fewer than": "<", "below": "<", "under": "<",
    "at least": ">=", "more than or equal to": ">=", "greater than or equal to": ">=",
    "at most": "<=", "less than or equal to": "<=", "equal to": "=", "exactly": "=", "the same as": "=",
}  # fmt: skip
OPERATORS = {"\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-", "\u2013": "-", "**": "^"}
SPOKEN = {"x": "*", "times": "*", "plus": "+", "minus": "-", "multiplied by": "*", "divided by": "/", "of": "*"}
PHRASES = "|".join(phrase.replace(" ", r"\s+") for phrase in sorted(COMPARISONS, key=len, reverse=True))
LEXER = re.compile(
    rf"(?P<relation>\b(?:is|are|was|were)\s+(?:not\s+)?(?:{PHRASES})\b|>=|<=|==|[=<>≥≤])"
    r"|(?P<number>[$€£]?(?:\d{1,3}(?:,\d{3})+(?!,?\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)%?)"
    r"|(?P<spoken>\b(?:multiplied|divided)\s+by\b)"
    r"|(?P<word>[^\W\d_][\w'²]*(?:[-/][^\W_][\w']*)*)"
    r"|(?P<operator>\*\*|[-+*/^\u00d7\u00b7\u00f7\u2212\u2013])|(?P<open>\()|(?P<close>\))|(?P<stop>[.,;:?!\n]|[^\s])"
)


@dataclass(frozen=True)
class Token:
    """A piece of the text: what it is, how it reads (operators in ASCII), and where it stands."""

    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Number:
    """A number as it stands in a text."""

    start: int
    end: int
    text: str
    value: Fraction

    @property
    def shown(self) -> Fraction:
        """Its value as it reads, without the per cent sign."""
        return self.value * 100 if self.percent else self.value

    @property
    def percent(self) -> bool:
        return self.text.endswith("%")

    @property
    def decimals(self) -> int:
        return len(self.text.partition(".")[2].rstrip("%"))


class Unreadable(ValueError):
    """An expression that is no expression; the message says why."""


def tokens(text: str) -> Iterator[Token]:
    """Tokens with spoken operators turned into signs and the units after numbers left out."""
    found: list[Token] = []
    for match in LEXER.finditer(text):
        kind, piece = str(match.lastgroup), match.group()
        if kind == "operator":
            piece = OPERATORS.get(piece, piece)
        found.append(Token(kind, piece, match.start(), match.end()))
    ends = Token(STOP, "", len(text), len(text))
    for before, token, after in zip([ends, *found], found, [*found[1:], ends], strict=False):
        word, behind_number = token.text.lower(), before.kind in (NUM, CLOSE)
        word = " ".join(word.split())
        if token.kind in (WORD, "spoken") and word in SPOKEN and behind_number and after.kind in (NUM, OPEN):
            if word != "of" or before.text.endswith("%"):
                token = Token(OP, SPOKEN[word], token.start, token.end)
        elif token.kind == WORD and behind_number and after.kind in (OP, REL, CLOSE):
            glued = after.text in ("+", "-") and text[after.end : after.end + 1].isdigit() and after.start > token.end
            if not glued:  # `78 years +2 = 3` counts points, `78 years + 2 years = 80 years` adds
                continue
        yield token if token.kind != "spoken" else Token(WORD, token.text, token.start, token.end)


def value_of(text: str) -> tuple[Fraction, bool]:
    """The number, and whether it is a percentage."""
    percent = text.endswith("%")
    plain = text.strip("$€£%").replace(",", "")
    if len(plain) > DIGITS:
        raise Unreadable(f"a number of {len(plain)} characters")
    return Fraction(plain if plain[0] != "." else f"0{plain}") / (100 if percent else 1), percent


def numbers_in(text: str) -> list[Number]:
    """The numbers of a text, in their order."""
    found = []
    for match in LEXER.finditer(text):
        piece = match.group("number")
        if piece and len(piece) <= DIGITS:
            found.append(Number(match.start("number"), match.end("number"), piece, value_of(piece)[0]))
    return found


def evaluate(side: Sequence[Token]) -> tuple[Fraction, bool, bool]:
    """Value of an expression, whether it is free of division, and whether it holds a percentage."""
    if len(side) > LENGTH:
        raise Unreadable(f"{len(side)} signs and numbers in one expression")
    parser = _Parser(side)
    value = parser.sum(0)
    if parser.at < len(side):
        raise Unreadable(f"unexpected {side[parser.at].text!r}")
    exact = all(t.text != "/" for t in side)
    return value, exact, any(t.kind == NUM and t.text.endswith("%") for t in side)


class _Parser:
    """Recursive descent over + -, then * /, then signs, then powers, then numbers and parentheses."""

    def __init__(self, side: Sequence[Token]) -> None:
        self.side, self.at = side, 0

    def _take(self, *texts: str) -> str:
        if self.at < len(self.side) and self.side[self.at].text in texts:
            self.at += 1
            return self.side[self.at - 1].text
        return ""

    def sum(self, depth: int) -> Fraction:
        if depth > DEPTH:
            raise Unreadable("too many parentheses")
        value = self.product(depth)
        while sign := self._take("+", "-"):
            value = value + self.product(depth) if sign == "+" else value - self.product(depth)
        return value

    def product(self, depth: int) -> Fraction:
        value = self.signed(depth)
        while sign := self._take("*", "/"):
            factor = self.signed(depth)
            if sign == "/" and not factor:
                raise Unreadable("division by zero")
            value = value * factor if sign == "*" else value / factor
        return value

    def signed(self, depth: int) -> Fraction:
        negative = self._take("+", "-") == "-"
        value = self.power(depth)
        return -value if negative else value

    def power(self, depth: int) -> Fraction:
        value = self.atom(depth)
        if self._take("^"):
            exponent = self.atom(depth)
            bits = max(value.numerator.bit_length(), value.denominator.bit_length())
            if exponent.denominator != 1 or not 0 <= exponent <= BITS or bits * exponent > BITS:
                raise Unreadable(f"the power {show(exponent)}")
            value = value ** int(exponent)
        return value

    def atom(self, depth: int) -> Fraction:
        if self.at >= len(self.side):
            raise Unreadable("it ends too early")
        token = self.side[self.at]
        self.at += 1
        if token.kind == NUM:
            return value_of(token.text)[0]
        if token.kind == OPEN:
            value = self.sum(depth + 1)
            if not self._take(")"):
                raise Unreadable("a parenthesis is not closed")
            return value
        raise Unreadable(f"unexpected {token.text!r}")


def show(value: Fraction) -> str:
    """Whole numbers and short decimals as such, other values as a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    scaled = value * 1000
    return str(float(value)) if scaled.denominator == 1 and abs(scaled) < 10**15 else f"{value}"
