"""The Batch API of an OpenAI-compatible endpoint: files up, a batch, its state, files down.

Batches are answered within a day at a discount, which the teacher's price holds. This module knows the protocol and one
HTTP call at a time; `batch_run.py` holds the order of the steps that makes sure nothing is submitted or paid twice.

How a line is billed (OpenAI's documentation of the Batch API): completed work is charged, also of a batch that expired
or was cancelled; a line that the service names in the error file as not executed is not.

Not covered: other endpoints than chat completions; batches above 50,000 lines or 200 MB (several follow one another).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from bridge_edge.teacher.base import Reply, Request, TeacherError
from bridge_edge.teacher.keys import redact
from bridge_edge.teacher.openai_api import OpenAITeacher

TAG = "bridge_edge"  # the metadata key that names our batch
URL: Literal["/v1/chat/completions"] = "/v1/chat/completions"
LINES, BYTES = 50_000, 190_000_000  # of one input file, with some room under 200 MB
OVER = {"completed", "failed", "expired", "cancelled"}
NOT_EXECUTED = {"batch_expired", "batch_cancelled"}


@dataclass(frozen=True)
class State:
    """What the service says of a batch."""

    id: str
    status: str
    done: int = 0
    total: int = 0
    files: tuple[str, ...] = ()
    problem: str = ""

    @property
    def over(self) -> bool:
        return self.status in OVER


@dataclass
class _Answered:
    """Just what `status_error` asks of an HTTP response, for the one inside a line of an output file."""

    status_code: int
    headers: dict[str, str]


class BatchTeacher(OpenAITeacher):
    """A chat model behind the Batch API; each method is one HTTP request that may raise TeacherError."""

    most_bytes = 4 << 30  # of an output file

    def ask(self, request: Request) -> Reply:
        raise TeacherError("this teacher answers in batches only", "not a batch", billed="no", scope="all")

    def line(self, request_hash: str, request: Request) -> str:
        """One line of an input file; the hash of the request is its custom_id, so a result finds its request."""
        task = {"custom_id": request_hash, "method": "POST", "url": URL, "body": self.body(request)}
        return json.dumps(task, ensure_ascii=True)  # ASCII: some services split lines at U+2028

    def upload(self, name: str, content: bytes) -> str:
        """Upload an input file and return its id. It costs nothing; what costs is the batch."""
        made = self.call(lambda: self._client.files.create(file=(name, content), purpose="batch"), "the upload")
        return _known_id(made, "the upload")

    def find_upload(self, name: str, most: int = 1000) -> str | None:
        """The id of an uploaded file by its name, among the newest."""
        for item in self._listed("files", most):
            if getattr(item, "filename", None) == name:
                return str(item.id)
        return None

    def create(self, file_id: str, tag: str) -> str:
        """Start a batch over an uploaded file: from here on it costs money."""
        made = self.call(
            lambda: self._client.batches.create(
                input_file_id=file_id,
                endpoint=URL,
                completion_window="24h",
                metadata={TAG: tag},
            ),
            "the batch",
        )
        return _known_id(made, "the batch")

    def find_batch(self, file_id: str, tag: str, most: int = 1000) -> str | None:
        """The id of the batch that was made from our file: known by its metadata, or by the file where a service
        drops the metadata."""
        for item in self._listed("batches", most):
            metadata = getattr(item, "metadata", None)
            marked = isinstance(metadata, dict) and metadata.get(TAG) == tag
            if marked or getattr(item, "input_file_id", None) == file_id:
                return str(item.id)
        return None

    def look(self, batch_id: str) -> State:
        found = self.call(lambda: self._client.batches.retrieve(batch_id), f"batch {batch_id}")
        if not isinstance(getattr(found, "status", None), str):
            raise TeacherError(f"batch {batch_id}: the service gave no status", "malformed", retryable=True)
        counts = getattr(found, "request_counts", None)
        files = [getattr(found, name, None) for name in ("output_file_id", "error_file_id")]
        errors = getattr(getattr(found, "errors", None), "data", None) or []
        said = "; ".join(str(getattr(e, "message", "") or getattr(e, "code", "")) for e in errors[:3])
        return State(
            batch_id,
            redact(str(found.status))[:40],
            int(getattr(counts, "completed", 0) or 0) + int(getattr(counts, "failed", 0) or 0),
            int(getattr(counts, "total", 0) or 0),
            tuple(str(f) for f in files if f),
            redact(said)[:500],
        )

    def download(self, file_id: str) -> str:
        raw = self.call(lambda: self._client.files.content(file_id), f"the file {file_id}")
        return bytes(raw.content).decode("utf-8", "replace")

    def result(self, line: dict[str, Any], item_id: str) -> Reply:
        """The reply in one line of an output or error file; raises TeacherError where it holds none."""
        request = Request.of(item_id, "")
        response, error = line.get("response"), line.get("error")
        code = response.get("status_code") if isinstance(response, dict) else None
        if isinstance(response, dict) and code == 200:
            return self.read(json.dumps(response.get("body")), request)
        if isinstance(response, dict) and isinstance(code, int):
            fields = {"max_tokens", *(["response_format"] if self._format else [])}  # what the line may have had
            raise self.status_error(_Answered(code, {}), response.get("body"), f"item {item_id!r}", fields)
        named = error if isinstance(error, dict) else {}
        kind, said = (redact(str(named.get(name) or ""))[:300] for name in ("code", "message"))
        if kind in NOT_EXECUTED:
            message = f"item {item_id!r}: not executed ({kind}): {said}"
            raise TeacherError(message, kind.replace("_", " "), retryable=True, billed="no", scope="item")
        raise TeacherError(f"item {item_id!r}: {kind or 'no response'}: {said}", kind or "no response", scope="item")

    def _listed(self, what: str, most: int) -> Iterator[Any]:
        """The newest files or batches, page after page; each page is one request."""
        listing = self._client.files if what == "files" else self._client.batches
        more = {"purpose": "batch"} if what == "files" else {}
        seen, after = 0, None
        while seen < most:
            extra = {**more, **({"after": after} if after else {})}
            page: Any = self.call(partial(listing.list, limit=100, extra_query=extra), f"the list of {what}")
            items = list(getattr(page, "data", None) or [])
            yield from items
            seen, after = seen + len(items), getattr(items[-1], "id", None) if items else None
            if not items or not getattr(page, "has_more", False):
                return


def _known_id(made: Any, what: str) -> str:
    found = getattr(made, "id", None)
    if not isinstance(found, str) or not found:
        raise TeacherError(f"{what}: the service gave no id", "malformed")
    return found


def parse_lines(text: str) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file; a broken line is left out, so its request counts as unanswered."""
    found = []
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            found.append(row)
    return found
