"""Items told several times over: what the engine reads, what comes back, which draft is chosen and which are kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bridge_edge.annotation import RAW, _by_item
from bridge_edge.data.samples import Sample
from bridge_edge.data.swaps import Swaps
from bridge_edge.errors import UserError
from bridge_edge.generate.drafts import Draft, vote
from bridge_edge.generate.filters import Entry, unsure
from bridge_edge.generate.tellings import Telling, borne_out, told_again
from bridge_edge.progress import Advance
from bridge_edge.recipe_io import load_recipe
from bridge_edge.recipe_models import AnnotateSpec
from bridge_edge.stage_runner import KEY
from tests import colours
from tests.colours import go

SWAPS = Swaps({"people": ["Ann", "Ben", "Cid", "Dee", "Eve"], "places": ["Rome", "Oslo", "Bern"]})
ITEMS = [Sample("Ann of Rome sues Ben of Oslo."), Sample("Cid of Bern sues Dee of Bern."), Sample("Nobody sues.")]


class Echo:
    """An engine that says who is where, in a late order; it always takes Eve for Ben."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def write(self, items: Sequence[Sample], advance: Advance) -> Iterator[tuple[int, Draft]]:
        self.read += [item.prompt for item in items]
        for place in reversed(range(len(items))):
            said = " ".join(re.findall(r"[A-Z]\w+ of [A-Z]\w+", items[place].prompt)).replace("Eve", "Ben")
            advance(1, "")
            yield place, Draft(f"{said}\nAnswer: yes", 5, -0.1, True)

    def close(self) -> None:
        pass


def test_each_telling_has_other_words_and_comes_back_in_the_items_own() -> None:
    engine, seen = Echo(), list[float]()
    found = list(told_again(engine, ITEMS, Telling(SWAPS, 4, 0), lambda n, note: seen.append(n)))
    assert sorted((place, draft.sample) for place, draft in found) == [(i, k) for i in range(3) for k in range(4)]
    assert sum(seen) == 12
    assert engine.read[:3] == [item.prompt for item in ITEMS]
    assert engine.read.count("Nobody sues.") == 1  # it has no words, so all its tellings are one
    assert len(set(engine.read)) == len(engine.read) > 5
    for item in ITEMS:
        assert Telling(SWAPS, 4, 0).words(item, 0) == {}
        assert Telling(SWAPS, 4, 0).words(item, 2) == Telling(SWAPS, 9, 0).words(item, 2)
    assert Telling(SWAPS, 4, 0).words(ITEMS[0], 1) != Telling(SWAPS, 4, 1).words(ITEMS[0], 1)
    misread = 0
    for place, draft in found:
        words = Telling(SWAPS, 4, 0).words(ITEMS[place], draft.sample)
        said = draft.text.partition("\n")[0]
        if "Eve" in words.values():
            misread += 1
        else:
            assert said == " ".join(re.findall(r"[A-Z]\w+ of [A-Z]\w+", ITEMS[place].prompt))
    assert misread > 0


def drafts(*texts: str) -> list[Draft]:
    return [Draft(text, 5, -0.1 * (k + 1), True, k) for k, text in enumerate(texts)]


def test_the_draft_that_the_others_bear_out_most_comes_first() -> None:
    one, two = "a b c d e.\nAnswer: yes", "a b c d f.\nAnswer: yes"
    found = borne_out(vote(drafts("x y z.\nAnswer: yes", one, two, "a b c d e.\nAnswer: no"), ("yes", "no"), "yes"), 4)
    # word triples: abc bcd cde against abc bcd cdf: 2 of 4 alike; the wrong answer and the other text count as 0
    assert [(c.draft.sample, c.accord) for c in found.candidates] == [(1, 0.5 / 3), (2, 0.5 / 3), (0, 0.0)]
    same = borne_out(vote(drafts("x y z.\nAnswer: yes", one, one), ("yes", "no"), None), 3)
    assert [(c.draft.sample, c.accord) for c in same.candidates] == [(1, 0.5), (2, 0.5), (0, 0.0)]
    false = borne_out(vote(drafts("1 + 1 = 3.\nAnswer: yes", "1 + 1 = 3.\nAnswer: yes", one), ("yes", "no"), None), 3)
    assert [(c.draft.sample, c.accord) for c in false.candidates] == [(2, 0.0), (0, 0.0), (1, 0.0)]
    assert borne_out(vote([], ("yes",), None), 0).candidates == ()
    assert borne_out(vote(drafts(one), ("yes",), None), 1).candidates[0].accord == 0.0


