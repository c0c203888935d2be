"""Check the arithmetic that a rationale states: every `a + b = c`, every `a is more than b`, every running score.

What: `claims(text)` reads the statements out of free text and says of each whether it is true; `first_error(text)` is
the first false or unreadable one in words, or "" if there is none. Read are chains of + - * / and small powers with
parentheses (`47 * 36 = 47 * 30 + 47 * 6 = 1692`), thousands separators, currency signs, percentages and a unit after
a number (`2 kg + 3 kg = 5 kg`), comparisons in words or symbols (`is at least`, `is not more than`, `>=`), and points
that are counted up (`fever +1 = 1, cough +2 = 3. Total 3.`).
Why: a rationale whose steps are wrong teaches wrong steps, even when its answer happens to be right; the text comes
from a model, so it is parsed by a small grammar with exact fractions and never evaluated.
Not covered: formulas in letters (`a = b + c`: skipped), sums told in words only, and which number a sentence means
when several stand before `is`: the one next to it is compared. A quotient may be rounded to the decimals it is shown
with (`10 / 3 = 3.33`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from bridge_edge.data.expression import (
    CLOSE,
    COMPARISONS,
    NUM,
    OP,
    OPEN,
    REL,
    STOP,
    WORD,
    Token,
    Unreadable,
    evaluate,
    numbers_in,
    show,
    tokens,
    value_of,
)

OPPOSITE = {">": "<=", "<": ">=", ">=": "<", "<=": ">", "=": "!="}
SYMBOLS = {"≥": ">=", "≤": "<=", "==": "=", "=": "=", ">": ">", "<": "<", ">=": ">=", "<=": "<="}


@dataclass(frozen=True)
class Claim:
    """One statement: what it is, its two values and their relation, the numbers on its left side, its fault, and where
    its relation stands in the text."""

    kind: str  # equation, comparison, points or total
    text: str
    left: Fraction
    relation: str
    right: Fraction
    operands: tuple[Fraction, ...] = ()
    problem: str = ""
    at: int = -1


def first_error(text: str) -> str:
    """The first false or unreadable statement of `text`, in words; "" if all are true (or there are none)."""
    return next((claim.problem for claim in claims(text) if claim.problem), "")


def numbers(text: str) -> set[Fraction]:
    """All numbers that stand in `text`, without their signs."""
    return {number.value for number in numbers_in(text)}


def claims(text: str) -> list[Claim]:
    """The statements of `text` in order, true and false ones."""
    return list(_Reader(text).read())


class _Reader:
    """Walks over the tokens once; keeps the running score and the last statement, to which `it` refers."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(tokens(text))
        self.score: Fraction | None = None
        self.fresh = True  # no points counted yet in this sentence
        self.last: Claim | None = None

    def read(self) -> Iterator[Claim]:
        for i, token in enumerate(self.tokens):
            claim = None
            if token.kind == REL:
                claim = self._points(i) or self._relation(i)
            elif token.kind == STOP and token.text in ".;\n":
                self.fresh = True
            elif token.kind == WORD and token.text.lower() == "total":
                claim = self._total(i)
            if claim:
                self.last = claim
                yield claim

    def _points(self, i: int) -> Claim | None:
        """`fever +2 = 3`: the sign is glued to the number and stands apart from what is before it."""
        if i < 3 or self.tokens[i].text != "=" or self.tokens[i - 1].kind != NUM:
            return None
        before, sign, number = self.tokens[i - 3 : i]
        glued = sign.text in ("+", "-") and sign.end == number.start and before.end < sign.start
        result = right_side(self.tokens, i)
        if not glued or before.kind not in (WORD, NUM) or not result:
            return None
        try:
            step, stated = evaluate([sign, number])[0], evaluate(result)[0]
        except Unreadable:
            return None
        start = self.score or Fraction(0)
        true = stated == start + step or (self.fresh and stated == step)
        if before.kind == NUM and not true:
            return None  # `12 +3 = 15` is a sum with careless spaces
        text = self.text[before.start : result[-1].end]
        problem = "" if true else f"{text!r} is false: {show(start)} {sign.text} {number.text} = {show(start + step)}"
        self.score, self.fresh = stated, False
        return Claim("points", text, stated, "=", stated, (abs(step),), problem, self.tokens[i].start)

    def _total(self, i: int) -> Claim | None:
        """`Total 3`: must be what the points came to; says nothing where no points were counted."""
        following = [t for t in self.tokens[i + 1 : i + 4] if t.text.lower() not in ("is", ":", "score")]
        if self.score is None or not following or following[0].kind not in (NUM, OP):
            return None
        end = 2 if following[0].kind == OP else 1
        if following[end:] and following[end].kind == REL:  # `total +1 = 3` is a feature of that name
            return None
        try:
            stated = evaluate(following[:end])[0]
        except Unreadable:
            return None
        text = self.text[self.tokens[i].start : following[end - 1].end]
        problem = "" if stated == self.score else f"{text!r} is false: the points come to {show(self.score)}"
        return Claim("total", text, stated, "=", stated, (), problem, self.tokens[i].start)

    def _relation(self, i: int) -> Claim | None:
        """The statement around the relation at `i`; None where a side is in letters."""
        relation, kind = _relation(self.tokens[i].text), "equation" if self.tokens[i].text == "=" else "comparison"
        right = right_side(self.tokens, i)
        left = left_side(self.tokens, i)
        refers = not left and self.last and i and self.tokens[i - 1].text.lower() in ("it", "which", "that")
        if not right or not (left or refers):
            return None
        start = left[0].start if left else self.tokens[i - 1].start
        text = _short(self.text[start : right[-1].end])
        try:
            if left:
                a, exact, percent = evaluate(left)
            else:
                assert self.last is not None
                a, exact, percent = (self.last.left if self.last.relation != "=" else self.last.right), True, False
            b, exact_b, percent_b = evaluate(right)
        except Unreadable as error:
            problem = f"cannot read {text!r}: {error}"
            return Claim(kind, text, Fraction(0), relation, Fraction(0), (), problem, self.tokens[i].start)
        slack = Fraction(0) if exact and exact_b else _rounding(right)
        true = holds(a, relation, b, slack)
        if not true and percent != percent_b:  # `3 / 20 * 100 = 15%`: a percentage may be a plain number, too
            true = holds(a, relation, b * 100, slack * 100) if percent_b else holds(a * 100, relation, b, slack)
        operands = tuple(value_of(t.text)[0] for t in left if t.kind == NUM)
        problem = "" if true else f"{text!r} is false: the left side is {show(a)}"
        return Claim(kind, text, a, relation, b, operands, problem, self.tokens[i].start)


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:60]} ... {text[-30:]}"


