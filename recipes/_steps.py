"""What the domains of formulas and scores share: worked items, their wording, and a checker of rationales.

What: a `Kind` draws a question with its facts and works it out exactly; a `FormulaTask` makes balanced sets of
questions of its kinds, writes rationales in varied wording, and checks any rationale against the facts.
Why: a domain then holds only its rules and its vocabulary. Thresholds are compared by cross-multiplying, and products
are taken apart digit by digit, so that a very small student meets only steps that it can carry out.
Not covered: a right comparison reached from two errors that cancel out; answers other than Yes and No.
"""

from __future__ import annotations

import operator
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from bridge_edge.data.arithmetic import Claim, claims, numbers
from bridge_edge.data.card import normal
from bridge_edge.data.samples import Check, Sample
from bridge_edge.errors import UserError, unknown

Facts = dict[str, Any]
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "above": operator.gt, "below": operator.lt, "at least": operator.ge, "at most": operator.le,
}  # fmt: skip
ASKED = {"above": ("above", "more than", "over"), "below": ("below", "less than", "under"),
         "at least": ("at least",), "at most": ("at most",)}  # fmt: skip
SPREADS = (Fraction(1, 25), Fraction(1, 6), Fraction(3, 5))  # near a threshold, around it, far from it
TRIES = 400
SENTENCE = re.compile(r"(?<=\.)\s+")
CHAIN = re.compile(r"=(?:[\d.\s]*[*+][\d.\s*+]*=)+")  # 47 * 36 = 47 * 30 + 47 * 6 = 1410 + 282 = 1692
LONGEST = 350  # characters of a prompt


@dataclass(frozen=True)
class Work:
    """A question worked out: wordings of its rule and of its steps, and the two numbers compared at the end.

    Every wording of the rule begins with what is asked for: a small model that may begin in many ways takes the most
    frequent one over all kinds, and then goes on as that kind would. `score` says that the compared numbers are points,
    of which no multiple will do. `also` holds other pairs that are compared alike, where a formula can be turned round
    (a margin of 40 % is a cost of 60 %): another teacher may have gone that way.
    """

    rules: tuple[str, ...]
    steps: tuple[str, ...]
    left: Fraction | int
    right: Fraction | int
    subject: str
    ask: str
    limit: str
    score: bool = False
    also: tuple[tuple[Fraction | int, Fraction | int], ...] = ()

    @property
    def truth(self) -> bool:
        return COMPARE[self.ask](self.left, self.right)

    def relation(self) -> str:
        """How the left number stands to the right one, in the words of the general skills."""
        if self.score:
            return "at least" if self.left >= self.right else "less than"
        return "more than" if self.left > self.right else "less than" if self.left < self.right else "equal to"

    def endings(self) -> tuple[str, ...]:
        """Wordings of the comparison."""
        plain = f"{show(self.left)} is {self.relation()} {show(self.right)}"
        verdict = f"{self.subject} is {'' if self.truth else 'not '}{self.ask} {self.limit}"
        return f"{plain}.", f"{plain}, so {verdict}.", f"{plain}: {verdict}."


@dataclass(frozen=True)
class Kind:
    """One formula or score: `draw(rng, truth)` aims at a question with that truth, `work(facts)` solves it."""

    name: str
    draw: Callable[[random.Random, bool], tuple[str, Facts]]
    work: Callable[[Facts], Work]