def entry(text: str, logprob: float | None, accord: float | None, read: float | None = None) -> Entry:
    verdict = vote([Draft(text, 5, logprob, True)], ("yes", "no"), None)
    best = replace(verdict.candidates[0], accord=accord)
    return Entry(Sample(text), verdict, 1, best, read)


def test_accord_has_a_say_in_which_are_surest() -> None:
    half = AnnotateSpec(surest=0.5)
    rows = [("a", -0.1, 0.2), ("b", -0.2, 0.1), ("c", -0.3, 1.0), ("d", -0.4, 0.9)]
    entries = [entry(f"{name}.\nAnswer: yes", logprob, accord) for name, logprob, accord in rows]
    assert set(unsure(entries, half)) == {1, 3}  # sums of ranks: 0 + 2, 1 + 3, 2 + 0, 3 + 1
    assert "accord 0.10" in unsure(entries, half)[1]
    silent = [entry(f"{name}.\nAnswer: yes", None, accord) for name, _, accord in rows]
    assert set(unsure(silent, half)) == {0, 1}
    read = [entry(f"{name}.\nAnswer: yes", p, a, r) for (name, p, a), r in zip(rows, (-9, -1, -8, -2), strict=True)]
    assert set(unsure(read, half)) == {0, 3}  # 0 + 3 + 2, 1 + 0 + 3, 2 + 2 + 0, 3 + 1 + 1
    with pytest.raises(UserError, match=r"annotate.surest=0.5 needs log-probabilities"):
        unsure([entry("a.\nAnswer: yes", None, None)], half)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(UserError, match=r"annotate.tellings=3 tells items with other words.*set swap.enabled=true"):
        load_recipe(["recipe=medical", "swap.enabled=false", "annotate.tellings=3"])
    words = "swap={enabled: true, words: {people: [Ann, Ben]}}"
    with pytest.raises(UserError, match=r"annotate.tellings=3 and annotate.samples=2: set one of them to 1"):
        load_recipe(["recipe=medical", "annotate.tellings=3", "annotate.samples=2", words])
    assert load_recipe(["recipe=medical", "annotate.tellings=3", words]).annotate.tellings == 3


def test_a_run_drafts_every_telling_and_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    recipe = colours.write(tmp_path)
    words = ("swap={enabled: true, words: {animals: [cat, dog, hen, cow, pig]}}", "annotate.tellings=3")
    _, run = go(recipe, tmp_path / "runs", *words, "annotate.batch_rows=1", target="annotate")
    raw = run.folder("draft") / RAW
    found = _by_item(raw)
    pool = [json.loads(line)["prompt"] for line in (run.folder("data") / "pool.jsonl").read_text().splitlines()]
    assert len(found) == len(pool) > 30
    assert all([d.sample for d in some] == [0, 1, 2] for some in found.values())
    known = {animal for text in colours.ANIMALS for animal in text.split()[1:2]}
    assert known == {"cat", "dog", "hen", "cow", "pig"}
    decided = [json.loads(line) for line in (run.folder("annotate") / "decisions.jsonl").read_text().splitlines()]
    assert {line["drafts"] for line in decided} == {3}
    assert all(0 <= line["accord"] <= 1 for line in decided if "logprob" in line)
    whole = raw.read_text()
    partial = run.path / "draft.partial"
    partial.mkdir()
    key = run.manifest["stages"]["draft"]["key"]
    (partial / KEY).write_text(key)
    lines = whole.splitlines(keepends=True)
    (partial / RAW).write_text("".join(lines[: len(lines) // 2]) + lines[len(lines) // 2][:9])
    del run.manifest["stages"]["draft"]
    run.save()
    _, again = go(recipe, tmp_path / "runs", *words, "annotate.batch_rows=1", target="annotate")
    assert (again.folder("draft") / RAW).read_text() == whole