def _relation(text: str) -> str:
    if text in SYMBOLS:
        return SYMBOLS[text]
    words = text.lower().split()[1:]
    negated = words[0] == "not"
    relation = COMPARISONS[" ".join(words[1:] if negated else words)]
    return OPPOSITE[relation] if negated else relation


def holds(a: Fraction, relation: str, b: Fraction, slack: Fraction = Fraction(0)) -> bool:
    """Whether a relation is true of two values, which for `=` may be `slack` apart."""
    if relation == "=":
        return abs(a - b) <= slack
    return {">": a > b, "<": a < b, ">=": a >= b, "<=": a <= b, "!=": a != b}[relation]


def _rounding(tokens: Sequence[Token]) -> Fraction:
    """Half a unit of the last decimal shown, for a side that is one decimal number; else nothing."""
    text = tokens[-1].text.rstrip("%")
    if len(tokens) != 1 or "." not in text:
        return Fraction(0)
    return Fraction(1, 2 * 10 ** len(text.partition(".")[2])) / (100 if tokens[-1].text.endswith("%") else 1)


def right_side(tokens: Sequence[Token], i: int) -> list[Token]:
    """The expression that begins after the relation at `i`; empty where letters take part in it."""
    end = i + 1
    while end < len(tokens) and tokens[end].kind in (NUM, OP, OPEN, CLOSE):
        if end > i + 1 and tokens[end].kind in (NUM, OPEN) and tokens[end - 1].kind in (NUM, CLOSE):
            break  # two numbers side by side: the second begins something new
        end += 1
    side = list(tokens[i + 1 : end])
    if side and side[-1].kind in (OP, OPEN) and end < len(tokens) and tokens[end].kind == WORD:
        return []
    surplus = -_balance(side)
    while surplus > 0 and side and side[-1].kind == CLOSE:
        side.pop()
        surplus -= 1
    return side


def left_side(tokens: Sequence[Token], i: int) -> list[Token]:
    """The expression that ends before the relation at `i`; empty where letters take part in it."""
    start = i
    while start > 0 and tokens[start - 1].kind in (NUM, OP, OPEN, CLOSE):
        if start < i and tokens[start - 1].kind in (NUM, CLOSE) and tokens[start].kind in (NUM, OPEN):
            break
        start -= 1
    side = list(tokens[start:i])
    surplus = _balance(side)
    while surplus > 0 and side and side[0].kind == OPEN:
        side = side[1:]
        surplus -= 1
    worded = start > 0 and tokens[start - 1].kind == WORD
    if not side or (worded and side[0].kind in (OP, CLOSE) and not _is_sign(side)):
        return []
    if worded and start > 1 and tokens[start - 2].kind == OP:  # `140 - age 65 = 75`
        return []
    return side


def _is_sign(side: Sequence[Token]) -> bool:
    """Whether the side begins with a sign glued to its number, as in `so -5 + 3`."""
    return len(side) > 1 and side[0].text in ("+", "-") and side[0].end == side[1].start


def _balance(side: Sequence[Token]) -> int:
    return sum((t.kind == OPEN) - (t.kind == CLOSE) for t in side)
