"""Words that stand for one another in vignettes and statements: with others of them all is worked out alike."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from bridge_edge.data.samples import Sample
from bridge_edge.data.swaps import Swaps, swaps_of
from bridge_edge.recipe_io import load_recipe
from bridge_edge.recipes._steps import FormulaTask
from bridge_edge.recipes.finance import words as finance
from bridge_edge.recipes.finance.task import TASK as FINANCE
from bridge_edge.recipes.medical.scores import CHADS, WELLS
from bridge_edge.recipes.medical.task import TASK as MEDICAL
from bridge_edge.recipes.medical.words import COMPLAINTS, SIGNS

DRAWN = {"medical": COMPLAINTS, "finance": (*finance.NAMES, *finance.TRADES, *finance.ROWS)}
TASKS = pytest.mark.parametrize("task", [MEDICAL, FINANCE], ids=["medical", "finance"])


def with_words(sample: Sample, swaps: Swaps, new: dict[str, str]) -> Sample:
    """The sample as the generator would have made it of these words: in its text, and in its facts."""
    facts: dict[str, Any] = dict(sample.facts)
    for name in ("told", "rows"):  # findings with their points, rows with their figures
        if name in facts:
            facts[name] = [[swaps.told(words, new), *rest] for words, *rest in facts[name]]
    return replace(sample, prompt=swaps.told(sample.prompt, new), facts=facts)


@TASKS
def test_the_expert_reasons_of_other_words_as_of_these(task: FormulaTask) -> None:
    swaps, rng, other, unseen = Swaps(task.alike), random.Random(0), 0, 0
    for seed, sample in enumerate(task.generate(800, 5)):
        rationale, answer = task.expert(sample, random.Random(seed))
        new = swaps.drawn(f"{sample.prompt}\n{rationale}", rng)
        again = with_words(sample, swaps, new)
        assert task.expert(again, random.Random(seed)) == (swaps.told(rationale, new), answer)
        assert task.check(again, swaps.told(rationale, new), answer).steps
        other += again.prompt != sample.prompt
        unseen += any(word in again.prompt for word in DRAWN[task.name])
    assert other > 500
    assert unseen > 100


@TASKS
def test_every_word_is_of_one_list_and_no_new_one_is_said_otherwise(task: FormulaTask) -> None:
    words = [word for some in task.alike.values() for word in some]
    assert len(set(words)) == len(words), "a word of two lists would be swapped for what it is not"
    assert all(word == " ".join(word.split()) for word in words)
    new, samples = Swaps({"new": DRAWN[task.name]}), task.generate(1_000, 6)
    lists, known = Swaps(task.alike), set[str]()
    for sample in samples:
        rationale, _ = task.expert(sample, random.Random(0))
        found = new.found(f"{sample.prompt}\n{rationale}")
        assert not found, f"{found} in {sample.prompt!r}"
        known |= {word for some in lists.found(sample.prompt).values() for word in some}
    drawn = set(words) - set(DRAWN[task.name])
    assert len(drawn & known) > 0.9 * len(drawn), "the lists hold what the generator says, in its spelling"


def test_a_sign_is_swapped_for_another_wording_of_itself() -> None:
    """Else two wordings of one sign would be counted twice, or one that is absent be present."""
    every = {name: set(words) for name, (_, words) in (*CHADS.items(), *WELLS.items())}
    assert all(set(words) == every[name] for name, words in SIGNS.items())
    assert not set(MEDICAL.alike["complaints"]) & set().union(*every.values())


@TASKS
def test_the_recipe_finds_the_lists_itself(task: FormulaTask) -> None:
    swaps = swaps_of(load_recipe([f"recipe={task.name}", "swap.enabled=true"]))
    assert swaps is not None
    assert swaps.lists == {name: tuple(words) for name, words in task.alike.items()}
