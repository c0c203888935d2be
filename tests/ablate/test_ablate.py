"""A grid from words to report, on tiny models: it resumes, shares what is equal, and a failing cell stops no other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bridge_edge.ablate import cells
from bridge_edge.ablate.arms import Arm, Claim, Experiment
from bridge_edge.ablate.cells import Setting
from bridge_edge.ablate.grid import EXPERIMENTS
from bridge_edge.ablate.verb import SMOKE, ablate
from bridge_edge.cli import cli
from bridge_edge.recipe import Recipe
from bridge_edge.run import Run, latest
from tests import colours

ARMS = (
    Arm("BRIDGE", ()),
    Arm("direct", (), "baseline"),
    Arm("random", ("select.strategy=random", "student.epochs=1")),
    Arm("broken", ("annotate.keep=answer", "ta.lr=1e-9", "warmup.lr=1e-9")),
)


def trial(recipe: Recipe) -> Experiment:
    claims = (Claim("BRIDGE is better", "BRIDGE", "direct"), Claim("selection", "BRIDGE", "random"))
    return Experiment("trial", "Does it run?", ARMS, (*claims, Claim("broken", "broken", "direct")))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Setting, dict[str, Any]]:
    """A whole small grid; the words, the setting and what it returned."""
    place = tmp_path_factory.mktemp("grid")
    words = [f"recipe={colours.write(place)}", "trial", *colours.WORDS]
    rows = [{"text": "red cat sleeps", "answer": "yes"}, {"text": "blue cow sleeps", "answer": "no"}]
    (place / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    setting = Setting((), place / "runs", 1, (place / "own.jsonl",))
    EXPERIMENTS["trial"] = (trial, "for tests")
    try:
        return words, setting, ablate(words, setting)
    finally:
        del EXPERIMENTS["trial"]


def again(monkeypatch: pytest.MonkeyPatch, words: list[str], setting: Setting) -> tuple[dict[str, Any], list[str]]:
    """The same once more, and the labels of what was measured anew."""
    measured: list[str] = []
    measure = cells.measure

    def counted(*args: Any) -> Any:
        measured.append(args[3])
        return measure(*args)

    monkeypatch.setattr(cells, "measure", counted)
    monkeypatch.setitem(EXPERIMENTS, "trial", (trial, "for tests"))
    return ablate(words, setting), measured


def test_a_grid_leaves_a_report_and_every_items_outcome(done: tuple[list[str], Setting, dict[str, Any]]) -> None:
    _, setting, found = done
    folder = Path(found["folder"])
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert len(rows) == found["cells"] - 1 == 3
    for row in rows:
        assert (len(row["sets"]["test"]["correct"]), row["sets"]["files"]["n"]) == (8, 2)
    tables = found["experiments"]["trial"]["sets"]
    ours = tables["test"]["arms"][0]
    assert ours["accuracy"]["mean"] == rows[0]["sets"]["test"]["correct"].count("1") / 8
    assert ours["queries"] == 24
    assert ours["usd"] > 0
    assert [c["verdict"] for c in tables["test"]["claims"]][2] == "not measured"
    text = (folder / "report.md").read_text()
    assert text == found["text"]
    assert "### On files given with --data" in text
    assert json.loads((folder / "report.json").read_text())["experiments"] == found["experiments"]
    assert not list(setting.runs_dir.glob("*/*.partial/model.safetensors"))


def test_a_cell_that_fails_is_named_and_has_no_result(done: tuple[list[str], Setting, dict[str, Any]]) -> None:
    _, _, found = done
    assert len(found["failed"]) == 1
    assert "annotate.keep=answer" in found["failed"][0]
    assert "no annotation of the assistant was usable" in found["failed"][0]
    assert "Cells that failed" in found["text"]


def test_equal_stages_are_shared_and_no_cell_passes_for_a_finished_run(
    done: tuple[list[str], Setting, dict[str, Any]],
) -> None:
    _, setting, _ = done
    runs = [Run(p.parent) for p in setting.runs_dir.glob("*/manifest.json")]
    assert len(runs) == 3  # BRIDGE and direct are one run
    worked = [name for run in runs for name, r in run.manifest["stages"].items() if "taken_from" not in r]
    assert [worked.count(name) for name in ("data", "align", "warmup", "select")] == [
        1,
        2,
        2,
        3,
    ]  # two students, two rates
    with pytest.raises(Exception, match="no finished run"):
        latest(setting.runs_dir)


def test_the_same_command_again_measures_nothing(
    done: tuple[list[str], Setting, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, setting, found = done
    path = Path(found["folder"]) / "results.jsonl"
    before = path.read_bytes()
    result, measured = again(monkeypatch, words, setting)
    assert (measured, path.read_bytes()) == ([], before)
    assert result["experiments"] == found["experiments"]


def test_a_lost_line_and_a_changed_model_are_measured_again(
    done: tuple[list[str], Setting, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, setting, found = done
    path = Path(found["folder"]) / "results.jsonl"
    whole = path.read_text().splitlines(keepends=True)
    stale = json.loads(whole[2]) | {"key": "of another model"}
    path.write_text(whole[0] + json.dumps(stale) + "\n" + whole[1][:40])
    result, measured = again(monkeypatch, words, setting)
    assert sorted(measured) == ["test of baseline", "test of student"]
    assert result["experiments"] == found["experiments"]


def test_the_command_line_lists_and_refuses(tmp_path: Path) -> None:
    listed = CliRunner().invoke(cli, ["ablate", "--list", "--json"])
    names = [row["name"] for row in json.loads(listed.output)["experiments"]]
    assert {"budget-vs-random", "alignment", "direct-vs-bridge", "budgets", "shift"} <= set(names)
    wrong = CliRunner().invoke(cli, ["ablate", "recipe=legal", "budgts", "--runs-dir", str(tmp_path / "runs")])
    assert "did you mean 'budgets'" in str(wrong.exception)
    assert not (tmp_path / "runs").exists()


def test_smoke_sizes_are_overridden_by_what_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []

    def stop(grid: list[cells.Cell], setting: Setting, out: Path) -> cells.Results:
        seen.extend(grid)
        return cells.Results(out / "results.jsonl")

    monkeypatch.setattr("bridge_edge.ablate.verb.run_cells", stop)
    setting = Setting((), tmp_path / "runs", 2)
    found = ablate(["recipe=legal", "alignment", "data.pool=70", "seed=4"], setting, smoke=True)
    assert {(cell.recipe.data.pool, cell.recipe.data.test) for cell in seen} == {(70, 8)}
    assert [cell.recipe.seed for cell in seen] == [4, 4, 5, 5]
    assert found["seeds"] == [4, 5]
    assert "data.pool=60" in SMOKE
    assert replace(setting, seeds=1).seeds == 1
