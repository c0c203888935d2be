"""Stages: what their keys see, what is skipped, resumed or taken over."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bridge_edge import stages
from bridge_edge.errors import UserError
from bridge_edge.phases import Context
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_io import load_recipe
from bridge_edge.run import Run
from bridge_edge.stage_key import slice_of, stage_key
from bridge_edge.stage_runner import KEY, run_stages
from bridge_edge.stages import STAGES, Stage, needed_for
from tests.legal import LEGAL

OUTPUTS = {stage.name: stage.name for stage in STAGES}
BUDGETS = ("reasoning.budgets=[16,32]",)


def keys(recipe: Recipe) -> dict[str, str]:
    return {stage.name: stage_key(stage, recipe, OUTPUTS) for stage in needed_for(None, recipe)}


def touched(word: str, *base: str) -> set[str]:
    """The stages whose own key changes with one value, their inputs being equal."""
    before, after = (keys(load_recipe([*LEGAL, *base, *more])) for more in ((), (word,)))
    return {name for name in before if before[name] != after[name]}


def test_stages_read_what_exists_and_need_what_came_before() -> None:
    plain, *others = (
        load_recipe([*LEGAL, *words])
        for words in ((), BUDGETS, (*BUDGETS, "reasoning.rl=true"), (*BUDGETS, "reasoning.rl=true", "select.rounds=2"))
    )
    for recipe in (plain, *others):
        seen: set[str] = set()
        for stage in needed_for(None, recipe):
            assert slice_of(recipe, stage.reads)
            assert set(stage.needs) <= seen
            seen.add(stage.name)
        assert seen - {s.name for s in STAGES} <= {f"{name}-1" for name in ("score", "select", "teach", "apprentice")}
    assert [s.name for s in needed_for("select", plain)] == ["data", "warmup", "score", "select"]
    assert {s.name for s in STAGES} - {s.name for s in needed_for(None, plain)} == {"refine", "shorten", "sft"}


def test_a_method_that_is_switched_on_later_adds_stages_and_changes_none_before_them() -> None:
    """The annotations are not made again for budgets, nor the student of budgets for its reinforcement."""
    plain, within, rl, alone = (
        keys(load_recipe([*LEGAL, *words]))
        for words in (
            (),
            BUDGETS,
            (*BUDGETS, "reasoning.rl=true"),
            (*BUDGETS, "reasoning.rl=true", "reasoning.grpo.sft=false"),
        )
    )
    assert within.keys() - plain.keys() == {"shorten"}
    assert {name for name in plain if plain[name] != within[name]} == {"tutor", "evaluate"}
    assert rl["sft"] == within["tutor"] != rl["tutor"]
    assert {name for name in within if within[name] != rl[name]} == {"tutor", "evaluate"}
    assert "sft" not in alone
    assert alone["tutor"] not in (rl["tutor"], within["tutor"])


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("student.lr=1e-4", {"align", "reader", "tutor", "baseline"}),
        ("ta.lr=1e-4", {"warmup", "apprentice"}),
        ("ta.precision=fp32", {"warmup", "apprentice", "draft"}),
        ("select.alpha=0.9", {"select"}),
        ("select.difficulty=entropy", {"score", "select"}),
        ("select.embeddings=owner/model", {"score", "select"}),
        ("select.strategy=typiclust", {"select"}),
        ("budget.queries=17", {"select", "teach"}),
        ("teacher.style=brief", {"teach"}),
        ("annotate.keep=all", {"annotate"}),
        ("annotate.surest=0.5", {"annotate"}),
        ("annotate.steps=true", {"annotate"}),
        ("annotate.samples=4", {"draft", "annotate"}),
        ("annotate.seed=1", {"draft", "annotate"}),
        ("baseline.epochs=1", {"reader", "baseline"}),
        ("gate.accuracy=0.5", {"apprentice"}),
        ("align.items=3", {"align"}),
        ("warmup.epochs=2", {"warmup"}),
        ("expected=soon", set()),
        ("description=other", set()),
    ],
)
def test_a_value_touches_the_stages_that_read_it(word: str, expected: set[str]) -> None:
    assert touched(word) == expected


@pytest.mark.parametrize("word", ["seed=1", "task.max_new_tokens=64", "tutor.format=multitask", "data.pool=99"])
def test_values_that_reach_far_touch_the_data_or_the_models(word: str) -> None:
    assert touched(word) & {"data", "tutor", "apprentice"}


def test_every_value_of_a_recipe_but_its_labels_is_in_some_key() -> None:
    recipe = load_recipe(LEGAL)
    read = {dotted for stage in STAGES for dotted in stage.reads}
    for name in Recipe.model_fields:
        if name in ("description", "expected", "scale"):
            continue
        if name == "turns":  # read as what it changes for a later turn (test_turns.py)
            continue
        assert name in read or any(r.startswith(name + ".") for r in read), name
    assert recipe.name == "legal"


def test_a_key_sees_inputs_version_and_the_files_of_models(tmp_path: Path) -> None:
    recipe, stage = load_recipe(LEGAL), STAGES[1]
    key = stage_key(stage, recipe, OUTPUTS)
    assert key == stage_key(stage, load_recipe(LEGAL), OUTPUTS)
    assert key != stage_key(stage, recipe, {**OUTPUTS, "data": "other"})
    assert key != stage_key(Stage(**{**stage.__dict__, "version": 99}), recipe, OUTPUTS)
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    own = load_recipe([*LEGAL, f"ta.model={base}"])
    before = stage_key(stage, own, OUTPUTS)
    (base / "config.json").write_text("{ }")
    assert before != stage_key(stage, own, OUTPUTS)


class Toy:
    """Three stages that write a file each and count how often they work; `second` reads the first, `third` both."""

    def __init__(self) -> None:
        self.worked: list[str] = []
        self.fail: set[str] = set()
        self.found: dict[str, list[str]] = {}

    def stage(self, name: str, reads: tuple[str, ...], needs: tuple[str, ...], text: Any) -> Stage:
        def work(ctx: Context, out: Path) -> dict[str, Any]:
            self.worked.append(name)
            self.found[name] = sorted(p.name for p in out.iterdir() if p.name != KEY)
            (out / "half").write_text("done")
            if name in self.fail:
                raise UserError("it broke")
            (out / "half").unlink()
            (out / "file").write_text(text(ctx))
            return {"length": len(text(ctx))}

        return Stage(name, name.title(), work, reads, needs)

    def build(self) -> tuple[Stage, ...]:
        def second(ctx: Context) -> str:
            return (ctx.folder("first") / "file").read_text() + str(ctx.recipe.ta.lr > 1)

        return (
            self.stage("first", ("seed",), (), lambda ctx: f"seed {ctx.recipe.seed}"),
            self.stage("second", ("ta.lr",), ("first",), second),
            self.stage("third", ("student.lr",), ("first", "second"), lambda ctx: str(ctx.recipe.student.lr)),
        )


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    made = Toy()
    monkeypatch.setattr(stages, "STAGES", made.build())
    return made


def go(folder: Path, *words: str) -> tuple[int, Run]:
    recipe = load_recipe([*LEGAL, *words])
    run = Run.create(folder, recipe)
    return run_stages(run, recipe, Context(recipe, run.path)), run


def test_the_figures_of_a_stage_are_said_where_it_has_any(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = Stage("second", "Second", lambda ctx, out: {"passed": True, "dev": {}}, ("ta.lr",))
    monkeypatch.setattr(stages, "STAGES", (toy.build()[0], silent))
    go(tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if "done in" in line]
    assert [re.sub(r"\d+ s", "N s", line.strip()) for line in said] == ["done in N s: length 6", "done in N s"]


def test_a_second_run_does_nothing(toy: Toy, tmp_path: Path) -> None:
    assert go(tmp_path)[0] == 3
    before = (go(tmp_path)[1].path / "manifest.json").read_bytes()
    count, run = go(tmp_path)
    assert (count, toy.worked) == (0, ["first", "second", "third"])
    assert (run.path / "manifest.json").read_bytes() == before
    assert not list(run.path.glob("*.partial"))


def test_a_changed_value_reruns_what_depends_on_it_and_takes_the_rest(toy: Toy, tmp_path: Path) -> None:
    go(tmp_path)
    toy.worked.clear()
    count, run = go(tmp_path, "student.lr=0.5")
    assert (count, toy.worked) == (1, ["third"])
    assert run.manifest["stages"]["first"]["taken_from"].startswith("legal-")
    assert (run.path / "first" / "file").read_text() == "seed 0"
    assert not (run.path / "first").is_symlink()
    toy.worked.clear()
    go(tmp_path, "seed=5")
    assert toy.worked == ["first", "second", "third"]


def test_an_equal_output_stops_the_rerun(toy: Toy, tmp_path: Path) -> None:
    go(tmp_path)
    toy.worked.clear()
    assert go(tmp_path, "ta.lr=0.5")[0] == 1  # `second` works anew and comes to the same: `third` is taken
    assert toy.worked == ["second"]


def test_a_neighbour_whose_files_were_changed_is_not_trusted(toy: Toy, tmp_path: Path) -> None:
    _, run = go(tmp_path)
    (run.path / "first" / "file").write_text("tampered")
    toy.worked.clear()
    go(tmp_path, "student.lr=0.5")
    assert toy.worked[0] == "first"


def test_a_missing_folder_is_made_again(toy: Toy, tmp_path: Path) -> None:
    _, run = go(tmp_path)
    (run.path / "second" / "file").unlink()
    (run.path / "second").rmdir()
    toy.worked.clear()
    assert go(tmp_path)[0] == 1
    assert toy.worked == ["second"]


def test_a_failure_is_no_result_and_its_half_done_work_is_found_again(toy: Toy, tmp_path: Path) -> None:
    toy.fail = {"second"}
    with pytest.raises(UserError, match="it broke"):
        go(tmp_path)
    toy.fail = set()
    toy.worked.clear()
    count, run = go(tmp_path)
    assert (count, toy.worked) == (2, ["second", "third"])
    assert toy.found["second"] == ["half"]
    assert not list(run.path.glob("*.partial"))


def test_half_done_work_of_another_key_is_thrown_away(toy: Toy, tmp_path: Path) -> None:
    toy.fail = {"second"}
    with pytest.raises(UserError):
        go(tmp_path)
    run = Run.create(tmp_path, load_recipe(LEGAL))
    (run.path / "second.partial" / KEY).write_text("another key")
    toy.fail = set()
    go(tmp_path)
    assert toy.found["second"] == []


def test_work_in_a_finished_run_takes_its_status_back(toy: Toy, tmp_path: Path) -> None:
    _, run = go(tmp_path)
    run.manifest["status"] = "finished"
    run.manifest["stages"].pop("third")
    run.save()
    toy.fail = {"third"}
    with pytest.raises(UserError):
        go(tmp_path)
    assert not Run(run.path).finished


def test_a_target_leaves_the_rest_alone(toy: Toy, tmp_path: Path) -> None:
    recipe = load_recipe(LEGAL)
    run = Run.create(tmp_path, recipe)
    for expected in (2, 0):
        assert run_stages(run, recipe, Context(recipe, run.path), "second") == expected
    assert toy.worked == ["first", "second"]


def test_the_second_reader_is_the_student_of_direct_distillation() -> None:
    plain, both, alone = (
        keys(load_recipe([*LEGAL, *words]))
        for words in (
            ("annotate.reader=false",),
            ("annotate.reader=true",),
            ("annotate.reader=true", "baseline.enabled=false"),
        )
    )
    assert both["reader"] == both["baseline"] == plain["baseline"] == alone["reader"] != alone["baseline"]
    assert both["annotate"] == alone["annotate"] != plain["annotate"]
    assert {name for name in plain if plain[name] != both[name]} == {"annotate"}
    assert "reader" not in keys(load_recipe([*LEGAL, "annotate.surest=1"])), "nothing depends on it there"
