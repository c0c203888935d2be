"""Files to score on: tables of other people, and the items of a run as they are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bridge_edge.data.card import ANSWER_TASK, Card
from bridge_edge.data.samples import Sample, write_jsonl
from bridge_edge.deliver import artifacts, delivered, file_samples
from bridge_edge.errors import UserError, unknown
from bridge_edge.run import STUDENT

CARD = Card("toy", "Q: {text} Yes or no?", ("yes", "no"))
ITEMS = [Sample("Q: Is 1 odd? Yes or no?", "yes", kind="odd"), Sample("Q: Is 2 odd? Yes or no?", "no", kind="even")]


def test_the_items_of_a_run_keep_their_prompts_and_kinds(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", ITEMS)
    found = file_samples([tmp_path / "test.jsonl"], "", CARD, None)
    assert [(s.prompt, s.answer, s.kind) for s in found] == [(s.prompt, s.answer, s.kind) for s in ITEMS]
    short = file_samples([tmp_path / "test.jsonl"], "", Card("toy", "{text}" + ANSWER_TASK, ("yes", "no")), 1)
    assert [s.prompt for s in short] == [ITEMS[0].prompt + ANSWER_TASK]


def test_a_table_with_the_columns_of_the_card_is_read_by_the_card(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(
        '{"text": "Is 3 odd?", "prompt": "?", "answer": "yes", "kind": "a", "provenance": "b"}'
    )
    found = file_samples([tmp_path / "x.jsonl"], "", CARD, None)
    assert [(s.prompt, s.kind) for s in found] == [("Q: Is 3 odd? Yes or no?", "x")]
    mapped = file_samples([tmp_path / "x.jsonl"], "text=prompt,kind=kind", CARD, None)
    assert [(s.prompt, s.kind) for s in mapped] == [("Q: ? Yes or no?", "a")]


def test_the_exports_of_a_run_that_was_moved_are_its_own(tmp_path: Path) -> None:
    """`bench` measured what lay at the old place, or left the exports out without a word."""
    for place in ("old", "new"):
        run = tmp_path / place / "toy-1"
        (run / "tutor").mkdir(parents=True)
        (run / "manifest.json").write_text(json.dumps({"schema": 1, "status": "finished", "stages": {}}))
        for name, fmt, path in (("gguf-q8_0", "gguf", "gguf-q8_0/m.gguf"), ("onnx-int8", "onnx", "onnx-int8")):
            (run / "export" / name).mkdir(parents=True)
            record = {"fmt": fmt, "path": str(tmp_path / "old" / "toy-1" / "export" / path)}
            (run / "export" / name / "export.json").write_text(json.dumps(record))
        (run / "export" / "gguf-q8_0" / "m.gguf").touch()
    found = artifacts(tmp_path / "new")
    assert found == [tmp_path / "new" / "toy-1" / p for p in ("tutor", "export/gguf-q8_0/m.gguf", "export/onnx-int8")]
    (run / "export" / "onnx-int8" / "export.json").write_text("{")
    with pytest.raises(UserError, match=r"export\.json cannot be read; export again"):
        artifacts(tmp_path / "new")


def test_the_newest_sound_export_of_the_present_student_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that was trained on had left exports behind, which `serve` took; `run` loaded torch where a GGUF lay."""
    run = tmp_path / "toy-1"
    (run / "tutor").mkdir(parents=True)
    stages = {"tutor": {"output": "new"}}
    (run / "manifest.json").write_text(json.dumps({"schema": 1, "status": "finished", "stages": stages}))
    assert delivered(tmp_path) == run / "tutor"
    assert f"using the student of {run}" in capsys.readouterr().err

    def export(name: str, fmt: str, student: str | None, age: int) -> Path:
        folder = run / "export" / name
        folder.mkdir(parents=True)
        place = folder / "m.gguf" if fmt == "gguf" else folder
        place.touch()
        record = {"fmt": fmt, "path": str(place), **({"student": student} if student else {})}
        (folder / "export.json").write_text(json.dumps(record))
        os.utime(folder / "export.json", (1e9 - age, 1e9 - age))
        return place

    export("gguf-q4_0", "gguf", "former", 0)
    export("gguf-q4_1", "gguf", None, 0)
    (export("gguf-q2_k", "gguf", "new", 0).parent / "REJECTED.txt").touch()
    export("gguf-q5_0", "gguf", "new", 0).unlink()
    (run / "export" / "broken").mkdir()
    (run / "export" / "broken" / "export.json").write_text("[")
    assert delivered(tmp_path) == run / "tutor"
    onnx = export("onnx-int8", "onnx", "new", 1)
    assert delivered(tmp_path) == onnx
    older, newer = export("gguf-f16", "gguf", "new", 9), export("gguf-q8_0", "gguf", "new", 5)
    assert delivered(tmp_path) == newer
    assert f"using {newer}" in capsys.readouterr().err
    newer.unlink()
    assert delivered(tmp_path) == older


def test_an_export_of_a_former_student_is_not_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`bench` set it beside the present student as if it were that one's."""
    run = tmp_path / "toy-1"
    (run / STUDENT).mkdir(parents=True)
    stages = {STUDENT: {"output": "new"}}
    (run / "manifest.json").write_text(json.dumps({"schema": 1, "status": "finished", "stages": stages}))
    for name, student in (("a", "former"), ("b", "new"), ("c", None)):  # before there were digests there was none
        folder = run / "export" / name
        folder.mkdir(parents=True)
        (folder / "m.gguf").touch()
        record = {"fmt": "gguf", "path": "m.gguf", **({"student": student} if student else {})}
        (folder / "export.json").write_text(json.dumps(record))
    exports = run / "export"
    assert artifacts(tmp_path) == [run / STUDENT, exports / "b" / "m.gguf", exports / "c" / "m.gguf"]
    said = capsys.readouterr().err
    assert f"left out: {exports / 'a' / 'm.gguf'} is of a former student" in said
    assert str(exports / "b") not in said


def test_of_very_many_choices_only_the_nearest_are_named() -> None:
    """An unknown task of lm-evaluation-harness was answered with 15,000 names."""
    said = str(unknown("task", "arc_eazy", [*(f"other_{i}" for i in range(1000)), "arc_easy", "arc_hard"]))
    assert said.startswith("unknown task 'arc_eazy'; did you mean 'arc_easy'")
    assert "one of 1002" in said
    assert len(said) < 200
    assert str(unknown("fruit", "aple", ["pear", "apple"])) == (
        "unknown fruit 'aple'; did you mean 'apple'? choices: apple, pear"
    )
