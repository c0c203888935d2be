"""The gate between the pool and the held-out items, and the splits of data of one's own."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from bridge_edge.data.pool import build_splits, distinct, load_task, near_duplicates, shingles, uneven
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_io import load_recipe
from bridge_edge.recipes.legal.task import Diversity

LONG = " ".join(f"Clause {i} says that party {i * 7 % 13} pays {i * 37} dollars on day {i}." for i in range(1, 21))


def recipe_for(
    folder: Path, rows: list[dict[str, str]], *words: str, test: list[dict[str, str]] | None = None
) -> Recipe:
    """A recipe of one's own over `rows`, with a replay teacher."""
    lines: list[tuple[str, list[dict[str, str]]]] = [("pool.jsonl", rows)]
    lines.append(("answers.jsonl", [{"id": "x", "answer": "Yes"}]))
    if test is not None:
        lines.append(("test.jsonl", test))
    for name, content in lines:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    held = "\n  test_path: test.jsonl" if test is not None else ""
    (folder / "own.yaml").write_text(
        "task: {prompt: '{text}', answers: [Yes, No]}\n"
        f"data:\n  path: pool.jsonl{held}\n"
        "teacher: {kind: replay, path: answers.jsonl}\n"
    )
    return load_recipe([f"recipe={folder / 'own.yaml'}", *words])


def rows_of(n: int, start: int = 0) -> list[dict[str, str]]:
    return [{"text": f"case {i} of house {i * i}", "answer": "Yes" if i % 3 else "No"} for i in range(start, start + n)]


def words_of(text: str) -> list[str]:
    """The words of a text, told apart the slow way: letter by letter."""
    words, current = [], ""
    for letter in text.casefold():
        if letter.isalnum() or letter == "_":
            current += letter
        elif current:
            words.append(current)
            current = ""
    return [*words, current] if current else words


def jaccard(one: str, two: str) -> float:
    def runs(text: str) -> set[tuple[str, ...]]:
        words = words_of(text)
        return {tuple(words[i : i + 3]) for i in range(max(1, len(words) - 2))}

    a, b = runs(one), runs(two)
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_near_duplicates_are_those_of_a_slow_comparison_of_all_pairs(threshold: float) -> None:
    rng = random.Random(threshold)
    for _ in range(40):
        vocabulary = "abcdefgh"[: rng.randint(2, 8)]
        texts = [" ".join(rng.choices(vocabulary, k=rng.randint(1, 14))) for _ in range(24)]
        texts += [t + " " + rng.choice(vocabulary) for t in texts[:6]]
        rng.shuffle(texts)
        pool, held = texts[:18], texts[18:]
        slow = {i for i, p in enumerate(pool) if any(jaccard(p, h) >= threshold for h in held)}
        assert near_duplicates([Sample(p) for p in pool], [Sample(h) for h in held], threshold) == slow


def test_a_pair_exactly_at_the_threshold_is_too_close() -> None:
    words = [f"w{i}" for i in range(11)]  # nine runs of three words
    one, two = " ".join([*words[:9], "x"]), " ".join([*words[:9], "y"])
    assert jaccard(one, two) == 7 / 9
    assert near_duplicates([Sample(one)], [Sample(two)], 7 / 9) == {0}
    longer, shorter = " ".join([*words[:12], "a"]), " ".join(words[:9])
    assert jaccard(longer, shorter) == 0.7
    assert near_duplicates([Sample(longer)], [Sample(shorter)], 0.7) == {0}


@pytest.mark.parametrize(
    "changed",
    [
        LONG,
        LONG.upper(),
        LONG.replace(".", ""),
        LONG.replace(".", " ;"),
        LONG.replace(" ", "  \n"),
        f"'{LONG}'!",
        LONG.replace("Clause 20", "Section 20"),
    ],
    ids=["same", "case", "no points", "other points", "spaces", "quotes", "one word"],
)
def test_a_slightly_changed_copy_is_found(changed: str) -> None:
    assert near_duplicates([Sample("quite another text, on fruit"), Sample(changed)], [Sample(LONG)], 0.95) == {1}


