"""The assistant that learns from what it explains rightly: what it is shown, who reads it, where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bridge_edge.data.samples import read_jsonl
from bridge_edge.errors import UserError
from bridge_edge.recipe_io import load_recipe
from bridge_edge.run import Run, run_path
from bridge_edge.stage_key import stage_key
from bridge_edge.stages import needed_for
from tests import colours
from tests.colours import RIGHT, go
from tests.legal import LEGAL

ON = (*LEGAL, "refine.items=100")
ALONE = {"warmup", "score", "select", "teach", "apprentice", "align", "baseline", "data", "annotate", "reader"}


def keys(*words: str) -> dict[str, str]:
    """Keys of all stages of a recipe whose outputs are called after themselves."""
    recipe = load_recipe(words)
    stages = needed_for(None, recipe)
    return {stage.name: stage_key(stage, recipe, {s.name: s.name for s in stages}) for stage in stages}


def test_it_stands_between_the_apprenticeship_and_whoever_reads_the_assistant() -> None:
    plain, on = keys(*LEGAL, "kd.mix=static"), keys(*ON, "kd.mix=static")
    assert on.keys() - plain.keys() == {"refine"}
    assert {name for name in plain if plain[name] == on[name]} == ALONE
    assert {name for name, key in keys(*ON).items() if key != on[name]} == {"tutor"}
    changed = keys(*ON, "kd.mix=static", "refine.share=0.3")
    assert {name for name in on if on[name] != changed[name]} == {"refine"}
    stages = {s.name: s for s in needed_for(None, load_recipe([*ON, "reasoning.budgets=[16]"]))}
    for name in ("draft", "shorten", "evaluate"):
        assert "refine" in stages[name].needs
        assert stages[name].found == {"apprentice": "refine"}
    assert "apprentice" in stages["refine"].needs
    assert [s.name for s in needed_for("apprentice", load_recipe([*ON]))][-1] == "apprentice"
    rounds = {s.name: s for s in needed_for(None, load_recipe([*ON, "select.rounds=2"]))}
    assert "apprentice-1" in rounds["score"].needs
    assert rounds["draft"].found == {"apprentice": "refine"}


def test_a_round_is_the_stage_of_a_run_of_so_many_rounds() -> None:
    once, thrice, words = keys(*ON), keys(*ON, "refine.rounds=3"), (*ON, "refine.rounds=3")
    assert thrice.keys() - once.keys() == {"refine-1", "refine-2"}
    stages = {s.name: s for s in needed_for(None, load_recipe([*words]))}
    assert [name for name in stages if name.startswith("refine")] == ["refine-1", "refine-2", "refine"]
    assert [stages[name].found.get("apprentice") for name in ("refine-1", "refine-2", "refine", "draft")] == [
        None,
        "refine-1",
        "refine-2",
        "refine",
    ]
    assert thrice["apprentice"] == once["apprentice"]
    assert thrice["refine-1"] == once["refine"] != thrice["refine"]
    stop = keys(*words, "gate.on_fail=stop")
    assert stop["refine-1"] == thrice["refine-1"]
    assert stop["refine"] != thrice["refine"]
    assert [stages[name].sees(load_recipe([*words])).refine.rounds for name in ("refine-1", "refine")] == [1, 3]
    assert run_path(Path(), load_recipe([*ON, "refine.rounds=1"])) == run_path(Path(), load_recipe([*ON]))


def test_a_value_that_is_off_names_no_other_folder() -> None:
    plain, off = load_recipe(LEGAL), load_recipe([*LEGAL, "refine.share=0.1"])
    assert run_path(Path(), plain) == run_path(Path(), off) != run_path(Path(), load_recipe([*ON]))


def test_it_is_refused_where_nothing_tells_right_from_wrong() -> None:
    unlabelled = (*ON, "data.labels=none", "select.difficulty=entropy")
    with pytest.raises(UserError, match=r"refine.items=100 needs labels.*set annotate.samples=5"):
        load_recipe(unlabelled)
    assert load_recipe([*unlabelled, "annotate.samples=4"]).refine.on
    with pytest.raises(UserError, match=r"annotate.engine=openai asks an assistant that is served elsewhere"):
        load_recipe([*ON, "annotate.engine=openai", "annotate.base_url=http://ta", "annotate.model=ta"])
    assert not load_recipe([*LEGAL, "data.labels=none", "select.difficulty=entropy"]).refine.on


def test_the_gate_stands_behind_the_last_training() -> None:
    stop = ("gate.on_fail=stop",)
    assert keys(*ON, *stop)["apprentice"] == keys(*LEGAL)["apprentice"] != keys(*LEGAL, *stop)["apprentice"]
    assert keys(*ON, *stop)["refine"] != keys(*ON)["refine"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colours.write(tmp_path_factory.mktemp("colours"))


def test_a_run_learns_from_right_explanations_of_items_that_were_not_asked(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("refine.items=20", "refine.share=1", "gate.accuracy=1")
    summary, run = go(recipe, tmp_path, *RIGHT, *words)
    stages = run.manifest["stages"]
    pool = {s.id: s for s in read_jsonl(run.path / "data" / "pool.jsonl")}
    own = list(read_jsonl(run.path / "refine" / "drafts" / "annotations.jsonl"))
    taught = {s.id for s in read_jsonl(run.path / "teach" / "taught.jsonl")}
    drafted = [json.loads(line)["id"] for line in (run.path / "refine" / "drafts" / "raw.jsonl").open()]
    assert len(set(drafted)) == len(drafted) == stages["refine"]["metrics"]["explained"] == 20
    assert not taught & set(drafted)
    assert 0 < len(own) == stages["refine"]["metrics"]["own"] <= 20
    assert all(s.answer == pool[s.id].answer and s.id in drafted for s in own)
    assert stages["refine"]["metrics"]["examples"] == len(own) + len(taught)
    before, after = ((run.path / s / "model.safetensors").read_bytes() for s in ("apprentice", "refine"))
    assert before != after
    assert summary["gate"]["accuracy"] == stages["refine"]["metrics"]["dev"]["accuracy"]
    notes = [line for line in capsys.readouterr().err.splitlines() if "below the gate" in line]
    assert len(notes) == (not stages["refine"]["metrics"]["gate_passed"])
    plain, other = go(recipe, tmp_path, *RIGHT, "gate.accuracy=1")
    assert plain["worked"] < summary["worked"]  # the apprenticeship and all before it are shared
    assert other.manifest["stages"]["apprentice"]["taken_from"] == run.path.name


def test_a_later_round_goes_on_from_the_one_before_with_the_next_items(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, one = go(recipe, tmp_path, *RIGHT, "refine.items=20", "gate.accuracy=1")
    rounds = 4
    capsys.readouterr()
    summary, run = go(recipe, tmp_path, *RIGHT, "refine.items=20", f"refine.rounds={rounds}", "gate.accuracy=1")
    stages, names = run.manifest["stages"], [*(f"refine-{k}" for k in range(1, rounds)), "refine"]
    assert stages["refine-1"]["taken_from"] == one.path.name
    assert stages["refine-1"]["output"] == one.manifest["stages"]["refine"]["output"]
    taught = {s.id for s in read_jsonl(run.path / "teach" / "taught.jsonl")}
    rest = {s.id for s in read_jsonl(run.path / "data" / "pool.jsonl")} - taught
    drafted = [{json.loads(line)["id"] for line in (run.path / name / "drafts" / "raw.jsonl").open()} for name in names]
    left = set(rest)
    for found in drafted:
        left = left or set(rest)
        assert len(found) == min(20, len(left))
        assert found <= left
        left -= found
    weights = {(run.path / name / "model.safetensors").read_bytes() for name in names}
    assert len(weights) == rounds
    assert summary["gate"]["accuracy"] == stages["refine"]["metrics"]["dev"]["accuracy"]
    notes = [line for line in capsys.readouterr().err.splitlines() if "below the gate" in line]
    assert len(notes) == (not stages["refine"]["metrics"]["gate_passed"])  # the rounds before say nothing


def test_a_failed_gate_stops_before_the_annotation(recipe: Path, tmp_path: Path) -> None:
    words = (
        "refine.items=20",
        "gate.accuracy=1",
        "gate.on_fail=stop",
        "refine.share=1e-6",
        "ta.epochs=2",
        "ta.lr=4e-3",
    )
    with pytest.raises(UserError, match="below the gate of 100%"):
        go(recipe, tmp_path, *RIGHT, *words, "annotate.keep=all")
    (path,) = (p for p in tmp_path.iterdir() if (p / "manifest.json").exists())
    assert "apprentice" in Run(path).manifest["stages"]
    assert not {"refine", "draft", "annotate"} & Run(path).manifest["stages"].keys()
