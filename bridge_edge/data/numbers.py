"""Numbers that stand for one another: the same question asked of other figures, and its reasoning worked out anew.

What: `Numbers(samples).retold(sample, rng)` changes the numbers that a question gives and its rationale reckons with,
and works out every sum of the rationale again, so that all it states stays true and the answer what it was. A number of
the rationale is followed to where it comes from: the question, the result of a sum before it (`4 - 2 = 2`), a term
(`502 * 10 + 502 * 2 = 5020 + 1004`), a digit in its place (`81 * 73 = 81 * 70 + 81 * 3`); what comes from nowhere, as
the 140 of `140 - 40 = 100`, is a constant of the domain and stays. Draws under which a comparison would turn, a digit
vanish or a number have two meanings are thrown away, and the text is then read by the checker of arithmetic as any
other.
Why: a few hundred answers of the teacher are seen many times over, always with the same sums, and a small model learns
the sums by heart in the place of the reckoning. Templates with other numbers tell how much of it is by heart (Mirzadeh
et al., arXiv 2410.05229); here they are found in the rationales themselves, at no teacher's cost.
Not covered: rules that a number obeys in words alone ("64 years, so no point"), if the same number is reckoned with as
well; percentages, points that are counted up, numbers below ten without decimals, all of which stay as they are.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial

from bridge_edge.data.arithmetic import claims, left_side, right_side
from bridge_edge.data.expression import DIGITS, LEXER, NUM, OP, Token, Unreadable, evaluate, tokens, value_of
from bridge_edge.data.samples import Sample

TRIES = 40
CHANGED = 0.75  # of the given numbers change in a draw
SPREAD = 6  # a number n becomes one of n - n/SPREAD to n + n/SPREAD
FEW, OFTEN = 3, 0.01  # what so many rationales reckon with, and such a share of all, is constant if no question has it
COMMON = 0.1  # and so is what such a share of the questions has
DECIMALS, CENTS = 4, 2

Values = dict[Fraction, Fraction]


class Void(Exception):
    """A draw that gives no sound text."""


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


Source = Callable[[Mapping[int, Fraction]], Fraction]
"""The new value of a number, by those of the numbers before it in the rationale (by where they start)."""


@dataclass
class Sheet:
    """A rationale as a sheet of sums: what kinds of statements it makes, which of its numbers follow from others
    (`sources`), which of these were rounded, what it reckons with, which numbers stand in sums that cannot be read
    (`loose`), and which given numbers may change (`free`)."""

    prompt: list[Number]
    said: list[Number]
    statements: list[tuple[str, str]]
    sources: dict[int, Source] = field(default_factory=dict)
    rounded: set[int] = field(default_factory=set)
    operands: set[Fraction] = field(default_factory=set)
    loose: set[int] = field(default_factory=set)
    free: list[Fraction] = field(default_factory=list)


def numbers_in(text: str) -> list[Number]:
    """The numbers of a text, in their order."""
    found = []
    for match in LEXER.finditer(text):
        piece = match.group("number")
        if piece and len(piece) <= DIGITS:
            found.append(Number(match.start("number"), match.end("number"), piece, value_of(piece)[0]))
    return found


def sheet_of(prompt: str, rationale: str, answer: str = "") -> Sheet | None:
    """The sheet of a rationale and, on a line of its own behind it, an answer that changes too; None where nothing is
    stated, or something false, or where a number of the answer comes from nowhere."""
    behind, rationale = len(rationale), f"{rationale}\n{answer}" if answer else rationale
    stated = claims(rationale)
    if not stated or any(claim.problem for claim in stated):
        return None
    sheet = Sheet(numbers_in(prompt), numbers_in(rationale), [(c.kind, c.relation) for c in stated])
    read, kinds = list(tokens(rationale)), {claim.at: claim.kind for claim in stated}
    signs = [token.kind == OP or token.text in ("=", "==") for token in read]
    sheet.loose = {token.start for token, *beside in zip(read, [False, *signs], [*signs[1:], False], strict=False)
                   if token.kind == NUM and any(beside)}  # fmt: skip
    for i, token in enumerate(read):
        kind = kinds.get(token.start)
        if kind not in ("equation", "comparison"):
            continue
        left, right = left_side(read, i), right_side(read, i)
        sheet.loose -= {t.start for t in [*left, *right]}
        sheet.operands |= {_number(t) for t in [*left, *right] if t.kind == NUM and not t.text.endswith("%")}
        if kind == "equation":
            _link(sheet, left, right)
    known = {n.value for n in [*sheet.prompt, *(n for n in sheet.said if n.start in sheet.sources)]}
    return sheet if all(n.value in known for n in sheet.said if n.start > behind) else None


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


class Numbers:
    """Tells samples with other numbers; what is a constant it learns from all of them, beside those that are `fixed`.
    With `answer` the answers are free texts, whose numbers change too.

    Sheets are kept, so a sample that is told anew in every pass is read once."""

    def __init__(self, samples: Iterable[Sample], answer: bool = False, fixed: Iterable[int] = ()) -> None:
        self.answer = answer
        read = {s.id: sheet_of(s.prompt, s.rationale, self._free(s)) for s in samples if s.rationale}
        self.sheets = {name: sheet for name, sheet in read.items() if sheet is not None}
        often: Counter[Fraction] = Counter()
        common: Counter[Fraction] = Counter()
        for sheet in self.sheets.values():
            given = {n.value for n in sheet.prompt if not n.percent}
            results = {n.value for n in sheet.said if n.start in sheet.sources}
            often.update(sheet.operands - given - results)
            common.update(given)
        least, most = (max(FEW, share * len(self.sheets)) for share in (OFTEN, COMMON))
        self.constants = set(map(Fraction, fixed)) | {value for value, count in often.items() if count >= least}
        self.constants |= {value for value, count in common.items() if count > most}
        for sheet in self.sheets.values():
            given = {n.value for n in sheet.prompt if not n.percent}
            plain = {v for v in given & sheet.operands if v >= 10 or v.denominator > 1}
            sheet.free = sorted(plain - self.constants)

    def retold(self, sample: Sample, rng: random.Random) -> Sample:
        """The sample of other numbers; itself where it has none that may change, or no draw is sound. Facts are of the
        numbers as they were, so they are left out."""
        sheet = self.sheets.get(sample.id)
        if sheet is None or not sample.rationale:
            return sample
        free = self._free(sample)
        text = f"{sample.rationale}\n{free}" if free else sample.rationale
        for _ in range(TRIES if sheet.free else 0):
            drawn = _drawn(sheet, rng)
            if all(value == old for old, value in drawn.items()):
                continue
            new = {n.value: n.value for n in sheet.prompt} | drawn
            try:
                said = _rewritten(text, self._worked_out(sheet, new))
            except Void:
                continue
            again = claims(said)
            if [(c.kind, c.relation) for c in again] == sheet.statements and not any(c.problem for c in again):
                given = [n for n in sheet.prompt if new[n.value] != n.value and not n.percent]
                prompt = _rewritten(sample.prompt, [(n, shown(new[n.value], n)) for n in given])
                rationale, answer = said, sample.answer
                if free:
                    lines = said.split("\n", sample.rationale.count("\n") + 1)
                    rationale, answer = "\n".join(lines[:-1]), lines[-1]
                return replace(sample, prompt=prompt, rationale=rationale, answer=answer, facts={})
        return sample

    def _free(self, sample: Sample) -> str:
        """The answer, where it changes with the numbers."""
        return (sample.answer or "") if self.answer else ""

    def _worked_out(self, sheet: Sheet, given: Values) -> list[tuple[Number, str]]:
        """The numbers of a rationale, and what stands in their places. Raises Void where one of them has two meanings
        that now differ, has more decimals than it had, or changes in a sum that cannot be read."""
        new: dict[int, Fraction] = {}
        results: Values = {}
        for number in sheet.said:
            source, ways = sheet.sources.get(number.start), set()
            if source:
                value = source(new)
                ways.add(rounded(value, number) if number.start in sheet.rounded else value)
            elif number.percent:
                continue
            elif number.value in self.constants:
                ways.add(number.value)
            if not number.percent:
                ways |= {known[number.value] for known in (results, given) if number.value in known}
            if len(ways) > 1:
                raise Void
            for value in ways:
                new[number.start] = value
                if source:
                    results[number.value] = value
        for number in sheet.said:
            if number.start not in new and number.value in results and not number.percent:
                new[number.start] = results[number.value]  # said ahead: `160 books, because 104 / 0.65 = 160`
            value = new.get(number.start, number.shown)
            if rounded(value, number) != value or (value != number.shown and number.start in sheet.loose):
                raise Void
        rough = {n.value for n in sheet.said if n.start in sheet.rounded}  # these keep zeros that they end with
        changed = [n for n in sheet.said if new.get(n.start, n.shown) != n.shown]
        return [(n, shown(new[n.start], n, n.value in rough)) for n in changed]


def _drawn(sheet: Sheet, rng: random.Random) -> Values:
    """Other values for some of the given numbers, as round and of as many decimals as they are."""
    new: Values = {}
    for old in sheet.free:
        unit = _unit(old, max(n.decimals for n in sheet.prompt if n.value == old))
        steps = int(old / unit)
        reach = max(1, steps // SPREAD)
        value = unit * rng.randint(steps - reach, steps + reach)
        new[old] = value if rng.random() < CHANGED else old
    return new


def _unit(value: Fraction, decimals: int) -> Fraction:
    """The step in which a number is told: its last decimal, or the zeros that it ends with, but for two digits."""
    if decimals:
        return Fraction(1, 10**decimals)
    digits = str(value.numerator)
    return Fraction(10 ** max(0, min(len(digits) - len(digits.rstrip("0")), len(digits) - 2)))


def _rewritten(text: str, changes: Sequence[tuple[Number, str]]) -> str:
    """A text with other numbers in the places of some."""
    parts, at = [], 0
    for number, piece in changes:
        parts += [text[at : number.start], piece]
        at = number.end
    return "".join([*parts, text[at:]])