class FormulaTask:
    """A domain of threshold questions, one `Kind` a formula; answers are Yes and No. `alike` are lists of words that
    stand for one another (`swap.enabled`)."""

    def __init__(self, name: str, kinds: Sequence[Kind], alike: Mapping[str, Sequence[str]]) -> None:
        self.name = name
        self.alike = alike
        self.kinds = {kind.name: kind for kind in kinds}

    def generate(self, n: int, seed: int) -> list[Sample]:
        """`n` distinct samples, every kind equally often, Yes as often as No within each."""
        rng = random.Random(f"{self.name} {seed}")
        plan = [(kind, truth) for kind in self.kinds.values() for truth in (True, False)]
        found: dict[str, Sample] = {}
        while len(found) < n:
            rng.shuffle(plan)
            for kind, truth in plan[: n - len(found)]:
                sample = self._draw(kind, truth, rng, found)
                found[sample.prompt] = sample
        return list(found.values())

    def _draw(self, kind: Kind, truth: bool, rng: random.Random, taken: Mapping[str, Sample]) -> Sample:
        for _ in range(TRIES):
            prompt, facts = kind.draw(rng, truth)
            if len(prompt) <= LONGEST and prompt not in taken and kind.work(facts).truth == truth:
                return Sample(prompt=prompt, answer=yes(truth), kind=kind.name, facts=facts)
        raise UserError(
            f"{self.name!r} has no further question of kind {kind.name!r} after {len(taken)}", "ask for fewer samples"
        )

    def work(self, sample: Sample) -> Work:
        """The sample worked out from its facts."""
        if sample.kind not in self.kinds:
            raise unknown(f"kind of a {self.name} sample", sample.kind, self.kinds)
        try:
            return self.kinds[sample.kind].work(sample.facts)
        except KeyError as error:
            raise UserError(
                f"the facts of {self.name} sample {sample.id} lack {error.args[0]!r}",
                f"only samples that the task {self.name!r} generated carry the facts to check them",
            ) from None

    def expert(self, sample: Sample, rng: random.Random) -> tuple[str, str]:
        """The rule (in some wordings), the steps, the comparison; and the answer."""
        work = self.work(sample)
        parts = (rng.choice(work.rules), rng.choice(work.steps), rng.choice(work.endings()))
        return " ".join(part for part in parts if part), yes(work.truth)

    def briefs(self, sample: Sample, rng: random.Random) -> list[str]:
        """The steps and the comparison; without the figures that are looked up; without the way from a sum's first to
        its last part, and findings that earn no points; the last ones of these; the comparison with what follows from
        it; the comparison alone."""
        work = self.work(sample)
        steps, (plain, *_, verdict) = min(work.steps, key=len), work.endings()
        sums = [part for part in SENTENCE.split(steps) if "=" in part or part.startswith("Total")]
        ends = [_counting(CHAIN.sub("=", part)) for part in sums]
        parts = ([steps], sums, ends, *(ends[-k:] for k in (3, 2, 1)))
        return [*dict.fromkeys(" ".join([*part, plain]).strip() for part in parts), verdict, plain]

    def check(self, sample: Sample, rationale: str, answer: str) -> Check:
        """The answer must be exact; every statement true, from given numbers, and the last comparison the right one."""
        work = self.work(sample)
        truth = yes(work.truth)
        right = normal(answer) == normal(truth)
        problem = _fault(rationale, work, sample)
        return Check(right, not problem, problem or ("" if right else f"the answer is {truth}, not {answer.strip()!r}"))


def _counting(step: str) -> str:
    """A step without the parts of an enumeration that count nothing."""
    told = step.rstrip(".").split(", ")
    return f"{', '.join(part for part in told if '=' in part)}." if len(told) > 1 else step


def _fault(rationale: str, work: Work, sample: Sample) -> str:
    """The first fault of a rationale; "" if there is none."""
    stated = claims(rationale)
    known = {Fraction(value) for value in (10, 100, 1000)}  # percentages and units
    known.add(Fraction(sample.facts.get("percent", 0), 10))  # 20 % of a figure: twice its tenth
    known |= {abs(Fraction(work.left)), abs(Fraction(work.right)), *_numbers(sample.facts)}
    known |= numbers(" ".join((sample.prompt, *work.rules, *work.steps, work.limit)))
    for claim in stated:
        if claim.problem:
            return claim.problem
        foreign = [value for value in claim.operands if abs(value) not in known]
        if foreign:
            return f"{claim.text!r} uses {show(foreign[0])}, which is neither given nor computed before"
        known |= {*claim.operands, abs(claim.left), abs(claim.right), *numbers(claim.text)}
    compared = [claim for claim in stated if claim.kind == "comparison"]
    if not compared:
        return "no comparison is stated"
    if not any(_decides(claim, work, "/" in rationale) for claim in compared[-2:]):
        return f"{compared[-1].text!r} does not compare {show(work.left)} with {show(work.right)}"
    return ""


