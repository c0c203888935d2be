from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge_edge.data.card import Card
from bridge_edge.data.files import parse_columns, read_rows, to_samples
from bridge_edge.errors import UserError

CARD = Card(recipe="toy", prompt="Q: {text}", answers=("Yes", "No"))


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "caf\u00e9, 7", "label": "x"}\n\n{"text": "two", "label": "y"}\n'),
        ("a.json", '[{"text": "caf\u00e9, 7", "label": "x"},\n {"text": "two", "label": "y"}]'),
        ("a.csv", 'text,label\r\n"caf\u00e9, 7",x\r\n\r\ntwo,y\r\n'),
        ("a.TSV", "text\tlabel\ncaf\u00e9, 7\tx\ntwo\ty"),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, content: str, mark: str) -> None:
    expected = [{"text": "caf\u00e9, 7", "label": "x"}, {"text": "two", "label": "y"}]
    assert read_rows(written(tmp_path, name, mark + content)) == expected


def test_line_separator_inside_a_json_string_does_not_split_the_line(tmp_path: Path) -> None:
    assert read_rows(written(tmp_path, "a.jsonl", '{"text": "one\u2028two"}\n')) == [{"text": "one\u2028two"}]


def test_csv_cells_may_hold_newlines_and_be_longer_than_the_csv_default(tmp_path: Path) -> None:
    long = "x" * 200_000
    assert read_rows(written(tmp_path, "a.csv", f'text,n\n"a\nb",1\n{long},2\n'))[1] == {"text": long, "n": "2"}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.parquet", "x", ["'.parquet'", ".jsonl, .json, .csv, .tsv"]),
        ("data", "x", ["without a suffix"]),
        ("a.jsonl", '{"a": 1}\n{"a": }\n', ["line 2", "column 7", "bad JSON"]),
        ("a.jsonl", '{"a": 1}\n[1]\n', ["line 2", "list", "not an object"]),
        ("a.json", '[\n {"a": 1},\n {"a" 2}]', ["line 3", "bad JSON"]),
        ("a.json", '{"a": 1}', ["JSON object", ".jsonl"]),
        ("a.json", "[1]", ["item 1", "number"]),
        ("a.json", "", ["is empty"]),
        ("a.json", "[]", ["no rows"]),
        ("a.jsonl", "\n\n", ["no rows"]),
        ("a.csv", "text,label\n", ["no rows"]),
        ("a.csv", "text,label\na,b\nc\n", ["line 3", "1 cells", "2 columns"]),
        ("a.csv", "text,label\na,b,c\n", ["line 2", "3 cells"]),
        ("a.csv", "text,text\na,b\n", ["'text' twice"]),
        ("a.csv", "text,\na,b\n", ["no name for column 2"]),
        ("a.csv", 'text\n"a"b\n', ["line 2", "quotes"]),
        ("a.csv", b"text\nok\ncaf\xe9\n", ["line 3", "not UTF-8", "0xe9", "iconv"]),
        ("a.jsonl", "[" * 200_000, ["nested too deeply"]),
    ],
)
def test_bad_files_are_named_with_the_place(tmp_path: Path, name: str, content: str | bytes, says: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        read_rows(written(tmp_path, name, content))
    for part in says:
        assert part in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(UserError, match="does not exist"):
        read_rows(tmp_path / "none.csv")
    with pytest.raises(UserError, match="is a folder"):
        read_rows(tmp_path / "d.csv")


def test_parse_columns() -> None:
    assert parse_columns(" text = my question ,answer=label,") == {"text": "my question", "answer": "label"}
    assert parse_columns("") == {}
    for bad in ("text", "text=", "=a", "text=a,text=b"):
        with pytest.raises(UserError, match="text=question"):
            parse_columns(bad)


def test_samples_from_mapped_columns() -> None:
    rows: list[dict[str, Any]] = [
        {"q": " one ", "y": "YES.", "why": " because ", "group": "g"},
        {"q": 2, "y": "no", "why": None, "group": "h"},
    ]
    columns = {"text": "q", "answer": "y", "rationale": "why", "kind": "group"}
    first, second = to_samples(rows, CARD, columns, "file")
    assert (first.prompt, first.answer, first.rationale, first.kind) == ("Q: one", "Yes", "because", "g")
    assert (second.prompt, second.answer, second.rationale, second.kind) == ("Q: 2", "No", None, "h")


@pytest.mark.parametrize("alias", ["answer", "label", "target", "gold"])
def test_answer_is_found_under_its_aliases(alias: str) -> None:
    (sample,) = to_samples([{"text": "t", alias: "yes", "kind": "ignored unless mapped"}], CARD, {}, "file")
    assert (sample.answer, sample.kind) == ("Yes", "file")


def test_own_name_goes_before_the_aliases() -> None:
    (sample,) = to_samples([{"text": "t", "answer": "no", "label": "yes"}], CARD, {}, "")
    assert sample.answer == "No"


def test_answers_may_be_left_out_only_when_asked() -> None:
    rows = [{"text": "t"}]
    assert to_samples(rows, CARD, {}, "", require_answer=False)[0].answer is None
    with pytest.raises(UserError, match=r"columns present: text; .*--columns answer="):
        to_samples(rows, CARD, {}, "")


@pytest.mark.parametrize(
    ("rows", "columns", "says"),
    [
        ([{"q": "t", "label": "yes"}], {}, ["no column 'text'", "q, label", "--columns text="]),
        ([{"q": "t", "label": "yes"}], {"text": "Q"}, ["column 'Q' (for 'text')", "q, label"]),
        ([{"text": "t", "label": "yes", "gold": "no"}], {}, ["label, gold", "--columns answer=label"]),
        ([{"text": "t", "label": "yes"}, {"text": "u"}], {}, ["row 2", "no column 'label'"]),
        ([{"text": "t", "label": "yes"}, {"text": "u", "label": "maybe"}], {}, ["row 2", "'maybe'", "Yes, No"]),
        ([{"text": "t", "label": None}], {}, ["row 1", "'label' is empty"]),
        ([{"text": "  ", "label": "no"}], {}, ["row 1", "'text' is empty"]),
        ([{"text": ["t"], "label": "no"}], {}, ["row 1", "holds a list"]),
        ([{"text": "t", "label": "no"}], {"rationale": "why"}, ["column 'why' (for 'rationale')"]),
        ([{"text": "t", "label": "no"}], {"txt": "text"}, ["'txt'", "did you mean 'text'"]),
        ([], {}, ["no rows"]),
    ],
)
def test_bad_rows_are_named_with_the_fix(rows: list[dict[str, Any]], columns: dict[str, str], says: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        to_samples(rows, CARD, columns, "file")
    for part in says:
        assert part in str(caught.value)


def test_free_form_answers_are_kept_as_they_are() -> None:
    (sample,) = to_samples([{"text": "t", "answer": 12.5}], Card(recipe="free"), {}, "")
    assert sample.answer == "12.5"
