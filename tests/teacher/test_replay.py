"""Recorded answers as a teacher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bridge_edge.budget import Caps, Ledger, Price
from bridge_edge.data.samples import prompt_id
from bridge_edge.errors import UserError
from bridge_edge.teacher.ask import ask_all
from bridge_edge.teacher.base import Request, TeacherError
from bridge_edge.teacher.replay import ReplayTeacher
from bridge_edge.teacher.reuse import take_over

ROWS = [
    {"id": "a", "rationale": "One and one.", "answer": "2", "usd": 0.01},
    {"prompt": "Is it?", "text": "It is.\nAnswer: yes", "prompt_tokens": 31, "completion_tokens": 9},
    {"id": "a", "answer": "3"},
]


def write(folder: Path, rows: list) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n\n")
    return path


def test_answers_by_id_prompt_and_sample(tmp_path: Path) -> None:
    teacher = ReplayTeacher(write(tmp_path, ROWS))
    assert teacher.ask(Request.of("a", "1+1")).text == "One and one.\nAnswer: 2"
    assert teacher.ask(Request.of("a", "1+1", sample=1)).text == "Answer: 3"
    request = Request.of(prompt_id("Is it?"), "Is it?")
    reply = teacher.ask(request)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("It is.\nAnswer: yes", 31, 9)
    assert teacher.prompt_tokens(request) == 31
    assert teacher.price.nano(1000, 1000) == 0


def test_what_an_answer_cost_is_counted_and_capped(tmp_path: Path) -> None:
    """Two dollars an answer for a person's work; a third one does not fit into five."""
    rows = [{"id": str(n), "rationale": "So it is.", "answer": "yes", "usd": "2.000000001"} for n in range(3)]
    teacher = ReplayTeacher(write(tmp_path, [*rows, {"id": "free", "answer": "no", "usd": 0}]), Price(1, 1))
    asked = [Request.of(name, f"Is {name} even?", 20) for name in ("0", "free", "1", "2")]
    with Ledger(tmp_path / "l.sqlite", Caps(usd=5), teacher.price) as ledger:
        outcome = ask_all(teacher, ledger, asked, 1)
        assert list(outcome.replies) == ["0", "free", "1"]
        assert (outcome.stopped_by, outcome.left) == ("usd", 1)
        assert ledger.totals().nano == 2 * 2_000_000_001
        assert ledger.totals().tokens > 0
        ledger.verify()
    with Ledger(tmp_path / "other.sqlite", Caps(), teacher.price) as ledger:  # another run in the same folder
        assert take_over(ledger, teacher, asked, [tmp_path / "l.sqlite"]) == 3
        assert ledger.totals().nano == 2 * 2_000_000_001


def test_what_is_not_recorded_or_too_long_is_named(tmp_path: Path) -> None:
    teacher = ReplayTeacher(write(tmp_path, ROWS))
    with pytest.raises(TeacherError, match="has 2 answers for item 'a', number 2"):
        teacher.ask(Request.of("a", "1+1", sample=2))
    with pytest.raises(TeacherError, match=r"more than teacher\.max_tokens=5") as error:
        teacher.ask(Request.of(prompt_id("Is it?"), "Is it?", max_tokens=5))
    assert (error.value.billed, error.value.scope) == ("no", "item")


def test_an_edited_record_is_a_new_request(tmp_path: Path) -> None:
    request = Request.of("a", "1+1")
    before = ReplayTeacher(write(tmp_path, ROWS)).request_hash(request)
    assert ReplayTeacher(write(tmp_path, ROWS)).request_hash(request) == before
    assert ReplayTeacher(write(tmp_path, [{"id": "a", "answer": "4"}])).request_hash(request) != before


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{not json", r"line 2: no JSON \(.* at column 2\)"),
        ("[1]", "not a JSON object"),
        ({"answer": "2"}, "lacks an id or a prompt"),
        ({"id": "b"}, "lacks an answer or a text"),
        ({"id": "b", "answer": 2}, "'answer' is 2, not a string"),
        ({"id": "b", "answer": "2", "completion_tokens": -4}, "not a count"),
        ({"id": "b", "answer": "2", "usd": -1}, "'usd' is -1"),
        ({"id": "b", "answer": "2", "usd": "much"}, "'usd' is 'much'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: object, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as error:
        ReplayTeacher(write(tmp_path, [ROWS[0], line]))
    assert "line 2" in str(error.value)


def test_missing_or_empty_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        ReplayTeacher(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="holds no records"):
        ReplayTeacher(write(tmp_path, []))
