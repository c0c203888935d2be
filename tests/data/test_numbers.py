"""Numbers that stand for one another: what follows from what, what stays, and that the domains' experts agree."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from bridge_edge.data import numbers
from bridge_edge.data.arithmetic import claims
from bridge_edge.data.expression import numbers_in
from bridge_edge.data.numbers import Numbers
from bridge_edge.data.pool import load_task
from bridge_edge.data.samples import Sample


def tellings(sample: Sample, among: Sequence[Sample] = (), count: int = 40, answer: bool = False) -> list[Sample]:
    """The different tellings of a sample whose constants are learnt with others."""
    teller = Numbers([sample, *among], answer)
    found = {told.prompt: told for k in range(count) if (told := teller.retold(sample, random.Random(k))) != sample}
    return list(found.values())


def values(text: str) -> list[Fraction]:
    return [number.value for number in numbers_in(text)]


def test_a_number_is_followed_through_results_terms_and_digits() -> None:
    said = "Boxes 48, each 73. 48 * 73 = 48 * 70 + 48 * 3 = 3360 + 144 = 3504. 3504 is more than 3000."
    told = tellings(Sample("There are 48 boxes of 73 each. More than 3000?", "yes", said))
    assert len(told) > 20
    for sample in told:
        a, b, least = values(sample.prompt)
        tens, ones = b // 10 * 10, b % 10
        assert values(sample.rationale or "") == [
            a, b, a, b, a, tens, a, ones, a * tens, a * ones, a * b, a * b, least
        ]  # fmt: skip
        assert a * b > least
        assert ones  # a digit that vanished would leave another sum
    assert len({values(sample.prompt)[1] for sample in told}) > 5


def test_what_comes_from_nowhere_is_a_constant_for_those_who_have_it_too() -> None:
    """Where others reckon with 72 that no question gives, a patient of 72 kg keeps them."""
    said = "Weight {0}. 72 * {0} = {1}. {1} is more than 90."
    others = [Sample(f"{k} kg?", "yes", said.format(k, 72 * k)) for k in (40, 50, 60, 80)]
    same = Sample("72 kg?", "yes", said.format(72, 72 * 72))
    assert tellings(others[0], [*others[1:], same])
    assert tellings(same, others) == []
    assert tellings(same)  # alone it is a square
    assert Numbers([same], fixed=[72, 90]).retold(same, random.Random(0)) is same


def test_every_other_telling_is_of_numbers_that_are_compared_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample("Is 420 * 2 more than 700?", "yes", "420 * 2 = 840. 840 is more than 700.")

    def apart() -> float:
        told = [values(some.rationale or "") for some in tellings(sample, count=400)]
        assert all(left > right for *_, left, right in told)
        return median(float(left / right) for *_, left, right in told)

    with_closest = apart()
    monkeypatch.setattr(numbers, "CLOSEST", 1)
    assert 1 < with_closest < apart() - 0.03


def test_a_number_of_two_meanings_stays() -> None:
    said = "40 - 15 = 25. 25 * 2 = 50. 50 is more than 30."
    free = tellings(Sample("40 less 15, twice: over 30?", "yes", said))
    assert len({values(t.prompt)[0] - values(t.prompt)[1] for t in free}) > 5
    bound = tellings(Sample("40 less 15, twice, beside 25 chairs: over 30?", "yes", said))
    assert bound
    assert all(a - b == chairs for a, b, chairs, _ in (values(t.prompt) for t in bound)), "which 25 is doubled?"


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("Is 40 + 15 more than 50?", "40 + 15 = 56. 56 is more than 50."),  # false
        ("Is 40 more than 15?", "It is so."),  # states nothing
        ("Age 64, urea 18?", "64 years, urea 18 +1 = 1. Total 1."),  # points, no sums
        ("Is 5 + 4 more than 8?", "5 + 4 = 9. 9 is more than 8."),  # small
        ("Is 40 % of 2 1?", "20% is so. 4 / 2 = 2."),
    ],
)
def test_what_cannot_be_told_otherwise_is_left_as_it_is(prompt: str, said: str) -> None:
    sample = Sample(prompt, "yes", said)
    assert Numbers([sample]).retold(sample, random.Random(0)) is sample
    bare = Sample("12 + 13?", "25")
    assert Numbers([bare]).retold(bare, random.Random(0)) is bare


def test_numbers_keep_their_dress() -> None:
    said = "$12,500 + $9,750 = $22,250. 30 / 70 = 0.429. 0.429 is less than 0.5. 21 / 35 = 60%."
    sample = Sample("$12,500 and $9,750, 30 of 70, 21 of 35?", "yes", said, "teacher", "money", {"x": 1})
    told = tellings(sample)
    assert len(told) > 20
    shares = set()
    for some in told:
        assert re.fullmatch(
            r"\$\d{1,2},\d00 \+ \$\d{1,2},?\d{2,3} = \$\d{2},\d{3}\. \d\d / \d\d = 0\.\d{3}\. "
            r"0\.\d{3} is less than 0\.5\. \d\d / \d\d = \d\d%\.",
            some.rationale or "",
        ), some.rationale
        assert (some.answer, some.provenance, some.kind, some.facts) == ("yes", "teacher", "money", {})
        assert not any(claim.problem for claim in claims(some.rationale or ""))
        shares.add((some.rationale or "").split()[-1])
    assert len(shares) > 1


def test_a_free_answer_follows_its_sums_and_one_from_nowhere_keeps_all() -> None:
    said = "48 / 2 = 24 in May.\n48 + 24 = 72."
    sample = Sample("She sold 48 clips in April and half of that in May. How many?", "72", said)
    told = tellings(sample, answer=True)
    assert len(told) > 3
    for some in told:
        (april,) = values(some.prompt)
        assert some.answer == str(april * 3 / 2)
        assert some.rationale == f"{april} / 2 = {april / 2} in May.\n{april} + {april / 2} = {april * 3 / 2}."
    assert tellings(replace(sample, answer="72 and 99"), answer=True) == []
    (kept,) = {some.answer for some in tellings(sample)}
    assert kept == "72"  # of a choice of answers it is one


def test_a_result_that_is_said_ahead_of_its_sum_follows_it() -> None:
    told = tellings(
        Sample("104 for adults, 35% for children?", "160", "There are 160 books, since 104 / 0.65 = 160."), answer=True
    )
    assert told
    for some in told:
        (adults, _), books = values(some.prompt), Fraction(some.answer or "")
        assert adults == books * Fraction(65, 100)
        assert some.rationale == f"There are {books} books, since {adults} / 0.65 = {books}."


def test_a_sum_that_cannot_be_read_keeps_its_numbers() -> None:
    """Else 12 hours would follow from another sum, or 342 be left of another revenue."""
    question = Sample("$696, of which $480 is gone. How much is left, or how many times $18?", "216")
    told = tellings(replace(question, rationale="$696 - $480 = $216. It is $216 / $18 hours."))
    assert told
    assert all(left - gone == 216 for left, gone, _ in (values(some.prompt) for some in told))
    assert tellings(replace(question, rationale="$696 - $480 = $216. It is $216 / $18 per hour = 12 hours.")) == []
    assert tellings(replace(question, rationale="$696 - $480 = $216. Less a tenth it is = $342.")) == []


def test_what_is_left_is_never_less_than_nothing() -> None:
    sample = Sample("600 pounds bear 420 and 170. How much more?", "10", "420 + 170 = 590. 600 - 590 = 10.")
    told = tellings(sample, answer=True)
    assert len(told) > 3
    assert all(not (some.answer or "-").startswith("-") for some in told)


GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl"


@pytest.mark.skipif(not GSM8K.exists(), reason="GSM8K is not beside the checkout")
def test_worked_solutions_that_no_one_here_wrote_are_told_anew() -> None:
    samples = []
    for line in GSM8K.read_text(encoding="utf-8").splitlines()[:500]:
        row = json.loads(line)
        said, _, answer = row["answer"].partition("\n#### ")
        samples.append(Sample(row["question"], answer, re.sub(r"<<.*?>>", "", said)))
    teller = Numbers(samples, answer=True)
    told = [(s, other) for s in samples if (other := teller.retold(s, random.Random(s.id))) is not s]
    assert len(told) > 100
    for sample, other in told:
        assert other.prompt != sample.prompt
        assert not any(claim.problem for claim in claims(other.rationale or ""))
        (said, stated), shape = (claims(some.rationale or "") for some in (sample, other)), r"[\d.,$]+"
        assert [(c.kind, c.relation) for c in said] == [(c.kind, c.relation) for c in stated]
        assert re.sub(shape, "", other.rationale or "") == re.sub(shape, "", sample.rationale or "")


def test_a_question_of_two_rationales_is_told_by_each() -> None:
    """Else the sums of one would be written into the text of the other."""
    sums = Sample("48 boxes of 73?", "yes", "48 * 73 = 3504. 3504 is more than 3000.")
    other = replace(sums, rationale="So 73 * 48 = 3504 in all, and 3504 is more than 3000.")
    for sample, among in ((sums, other), (other, sums)):
        told = tellings(sample, [among])
        assert len(told) > 5
        texts = {re.sub(r"\d+", "", some.rationale or "") for some in told}
        assert texts == {re.sub(r"\d+", "", sample.rationale or "")}


def test_hostile_text_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    false = Sample("11 and 12?", "yes", "1" * 40 + " + 11 = 12. " + "(" * 500 + "11 = 11")
    assert Numbers([false]).retold(false, random.Random(0)) is false
    read: list[str] = []

    def counted(text: str) -> list[Any]:
        read.append(text)
        return claims(text)

    monkeypatch.setattr(numbers, "claims", counted)
    long = Sample("11 and 12? " + "13 " * 3000, "yes", "11 + 12 = 23. " * 300)
    told = Numbers([long]).retold(long, random.Random(0))
    assert (told.rationale or "").count(" = ") == 300
    assert told.prompt != long.prompt
    assert told.prompt.endswith("13 " * 3000)  # nothing reckons with these
    assert 0 < len(read) <= numbers.CLOSEST


def mapped(facts: Any, new: dict[Fraction, Fraction], key: str = "") -> Any:
    """The facts of a sample with other numbers (`_tenths` are kept as whole numbers)."""
    if isinstance(facts, dict):
        return {name: mapped(value, new, name) for name, value in facts.items()}
    if isinstance(facts, (list, tuple)):
        return [mapped(value, new, key) for value in facts]
    if isinstance(facts, bool) or not isinstance(facts, int) or key in ("percent", "halves", "year", "years"):
        return facts
    scale = 10 if key.endswith("_tenths") else 1
    value = new.get(Fraction(facts, scale), Fraction(facts, scale)) * scale
    assert value.denominator == 1
    return int(value)


@pytest.mark.parametrize("name", ["medical", "finance", "legal"])
def test_the_experts_find_every_step_of_other_numbers_true(name: str) -> None:
    task, samples = load_task(name), []
    for seed, sample in enumerate(task.generate(400, 7)):
        rationale, answer = task.expert(sample, random.Random(seed))
        samples.append(replace(sample, rationale=rationale, answer=answer))
    teller, told, alike = Numbers(samples), Counter[str](), 0
    for seed, sample in enumerate(samples):
        other = teller.retold(sample, random.Random(seed))
        if other is sample:
            continue
        told[sample.kind] += 1
        pairs = zip(numbers_in(sample.prompt), numbers_in(other.prompt), strict=True)
        again = replace(other, facts=mapped(sample.facts, {old.value: new.value for old, new in pairs}))
        found = task.check(again, other.rationale or "", other.answer or "")
        assert found.answer, (sample, other)
        assert found.steps, (found.problem, sample, other)
        alike += task.expert(again, random.Random(seed)) == (other.rationale, other.answer)
    counted = {"cha2ds2_vasc", "curb65", "wells_dvt"}  # points follow from words
    each = Counter(sample.kind for sample in samples)
    assert not counted & set(told)
    assert all(told[kind] > 0.4 * each[kind] for kind in set(each) - counted), (told, each)
    assert alike > 0.8 * sum(told.values()), "the expert, asked of the other numbers, says the same"