def test_numbers_and_signs_tell_items_apart() -> None:
    pairs = [("3 + 4", "3 * 4"), ("7 > 5", "7 < 5"), ("9 - 2", "9 + 2"), ("it is 1.5 now", "it is 15 now")]
    for one, two in pairs:
        assert shingles(one) != shingles(two)
        assert not near_duplicates([Sample(one)], [Sample(two)], 0.95)
    assert shingles("He paid $75,000. Then left!") == shingles("he paid $75,000 then left")


def test_planted_copies_of_held_out_items_never_reach_the_pool(tmp_path: Path) -> None:
    held = [{"text": f"{LONG} Item {i} of {i * i} in the {w} set.", "answer": "Yes"} for i, w in enumerate("abcdef")]
    planted = [
        {"text": change(str(row["text"])), "answer": "No"}
        for row in held
        for change in (
            str,
            str.upper,
            lambda t: t.replace(".", " !"),
            lambda t: t.replace("Clause 3", "Section 3"),
        )
    ]
    recipe = recipe_for(tmp_path, [*rows_of(60), *planted], "data.dev=5", test=held)
    splits, counts = build_splits(recipe)
    assert {s.prompt for s in splits["test"]} == {r["text"] for r in held}
    for sample in splits["pool"]:
        assert all(jaccard(sample.prompt, h.prompt) < 0.95 for h in splits["dev"] + splits["test"])
    in_dev = sum("Clause" in s.prompt for s in splits["dev"])
    assert counts["near_duplicates_dropped"] >= len(planted) - in_dev
    assert not any("clause" in s.prompt.casefold() for s in splits["pool"])


def test_splits_are_apart_complete_and_the_same_every_time(tmp_path: Path) -> None:
    rows = rows_of(80)
    splits, counts = build_splits(recipe_for(tmp_path, rows, "data.dev=10", "data.test=15"))
    again, _ = build_splits(recipe_for(tmp_path, rows, "data.dev=10", "data.test=15"))
    other, _ = build_splits(recipe_for(tmp_path, rows, "data.dev=10", "data.test=15", "seed=1"))
    assert splits == again
    assert splits != other
    ids = [s.id for part in splits.values() for s in part]
    assert len(ids) == len(set(ids)) == 80
    assert (counts["pool"], counts["dev"], counts["test"], counts["rows"]) == (55, 10, 15, 80)


def test_the_size_of_the_pool_is_a_bound(tmp_path: Path) -> None:
    splits, _ = build_splits(recipe_for(tmp_path, rows_of(80), "data.dev=10", "data.test=15", "data.pool=20"))
    assert len(splits["pool"]) == 20


def test_generated_splits_share_nothing() -> None:
    recipe = load_recipe(["recipe=legal", "data.pool=150", "data.dev=30", "data.test=40"])
    splits, counts = build_splits(recipe)
    held = {s.id for s in splits["dev"] + splits["test"]}
    assert not held & {s.id for s in splits["pool"]}
    assert counts["pool"] + counts["near_duplicates_dropped"] == 150
    assert build_splits(recipe)[0] == splits


