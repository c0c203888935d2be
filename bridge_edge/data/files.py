"""Read the user's own files (.jsonl, .json, .csv, .tsv) into rows, and rows into samples.

Every complaint names the file and the line or row and says how to mend it, because this is the first place where a
user's data meets the tool. Read: UTF-8 with or without a byte order mark. Not covered: compressed files, Parquet,
spreadsheets, other encodings, nested columns.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bridge_edge.data.card import Card, normal
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError, unknown

Row = dict[str, Any]
ANSWER_ALIASES = ("label", "target", "gold")
LARGEST_FIELD = 64 * 1024 * 1024  # csv's own limit of 128 KiB is less than one long judgment


def read_rows(path: Path) -> list[Row]:
    """The rows of one file; raises UserError for anything that is not a non-empty table of named columns."""
    suffix = path.suffix.lower()
    if suffix not in READERS:
        choices = ", ".join(READERS)
        raise UserError(
            f"cannot read {str(path)!r}: unknown file type {suffix or 'without a suffix'!r}", f"choices: {choices}"
        )
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"the data file {str(path)!r} {reason}", f"give the path of a {', '.join(READERS)} file")
    rows = READERS[suffix](_text(path), path)
    if not rows:
        raise UserError(f"{str(path)!r} has no rows", "give a file with at least one row")
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{str(path)!r} line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x})",
            f"convert it first, for example: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8-{path.name}",
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}", "check the path and its permissions") from None


def _read_jsonl(text: str, path: Path) -> list[Row]:
    rows = []
    # Not splitlines(): it also breaks at U+2028 and U+0085, which may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            rows.append(_object(_json(line, path, number), f"{str(path)!r} line {number}"))
    return rows


def _read_json(text: str, path: Path) -> list[Row]:
    data = _json(text, path, 1)
    if not isinstance(data, list):
        raise UserError(
            f"{str(path)!r} holds a JSON {_json_type(data)}, not a list of objects",
            "wrap the rows in [...], or name the file .jsonl if it has one object a line",
        )
    return [_object(item, f"{str(path)!r} item {i}") for i, item in enumerate(data, 1)]


def _json(text: str, path: Path, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise UserError(f"{str(path)!r} is empty", "give a file with at least one row") from None
        where = f"line {first_line + error.lineno - 1}, column {error.colno}"
        raise UserError(f"{str(path)!r} {where}: bad JSON ({error.msg})", "mend that line") from None
    except RecursionError:
        raise UserError(f"{str(path)!r} line {first_line}: JSON nested too deeply", "flatten that row") from None


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{where} is a JSON {_json_type(value)}, not an object", 'write each row as {"column": value}')
    return value


def _delimited(delimiter: str) -> Callable[[str, Path], list[Row]]:
    def read(text: str, path: Path) -> list[Row]:
        before = csv.field_size_limit(LARGEST_FIELD)  # the limit is global to the process: put it back
        try:
            return list(_table(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), path))
        finally:
            csv.field_size_limit(before)

    return read


def _table(reader: Any, path: Path) -> Iterator[Row]:
    header: list[str] | None = None
    try:
        for cells in reader:
            if not cells:
                continue
            if header is None:
                header = _header(cells, path)
            elif len(cells) != len(header):
                raise UserError(
                    f"{str(path)!r} line {reader.line_num}: {len(cells)} cells under a header of {len(header)} columns",
                    "quote cells that contain the delimiter, or fill in the missing cells",
                )
            else:
                yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{str(path)!r} line {reader.line_num}: {error}", "check the quotes on that line") from None


def _header(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    for i, name in enumerate(names):
        if not name or name in names[:i]:
            what = f"column {name!r} twice" if name else f"no name for column {i + 1}"
            raise UserError(f"{str(path)!r} has {what} in its header", "give every column a name of its own")
    return names


READERS: dict[str, Callable[[str, Path], list[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
}


def parse_columns(text: str) -> dict[str, str]:
    """`"text=question,answer=label"` -> `{"text": "question", "answer": "label"}`: name wanted = column in the file."""
    columns: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if not (name and equals and column):
            raise UserError(
                f"cannot read the column map {part!r}", "write NAME=COLUMN, as in text=question,answer=label"
            )
        if name in columns:
            raise UserError(
                f"the column map names {name!r} twice", "give each name once, as in text=question,answer=label"
            )
        columns[name] = column
    return columns


def to_samples(
    rows: Sequence[Row], card: Card, columns: Mapping[str, str], kind: str, require_answer: bool = True
) -> list[Sample]:
    """One sample a row. `columns` maps a name (the prompt's columns, answer, rationale, kind) to a file's column.

    An unmapped name is looked for under itself; the answer also as label, target or gold where exactly one of them
    is there. `kind` is the group of every row unless `columns` maps `kind`. With `require_answer` off a file without
    answers is read too, and its samples have none.
    """
    names = [*card.columns(), "answer", "rationale", "kind"]
    for name in columns:
        if name not in names:
            raise unknown("column name in --columns", name, names)
    if not rows:
        raise UserError("no rows to make samples of", "give a file with at least one row")
    source = {name: columns.get(name, name) for name in names}
    source["answer"] = _answer_column(list(rows[0]), columns, require_answer) or ""
    samples = []
    for number, row in enumerate(rows, 1):
        values = {name: _cell(row, number, name, source[name]) for name in card.columns()}
        if "rationale" in columns and source["rationale"] not in row:
            raise _missing("rationale", source["rationale"], list(row), number)
        rationale = row.get(source["rationale"])  # may be empty: not every row needs one
        samples.append(
            Sample(
                prompt=card.render(values),
                answer=_answer(_cell(row, number, "answer", source["answer"]), number, card)
                if source["answer"]
                else None,
                rationale=(str(rationale).strip() or None) if rationale is not None else None,
                kind=_cell(row, number, "kind", source["kind"]) if "kind" in columns else kind,
            )
        )
    return samples


def _answer_column(present: list[str], columns: Mapping[str, str], required: bool) -> str | None:
    if "answer" in columns:
        return columns["answer"]
    if "answer" in present:
        return "answer"
    found = [alias for alias in ANSWER_ALIASES if alias in present]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"the data has no column 'answer', and more than one could be it: {', '.join(found)}",
            f"say which with --columns answer={found[0]}",
        )
    if not required:
        return None
    raise _missing("answer", "answer", present, 1)


def _missing(name: str, column: str, present: Sequence[str], number: int) -> UserError:
    asked = f"column {column!r}" + (f" (for {name!r})" if column != name else "")
    where = "the data has" if number == 1 else f"row {number} has"
    return UserError(
        f"{where} no {asked}", f"columns present: {', '.join(map(str, present))}; map one with --columns {name}=COLUMN"
    )


def _cell(row: Row, number: int, name: str, column: str) -> str:
    if column not in row:
        raise _missing(name, column, list(row), number)
    value = row[column]
    if isinstance(value, (dict, list)):
        raise UserError(
            f"row {number}: column {column!r} holds a {_json_type(value)}", f"give {name!r} as text or a number"
        )
    text = "" if value is None else str(value).strip()
    if not text:
        raise UserError(f"row {number}: column {column!r} is empty", f"fill in {name!r} or leave the row out")
    return text


def _answer(given: str, number: int, card: Card) -> str:
    """The card's own spelling of a gold answer."""
    for choice in card.answers:
        if normal(choice) == normal(given):
            return choice
    if card.answers:
        raise UserError(
            f"row {number}: the answer {given!r} is none of the card's answers",
            f"choices: {', '.join(card.answers)}; map another column with --columns answer=COLUMN",
        )
    return given
