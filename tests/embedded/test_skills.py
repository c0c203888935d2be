"""The pretraining corpus: true steps, answers that follow from them, nothing of the domains, the same for a seed."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from bridge_edge.data.arithmetic import claims, first_error
from bridge_edge.data.pool import load_task
from bridge_edge.embedded.skills import SKILLS, Skill, documents
from bridge_edge.embedded.skills.drills import comparisons, holds, relation, sums, verdicts
from bridge_edge.embedded.skills.readings import readings, tally
from bridge_edge.embedded.skills.years import cells, trends


@pytest.mark.parametrize("skill", sorted(SKILLS))
def test_every_step_of_every_skill_is_true(skill: str) -> None:
    make, weight = SKILLS[skill]
    assert weight > 0
    rng = random.Random(5)
    for _ in range(300):
        context, question, steps, answer = make(rng)
        assert question
        assert answer
        # A count of points that starts after a rule that gives none is read as another sum by the checker.
        assert skill in ("points", "tally") or not first_error(steps), (context, question, steps)


@pytest.mark.parametrize("skill", [verdicts, readings, trends])
def test_a_verdict_follows_from_its_last_comparison(skill: Skill) -> None:
    rng = random.Random(6)
    for _ in range(400):
        _, question, steps, answer = skill(rng)
        compared = [c for c in claims(steps) if c.kind == "comparison"]
        left, right = compared[0].left, compared[0].right
        words = {"above": left > right, "more than": left > right, "over": left > right, "below": left < right,
                 "less than": left < right, "under": left < right, "at least": left >= right,
                 "at most": left <= right}  # fmt: skip
        asked = max((w for w in words if f" {w} " in question), key=question.rfind)
        assert answer == ("Yes" if words[asked] else "No"), (question, steps)


def test_equal_numbers_are_often_compared() -> None:
    rng = random.Random(7)
    steps = " ".join(comparisons(rng)[2] for _ in range(300))
    share = steps.count(" equal to ") / (steps.count(" is "))
    assert 0.15 < share < 0.35


def test_the_last_of_several_sums_is_the_answer() -> None:
    rng = random.Random(8)
    for _ in range(200):
        _, _, steps, answer = sums(rng)
        assert steps.rstrip(".").endswith(f"= {answer}")


def test_cells_are_read_from_the_row_and_the_year_that_were_asked() -> None:
    rng = random.Random(9)
    seen = 0
    for _ in range(300):
        context, question, steps, answer = cells(rng)
        lines = context.split("\n")
        if not lines[1:] or not lines[1].startswith("item | "):
            continue
        years = lines[1].split(" | ")[1:]
        table = {line.split(" | ")[0]: line.split(" | ")[1:] for line in lines[2:]}
        row, _, year = question.rstrip(".?").rpartition(", ")[2].rpartition(" in ")
        assert table[row.split(": ")[-1]][years.index(year)] == answer
        for told, quoted in re.findall(r"([^.;:]+): ((?:\d{4} \d+, )+\d{4} \d+);", steps):
            assert quoted == ", ".join(f"{y} {v}" for y, v in zip(years, table[told.strip()], strict=True))
        seen += 1
    assert seen > 50


def test_points_are_given_exactly_where_the_rule_is_met() -> None:
    rng = random.Random(10)
    for _ in range(300):
        context, question, steps, answer = tally(rng)
        rules = context.split("Points: ")[1].split(". ")[0].split(", ")
        listed = context.split(" has ")[-1].rstrip(".").split(", ")
        told = dict(part.rsplit(" ", 1) for part in listed if part[-1].isdigit())
        total = 0
        for rule in rules:
            words = rule.split(" ")
            worth = int(words[-1])
            asked = next((w for w in ("above", "at least", "below", "at most") if f" {w} " in rule), "")
            if asked:
                label, limit = rule.rsplit(f" {asked} ", 1)
                total += worth * holds(int(told[label]), asked, int(limit.split(" ")[0]))
            else:
                total += worth * (" ".join(words[:-1]) in listed)
        assert f"Total {total}." in steps
        if question.startswith("How"):
            assert answer == str(total)


def test_relation_and_holds_agree() -> None:
    for a, b in itertools.product(range(4), repeat=2):
        assert relation(a, b) == ("equal to" if a == b else "more than" if holds(a, "above", b) else "less than")
        assert holds(a, "at least", b) != holds(a, "below", b)
        assert holds(a, "at most", b) != holds(a, "above", b)


def test_the_stream_is_the_same_for_a_seed_and_differs_between_seeds() -> None:
    first, again, other = (list(itertools.islice(documents(s), 300)) for s in (1, 1, 2))
    assert first == again
    assert not {d.prompt for d in first if len(d.prompt) > 60} & {d.prompt for d in other if len(d.prompt) > 60}
    assert {d.skill for d in itertools.islice(documents(3), 4000)} == set(SKILLS)


@pytest.mark.parametrize("domain", ["legal", "medical", "finance"])
def test_nothing_of_a_domain_is_in_the_corpus(domain: str) -> None:
    """No prompt of the domain, none of its questions, and none of its terms."""
    task = load_task(domain)
    prompts = [s.prompt for s in task.generate(400, 12)]
    corpus = [f"{d.prompt}\n{d.steps}" for d in itertools.islice(documents(13), 6000)]
    whole = "\n".join(corpus).lower()
    assert not [p for p in prompts if p.lower() in whole]
    terms = {
        "legal": ("citizen", "diversity", "plaintiff", "defendant", "amount in controversy", "75,000 threshold"),
        "medical": ("creatinine", "chloride", "albumin", "cha2ds2", "curb", "wells", "mmhg", "bmi", "anion"),
        "finance": ("ebit", "cost of sales", "receivables", "cagr", "gross margin", "current ratio", "payable"),
    }[domain]
    assert not [t for t in terms if re.search(rf"\b{re.escape(t)}", whole)]
