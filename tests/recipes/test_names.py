"""Names for other tellings of a legal case: always the same, none twice, none a word that a case says otherwise."""

from __future__ import annotations

import random
import re

from bridge_edge.data.samples import Sample
from bridge_edge.data.swaps import Swaps
from bridge_edge.recipes.legal import names
from bridge_edge.recipes.legal.cases import FIRMS, PEOPLE
from bridge_edge.recipes.legal.task import TASK


def test_names_are_always_the_same_differ_and_avoid_what_is_taken() -> None:
    found = names.people(900, {"Abdul", "Zoe"})
    assert found == names.people(1_000, {"Abdul", "Zoe"})[:900]
    assert len(set(found)) == 900
    assert found[0] == "Adele"
    assert not {"Abdul", "Zoe"} & set(found)
    assert names.firms(300) == names.firms(301)[:300]
    assert len(set(names.firms(300))) == 300
    assert all(re.fullmatch(r"[A-Z][a-z]{2,}", name) for name in (*found, *names.firms(300)))


def test_no_name_is_a_word_that_cases_say_otherwise() -> None:
    """Else a word of the question would be swapped with a name."""
    rng, lists = random.Random(0), TASK.alike
    people, firms = set(lists["people"]) - set(PEOPLE), set(lists["firms"]) - set(FIRMS)
    assert len(people) == 1_200
    assert len(firms) == 400
    assert not (people | set(PEOPLE)) & (firms | set(FIRMS))
    for sample in TASK.generate(1_000, 3):
        said = {word for text in (sample.prompt, *TASK.expert(sample, rng)) for word in re.findall(r"\w+", text)}
        assert not said & (people | firms)


def test_a_case_that_is_told_with_other_names_is_the_same_case() -> None:
    """A checker that only knows the case as it was finds no wrong step once the names are told back."""
    swaps, rng, others = Swaps(TASK.alike), random.Random(0), 0
    names_of = Swaps({name: TASK.alike[name] for name in ("people", "firms")})
    for sample in TASK.generate(150, 4):
        rationale, answer = TASK.expert(sample, rng)
        new = names_of.drawn(sample.prompt, rng)
        told = names_of.told(rationale, new)
        back = {now: before for before, now in new.items()}
        assert TASK.check(sample, names_of.told(told, back), answer).steps
        others += sum(name not in PEOPLE and name not in FIRMS for name in back)
        whole = swaps.swapped(Sample(sample.prompt, answer, rationale), rng)
        before, after = (
            {k: len(words) for k, words in names_of.found(text).items()} for text in (sample.prompt, whole.prompt)
        )
        assert after == before, "two parties have become one"
        assert whole.prompt != sample.prompt
    assert others > 200
