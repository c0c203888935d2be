"""The formula domains: gold answers against the formulas themselves, rationales that check, errors that are caught."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import asdict
from fractions import Fraction
from typing import Any

import pytest

from bridge_edge.data.arithmetic import claims, first_error
from bridge_edge.data.samples import Sample
from bridge_edge.embedded.skills import material
from bridge_edge.errors import UserError
from bridge_edge.recipes._steps import COMPARE, FormulaTask, Kind, article, beside, points, product, show
from bridge_edge.recipes.finance.task import TASK as FINANCE
from bridge_edge.recipes.medical.task import TASK as MEDICAL

TASKS = pytest.mark.parametrize("task", [MEDICAL, FINANCE], ids=["medical", "finance"])


def value(kind: str, f: dict[str, Any]) -> tuple[Fraction | int, Fraction | int]:
    """The quantity by its textbook formula, with real division, and the limit it is asked about."""
    match kind:
        case "cockcroft_gault":
            factor = Fraction(85, 100) if f["sex"] == "woman" else Fraction(1)
            return (140 - f["age"]) * f["weight"] * factor / (72 * Fraction(f["creatinine_tenths"], 10)), f["limit"]
        case "bmi":
            return f["weight"] / Fraction(f["height_dm"] ** 2, 100), f["limit"]
        case "anion_gap":
            return f["sodium"] - (f["chloride"] + f["bicarbonate"]), f["limit"]
        case "corrected_calcium":
            added = Fraction(4, 5) * (4 - Fraction(f["albumin_tenths"], 10))
            return Fraction(f["calcium_tenths"], 10) + added, Fraction(f["limit_tenths"], 10)
        case "map":
            return f["diastolic"] + Fraction(f["systolic"] - f["diastolic"], 3), f["limit"]
        case "cha2ds2_vasc":
            age = (f["age"] >= 65) + (f["age"] >= 75)
            return age + len(f["has"]) + ("stroke" in f["has"]) + (f["sex"] == "woman"), f["limit"]
        case "wells_dvt":
            return len(f["has"]) - 2 * f["other"], f["limit"]
        case "curb65":
            low = f["systolic"] < 90 or f["diastolic"] <= 60
            return f["confused"] + (f["urea"] > 7) + (f["breaths"] >= 30) + low + (f["age"] >= 65), f["limit"]
        case "growth":
            return Fraction(f["new"], f["old"]) - 1, Fraction(f["percent"], 100)
        case "gross_margin":
            return 1 - Fraction(f["cost"], f["revenue"]), Fraction(f["percent"], 100)
        case "operating_margin":
            return Fraction(f["ebit"], f["revenue"]), Fraction(f["percent"], 100)
        case "cagr_two_years":  # squared on both sides, which keeps it exact
            return Fraction(f["end"], f["start"]), (1 + Fraction(f["percent"], 100)) ** 2
        case "interest_cover":
            return Fraction(f["ebit"], f["interest"]), f["limit"]
        case "days_outstanding":
            return Fraction(f["amount"], f["base"]) * 360, f["limit"]
        case "current_ratio":
            return Fraction(f["assets"], f["liabilities"]), Fraction(f["halves"], 2)
        case "debt_to_equity":
            return Fraction(f["short"] + f["long"], f["equity"]), Fraction(f["halves"], 2)
    raise AssertionError(kind)


@TASKS
def test_gold_answers_agree_with_the_formulas_by_division(task: FormulaTask) -> None:
    for sample in task.generate(800, 5):
        left, right = value(sample.kind, sample.facts)
        truth = COMPARE[sample.facts.get("ask", "at least")](left, right)
        assert sample.answer == ("Yes" if truth else "No"), sample


@TASKS
def test_every_kind_is_balanced_and_also_close_to_its_threshold(task: FormulaTask) -> None:
    samples = task.generate(1600, 7)
    answers = Counter((s.kind, s.answer) for s in samples)
    close: Counter[str] = Counter()
    for sample in samples:
        left, right = value(sample.kind, sample.facts)
        step = Fraction(1) if sample.facts.get("has") is not None else abs(Fraction(right)) / 5
        close[sample.kind] += abs(Fraction(left) - Fraction(right)) <= step
    for kind in task.kinds:
        assert 0.4 <= answers[kind, "Yes"] / (answers[kind, "Yes"] + answers[kind, "No"]) <= 0.6
        assert 10 <= close[kind] < 195


@TASKS
def test_generation_is_deterministic_distinct_and_differs_between_seeds(task: FormulaTask) -> None:
    first, again, other = task.generate(2000, 1), task.generate(2000, 1), task.generate(2000, 2)
    assert first == again
    assert len({s.id for s in first}) == 2000
    assert len({s.id for s in first} & {s.id for s in other}) <= 20
    assert {s.kind for s in first} == set(task.kinds)


@TASKS
def test_prompts_are_short_and_end_in_the_question_and_facts_are_json(task: FormulaTask) -> None:
    for sample in task.generate(400, 3):
        assert sample.prompt.endswith("?")
        assert "Yes" not in sample.prompt
        assert len(sample.prompt) <= 350
        assert json.loads(json.dumps(sample.facts)) == sample.facts


@TASKS
def test_the_whole_numbers_of_the_facts_stand_in_the_prompt(task: FormulaTask) -> None:
    scaled = {"halves", "height_dm", "calf_cm", "confused", "other"}
    for sample in task.generate(400, 4):
        for name, fact in sample.facts.items():
            if isinstance(fact, int) and name not in scaled and not name.endswith("_tenths"):
                assert str(fact) in sample.prompt, (name, sample)


def test_a_figure_is_looked_up_where_the_statement_has_it_also_after_a_file() -> None:
    tables = 0
    for sample in FINANCE.generate(600, 21):
        stored = Sample(**json.loads(json.dumps(asdict(sample), sort_keys=True)))
        rationale, _ = FINANCE.expert(stored, random.Random(1))
        assert rationale == FINANCE.expert(sample, random.Random(1))[0]
        table = "item | " in stored.prompt
        tables += table
        for name, cells in dict(stored.facts["rows"]).items():
            if f"{name}: " not in rationale:
                continue
            told = f"{name}: " + ", ".join(f"{y} {v}" for y, v in zip(stored.facts["years"], cells, strict=True))
            assert f"{told};" in rationale
            line = f"{name} | {' | '.join(map(str, cells))}\n" if table else f"{told}."
            assert line in stored.prompt
    assert 200 < tables < 400


@TASKS
def test_the_expert_passes_its_own_check_in_several_wordings(task: FormulaTask) -> None:
    rng = random.Random(0)
    for sample in task.generate(300, 11):
        rationale, answer = task.expert(sample, rng)
        check = task.check(sample, rationale, answer)
        assert (check.answer, check.steps, check.problem) == (True, True, ""), (sample, rationale)
        assert len(rationale) <= 480
        assert answer == sample.answer
    wordings = {task.expert(sample, rng)[0] for _ in range(60)}
    assert len(wordings) >= 6


@TASKS
def test_a_changed_number_in_the_comparison_is_caught(task: FormulaTask) -> None:
    rng = random.Random(1)
    for sample in task.generate(300, 13):
        rationale, answer = task.expert(sample, rng)
        work = task.work(sample)
        shown = f"{show(work.left)} is {work.relation()}"
        changed = rationale.replace(shown, f"{show(work.left + 5)} is {work.relation()}")
        assert changed != rationale
        check = task.check(sample, changed, answer)
        assert check.answer
        assert not check.steps
        assert check.problem


@TASKS
def test_another_patients_or_companys_rationale_is_not_accepted(task: FormulaTask) -> None:
    rng, refused, tried = random.Random(2), 0, 0
    for sample, other in zip(task.generate(300, 17), task.generate(300, 18), strict=True):
        mine, theirs = task.work(sample), task.work(other)
        if sample.kind == other.kind and (mine.left, mine.right) != (theirs.left, theirs.right):
            tried += 1
            refused += not task.check(sample, task.expert(other, rng)[0], "Yes").steps
    assert refused == tried > 10


@TASKS
def test_a_bare_or_wrong_answer(task: FormulaTask) -> None:
    sample = task.generate(1, 0)[0]
    wrong = "No" if sample.answer == "Yes" else "Yes"
    assert task.check(sample, "", str(sample.answer)).problem == "no comparison is stated"
    check = task.check(sample, task.expert(sample, random.Random(0))[0], wrong)
    assert (check.answer, check.steps) == (False, True)
    assert wrong in check.problem
    assert not task.check(sample, "", "perhaps").answer


def bmi(weight: int, limit: int, ask: str = "at least") -> Sample:
    facts = {"weight": weight, "height_dm": 17, "limit": limit, "ask": ask}
    return Sample(f"Weight {weight} kg, height 1.7 m. Is the BMI {ask} {limit}?", kind="bmi", facts=facts)


def test_a_rationale_by_division_is_accepted_and_a_sloppy_one_is_not() -> None:
    assert MEDICAL.check(bmi(95, 30), "1.7 * 1.7 = 2.89. 95 / 2.89 = 32.87. 32.87 is more than 30.", "Yes").steps
    sloppy = MEDICAL.check(bmi(95, 30), "1.7 * 1.7 = 2.9. 95 / 2.9 = 32.76. 32.76 is more than 30.", "Yes")
    assert "1.7 * 1.7 = 2.9" in sloppy.problem
    invented = MEDICAL.check(bmi(95, 30), "88 + 7 = 95. 95 * 100 = 9500. 9500 is more than 8670.", "Yes")
    assert "88" in invented.problem


PROFIT = "90 - 63 = 27. 27 * 10 = 270. "


@pytest.mark.parametrize(
    ("facts", "steps", "answer", "decides"),
    [
        ({"old": 60, "new": 81}, "81 - 60 = 21. 21 * 10 = 210. 60 * 2 = 120. 210 is more than 120.", "Yes", True),
        ({"old": 60, "new": 81}, "81 / 60 = 1.35. 1.35 is more than 1.2.", "Yes", True),
        ({"old": 60, "new": 81}, "81 is more than 60.", "Yes", False),
        ({"old": 75, "new": 60}, "60 is less than 75.", "No", True),
        ({"revenue": 90, "cost": 63}, PROFIT + "90 * 2 = 180. 270 is more than 180.", "Yes", True),
        ({"revenue": 90, "cost": 63}, "90 is more than 63.", "Yes", False),
    ],
)
def test_another_way_to_compare_is_accepted_where_it_decides(
    facts: dict[str, int], steps: str, answer: str, decides: bool
) -> None:
    kind = "growth" if "old" in facts else "gross_margin"
    rows = [[name, [facts.get("old", 9), 9]] for name in ("Revenue", "Cost of sales")]
    told = {"row": "Revenue", "year": 2020, "percent": 20, "ask": "above", "years": [2019, 2020], "rows": rows}
    check = FINANCE.check(Sample("?", kind=kind, facts=told | facts), steps, answer)
    assert (check.answer, check.steps) == (True, decides), check.problem


@pytest.mark.parametrize(
    ("facts", "score"),
    [
        ({"sex": "woman", "age": 78, "told": [["gout", 0], ["heart failure", 1], ["a past TIA", 2]], "limit": 2}, 6),
        ({"sex": "man", "age": 64, "told": [], "limit": 2}, 0),
        ({"sex": "man", "age": 65, "told": [["aortic plaque", 1]], "limit": 2}, 2),
    ],
)
def test_cha2ds2_vasc_by_hand(facts: dict[str, Any], score: int) -> None:
    work = MEDICAL.work(Sample("?", kind="cha2ds2_vasc", facts=facts))
    assert work.left == score
    assert all(f"Total {score}." in steps for steps in work.steps)


def test_a_score_goes_through_the_findings_in_the_order_of_the_vignette() -> None:
    seen = 0
    for sample in (s for s in MEDICAL.generate(400, 23) if "told" in s.facts):
        steps, said, read = MEDICAL.work(sample).steps[0], 0, 0
        for words, worth in sample.facts["told"]:
            said = steps.index(words, said) + len(words)  # raises where the order is another one
            read = sample.prompt.index(words, read) + len(words)
            assert steps[said:].startswith(f" +{worth} = " if worth else (",", ". Total"))
            seen += 1
    assert seen > 200


def test_curb65_counts_a_low_diastolic_pressure_once() -> None:
    facts = {"confused": True, "urea": 7, "breaths": 30, "systolic": 85, "diastolic": 60, "age": 64, "limit": 3}
    work = MEDICAL.work(Sample("?", kind="curb65", facts=facts))
    assert work.left == 3
    assert "urea 7 normal" in work.steps[0]
    assert first_error(work.steps[0]) == ""


def test_cockcroft_gault_by_hand() -> None:
    facts = {"sex": "woman", "age": 70, "weight": 60, "creatinine_tenths": 10, "limit": 50, "ask": "below"}
    work = MEDICAL.work(Sample("?", kind="cockcroft_gault", facts=facts))
    assert (work.left, work.right, work.truth) == (3570, 3600, True)  # 49.6 mL/min


def test_the_steps_use_the_wording_of_the_general_skills() -> None:
    rng = random.Random(4)
    for _ in range(200):
        a, b = rng.randint(2, 999), rng.randint(2, 999)
        assert product(a, b) == material.product(a, b)
    assert points([("fever", 1), ("gout", 0), ("cough", 2)]) == "fever +1 = 1, gout, cough +2 = 3. Total 3."
    assert [c.kind for c in claims("fever +1 = 1. Total 1.")] == ["points", "total"]


def test_helpers() -> None:
    rng = random.Random(5)
    assert {article(t) for t in ("80-year-old", "albumin", "calcium", "71-year-old")} == {
        "an 80-year-old", "an albumin", "a calcium", "a 71-year-old",
    }  # fmt: skip
    values = [beside(rng, 50, True, 1, 60) for _ in range(200)]
    assert min(values) >= 50
    assert max(values) == 60
    assert any(50 < v <= 52 for v in values)


def test_bad_samples_are_named() -> None:
    with pytest.raises(UserError, match="bmi"):
        MEDICAL.expert(Sample("?", kind="bim"), random.Random(0))
    with pytest.raises(UserError, match="weight"):
        MEDICAL.check(Sample("?", kind="bmi", facts={"height_dm": 17, "limit": 30}), "", "Yes")
    one = Kind("one", lambda rng, truth: ("same", bmi(95, 30).facts), MEDICAL.kinds["bmi"].work)
    small = FormulaTask("tiny", [one], {})
    with pytest.raises(UserError, match="fewer"):
        small.generate(2, 0)


@TASKS
def test_the_brief_rationales_are_ever_shorter_and_true(task: FormulaTask) -> None:
    for sample in task.generate(160, 11):
        briefs = task.briefs(sample, random.Random(0))
        gold = sample.answer or ""
        assert [b for b in briefs if not task.check(sample, b, gold).steps] == []
        whole, _ = task.expert(sample, random.Random(0))
        assert len(whole) > len(briefs[0]) > len(briefs[-1])
        chain = briefs[:-2]
        assert sorted(chain, key=len, reverse=True) == chain
    if task is FINANCE:
        sample = next(s for s in task.generate(50, 3) if s.kind == "cagr_two_years")
        told = task.briefs(sample, random.Random(0))
        assert any(" * 10 + " in text for text in told)
        assert any(" * 10 + " not in text and text.count("=") >= 3 for text in told), "a product without its parts"
