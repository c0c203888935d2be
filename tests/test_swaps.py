"""Words that stand for one another: what is swapped, what stays true, what is refused, and which trainings see it."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge_edge import phases
from bridge_edge.ablate.grid import experiments
from bridge_edge.data.pool import load_task
from bridge_edge.data.samples import Sample
from bridge_edge.data.swaps import Swaps, swaps_of
from bridge_edge.errors import UserError
from bridge_edge.recipe_io import dump, load_recipe
from bridge_edge.recipes.legal.cases import case_from
from bridge_edge.run import run_path
from bridge_edge.stage_key import stage_key
from bridge_edge.stages import needed_for
from tests import colours
from tests.colours import go
from tests.legal import LEGAL

ON = (*LEGAL, "swap.enabled=true")
ANIMALS = "swap.words={animals: [cat, dog, hen, cow, pig]}"
TRAINED = {"apprentice", "draft", "reader", "tutor", "baseline"}


def test_words_are_found_whole_and_the_longest_first() -> None:
    swaps = Swaps({"places": ["York", "New York", "Ohio"], "people": ["Ann", "Ohio", "Ann"]})
    assert swaps.found("Ann of New York, not Anne, nor ann, sued Ohio in York.") == {
        "people": ["Ann"],
        "places": ["New York", "Ohio", "York"],
    }
    assert swaps.found("nothing here") == {}
    assert swaps.lists == {"places": ("York", "New York", "Ohio"), "people": ("Ann",)}  # Ohio is of one list
    assert Swaps({"signs": ["C++", "C."]}).found("C++ and C.") == {"signs": ["C++", "C."]}


def test_different_words_stay_different_and_equal_ones_equal() -> None:
    swaps, rng = Swaps({"people": ["Ann", "Ben", "Cid", "Dee"], "places": ["Rome", "Oslo"]}), random.Random(0)
    sample = Sample("Ann of Rome sues Ben of Rome.", "Ann", "Ann and Ben: Rome, Rome.", "teacher", "a", {"x": 1})
    seen = set()
    for _ in range(60):
        told = swaps.swapped(sample, rng)
        ((one, here, two, there),) = re.findall(r"^(\w+) of (\w+) sues (\w+) of (\w+)\.$", told.prompt)
        assert one != two
        assert here == there
        assert told.rationale == f"{one} and {two}: {here}, {here}."
        assert (told.answer, told.provenance, told.kind, told.facts) == ("Ann", "teacher", "a", {})
        assert swaps.swapped(sample, rng, answer=True).answer in swaps.lists["people"]
        seen.add((one, two, here))
    assert len(seen) > 15  # of the 24 that there are
    again = swaps.swapped(sample, random.Random(5), answer=True)
    assert again.prompt.split()[0] == again.answer
    assert again == swaps.swapped(sample, random.Random(5), answer=True)
    plain = Sample("No name.", "yes", "None.")
    assert swaps.swapped(plain, rng) is plain


def test_the_rules_of_the_legal_domain_do_not_see_what_is_swapped() -> None:
    """The expert, asked of the facts with the same words swapped, reasons as the swapped rationale does."""
    task, recipe = load_task("legal"), load_recipe([*ON])
    swaps = swaps_of(recipe)
    assert swaps is not None
    changed = 0
    for i, sample in enumerate(task.generate(200, 7)):
        rationale, answer = task.expert(sample, random.Random(i))
        told = swaps.swapped(replace(sample, rationale=rationale), random.Random(i))
        new = dict(
            zip(flat(swaps.found(f"{sample.prompt}\n{rationale}")), flat(swaps.found(text_of(told))), strict=True)
        )
        facts = swapped_facts(sample.facts, new)
        assert case_from(facts).answer == answer == told.answer
        assert task.expert(replace(sample, facts=facts), random.Random(i)) == (told.rationale, answer)
        assert task.check(replace(sample, facts=facts), told.rationale or "", answer).steps
        changed += told.prompt != sample.prompt
    assert changed > 195


def flat(found: dict[str, list[str]]) -> list[str]:
    return [word for name in sorted(found) for word in found[name]]


def text_of(sample: Sample) -> str:
    return f"{sample.prompt}\n{sample.rationale}"


def swapped_facts(value: Any, new: dict[str, str]) -> Any:
    if isinstance(value, str):
        first, *rest = value.split(" ")
        return new.get(value) or " ".join([new.get(first, first), *rest])
    if isinstance(value, dict):
        return {k: swapped_facts(v, new) for k, v in value.items()}
    return [swapped_facts(v, new) for v in value] if isinstance(value, (list, tuple)) else value


def test_lists_come_from_the_recipe_a_file_or_the_domain(tmp_path: Path) -> None:
    assert swaps_of(load_recipe([*LEGAL, "swap.enabled=false"])) is None
    (tmp_path / "names.txt").write_text("Ann\n\n Ben \n", encoding="utf-8")
    recipe = colours.write(tmp_path)
    recipe.write_text(recipe.read_text() + "swap: {enabled: true, words: {people: names.txt, places: [Rome, Oslo]}}\n")
    swaps = swaps_of(load_recipe([f"recipe={recipe}"]))
    assert swaps is not None
    assert swaps.lists == {"people": ("Ann", "Ben"), "places": ("Rome", "Oslo")}
    assert "- Ann\n" in dump(load_recipe([f"recipe={recipe}"]))  # a run keeps the words, not where they were
    for word in (f"swap.words.people={tmp_path}/names.txt", f"swap.words={{people: {tmp_path}/names.txt}}"):
        given = load_recipe([*ON, word])
        assert given.swap.words["people"] == ("Ann", "Ben")
    assert load_recipe([*LEGAL, f"swap={{words: {{people: {tmp_path}/names.txt}}}}"]).swap.words
    own = swaps_of(load_recipe([*ON, "swap.words={people: [Mary, James]}"]))
    assert own is not None
    assert own.lists == {"people": ("Mary", "James")}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("swap.words={people: nowhere.txt}", r"swap.words.people='nowhere.txt' is no file that can be read"),
        ("swap.words={people: [Ann]}", r"swap.words.*the list 'people' needs two words at least"),
        ("swap.words={people: [Ann, Ann]}", r"needs two words at least"),
        ("swap.words={people: [Ann, ' ']}", r"the list 'people' has an empty word"),
        ("swap.words=[Ann, Ben]", r"swap.words"),
        ("swap.word={}", r"unknown key 'swap.word', did you mean 'swap.words'"),
    ],
)
def test_lists_that_cannot_be_are_refused(word: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_recipe([*ON, word])


def test_what_has_no_lists_or_swaps_an_answer_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    recipe = colours.write(tmp_path)
    with pytest.raises(UserError, match=r"swap.enabled=true, and no lists of words .* are known"):
        go(recipe, tmp_path / "runs", "swap.enabled=true")
    with pytest.raises(UserError, match=r"swap.words.said has 'yes', which is in the answer 'yes'"):
        go(recipe, tmp_path / "runs", "swap.enabled=true", "swap.words={said: ['yes', 'aye']}")
    assert not (tmp_path / "runs").exists()


def keys(*words: str) -> dict[str, str]:
    recipe = load_recipe(words)
    stages = needed_for(None, recipe)
    return {s.name: stage_key(s, recipe, dict.fromkeys((s.name for s in stages), "the same")) for s in stages}


def test_only_what_learns_or_writes_rationales_is_new_and_only_where_it_is_on() -> None:
    off = keys(*LEGAL, "swap.enabled=false")
    assert off == keys(*LEGAL, "swap.enabled=false", ANIMALS)
    plain, other = (load_recipe([*LEGAL, "swap.enabled=false", *words]) for words in ((), (ANIMALS,)))
    assert run_path(Path(), plain) == run_path(Path(), other) != run_path(Path(), load_recipe([*ON]))
    on, named = keys(*ON), keys(*ON, ANIMALS)
    assert {name for name in off if off[name] != on[name]} == TRAINED
    assert {name for name in on if named[name] != on[name]} == TRAINED
    refined = keys(*ON, "refine.items=100"), keys(*LEGAL, "swap.enabled=false", "refine.items=100")
    assert refined[0]["refine"] != refined[1]["refine"]


def test_numbers_are_swapped_without_words_or_beside_them() -> None:
    off, numbers = keys(*LEGAL, "swap.enabled=false"), keys(*LEGAL, "swap.enabled=false", "swap.numbers=true")
    assert {name for name in off if off[name] != numbers[name]} == TRAINED
    assert keys(*ON) == keys(*ON, "swap.numbers=false") != keys(*ON, "swap.numbers=true") != numbers
    sample = Sample("Ann sues Bob for $90,000.", "Yes", "Ann against Bob. $90,000 is more than $75,000.")
    tokenizer = phases.load_tokenizer(load_recipe(LEGAL).student.model)

    def told(*words: str) -> set[tuple[str, ...]]:
        """The names and the sum of a sample in every pass but the first."""
        ctx = phases.Context(load_recipe([*LEGAL, "swap.words={people: [Ann, Bob, Mia]}", *words]), Path())
        course = phases.course_of(ctx, tokenizer, [sample])
        texts = [str(tokenizer.decode(row.ids)) for k in range(1, 30) for row in course.examples(k)]
        found = [re.search(r"(\w+) sues (\w+) for (\S+?)\..*\1 against \2. (\S+) is more", t, re.S) for t in texts]
        assert all(match and match[3] == match[4] for match in found)
        return {match.groups()[:3] for match in found if match}

    plain, words, sums, both = (
        told(f"swap.enabled={enabled}", f"swap.numbers={numbers}")
        for numbers in ("false", "true")
        for enabled in ("false", "true")
    )
    assert plain == {("Ann", "Bob", "$90,000")}
    assert {some[2] for some in words} == {"$90,000"}
    assert {some[:2] for some in sums} == {("Ann", "Bob")}
    assert min(len(words), len({some[2] for some in sums}), len({some[2] for some in both})) > 3
    assert len({some[:2] for some in both}) > 3


def test_every_pass_of_a_run_but_the_first_has_other_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, texts = colours.write(tmp_path), list[list[list[str]]]()
    train = phases.train

    def watched(model: Any, rows: Sequence[Any], plan: Any, *rest: Any) -> Any:
        tokenizer = phases.load_tokenizer(str(tmp_path / "ta"))
        said = [str(tokenizer.decode(row.ids)) for row in rows]
        ends = [sum(plan.passes[: k + 1]) for k in range(len(plan.passes))]
        cut = [said[a:b] for a, b in zip([0, *ends], ends, strict=False)] if ends else [said]
        texts.append(cut)
        return train(model, rows, plan, *rest)

    monkeypatch.setattr(phases, "train", watched)
    go(recipe, tmp_path / "runs", "swap.enabled=true", ANIMALS, "baseline.epochs=3")
    warmup, assistant, student, direct = texts
    assert [len(passes) for passes in (warmup, assistant, student, direct)] == [1, 6, 2, 3]
    for passes in (assistant, student, direct):
        colour = [[re.findall(r"red|blue", text)[0] for text in one] for one in passes]
        assert all(one == colour[0] for one in colour)
        assert all(one != passes[0] for one in passes[1:])
    assert assistant[1] != assistant[2]


def test_the_grid_compares_student_assistant_and_direct_distillation() -> None:
    (found,) = experiments(["swaps"], load_recipe(LEGAL))
    assert [(arm.who, *arm.words[:2]) for arm in found.arms] == [
        (who, f"swap.enabled={words}", f"swap.numbers={numbers}")
        for who in ("student", "ta", "baseline")
        for words, numbers in (("true", "false"), ("false", "false"), ("false", "true"), ("true", "true"))
    ]
    assert len(found.claims) == 9
    (found,) = experiments(["swaps"], load_recipe([*LEGAL, "baseline.enabled=false"]))
    assert found.arms[8].words == ("swap.enabled=true", "swap.numbers=false", "baseline.enabled=true")
