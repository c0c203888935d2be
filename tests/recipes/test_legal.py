"""Diversity jurisdiction: balance, distinctness, the checker, and the law derived anew from the text alone."""

from __future__ import annotations

import csv
import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from bridge_edge.data.arithmetic import first_error
from bridge_edge.data.places import STATES
from bridge_edge.data.pool import near_duplicates
from bridge_edge.data.samples import Sample, read_jsonl, write_jsonl
from bridge_edge.phases import wrong_steps
from bridge_edge.recipe_io import load_recipe
from bridge_edge.recipes.legal.cases import FORMS, PEOPLE, case_from
from bridge_edge.recipes.legal.story import QUESTION
from bridge_edge.recipes.legal.task import TASK

LEGALBENCH = Path(__file__).parents[2].parent / "shared" / "data" / "legalbench"
NAMES = r"[A-Z]\w+(?:(?:, [A-Z]\w+)* and [A-Z]\w+)?"
SUITS = re.compile(
    rf"(?P<left>{NAMES})(?: both| all)? sues? (?P<right>{NAMES})(?: each)?(?: for|, claiming) (?P<claims>.+)"
)
TURNED = re.compile(rf"(?P<right>{NAMES}) (?:is|are each) sued by (?P<left>{NAMES}) for (?P<claims>.+)")
AGAINST = re.compile(
    rf"In a suit against (?P<right>{NAMES}), (?P<left>{NAMES}) (?:claims|each claim) (?P<claims>.+?)(?: from each)?"
)
HOME = re.compile(
    r"(?P<name>[A-Z]\w+)(?: is (?:from|a citizen of|domiciled in)|, a citizen of) (?P<state>[A-Z][A-Za-z ]+)"
)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return TASK.generate(2000, 0)


def people(text: str) -> list[str]:
    return [p for p in re.split(r", | and ", text) if p]


def derive(text: str) -> tuple[bool, bool]:
    """(diverse, enough money) from the sentences alone; for cases of people, without corporations."""
    homes: dict[str, set[str]] = {}
    left: set[str] = set()
    right: set[str] = set()
    totals: list[int] = []
    for sentence in text.removesuffix(QUESTION).strip().rstrip(".").split(". "):
        if suit := (TURNED.fullmatch(sentence) or AGAINST.fullmatch(sentence) or SUITS.fullmatch(sentence)):
            left |= set(people(suit["left"]))
            right |= set(people(suit["right"]))
            totals.append(sum(int(a.replace(",", "")) for a in re.findall(r"\$([\d,]*\d)", suit["claims"])))
        elif home := re.match(HOME, sentence):
            homes.setdefault(home["name"], set()).add(home["state"].strip())
    assert left, text
    assert totals, text
    ours = {s for name in left for s in homes.get(name, ())}
    theirs = {s for name in right for s in homes.get(name, ())}
    return not ours & theirs, max(totals) > 75_000


def test_answers_are_balanced(samples: list[Sample]) -> None:
    counts = Counter(s.answer for s in samples)
    assert set(counts) == {"Yes", "No"}
    assert 0.35 <= counts["Yes"] / len(samples) <= 0.6
    for kind, n in Counter(s.kind for s in samples).items():
        assert n >= 30
        share = sum(s.answer == "Yes" for s in samples if s.kind == kind) / n
        assert 0.15 < share < 0.85, kind


def test_samples_are_distinct_and_the_same_for_a_seed(samples: list[Sample]) -> None:
    assert len({s.id for s in samples}) == len(samples)
    assert TASK.generate(200, 0) == samples[:200]
    assert not {s.id for s in TASK.generate(500, 1)} & {s.id for s in samples}
    assert all(s.prompt.endswith(QUESTION) for s in samples)


def test_answers_follow_from_the_text_alone(samples: list[Sample]) -> None:
    seen = 0
    for sample in samples:
        if sample.kind == "corporation":
            continue
        diverse, enough = derive(sample.prompt)
        assert sample.answer == ("Yes" if diverse and enough else "No"), sample.prompt
        case = case_from(sample.facts)
        assert diverse == (not case.shared), sample.prompt
        seen += 1
    assert seen > 1500