def _decides(claim: Claim, work: Work, rounded: bool) -> bool:
    """Whether a true comparison is one that answers the question, up to its order and a common factor."""
    if work.score:  # in that order only: 2 points against 3 are not 3 against 2
        return (claim.left, claim.right) == (work.left, work.right)
    sides = ((claim.left, claim.right), (claim.right, claim.left))
    return any(_same(*stated, *meant, rounded) for stated in sides for meant in ((work.left, work.right), *work.also))


def _same(a: Fraction, b: Fraction, left: Fraction | int, right: Fraction | int, rounded: bool) -> bool:
    """Whether a stands to b as left to right. A quotient may have been rounded on its way; one percent allows three
    significant digits."""
    if (a, b) == (left, right):
        return True
    if (a > b) != (left > right) or (a < b) != (left < right) or min(a, b, left, right) <= 0:
        return False
    factor = (a * Fraction(right)) / (b * Fraction(left))
    return factor == 1 or (rounded and abs(factor - 1) <= Fraction(1, 100))


def _numbers(facts: Any) -> set[Fraction]:
    """All numbers in the facts, also those inside texts and lists."""
    if isinstance(facts, Mapping):
        return set().union(*(_numbers(value) for value in facts.values()))
    if isinstance(facts, list | tuple):
        return set().union(*(_numbers(value) for value in facts))
    return numbers(str(facts))


def yes(truth: bool) -> str:
    return "Yes" if truth else "No"


def show(value: Fraction | int) -> str:
    """A whole number or a decimal without trailing zeros."""
    value = Fraction(value)
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.3f}".rstrip("0")


def product(a: int, b: int) -> str:
    """Partial products, largest digit of `b` first: 47 * 36 = 47 * 30 + 47 * 6 = 1410 + 282 = 1692."""
    digits = str(b)
    factors = [int(d) * 10 ** (len(digits) - 1 - i) for i, d in enumerate(digits) if d != "0"]
    if len(factors) < 2:
        return f"{a} * {b} = {a * b}."
    sums = [a * factor for factor in factors]
    chain = [f"{a} * {b}", " + ".join(f"{a} * {factor}" for factor in factors), " + ".join(map(str, sums))]
    while len(sums) > 1:
        sums = [sums[0] + sums[1], *sums[2:]]
        chain.append(" + ".join(map(str, sums)))
    return " = ".join(chain) + "."


def points(parts: Sequence[Sequence[Any]]) -> str:
    """A score counted up from pairs of a finding and its points; what earns none is named all the same:
    `fever +1 = 1, gout, cough +2 = 3. Total 3.`"""
    total, told = 0, []
    for label, worth in parts:
        total += worth
        told.append(f"{label} {'+' if worth > 0 else '-'}{abs(worth)} = {total}" if worth else label)
    return f"{', '.join(told)}. Total {total}." if told else "No points. Total 0."


def upward(ask: str, truth: bool) -> bool:
    """Whether the value must lie above its threshold for the question to have this truth."""
    return (ask in ("above", "at least")) == truth


def beside(rng: random.Random, pivot: Fraction | int, above: bool, low: int, high: int) -> int:
    """A whole number on one side of `pivot`, sometimes close to it and sometimes far, within low to high.

    It may touch the pivot: the caller rejects what fell on the wrong side.
    """
    reach = max(2, int(abs(Fraction(pivot)) * rng.choice(SPREADS)))
    value = round(pivot) + (1 if above else -1) * rng.randint(0, reach)
    return min(high, max(low, value))


def article(text: str, capital: bool = False) -> str:
    """`text` with a or an; numbers are read out: an 80-year-old, an 18-year-old, a 70-year-old."""
    start = text[:1].lower()
    word = "an" if start in "aeio8" or text[:2] in ("11", "18") else "a"
    return f"{word.capitalize() if capital else word} {text}"


def join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
