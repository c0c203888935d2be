"""A real HTTP server on loopback that speaks the chat completions protocol and counts what it billed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Scripted = tuple[int, dict[str, str], str | bytes]
RESET, HALF = 0, -1  # instead of a status: close the connection without a word, or after half of the body


def chat(text: str, prompt: int = 40, completion: int = 8, **more: Any) -> str:
    """The body of a chat completion; `usage=None` leaves the usage out."""
    message = {"role": "assistant", "content": text}
    body: dict[str, Any] = {"id": "x", "object": "chat.completion", "created": 1, "model": "toy-1"}
    body["choices"] = [{"index": 0, "message": message, "finish_reason": more.pop("finish_reason", "stop")}]
    body["usage"] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    body.update(more)
    return json.dumps({k: v for k, v in body.items() if v is not None})


class Server:
    """`script(number, body)` says what the number-th request gets: status, headers, body. What has a usage is billed
    when the status is 200, RESET or HALF, as a provider bills for work that was done."""

    def __init__(self, script: Callable[[int, dict], Scripted], delay: float = 0.0) -> None:
        self.script, self.delay = script, delay
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.billed: list[tuple[int, int]] = []
        self.lock = threading.Lock()
        self.url = ""

    def handle(self, body: dict, headers: dict[str, str]) -> Scripted:
        with self.lock:
            self.bodies.append(body)
            self.headers.append(headers)
            number = len(self.bodies) - 1
        time.sleep(self.delay)
        status, more, text = self.script(number, body)
        if status in (200, RESET, HALF):
            try:
                usage = json.loads(text)["usage"]
                with self.lock:
                    self.billed.append((usage["prompt_tokens"], usage["completion_tokens"]))
            except (ValueError, LookupError, TypeError, RecursionError):
                pass
        return status, more, text


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:  # a client that hangs up or is killed is part of a test
        pass


class Silent(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def listening(handler: type[Silent]) -> Iterator[str]:
    """A server with this handler on a free port; yields its address."""
    http = Quiet(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/v1"
    finally:
        http.shutdown()
        http.server_close()


@contextmanager
def serve(script: Callable[[int, dict], Scripted], delay: float = 0.0) -> Iterator[Server]:
    server = Server(script, delay)

    class Handler(Silent):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, text = server.handle(body, dict(self.headers))
            data = text if isinstance(text, bytes) else text.encode()
            if status in (RESET, HALF):
                self.close_connection = True
            if status == RESET:
                return
            self.send_response(200 if status == HALF else status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if status == HALF else data)

    with listening(Handler) as server.url:
        yield server
