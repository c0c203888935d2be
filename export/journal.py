"""What a search has measured so far, one JSON object a line, so that a stopped search goes on where it was.

The first line holds a key of everything the figures depend on; a journal with another key is started anew. A line cut
short by a crash is dropped. Not covered: two processes that write to one journal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def journal_path(out_dir: Path) -> Path:
    """Where the measurements for `out_dir` (or its `.partial`) are kept until the export is done."""
    return out_dir.with_name(out_dir.name.removesuffix(".partial") + ".search.jsonl")


class Journal:
    """A dictionary on disk; `put` is durable once the line is written."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.known: dict[str, Any] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        rows = [row for row in map(_parse, lines) if row is not None]
        if rows and rows[0].get("key") == key:
            self.known = {row["name"]: row["value"] for row in rows[1:] if {"name", "value"} <= set(row)}
        with path.open("w", encoding="utf-8") as file:  # written out again, so that nothing follows half a line
            file.write(json.dumps({"key": key}) + "\n")
            for name, value in self.known.items():
                file.write(json.dumps({"name": name, "value": value}) + "\n")

    def get(self, name: str) -> Any:
        """The value, or None where it has not been measured."""
        return self.known.get(name)

    def put(self, name: str, value: Any) -> None:
        self.known[name] = value
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, "value": value}) + "\n")


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
