"""A real HTTP server on loopback with /v1/files and /v1/batches, which bills each line that it executes.

`behave(custom_id, body, batch_number)` says what a line gets: a status and a body, "expired", "cancelled" or "missing".
A batch is executed, and billed, the moment it is created; `statuses` are then reported one a look. `before` and `after`
are called with (method, path) around the handling of each request: a test may raise Hang in them to cut the connection.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.teacher.loopback import Silent, chat, listening

Result = tuple[int, str] | str


class Hang(Exception):
    """Close the connection without a word."""


def good(custom_id: str, body: dict, number: int) -> Result:
    return 200, chat("Fine.\nAnswer: yes", 40, 8)


def nothing(method: str, path: str) -> None:
    pass


class BatchServer:
    def __init__(self, behave: Callable[[str, dict, int], Result]) -> None:
        self.behave = behave
        self.statuses: list[str] = ["completed"]
        self.refuse: list[tuple[int, str]] = []  # answers to the next creations
        self.before: Callable[[str, str], None] = nothing
        self.after: Callable[[str, str], None] = nothing
        self.files: dict[str, dict[str, Any]] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.content: dict[str, str] = {}
        self.billed: list[tuple[str, int, int]] = []  # custom_id, prompt and completion tokens
        self.log: list[str] = []
        self.keys: set[str] = set()
        self.keeps_metadata = True
        self.lock = threading.Lock()
        self.url = ""

    def handle(self, method: str, target: str, raw: bytes, kind: str) -> tuple[int, str]:
        path, query = urlsplit(target).path.removeprefix("/v1"), parse_qs(urlsplit(target).query)
        with self.lock:
            self.log.append(f"{method} {path}")
        self.before(method, path)
        with self.lock:
            found = self._route(method, path, query, raw, kind)
        self.after(method, path)
        return found

    def _route(self, method: str, path: str, query: dict, raw: bytes, kind: str) -> tuple[int, str]:
        part, _, rest = path.strip("/").partition("/")
        if method == "POST" and path == "/files":
            return 200, json.dumps(self._store(raw, kind))
        if method == "POST" and path == "/batches":
            if self.refuse:
                return self.refuse.pop(0)
            return 200, json.dumps(self._create(json.loads(raw)))
        if method == "GET" and not rest:
            return 200, json.dumps(_page(self.files if part == "files" else self.batches, query))
        if part == "files" and rest.endswith("/content") and rest.split("/")[0] in self.content:
            return 200, self.content[rest.split("/")[0]]
        if part == "batches" and rest in self.batches:
            return 200, json.dumps(self._look(self.batches[rest]))
        return 404, json.dumps({"error": {"message": f"no {path}"}})

    def _store(self, raw: bytes, kind: str) -> dict[str, Any]:
        mark = kind.partition("boundary=")[2].encode()
        name, content = "", b""
        for piece in raw.split(b"--" + mark):
            head, _, body = piece.partition(b"\r\n\r\n")
            if b'name="file"' in head:
                name = head.partition(b'filename="')[2].partition(b'"')[0].decode()
                content = body.removesuffix(b"\r\n")
        made: dict[str, Any] = {"id": f"file-{len(self.files)}", "object": "file", "filename": name, "purpose": "batch"}
        made |= {"bytes": len(content), "created_at": len(self.files), "status": "processed"}
        self.files[made["id"]] = made
        self.content[made["id"]] = content.decode()
        return made

    def _create(self, asked: dict[str, Any]) -> dict[str, Any]:
        number = len(self.batches)
        made: dict[str, Any] = {
            "id": f"batch-{number}",
            "object": "batch",
            "endpoint": asked["endpoint"],
            "created_at": number,
        }
        made |= {"input_file_id": asked["input_file_id"], "completion_window": asked["completion_window"]}
        made |= {"metadata": asked.get("metadata") if self.keeps_metadata else None, "looks": 0}
        lines = [json.loads(line) for line in self.content[asked["input_file_id"]].splitlines()]
        if self.statuses[-1] != "failed":
            self._execute(made, lines, number)
        self.batches[made["id"]] = made
        return made

    def _execute(self, made: dict[str, Any], lines: list[dict], number: int) -> None:
        out: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        for line in lines:
            name = line["custom_id"]
            result = self.behave(name, line["body"], number)
            row: dict[str, Any] = {"id": f"r-{name}", "custom_id": name, "response": None, "error": None}
            if isinstance(result, str):
                if result != "missing":
                    bad.append({**row, "error": {"code": f"batch_{result}", "message": "not done in time"}})
                continue
            status, body = result
            row["response"] = {"status_code": status, "request_id": "q", "body": json.loads(body)}
            (out if status == 200 else bad).append(row)
            usage = json.loads(body).get("usage")
            if status == 200 and usage:
                self.billed.append((name, usage["prompt_tokens"], usage["completion_tokens"]))
        out.reverse()  # the order of an output file is not that of the input
        for key, rows in (("output_file_id", out), ("error_file_id", bad)):
            made[key] = f"{made['id']}-{key}" if rows else None
            if rows:
                self.content[made[key]] = "".join(json.dumps(row) + "\n" for row in rows)
        made["request_counts"] = {"total": len(lines), "completed": len(out), "failed": len(bad)}

    def _look(self, batch: dict[str, Any]) -> dict[str, Any]:
        status = self.statuses[min(batch["looks"], len(self.statuses) - 1)]
        batch["looks"] += 1
        shown = {**batch, "status": status}
        if status in ("validating", "in_progress", "finalizing", "cancelling"):
            shown |= {"output_file_id": None, "error_file_id": None}
        if status == "failed":
            shown["errors"] = {"object": "list", "data": [{"code": "invalid", "message": "line 1 is no JSON"}]}
        return shown


def _page(items: dict[str, dict], query: dict) -> dict[str, Any]:
    newest = list(reversed(items.values()))
    after = query.get("after", [None])[0]
    start = 1 + next((i for i, item in enumerate(newest) if item["id"] == after), -1)
    size = min(2, int(query.get("limit", ["20"])[0]))  # small pages, so that paging is used
    part = newest[start : start + size]
    return {"object": "list", "data": part, "has_more": start + size < len(newest)}


@contextmanager
def serve_batches(behave: Callable[[str, dict, int], Result] = good) -> Iterator[BatchServer]:
    server = BatchServer(behave)

    class Handler(Silent):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            server.keys.add(self.headers.get("Authorization", ""))
            try:
                status, text = server.handle("POST", self.path, raw, self.headers.get("Content-Type", ""))
            except Hang:
                self.close_connection = True
                return
            self._answer(status, text)

        def do_GET(self) -> None:
            try:
                status, text = server.handle("GET", self.path, b"", "")
            except Hang:
                self.close_connection = True
                return
            self._answer(status, text)

        def _answer(self, status: int, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with listening(Handler) as server.url:
        yield server
