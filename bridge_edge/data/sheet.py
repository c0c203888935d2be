"""A rationale as a sheet of sums: where each of its numbers comes from, and what it is when those have changed.

What: `sheet_of(prompt, rationale)` reads which numbers are results of a sum, terms of one (`502 * 10 + 502 * 2 = 5020 +
1004`) or digits in their places (`81 * 73 = 81 * 70 + 81 * 3`), what is reckoned with, and what is compared. A source
gives the new value of a number, by the new values of those before it; `shown` writes it as the old one was written.
Why: the sums of a rationale are a program, and may be run on other numbers (`data/numbers.py`).
Not covered: sums in words, and what a number means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial

from bridge_edge.data.arithmetic import claims, holds, left_side, right_side
from bridge_edge.data.expression import NUM, OP, Number, Token, Unreadable, evaluate, numbers_in, tokens, value_of

DECIMALS, CENTS = 4, 2


class Void(Exception):
    """A draw that gives no sound text."""


Source = Callable[[Mapping[int, Fraction]], Fraction]
"""The new value of a number, by those of the numbers before it in the rationale (by where they start)."""


@dataclass
class Sheet:
    """A rationale as a sheet of sums: what kinds of statements it makes, which of its numbers follow from others
    (`sources`), which of these were rounded, what it reckons with, which numbers stand in sums that cannot be read
    (`loose`), what it compares, and which given numbers may change (`free`)."""

    prompt: list[Number]
    said: list[Number]
    statements: list[tuple[str, str]]
    sources: dict[int, Source] = field(default_factory=dict)
    rounded: set[int] = field(default_factory=set)
    operands: set[Fraction] = field(default_factory=set)
    loose: set[int] = field(default_factory=set)
    compared: list[tuple[Sequence[Token], str, Sequence[Token]]] = field(default_factory=list)
    free: list[Fraction] = field(default_factory=list)

    def closest(self, new: Mapping[int, Fraction]) -> Fraction:
        """How far apart, as a share of the larger, the two sides of the closest comparison are. Raises Void where one
        does not hold."""
        found = [Fraction(1)]
        for left, relation, right in self.compared:
            a, b = _scaled(left, 1, new), _scaled(right, 1, new)
            if not holds(a, relation, b):
                raise Void
            found.append(abs(a - b) / max(abs(a), abs(b), Fraction(1)))
        return min(found)


def sheet_of(prompt: str, rationale: str, answer: str = "") -> Sheet | None:
    """The sheet of a rationale and, on a line of its own behind it, an answer that changes too; None where nothing is
    stated, or something false, where an `=` cannot be read, or where a number of the answer comes from nowhere."""
    behind, rationale = len(rationale), f"{rationale}\n{answer}" if answer else rationale
    stated = claims(rationale)
    if not stated or any(claim.problem for claim in stated):
        return None
    sheet = Sheet(numbers_in(prompt), numbers_in(rationale), [(c.kind, c.relation) for c in stated])
    read, known = list(tokens(rationale)), {claim.at: claim for claim in stated}
    equals = [i for i, token in enumerate(read[:-1]) if token.text in ("=", "==") and token.start not in known]
    if any(read[i + 1].kind == NUM for i in equals):
        return None
    signs = [token.kind == OP or token.text in ("=", "==") for token in read]
    sheet.loose = {token.start for token, *beside in zip(read, [False, *signs], [*signs[1:], False], strict=False)
                   if token.kind == NUM and any(beside)}  # fmt: skip
    for i, token in enumerate(read):
        claim = known.get(token.start)
        if claim is None or claim.kind not in ("equation", "comparison"):
            continue
        left, right = left_side(read, i), right_side(read, i)
        sheet.loose -= {t.start for t in [*left, *right]}
        sheet.operands |= {_number(t) for t in [*left, *right] if t.kind == NUM and not t.text.endswith("%")}
        if claim.kind == "equation":
            _link(sheet, left, right)
        elif left and not any(t.text.endswith("%") for t in [*left, *right]):
            sheet.compared.append((left, claim.relation, right))
    whence = {n.value for n in [*sheet.prompt, *(n for n in sheet.said if n.start in sheet.sources)]}
    return sheet if all(n.value in whence for n in sheet.said if n.start > behind) else None


def _link(sheet: Sheet, left: Sequence[Token], right: Sequence[Token]) -> None:
    """Say of the numbers on the right of an equation how they follow from what is on its left."""
    if len(right) == 1:
        number, old = right[0], evaluate(left)[0]
        stated = _number(number, percent=False)
        scale = 1 if abs(stated - old) <= abs(stated - 100 * old) else 100  # of `3 / 20 * 100 = 15%` and `3 / 20 = 15%`
        sheet.sources[number.start] = partial(_scaled, left, scale)
        if stated != scale * old:
            sheet.rounded.add(number.start)
        return
    terms, mine = _terms(left), _terms(right)
    if len(terms) == len(mine) > 1:
        for term, own in zip(terms, mine, strict=True):
            if len(own) == 1 < len(term) and evaluate(term)[0] == _number(own[0]):
                sheet.sources[own[0].start] = partial(_scaled, term, 1)
    wholes = [t for t in left if t.kind == NUM]
    there = {_number(t) for t in wholes}
    for number in right:
        if number.kind != NUM or number.start in sheet.sources or _number(number) in there:
            continue
        for whole in wholes:
            place = _place_of(_number(number), _number(whole))
            if place is not None:
                sheet.sources[number.start] = partial(_digit_of, whole, place)
                break


def _number(token: Token, percent: bool = True) -> Fraction:
    """The value of a number; of 15% with `percent` 0.15, else 15."""
    return value_of(token.text if percent else token.text.rstrip("%"))[0]


def _terms(side: Sequence[Token]) -> list[list[Token]]:
    """The parts of a sum; one of them where there is a parenthesis."""
    if any(t.kind not in (NUM, OP) for t in side):
        return [list(side)]
    found: list[list[Token]] = [[]]
    for token in side:
        if token.text == "+":
            found.append([])
        else:
            found[-1].append(token)
    return found if all(found) else [list(side)]


def _place_of(part: Fraction, whole: Fraction) -> int | None:
    """The place of the digit of a whole number that a part of it is: 1 of 70 and 73; None where it is none."""
    if part.denominator != 1 or whole.denominator != 1 or part <= 0:
        return None
    digits = str(part.numerator)
    place = len(digits) - 1
    return place if not digits[1:].strip("0") and _digits(whole, place) == int(digits[0]) else None


def _digits(whole: Fraction, place: int) -> int:
    return int(whole // 10**place % 10)


def _digit_of(whole: Token, place: int, new: Mapping[int, Fraction]) -> Fraction:
    """What the digit in this place of a number is worth, the number being perhaps another one now."""
    value = new.get(whole.start, _number(whole))
    if value.denominator != 1 or not _digits(value, place):
        raise Void
    return Fraction(_digits(value, place) * 10**place)


def _scaled(side: Sequence[Token], scale: int, new: Mapping[int, Fraction]) -> Fraction:
    """The value of an expression with other numbers, times `scale`."""
    put = [replace(t, text=_plain(new[t.start])) if t.start in new else t for t in side]
    try:
        return scale * evaluate(put)[0]
    except Unreadable:
        raise Void from None


def _plain(value: Fraction) -> str:
    """A number as the reader of expressions takes it: exact, without a sign."""
    if value < 0:
        raise Void
    for places in range(DECIMALS + 1):
        if (value * 10**places).denominator == 1:
            whole = str((value * 10**places).numerator).rjust(places + 1, "0")
            return f"{whole[:-places]}.{whole[-places:]}" if places else whole
    raise Void


def rounded(value: Fraction, like: Number) -> Fraction:
    """A value to the decimals that a number is written with, halves upwards."""
    unit = 10**like.decimals
    return Fraction((value * unit * 2 + 1) // 2, unit)


def shown(value: Fraction, like: Number, rough: bool = False) -> str:
    """A value written as a number of the text is: its currency, thousands, per cent; its decimals where they are there
    for their own sake (12.50, $0.75, what was rounded)."""
    whole, _, rest = _plain(value).partition(".")
    prefix = like.text[0] if like.text[0] in "$€£" else ""
    if like.decimals and (rough or like.text.endswith("0") or (prefix and like.decimals == CENTS)):
        rest = rest.ljust(like.decimals, "0")
    whole = f"{int(whole):,}" if "," in like.text else whole
    return f"{prefix}{whole}{'.' if rest else ''}{rest}{'%' if like.percent else ''}"
