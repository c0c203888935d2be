"""The named experiments: cells that are equal are one, words that are wrong are refused before any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bridge_edge.ablate.arms import Arm, asking, direct, narrowed, percent, unaided
from bridge_edge.ablate.cells import Setting, all_cells, target_of
from bridge_edge.ablate.grid import BY_ASSISTANT, EXPERIMENTS, FIRST, experiments
from bridge_edge.ablate.verb import SMOKE, ablate, check_money, listing, listing_text, split_words
from bridge_edge.errors import UserError
from bridge_edge.recipe_io import load_recipe, recipe_names

LEGAL = load_recipe(["recipe=legal", "data.pool=60"])


def setting(*words: str, place: Path = Path("runs"), seeds: int = 1) -> Setting:
    return Setting((*words,), place, seeds)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_claims_are_about_arms_that_exist(name: str) -> None:
    [found] = experiments([name], LEGAL)
    arms = [arm.name for arm in found.arms]
    assert len(set(arms)) == len(arms) > 1
    assert found.claims
    assert {c.a for c in found.claims} | {c.b for c in found.claims} <= set(arms)
    for words in (("recipe=legal",), ("recipe=finance", *SMOKE)):
        assert all_cells([found], [0], setting(*words)), "every arm is a recipe that can be read"


def test_equal_cells_of_several_experiments_are_run_once() -> None:
    words = ("recipe=legal", "annotate.surest=1", "annotate.reader=false")
    chosen = experiments(["direct-vs-bridge", "ta", "filters"], load_recipe(words))
    cells = all_cells(chosen, [0, 1], setting(*words))
    assert len({cell.id for cell in cells}) == len(cells)
    arms = sum(len(e.arms) for e in chosen)
    assert len(cells) == 2 * (arms - 3)  # the recipe itself thrice (one filter arm is it), its baseline twice
    assert [cell.recipe.seed for cell in cells] == sorted(cell.recipe.seed for cell in cells)


def test_a_recipe_with_a_second_reader_is_compared_with_itself_without() -> None:
    for reader in (True, False):
        [found] = experiments(["filters"], load_recipe(["recipe=legal", f"annotate.reader={str(reader).lower()}"]))
        words = {arm.name: arm.words for arm in found.arms}
        own, alone = "as the recipe has it", "the same without the second reader"
        assert ({own: (), alone: ("annotate.reader=false",)}.items() <= words.items()) is reader
        assert [c.text for c in found.claims if (c.a, c.b) == (own, alone)] == [
            "the second reader makes the student better"
        ] * reader


@pytest.mark.parametrize("name", BY_ASSISTANT)
def test_assistants_alone_are_compared_where_they_differ(name: str) -> None:
    [whole], [found] = experiments([name], LEGAL), experiments([name], LEGAL, ta_only=True)
    cells = all_cells([found], [0], setting("recipe=legal", "data.pool=60"))
    assert {cell.who for cell in cells} == {"ta"}
    assert len(cells) == len(found.arms) > 1, "no two arms are the same assistant"
    assert found.claims
    assert set(found.claims) <= set(whole.claims)
    assert {c.a for c in found.claims} | {c.b for c in found.claims} <= {arm.name for arm in found.arms}


@pytest.mark.parametrize("name", sorted(set(EXPERIMENTS) - set(BY_ASSISTANT)))
def test_assistants_alone_are_refused_where_they_are_one(name: str) -> None:
    with pytest.raises(UserError, match=f"the arms of {name} do not differ in their assistants; leave out --ta-only"):
        experiments([name], LEGAL, ta_only=True)


def test_an_assistant_is_measured_as_its_last_training_left_it() -> None:
    [found] = experiments(["refining"], LEGAL, ta_only=True)
    cells = all_cells([found], [0], setting("recipe=legal", "data.pool=60"))
    assert [target_of(cell) for cell in cells] == ["apprentice", "refine", "refine", "refine"]
    assert [cell.recipe.refine.rounds for cell in cells] == [1, 1, 2, 3]
    assert {cell.recipe.refine.items for cell in cells[1:]} == {30}
    [student] = all_cells([replace(found, arms=(Arm("one"),))], [0], setting("recipe=legal"))
    assert target_of(student) == "tutor"


def test_a_larger_share_raises_the_caps_and_keeps_them() -> None:
    recipe = load_recipe(["recipe=legal", "budget.usd=2", "budget.tokens=1000"])
    assert asking(recipe, 0.05) == ()
    assert asking(recipe, 0.03) == ("budget.fraction=0.03", "budget.queries=null")
    assert set(asking(recipe, 0.5)) >= {"budget.usd=20.0", "budget.tokens=10000"}
    by_number = load_recipe(["recipe=legal", "budget.queries=500"])
    assert "budget.queries=null" in asking(by_number, 0.1)
    assert load_recipe(["recipe=legal", *asking(by_number, 0.2)]).budget.usd == 10


def test_direct_distillation_of_more_answers_takes_as_many_passes_as_the_student() -> None:
    recipe = load_recipe(["recipe=legal"])
    few, most = recipe.baseline.epochs, recipe.student.epochs
    assert few > most
    epochs = {s: load_recipe(["recipe=legal", *direct(recipe, s).words]).baseline.epochs for s in (0.05, 0.5, 1.0)}
    assert epochs == {0.05: few, 0.5: 2 * most, 1.0: most}
    off = load_recipe(["recipe=legal", "baseline.enabled=false"])
    assert "baseline.enabled=true" in direct(off, 0.05).words


def test_the_base_model_shown_the_same_answers_is_not_aligned() -> None:
    recipe = load_recipe(["recipe=legal", *unaided(load_recipe(["recipe=legal"]), 0.05).words])
    assert recipe.align.skipped
    assert (recipe.baseline.epochs, recipe.budget) == (LEGAL.baseline.epochs, LEGAL.budget)


def test_words_are_names_of_experiments_or_values() -> None:
    assert split_words(["recipe=legal", "budgets", "seed=2", "budgets"]) == (["budgets"], ("recipe=legal", "seed=2"))
    assert split_words(["recipe=legal"])[0] == list(FIRST)
    with pytest.raises(UserError, match=r"unknown experiment 'budget'.*did you mean 'budgets'"):
        split_words(["budget"])
    assert all(name in listing_text(listing(())) for name in EXPERIMENTS)


def test_of_a_recipe_the_arms_are_listed_and_can_be_named() -> None:
    (row,) = listing(["recipe=legal", "labels"])
    assert {"hard labels only", "entropy", "GKD"} <= set(row["arms"])
    assert "\n  entropy" in listing_text([row])
    chosen = experiments(["labels", "alignment"], load_recipe(["recipe=legal"]))
    assert narrowed(chosen, ()) == chosen
    (few,) = narrowed(chosen, ["entropy", "hard labels only", "GKD"])
    assert [arm.name for arm in few.arms] == ["hard labels only", "GKD", "entropy"]
    assert {(claim.a, claim.b) for claim in few.claims} == {("entropy", "hard labels only"), ("entropy", "GKD")}
    with pytest.raises(UserError, match="unknown arm 'entrpy'; did you mean 'entropy'"):
        ablate(["recipe=legal", "labels"], setting(place=Path("nowhere")), arms=["entrpy"])
    assert not Path("nowhere").exists()


def test_wrong_words_are_said_before_any_work(tmp_path: Path) -> None:
    place = tmp_path / "runs"
    for words, message in (
        (["recipe=legal", "ta", "ta.lrr=1"], "unknown key 'ta.lrr'"),
        (["direct-vs-bridge"], "no recipe named"),
        (["recipe=nothing"], "unknown recipe 'nothing'"),
    ):
        with pytest.raises(UserError, match=message):
            ablate(words, setting(place=place))
    with pytest.raises(UserError, match=r"no file 'gone\.tsv' for --data"):
        ablate(["recipe=legal"], Setting((), place, 1, (Path("gone.tsv"),)))
    assert not place.exists()


def test_a_paid_teacher_is_asked_for_a_grid_only_if_that_is_agreed_to() -> None:
    words: tuple[str, ...] = (
        "recipe=legal",
        "teacher=openai",
        "teacher.model=big",
        "teacher.base_url=http://localhost:1/v1",
    )
    words = (*words, "teacher.price.prompt=1", "teacher.price.completion=2")
    chosen = experiments(["direct-vs-bridge"], load_recipe(words))
    cells = all_cells(chosen, [0], setting(*words))
    with pytest.raises(UserError, match=r"4 runs would ask 'big', a paid teacher, within caps of \$160.00.*add --paid"):
        check_money(cells, Path(), paid=False)
    check_money(cells, Path(), paid=True)
    check_money(all_cells(chosen, [0], setting("recipe=legal")), Path(), paid=False)


def test_a_pool_of_one_kind_cannot_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    [found] = experiments(["shift"], LEGAL)
    assert [bool(arm.words and "warmup.kinds" in arm.words[0]) for arm in found.arms] == [False, False, True, True]
    monkeypatch.setattr("bridge_edge.ablate.grid.build_splits", lambda recipe: ({"pool": []}, {}))
    with pytest.raises(UserError, match="nothing can shift"):
        experiments(["shift"], LEGAL)


def test_shipped_recipes_have_kinds_to_shift_between() -> None:
    for name in recipe_names():
        assert experiments(["shift"], load_recipe([f"recipe={name}", "data.pool=60"]))


def test_an_uneven_pool_is_one_of_ours() -> None:
    [found] = experiments(["uneven"], LEGAL)
    assert {arm.words[0] for arm in found.arms} == {"data.skew=1.5"}
    [own] = experiments(["uneven"], load_recipe(["recipe=legal", "data.skew=1"]))
    assert {arm.words[0] for arm in own.arms} == {"data.skew=1"}
    files = LEGAL.model_copy(update={"data": LEGAL.data.model_copy(update={"path": "mine.jsonl"})})
    with pytest.raises(UserError, match="budget-vs-random"):
        experiments(["uneven"], files)


def test_shares_read_as_percent() -> None:
    assert [percent(s) for s in (0.01, 0.05, 1.0)] == ["1 %", "5 %", "100 %"]
    assert Arm("x").who == "student"
