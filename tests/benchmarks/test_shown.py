"""What the student is shown of each kind: counted from a run's own files, with the domain's checker."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge_edge.benchmarks.shown import Right, main, surest, table
from bridge_edge.data.samples import write_jsonl
from bridge_edge.recipe_io import dump, load_recipe
from bridge_edge.recipes.medical.task import TASK

FATES = ("", "unsure", "answer_missed", "near_duplicate", "false_arithmetic", "unparsed")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Sixty items, ten of each fate; every other of the ten has a false comparison before its right answer."""
    for stage in ("data", "draft", "annotate"):
        (tmp_path / stage).mkdir()
    (tmp_path / "recipe.yaml").write_text(dump(load_recipe(["recipe=medical"])))
    pool = TASK.generate(60, 3)
    write_jsonl(tmp_path / "data" / "pool.jsonl", pool)
    drafts, decisions = [], []
    for place, sample in enumerate(pool):
        rationale, answer = TASK.expert(sample, random.Random(0))
        said = rationale if place // 6 % 2 else "5 is less than 4."
        draft = {"id": sample.id, "text": f"{said}\nAnswer: {answer}", "logprob": -place / 100, "ended": True}
        drafts += [draft | {"tokens": 9, "text": "Answer: maybe"}, draft | {"tokens": 9, "sample": 1}]
        fate = FATES[place % 6]
        row = {"id": sample.id, "kept": not fate, "sample": 1, "logprob": -place / 100}
        decisions.append(row | ({"dropped_by": fate, "why": "for the test"} if fate else {}))
    (tmp_path / "draft" / "raw.jsonl").write_text("".join(f"{json.dumps(d)}\n" for d in drafts))
    (tmp_path / "annotate" / "decisions.jsonl").write_text("".join(f"{json.dumps(d)}\n" for d in decisions))
    return tmp_path


def test_it_counts_what_was_right_and_what_is_shown(run: Path) -> None:
    done = CliRunner().invoke(main, [str(run)])
    assert done.exit_code == 0, done.output
    rows = {row["kind"]: row for row in json.loads(done.output.splitlines()[-1])}
    assert rows.keys() == {*TASK.kinds, "all"}
    assert sum(row["pool"] for name, row in rows.items() if name != "all") == rows["all"]["pool"] == 60
    assert rows["all"]["right"] == 0.5  # kept, unsure and repeated
    assert rows["all"]["wrong step"] == 0.5
    assert rows["all"]["shown"] == pytest.approx(10 / 60, abs=1e-4)
    assert rows["all"]["shown, wrong step"] == 0.5


def test_the_surest_are_taken_of_each_kind_and_answer() -> None:
    items = [
        Right(kind, answer, -place / 10, place % 2 == 0, place == 0)
        for kind in "ab"
        for answer in ("Yes", "No")
        for place in range(4)
    ]
    assert [(r.kind, r.answer, r.logprob) for r in surest(items, 0.25)] == [
        (kind, answer, 0.0) for kind in "ab" for answer in ("Yes", "No")
    ]
    [row, _, whole] = table(items, {"a": 10, "b": 10}, 0.25)
    assert (row["right"], row["wrong step"], row["shown"], row["shown, wrong step"]) == (0.8, 0.5, 0.2, 0.0)
    assert row["surest of the kind, wrong step"] == 0
    assert whole["right"] == 0.8
    assert table([], {"a": 1}, 1)[0]["wrong step"] is None


def test_what_it_cannot_tell_of_is_refused(run: Path, tmp_path: Path) -> None:
    lines = (run / "annotate" / "decisions.jsonl").read_text()
    silent = [json.dumps({**json.loads(line), "logprob": None}) for line in lines.splitlines()]
    (run / "annotate" / "decisions.jsonl").write_text("\n".join(silent))
    done = CliRunner().invoke(main, [str(run)])
    assert done.exit_code == 2
    assert "have no log-probabilities" in done.output
    (run / "annotate" / "decisions.jsonl").unlink()
    assert "has no annotations" in CliRunner().invoke(main, [str(run)]).output
