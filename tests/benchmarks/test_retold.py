"""What is told of other numbers: counted by kind, and shown."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

from bridge_edge.benchmarks.retold import main
from bridge_edge.data.samples import write_jsonl
from bridge_edge.recipe_io import dump, load_recipe
from bridge_edge.recipes.medical.task import TASK


def test_the_answers_in_a_run_are_counted_by_kind_and_shown(tmp_path: Path) -> None:
    (tmp_path / "teach").mkdir()
    (tmp_path / "recipe.yaml").write_text(dump(load_recipe(["recipe=medical"])))
    said = [(s, TASK.expert(s, random.Random(0))) for s in TASK.generate(160, 3)]
    write_jsonl(tmp_path / "teach" / "taught.jsonl", [replace(s, rationale=r, answer=a) for s, (r, a) in said])
    done = CliRunner().invoke(main, [str(tmp_path), "--show", "3"])
    assert done.exit_code == 0, done.output
    rows = {row["kind"]: row for row in json.loads(done.output.splitlines()[-1])}
    assert rows.keys() == {*TASK.kinds, "all"}
    assert rows["all"]["items"] == 160
    assert rows["wells_dvt"]["told anew"] == 0
    assert rows["map"]["told anew"] > 10
    for name in ("items", "read", "may change", "told anew"):
        assert sum(row[name] for kind, row in rows.items() if kind != "all") == rows["all"][name]
    assert done.output.count("  now:\n") == 3


def test_a_file_of_worked_solutions_has_free_answers(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    row = {"question": "48 and half of it?", "answer": "48/2 = <<48/2=24>>24\n48+24 = <<48+24=72>>72\n#### 72"}
    path.write_text(json.dumps(row) + "\n")
    done = CliRunner().invoke(main, [str(path), "--show", "1"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output.splitlines()[-1])[-1]["told anew"] == 1
    was, now = done.output.split("  now:\n")
    assert "Answer: 72" in was
    assert "Answer: 72" not in now.partition("-" * 80)[0]
    path.write_text('{"question": 1}\n')
    done = CliRunner().invoke(main, [str(path)])
    assert done.exit_code == 2
    assert "items.jsonl:1 is no item in the form of GSM8K" in done.output
    done = CliRunner().invoke(main, [str(tmp_path)])
    assert done.exit_code == 2
    assert "has no answers of a teacher" in done.output