def test_corporations_are_citizens_of_both_their_states(samples: list[Sample]) -> None:
    """The states that the sentence of each corporation names, against the other side's."""
    seen = 0
    longest_first = sorted(STATES, key=len, reverse=True)
    for sample in samples:
        if sample.kind != "corporation":
            continue
        case = case_from(sample.facts)
        told: dict[str, set[str]] = {}
        for party in case.plaintiffs + case.defendants:
            pattern = re.escape(party.name) + r"(?:,? (?:is|a) [^$]*?)\.(?= [A-Z]|$)"
            sentence = next(m.group(0) for m in re.finditer(pattern, sample.prompt) if " sue" not in m.group(0))
            rest, told[party.name] = sentence.removeprefix(party.name), set()
            for state in longest_first:
                if state in rest:
                    told[party.name].add(state)
                    rest = rest.replace(state, "")
        sides = [{s for p in side for s in told[p.name]} for side in (case.plaintiffs, case.defendants)]
        enough = max(sum(a for _, a in claims) for _, claims in case.claims) > 75_000
        assert sample.answer == ("Yes" if not sides[0] & sides[1] and enough else "No"), sample.prompt
        assert any(p.name.endswith(FORMS) for p in case.plaintiffs + case.defendants)
        seen += 1
    assert seen > 50


def test_the_expert_passes_the_check_on_every_item(samples: list[Sample]) -> None:
    for i, sample in enumerate(samples[:300]):
        rationale, answer = TASK.expert(sample, random.Random(i))
        checked = TASK.check(sample, rationale, answer)
        assert (checked.answer, checked.steps, checked.problem) == (True, True, ""), (sample.prompt, rationale)
        wrong = {"Yes": "No", "No": "Yes"}[answer]
        assert not TASK.check(sample, rationale, wrong).answer


def alterations(sample: Sample, rationale: str) -> dict[str, str]:
    """The rationale with one thing made wrong, by the name of that thing."""
    case = case_from(sample.facts)
    parties = case.plaintiffs + case.defendants
    other = next(s for s in STATES if s not in sample.prompt and s not in rationale)
    total = case.totals[-1]
    made = {
        "a state": rationale.replace(f"({parties[0].states[0]}", f"({other}", 1),
        "a party left out": rationale.replace(f"{parties[-1].name} (", "Somebody (", 1),
        "a total": rationale.replace(f"${total:,} is", f"${total + 1000:,} is"),
        "an empty text": "",
        "no comparison": re.sub(r"\$[\d,]+ is (?:more|less|equal)[^.]*\.", "", rationale),
    }
    for one, two in (("more than", "less than"), ("less than", "more than"), ("equal to", "more than")):
        if f" is {one} $75,000" in rationale:
            made[f"{one} turned"] = rationale.replace(f" is {one} $75,000", f" is {two} $75,000", 1)
    if " + " in rationale:
        made["a sum"] = re.sub(r"= \$(\d+)", lambda m: f"= ${int(m.group(1)) + 1}", rationale, count=1)
    if case.shared:
        made["a shared state denied"] = re.sub(
            r"Both (?:sides )?have [^.]*\.|[A-Z][A-Za-z ]* is on both sides[^.]*\.",
            "No state is on both sides: diverse.",
            rationale,
        )
        made["another shared state"] = re.sub(
            r"(?<=Both sides have )[^:]+|(?<=Both have )[^,]+|[A-Z][A-Za-z ]*(?= is on both sides)", other, rationale
        )
        made["the conclusion"] = rationale.replace("not diverse", "diverse").replace(
            "diversity fails", "diversity holds"
        )
    else:
        made["a state shared by nobody"] = re.sub(
            r"No (?:shared )?state[^.]*\.", f"Both sides have {other}: not diverse.", rationale
        )
        made["the conclusion"] = rationale.replace(": diverse", ": not diverse").replace(
            "diversity holds", "diversity fails"
        )
    return made


def test_altered_rationales_fail_the_check(samples: list[Sample]) -> None:
    seen: Counter[str] = Counter()
    for i, sample in enumerate(samples[:300]):
        rationale, answer = TASK.expert(sample, random.Random(i))
        for what, text in alterations(sample, rationale).items():
            assert text != rationale, (what, rationale)
            checked = TASK.check(sample, text, answer)
            assert not checked.steps, (what, text)
            assert checked.problem
            seen[what] += 1
    assert min(seen.values()) >= 3
    assert len(seen) >= 11


