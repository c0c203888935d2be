"""The stages `score` and `select` from files to files, with labels and without, and embeddings of another model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge_edge.data.samples import Sample, write_jsonl
from bridge_edge.phases import Context
from bridge_edge.recipe_io import load_recipe
from bridge_edge.selection import score_stage, select
from tests import tiny
from tests.select.test_consistency import encoder

POOL = [Sample(f"Is {i} dollars more than {i % 7}?", "yes" if i % 2 else "no") for i in range(24)]
WORDS = ("recipe=legal", "task.answers=['yes', 'no']", "task.max_new_tokens=8", "select.samples=2", "budget.queries=6")


def run(place: Path, *words: str) -> tuple[Any, dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """The recipe, the metrics of both stages and what was selected."""
    recipe = load_recipe([*WORDS, *words])
    if not (place / "data").exists():
        (place / "data").mkdir()
        bare = recipe.data.labels == "none"
        write_jsonl(place / "data" / "pool.jsonl", [Sample(s.prompt) if bare else s for s in POOL])
        tiny.checkpoint(place / "warmup")
    found = []
    for name, stage in (("score", score_stage), ("select", select)):
        (place / name).mkdir(exist_ok=True)
        found.append(stage(Context(recipe, place), place / name))
    return recipe, found[0], found[1], json.loads((place / "select" / "selected.json").read_text())


def test_with_labels_the_direct_answers_are_held_against_them(tmp_path: Path) -> None:
    _, scored, selected, rows = run(tmp_path, "select.difficulty=margin", "select.strategy=facility-location")
    assert 0 <= scored["direct_accuracy"] <= 1
    assert 0 <= scored["easy_but_wrong"] <= 1
    assert "self_consistency" not in scored
    assert selected["selected"] == len({row["id"] for row in rows}) == 6
    assert not len(np.load(tmp_path / "score" / "doubtful.npy"))


def test_without_labels_the_stage_says_what_it_could_not_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("data.labels=none", "select.difficulty=disagreement", "select.check=4")
    _, scored, _, rows = run(tmp_path, *words)
    report = scored["self_consistency"]
    assert report["checked"] == 4
    assert report["not_checked"] == 20 + report["undecided"]
    assert "could not be checked" in capsys.readouterr().err
    assert len(rows) == 6
    assert "direct_accuracy" not in scored
    np.save(tmp_path / "score" / "doubtful.npy", np.array([5, 11]))  # a doubtful item is asked first
    select(Context(load_recipe([*WORDS, *words, "select.alpha=1"]), tmp_path), tmp_path / "select")
    chosen = json.loads((tmp_path / "select" / "selected.json").read_text())
    assert {POOL[5].id, POOL[11].id} <= {row["id"] for row in chosen}


def test_other_embeddings_change_the_distances_and_not_the_difficulty(tmp_path: Path) -> None:
    run(tmp_path)
    own = [np.load(tmp_path / "score" / f"{name}.npy") for name in ("difficulty", "embeddings")]
    run(tmp_path, f"select.embeddings={encoder(tmp_path)}")
    other = [np.load(tmp_path / "score" / f"{name}.npy") for name in ("difficulty", "embeddings")]
    assert own[0] == pytest.approx(other[0])
    assert len(other[1]) == 24
    assert own[1].shape != other[1].shape or np.abs(own[1] - other[1]).max() > 0.01