@pytest.mark.parametrize("name", ["legal", "medical", "finance"])
def test_kinds_of_an_uneven_pool_fall_by_a_power_of_their_place(name: str) -> None:
    task, count, skew = load_task(name), 900, 1.5
    found = uneven(task, count, 7, skew)
    kinds = len({s.kind for s in task.generate(2000, 7)})
    whole = sum(k**-skew for k in range(1, kinds + 1))
    sizes = [n for _, n in Counter(s.kind for s in found).most_common()]
    assert len(sizes) == kinds
    assert all(abs(n - count * k**-skew / whole) <= 1 for k, n in enumerate(sizes, 1))
    assert len({s.id for s in found}) == count
    assert [s.id for s in found] == [s.id for s in uneven(task, count, 7, skew)]
    half = Counter(s.kind for s in found[: count // 2]).most_common(1)[0][1]
    assert 0.35 < half / sizes[0] < 0.65, "the kinds lie mixed in the pool"
    assert uneven(task, 40, 7, 0.0) == task.generate(40, 7)


def test_an_uneven_pool_leaves_the_test_even_and_is_for_shipped_domains_alone(tmp_path: Path) -> None:
    words = ["recipe=medical", "data.pool=400", "data.dev=40", "data.test=80"]
    flat, _ = build_splits(load_recipe(words))
    steep, counts = build_splits(load_recipe([*words, "data.skew=1.5"]))
    assert steep["test"] == flat["test"]
    assert steep["dev"] == flat["dev"]
    assert max(counts["kinds"].values()) > 0.45 * 400 > 0.2 * 400 > max(Counter(s.kind for s in flat["pool"]).values())
    with pytest.raises(UserError, match=r"data\.skew=1 .*leave it out"):
        recipe_for(tmp_path, rows_of(20), "data.skew=1")


def test_a_kind_that_a_domain_hardly_has_cannot_be_the_most_frequent() -> None:
    class Lopsided(Diversity):
        def generate(self, n: int, seed: int) -> list[Sample]:
            return [Sample(f"{i}", "Yes", kind="rare" if i == 5 else "usual") for i in range(n)]

    with pytest.raises(UserError, match=r"data\.skew=0\.1 wants \d+ items of kind 'rare'.*lower data\.skew"):
        uneven(Lopsided(), 50, 1, 0.1)


def refused(recipe: Recipe) -> str:
    with pytest.raises(UserError) as caught:
        build_splits(recipe)
    return str(caught.value)


def test_an_empty_pool_a_missing_column_and_too_large_a_budget(tmp_path: Path) -> None:
    assert "the pool is empty" in refused(recipe_for(tmp_path, rows_of(20), "data.dev=10", "data.test=10"))
    same = [{"text": LONG + " a b c"[: 2 * i], "answer": "Yes"} for i in range(4)]
    assert "the pool is empty" in refused(recipe_for(tmp_path, same, "data.dev=1", "data.test=1"))
    bare = [{"message": "x y z", "answer": "Yes"}] * 3
    assert "no column 'text'" in refused(recipe_for(tmp_path, bare, "data.dev=1", "data.test=1"))
    unlabelled = [{"text": "x y z"}] * 3
    assert "answer" in refused(recipe_for(tmp_path, unlabelled, "data.dev=1", "data.test=1"))
    few = recipe_for(tmp_path, rows_of(30), "data.dev=5", "data.test=5", "budget.queries=25")
    assert "above the pool of 20" in refused(few)


def test_a_partly_labelled_file_keeps_its_labels_for_the_held_out_items(tmp_path: Path) -> None:
    rows: list[dict[str, str]] = [{**r, "answer": ""} if i >= 12 else r for i, r in enumerate(rows_of(50))]
    words = ("data.labels=none", "select.difficulty=entropy", "data.dev=5", "data.test=6")
    splits, _ = build_splits(recipe_for(tmp_path, rows, *words))
    assert all(s.answer for s in splits["dev"] + splits["test"])
    assert len(splits["pool"]) == 39
    assert sum(s.answer is None for s in splits["pool"]) == 38
    assert "12 items" in refused(recipe_for(tmp_path, rows, *words[:2], "data.dev=8", "data.test=8"))


def test_distinct_keeps_the_first() -> None:
    samples = [Sample("a", "1"), Sample("b", "2"), Sample("a", "3")]
    assert distinct(samples) == samples[:2]


@pytest.mark.parametrize("name", ["os", "nowhere", "../legal", "legal.task"])
def test_only_shipped_domains_are_imported(name: str) -> None:
    with pytest.raises(UserError):
        load_task(name)