def test_sides_may_not_be_exchanged(samples: list[Sample]) -> None:
    for i, sample in enumerate(samples[:100]):
        case = case_from(sample.facts)
        rationale, answer = TASK.expert(sample, random.Random(i))
        for one, two in zip(case.plaintiffs[:1], case.defendants[-1:], strict=True):
            a, b = (f"{p.name} ({' and '.join(p.states)})" for p in (one, two))
            swapped = rationale.replace(a, "\0").replace(b, a).replace("\0", b)
            assert not TASK.check(sample, swapped, answer).steps, swapped


def test_facts_survive_a_file(samples: list[Sample], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "s.jsonl", samples[:50])
    for before, after in zip(samples, read_jsonl(tmp_path / "s.jsonl"), strict=False):
        assert case_from(after.facts) == case_from(json.loads(json.dumps(before.facts)))
        rationale, answer = TASK.expert(after, random.Random(1))
        assert TASK.expert(before, random.Random(1)) == (rationale, answer)
        assert TASK.check(after, rationale, answer).steps


def legalbench(number: int) -> list[dict[str, str]]:
    with (LEGALBENCH / f"diversity_{number}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


outside = pytest.mark.skipif(not LEGALBENCH.is_dir(), reason="LegalBench's diversity files are not beside the checkout")


@outside
def test_no_public_test_item_is_near_a_generated_one(samples: list[Sample]) -> None:
    held = [Sample(f"{row['text']} {QUESTION}") for n in range(1, 7) for row in legalbench(n)]
    assert len(held) == 900
    assert near_duplicates(samples, held, 0.95) == set()
    texts = {h.prompt for h in held}
    assert not texts & {s.prompt for s in samples}


@outside
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_the_derivation_agrees_with_public_gold_labels(number: int) -> None:
    """The same derivation that checks the generator, against labels that others wrote (part 6 has a known slip)."""
    for row in legalbench(number):
        diverse, enough = derive(row["text"])
        assert (str(diverse), str(enough)) == (row["parties_are_diverse"], row["aic_is_met"]), row["text"]
        assert row["label"] == ("Yes" if diverse and enough else "No"), row["text"]


def test_names_and_states_cannot_be_confused() -> None:
    assert not set(PEOPLE) & set(STATES)
    assert len(set(PEOPLE)) == len(PEOPLE)
    assert len(set(STATES)) == len(STATES) == 50


def test_the_share_of_right_answers_with_a_wrong_step(samples: list[Sample]) -> None:
    recipe, few = load_recipe(["recipe=legal"]), samples[:40]
    said = [TASK.expert(s, random.Random(i)) for i, s in enumerate(few)]
    texts = [f"{rationale}\nAnswer: {answer}" for rationale, answer in said]
    assert wrong_steps(recipe, few, texts) == 0
    texts[:4] = [f"2 + 2 = 5. {text}" for text in texts[:4]]
    assert wrong_steps(recipe, few, texts) == 0.1
    other = {"Yes": "No", "No": "Yes"}
    texts[:2] = [f"{said[i][0]}\nAnswer: {other[said[i][1]]}" for i in range(2)]  # no right answer any more
    assert wrong_steps(recipe, few, texts) == round(2 / 38, 4)
    assert wrong_steps(recipe, few, ["no answer"] * 40) is None
    own = load_recipe(["recipe=legal", "teacher=replay", "teacher.path=a.jsonl", "data.path=a.jsonl"])
    assert wrong_steps(own, few, texts) is None, "nobody knows the facts of a user's items"


def test_the_brief_rationales_are_ever_shorter_and_true(samples: list[Sample]) -> None:
    kept = 0
    for sample in samples[:200]:
        case, briefs = case_from(sample.facts), TASK.briefs(sample, random.Random(0))
        whole, _ = TASK.expert(sample, random.Random(0))
        assert len(whole) > len(briefs[0])
        assert sorted(briefs, key=len, reverse=True) == briefs
        assert not any(first_error(text) for text in briefs)
        assert not any(TASK._law_problem(case, text) for text in briefs[:4])
        assert all((case.shared[0] if case.shared else "$") in text for text in briefs)
        kept += all(f"{p.name} (" in briefs[0] for p in case.plaintiffs + case.defendants)
    assert kept == 200
