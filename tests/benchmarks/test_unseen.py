"""Unseen names: in no list of the recipe, told and told back, and a student that misreads them is found out."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bridge_edge import phases
from bridge_edge.benchmarks.unseen import NOBODY, UNSEEN, main, told
from bridge_edge.data.samples import Sample, write_jsonl
from bridge_edge.data.swaps import Swaps
from bridge_edge.recipe_io import dump, load_recipe
from bridge_edge.recipes.legal.task import TASK

BACK = Swaps({name: (*UNSEEN[name], *TASK.alike[name]) for name in UNSEEN})


def test_no_unseen_name_is_in_a_list_of_the_recipe() -> None:
    known = {word for words in TASK.alike.values() for word in words}
    for words in UNSEEN.values():
        assert len(set(words)) == len(words) >= 20
        assert not known & set(words)


def test_prompts_are_told_with_unseen_names_alone_and_told_back() -> None:
    samples = TASK.generate(50, 1)
    known = {word for name in UNSEEN for word in TASK.alike[name]}
    for sample, (prompt, back) in zip(samples, told([s.prompt for s in samples], TASK.alike), strict=True):
        assert not known & set(prompt.replace(",", " ").replace(".", " ").split())
        assert BACK.told(prompt, back) == sample.prompt
        assert NOBODY in BACK.told(sample.prompt, back), "a name as it was before can only be a mistake"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "legal-1"
    for stage in ("tutor", "data"):
        (folder / stage).mkdir(parents=True)
    (folder / "tutor" / "config.json").write_text("{}")
    (folder / "recipe.yaml").write_text(dump(load_recipe(["recipe=legal"])))
    write_jsonl(folder / "data" / "test.jsonl", TASK.generate(30, 2))
    return folder


@pytest.mark.parametrize("reads", [True, False])
def test_a_student_that_misreads_unseen_names_has_wrong_steps(
    run: Path, monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    samples = TASK.generate(30, 2)
    for stage in ("apprentice", "refine"):
        (run / stage).mkdir()
        (run / stage / "config.json").write_text("{}")
    swapped = told([s.prompt for s in samples], TASK.alike)
    origin = {s.prompt: s for s in samples} | {new: s for (new, _), s in zip(swapped, samples, strict=True)}
    names = {prompt: {old: new for new, old in back.items() if old != NOBODY} for prompt, back in swapped}

    def say(_: Any, folder: Path, asked: Sequence[Sample], label: str) -> tuple[list[str], list[int]]:
        assert folder.name == ("tutor" if label.startswith("student") else "refine")
        texts = []
        for prompt in (s.prompt for s in asked):
            rationale, answer = TASK.expert(origin[prompt], random.Random(0))
            texts.append(f"{BACK.told(rationale, names.get(prompt, {}) if reads else {})}\nAnswer: {answer}")
        return texts, [len(t) for t in texts]

    monkeypatch.setattr(phases, "completions", say)
    done = CliRunner().invoke(main, [str(run)])
    assert done.exit_code == 0, done.output
    known, unseen, *assistant = json.loads(done.output.splitlines()[-1])
    assert [row["model"] for row in assistant] == ["assistant"] * 2
    assert (known["model"], known["items"], known["right"]) == ("student", "as they are", 1.0)
    assert known["of these with a wrong step"] == 0
    assert unseen["right"] == 1
    assert (unseen["of these with a wrong step"] == 0) is reads


def test_a_run_without_names_or_without_a_test_is_refused(run: Path) -> None:
    (run / "recipe.yaml").write_text(dump(load_recipe(["recipe=medical"])))
    done = CliRunner().invoke(main, [str(run)])
    assert done.exit_code == 2
    assert "have no names of people and firms" in done.output
    (run / "data" / "test.jsonl").unlink()
    assert "has no test items" in CliRunner().invoke(main, [str(run)]).output
