"""The durable record of a batch: which step it has reached, and what it holds in the ledger.

One JSON file a batch in `batches/` beside the ledger, replaced as a whole and flushed, folder included, so that it
survives a killed process and a power cut. The input file that was sent lies beside it.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bridge_edge.budget import Reservation
from bridge_edge.errors import UserError
from bridge_edge.run import write_atomic

FOLDER = "batches"


@dataclass
class Record:
    """One batch as it is kept on disk; `held` are the reservations of its lines."""

    tag: str
    step: str = "planned"
    hashes: list[str] = field(default_factory=list)
    after: int = 0  # the last attempt in the ledger when it was planned
    held: list[dict[str, Any]] = field(default_factory=list)
    file_id: str = ""
    batch_id: str = ""
    tried_at: float = 0.0
    status: str = ""

    @property
    def file_name(self) -> str:
        """The name of the input file at the service, by which a lost upload is found."""
        return f"bridge-edge-{self.tag}.jsonl"

    def reservations(self) -> list[Reservation]:
        return [Reservation(**values) for values in self.held]


class Records:
    """The records of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new(self, hashes: Sequence[str], after: int) -> Record:
        self.folder.mkdir(exist_ok=True)
        _flush(self.folder.parent)
        record = Record(f"{int(time.time())}-{secrets.token_hex(6)}", hashes=list(hashes), after=after)
        self.save(record, "planned")
        return record

    def save(self, record: Record, step: str) -> None:
        record.step = step
        write_atomic(self.folder / f"{record.tag}.json", json.dumps(asdict(record)) + "\n")
        _flush(self.folder)  # the rename too survives a power cut

    def unfinished(self) -> list[Record]:
        records = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                record = Record(**json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"the record {path} of a batch is damaged: {error}",
                    "restore it from a copy; without it a batch that is paid for may be bought again",
                ) from None
            if record.step != "done":
                records.append(record)
        return records

    def input(self, record: Record) -> Path:
        return self.folder / f"{record.tag}.jsonl"

    def write_input(self, record: Record, lines: Sequence[str]) -> None:
        write_atomic(self.input(record), "".join(lines))


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def from_row(row: dict[str, Any]) -> Reservation:
    """The reservation behind a row of the ledger."""
    bounds = (row["reserved_prompt"], row["reserved_completion"], row["reserved_nano"])
    return Reservation(row["id"], row["request_hash"], row["item_id"], row["attempt"], *bounds)
