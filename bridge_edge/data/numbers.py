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
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

from bridge_edge.data.arithmetic import claims
from bridge_edge.data.expression import Number
from bridge_edge.data.samples import Sample
from bridge_edge.data.sheet import Sheet, Void, rounded, sheet_of, shown

TRIES, CLOSEST = 40, 4
CHANGED = 0.75  # of the given numbers change in a draw
SPREAD = 6  # a number n becomes one of n - n/SPREAD to n + n/SPREAD
FEW, OFTEN = 3, 0.01  # what so many rationales reckon with, and such a share of all, is constant if no question has it
COMMON = 0.1  # and so is what such a share of the questions has

Values = dict[Fraction, Fraction]


class Numbers:
    """Tells samples with other numbers; what is a constant it learns from all of them, beside those that are `fixed`.
    With `answer` the answers are free texts, whose numbers change too.

    Sheets are kept, so a sample that is told anew in every pass is read once."""

    def __init__(self, samples: Iterable[Sample], answer: bool = False, fixed: Iterable[int] = ()) -> None:
        self.answer = answer
        read = {
            (s.id, s.rationale, s.answer): sheet_of(s.prompt, s.rationale, (s.answer or "") if answer else "")
            for s in samples
            if s.rationale
        }  # one question may have several rationales
        self.sheets = {key: sheet for key, sheet in read.items() if sheet is not None}
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

    def sheet(self, sample: Sample) -> Sheet | None:
        """The sheet of one of the samples; None where it has none."""
        return self.sheets.get((sample.id, sample.rationale or "", sample.answer))

    def retold(self, sample: Sample, rng: random.Random) -> Sample:
        """The sample of other numbers; itself where it has none that may change, or no draw is sound. Facts are of the
        numbers as they were, so they are left out. Every other time the numbers are those of several draws that are
        compared the closest: what is far apart tells a model little of which is more."""
        sheet = self.sheet(sample)
        if sheet is None or not sheet.free:
            return sample
        wanted, found = rng.choice((1, CLOSEST)), list[tuple[Fraction, Values, dict[int, Fraction]]]()
        for _ in range(TRIES):
            drawn = _drawn(sheet, rng)
            with suppress(Void):
                new = self._worked_out(sheet, drawn)
                found.append((sheet.closest(new), drawn, new))
            if len(found) == wanted:
                break
        for _, drawn, new in sorted(found, key=lambda some: some[0]):
            with suppress(Void):
                return self._told(sample, sheet, drawn, new)
        return sample

    def _told(self, sample: Sample, sheet: Sheet, drawn: Values, new: Mapping[int, Fraction]) -> Sample:
        """The sample of these numbers. Raises Void where one cannot be written, or where the checker of arithmetic does
        not find all true that it states."""
        free = (sample.answer or "") if self.answer else ""
        rough = {n.value for n in sheet.said if n.start in sheet.rounded}  # these keep zeros that they end with
        changed = [n for n in sheet.said if new.get(n.start, n.shown) != n.shown]
        text = f"{sample.rationale}\n{free}" if free else sample.rationale or ""
        said = _rewritten(text, [(n, shown(new[n.start], n, n.value in rough)) for n in changed])
        stated = claims(said)
        if [(c.kind, c.relation) for c in stated] != sheet.statements or any(c.problem for c in stated):
            raise Void
        given = [n for n in sheet.prompt if drawn.get(n.value, n.value) != n.value and not n.percent]
        prompt = _rewritten(sample.prompt, [(n, shown(drawn[n.value], n)) for n in given])
        if not free:
            return replace(sample, prompt=prompt, rationale=said, facts={})
        lines = said.split("\n", (sample.rationale or "").count("\n") + 1)
        return replace(sample, prompt=prompt, rationale="\n".join(lines[:-1]), answer=lines[-1], facts={})

    def _worked_out(self, sheet: Sheet, drawn: Values) -> dict[int, Fraction]:
        """The numbers of a rationale by where they start, those that stay for no known reason left out. Raises Void
        where nothing changes, or one has two meanings that now differ, has more decimals than it had, is negative, or
        changes in a sum that cannot be read."""
        given = {n.value: n.value for n in sheet.prompt} | drawn
        if all(value == old for old, value in given.items()):
            raise Void
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
            loose = value != number.shown and number.start in sheet.loose
            if value < 0 or rounded(value, number) != value or loose:
                raise Void
        return new


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
