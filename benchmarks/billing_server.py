"""A chat-completions server in a process of its own that counts what it bills, and misbehaves as real ones do.

    python -m bridge_edge.benchmarks.billing_server --latency-ms 5 --faults 0.2

It prints its port and serves until its stdin is closed. Each model name has its own bill, at `GET /bill/<model>`: what
was billed, how many requests are still being worked on, and which faults were served. A request is billed when its work
is done, whether or not the client is still there to hear of it, as a provider would.

Not covered: keys, streaming, HTTP/2; it speaks just enough HTTP/1.1 for one client, so that it costs little beside what
is measured.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.request import urlopen

import click

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
LATE_S = 1.0  # longer than the clients of the stress test wait


@dataclass
class Bill:
    """What one model has cost its user so far."""

    prompt: int = 0
    completion: int = 0
    requests: int = 0
    working: int = 0
    faults: Counter[str] = field(default_factory=Counter)


def completion(body: dict[str, Any], used: tuple[int, int], **more: Any) -> bytes:
    """The body of a good reply to `body`."""
    message = {"role": "assistant", "content": f"Seen: {body['messages'][-1]['content'][:40]}\nAnswer: yes"}
    reply = {
        "id": "x", "object": "chat.completion", "created": 1, "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": used[0], "completion_tokens": used[1], "total_tokens": sum(used)}, **more,
    }  # fmt: skip
    return json.dumps(reply).encode()


def answer(code: int, body: bytes, headers: str = "", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return (
        f"HTTP/1.1 {code} X\r\nContent-Type: application/json\r\n{headers}Content-Length: {size}\r\n\r\n".encode()
        + body
    )


def _half(body: dict[str, Any], used: tuple[int, int]) -> bytes:
    whole = completion(body, used)
    return answer(200, whole[: len(whole) // 2], length=len(whole))


# name -> (is it billed, what is sent; empty: the connection is closed without a word)
FAULTS: dict[str, tuple[bool, Callable[[dict[str, Any], tuple[int, int]], bytes]]] = {
    "reset": (True, lambda body, used: b""),
    "late": (True, lambda body, used: answer(200, completion(body, used))),
    "half a body": (True, _half),
    "malformed": (True, lambda body, used: answer(200, completion(body, used)[:-9] + b"}")),
    "html": (True, lambda body, used: answer(200, b"<html>Welcome</html>")),
    "no usage": (True, lambda body, used: answer(200, completion(body, used, usage=None))),
    "absurd usage": (
        True,
        lambda body, used: answer(
            200, completion(body, used, usage={"prompt_tokens": -5, "completion_tokens": 10**15})
        ),
    ),
    "server error, billed": (True, lambda body, used: answer(500, b"{}")),
    "server error": (False, lambda body, used: answer(503, b"{}")),
    "busy": (False, lambda body, used: answer(429, b"{}", "retry-after-ms: 5\r\n")),
}
CUT = {"reset", "half a body"}  # after these the connection is closed


class Service:
    """What all connections share."""

    def __init__(self, latency_s: float, faults: float, seed: int) -> None:
        self.latency_s, self.faults = latency_s, faults
        self.rng = random.Random(seed)
        self.bills: dict[str, Bill] = {}

    def bill(self, model: str) -> Bill:
        return self.bills.setdefault(model, Bill())


class Connection(asyncio.Protocol):
    """One client's connection; requests come one after another on it."""

    def __init__(self, service: Service) -> None:
        self.service, self.data = service, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, rest = self.data.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(said[1]) if (said := LENGTH.search(head)) else 0
        if len(rest) < length:
            return
        self.data = rest[length:]
        if head.startswith(b"GET /bill/"):
            self.tell(head.split()[1].decode().removeprefix("/bill/"))
        else:
            self.work(json.loads(rest[:length]))

    def tell(self, model: str) -> None:
        bill = self.service.bill(model)
        self.transport.write(answer(200, json.dumps({**vars(bill), "faults": dict(bill.faults)}).encode()))

    def work(self, body: dict[str, Any]) -> None:
        service, bill = self.service, self.service.bill(body["model"])
        bill.working += 1
        bill.requests += 1
        fault = service.rng.choice(list(FAULTS)) if service.rng.random() < service.faults else ""
        used = (5 + len(body["messages"][-1]["content"]) // 4, service.rng.randint(1, body["max_tokens"]))
        wait = service.latency_s + (LATE_S if fault == "late" else 0.0)
        asyncio.get_running_loop().call_later(wait, self.finish, body, bill, fault, used)

    def finish(self, body: dict[str, Any], bill: Bill, fault: str, used: tuple[int, int]) -> None:
        billed, make = FAULTS[fault] if fault else (True, lambda body, used: answer(200, completion(body, used)))
        bill.working -= 1
        bill.faults[fault or "none"] += 1
        if billed:
            bill.prompt += used[0]
            bill.completion += used[1]
        self.transport.write(make(body, used))
        if fault in CUT:
            self.transport.close()


async def serve(service: Service) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(service), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until the parent is gone
    server.close()


@contextmanager
def running(latency_ms: float, faults: float = 0.0, seed: int = 0) -> Iterator[str]:
    """The server in a process of its own; yields its address."""
    words = ["--latency-ms", str(latency_ms), "--faults", str(faults), "--seed", str(seed)]
    command = [sys.executable, "-m", "bridge_edge.benchmarks.billing_server", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


def ask_bill(address: str, model: str) -> dict[str, Any]:
    """The bill of one model so far."""
    with urlopen(f"{address}/bill/{model}", timeout=60) as response:
        return dict(json.load(response))


@click.command()
@click.option("--latency-ms", type=float, default=50.0, show_default=True)
@click.option("--faults", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Share of odd replies.")
@click.option("--seed", type=int, default=0, show_default=True)
def main(latency_ms: float, faults: float, seed: int) -> None:
    """Serve chat completions on a free port of this machine."""
    asyncio.run(serve(Service(latency_ms / 1000, faults, seed)))


if __name__ == "__main__":
    main()
