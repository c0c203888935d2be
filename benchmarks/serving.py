"""Does `bridge-edge serve` hold? Many clients at once, hostile bodies, clients that leave, a flood, and its memory.

    python -m bridge_edge.benchmarks.serving runs/legal-1/export/gguf-q8_0 --requests 1000 --clients 16

The server is the real command in a process of its own; the clients are the official package, and each reply must be
that of the library call to the same question. Prints a table and one line of JSON last; ends with code 1 where a reply
was lost or mixed up, a status was wrong, a place was not freed, memory grew, or a signal did not end it.
Not covered: other machines; how fast it is, beyond the rate that is shown with no care for other work here.
"""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil

from bridge_edge.deliver import chosen_model, held_out
from bridge_edge.errors import UserError
from bridge_edge.plain import grid
from bridge_edge.progress import say
from bridge_edge.student import Reply, Student

QUESTIONS, LEAVERS, MOST_GROWTH = 40, 50, 16 * 2**20
ENDS_WITHIN = 120  # seconds: far more than the server's grace, as a busy machine may hardly let it run
NEW = 24  # tokens a reply at most: enough to tell replies apart, and the server's share of the work stays visible
GOOD = {"messages": [{"role": "user", "content": "Is 8 more than 7?"}], "max_tokens": NEW}
BODIES: dict[str, tuple[bytes, int]] = {  # what is wrong -> the body, and the status that it must get
    "no JSON": (b'{"messages": [', 400),
    "no UTF-8": (b'{"messages": "\xff\xfe"}', 400),
    "deeply nested": (b"[" * 200_000, 400),
    "no message": (b'{"messages": []}', 400),
    "a system message": (b'{"messages": [{"role": "system", "content": "x"}]}', 400),
    "half a surrogate": (b'{"messages": [{"role": "user", "content": "\\ud83d"}]}', 400),
    "wrong types": (json.dumps({**GOOD, "max_tokens": {"a": 1}}).encode(), 400),
    "another model": (json.dumps({**GOOD, "model": "gpt"}).encode(), 404),
    "prompt too long": (json.dumps({"messages": [{"role": "user", "content": "no yes " * 40_000}]}).encode(), 400),
    "body too large": (json.dumps({"messages": [{"role": "user", "content": "no" * 400_000}]}).encode(), 413),
}


@dataclass(frozen=True)
class Served:
    """The running command: where it listens and its process."""

    port: int
    process: psutil.Process

    def memory(self) -> int:
        return int(self.process.memory_info().rss)

    def held(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=60) as reply:
            return int(json.loads(reply.read())["held"])

    def client(self) -> Any:
        from openai import OpenAI

        return OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0, timeout=600)


@contextmanager
def served(model: Path, waiting: int, ended: dict[str, Any]) -> Iterator[Served]:
    """`bridge-edge serve` on a free port; how it ended on SIGTERM is put into `ended`."""
    words = [sys.executable, "-m", "bridge_edge.cli", "serve", str(model), "--port", "0", "--queue", str(waiting)]
    with subprocess.Popen([*words, "--threads", "1"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            if "http://" not in line:
                raise UserError(f"the server did not start: {line.strip()}", "try bridge-edge serve by hand")
            port = int(line.partition("http://127.0.0.1:")[2].partition("/")[0])
            yield Served(port, psutil.Process(process.pid))
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                ended.update(code=process.wait(ENDS_WITHIN), said=process.stderr.read().strip())
            except subprocess.TimeoutExpired:
                process.kill()
                ended.update(code="killed", said="")


def crowd(at: Served, wanted: dict[str, Reply], requests: int, clients: int, seed: int) -> dict[str, Any]:
    """Requests by many clients, whole and streamed in turn; what came back against what the library call says."""
    draw = random.Random(seed)
    asked = [(draw.choice(sorted(wanted)), i % 2 == 0) for i in range(requests)]
    ai = at.client()
    name = ai.models.list().data[0].id

    def one(pair: tuple[str, bool]) -> str:
        question, stream = pair
        words = {"model": name, "messages": [{"role": "user", "content": question}], "max_tokens": NEW}
        try:
            if not stream:
                text = ai.chat.completions.create(**words).choices[0].message.content
            else:
                chunks = ai.chat.completions.create(**words, stream=True)
                text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        except Exception as error:  # whatever it is, this reply is lost, and the table says of what
            return f"lost: {type(error).__name__}"
        return "right" if text == wanted[question].text else "mixed up"

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        found = Counter(pool.map(one, asked))
    seconds = time.perf_counter() - start
    different = len({reply.text for reply in wanted.values()})
    return {"requests": requests, "different_replies": different, **found, "per_s": round(requests / seconds, 1)}


def raw(body: bytes, stream: bool = False) -> bytes:
    """A request as bytes."""
    body = json.dumps({**GOOD, "stream": True, "max_tokens": 10 * NEW}).encode() if stream else body
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def status(connection: socket.socket) -> tuple[int, bool]:
    """The status of the reply (0: none), and whether it names a time to come again."""
    parts: list[bytes] = []
    with suppress(OSError):  # the server may close while it is still being sent to; what it said before counts
        while part := connection.recv(65536):
            parts.append(part)
    head = b"".join(parts).partition(b"\r\n\r\n")[0]
    return (int(head.split()[1]) if head.startswith(b"HTTP/") else 0), b"\r\nretry-after:" in head.lower()


def send(at: Served, body: bytes, stream: bool = False) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", at.port), timeout=600)
    with suppress(ConnectionError):  # refused before all of it was sent
        connection.sendall(raw(body, stream))
    return connection


def refused(at: Served) -> dict[str, Any]:
    """The status of each bad body."""
    found: dict[str, Any] = {}
    for name, (body, wanted) in BODIES.items():
        with send(at, body) as connection:
            got = status(connection)[0]
        found[name] = str(got) if got == wanted else f"{got}, not {wanted}"
    return found


def leave(at: Served, count: int) -> dict[str, Any]:
    """Clients that hang up in the middle of a stream; afterwards nobody may be held."""
    for _ in range(count):
        with send(at, b"", stream=True) as connection:
            connection.recv(200)
    for _ in range(200):
        if not at.held():
            break
        time.sleep(0.05)
    return {"left": count, "still_held": at.held()}


def flood(at: Served, count: int) -> dict[str, Any]:
    """Many requests in one moment: each is answered or told when to come again."""
    body = json.dumps(GOOD).encode()
    connections = [send(at, body) for _ in range(count)]
    found: Counter[str] = Counter()
    for connection in connections:
        with connection:
            code, later = status(connection)
        found[str(code) if code != 429 or later else "429 without Retry-After"] += 1
    return {"requests": count, **dict(sorted(found.items()))}


def expected(model: Path) -> dict[str, Reply]:
    """Questions of the run's dev items (general ones outside a run), and what the library call replies."""
    items = [s.prompt for s in held_out(model, "dev")[:QUESTIONS]]
    questions = items or [f"Is {n} more than {n * 37 % 50}?" for n in range(QUESTIONS)]
    with Student.load(model, 1) as student:
        return {question: student.answer(question, max_new_tokens=NEW) for question in questions}


@click.command()
@click.argument("model")
@click.option("--requests", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--clients", type=click.IntRange(1, 256), default=16, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(model: str, requests: int, clients: int, seed: int) -> None:
    """Try to break the server of MODEL."""
    path = chosen_model(model, Path("runs"))
    wanted = expected(path)
    ended: dict[str, Any] = {}
    results: dict[str, Any] = {}
    with served(path, clients, ended) as at:
        say("warming up")
        results["warm-up"] = crowd(at, wanted, 100, clients, seed + 1)
        flood(at, 10 * clients)
        before = at.memory()
        say(f"{requests} requests by {clients} clients")
        results["crowd"] = crowd(at, wanted, requests, clients, seed)
        say("bad bodies, clients that leave, a flood")
        results["bad bodies"] = refused(at)
        results["disconnects"] = leave(at, LEAVERS)
        results["flood"] = flood(at, 10 * clients)
        results["memory"] = {"before_mb": round(before / 1e6, 1), "after_mb": round(at.memory() / 1e6, 1)}
        grown = at.memory() - before
    results["SIGTERM"] = ended
    faults = [name for name in ("warm-up", "crowd") if results[name].get("right") != results[name]["requests"]]
    faults += [f"body: {name}" for name, got in results["bad bodies"].items() if "not" in got]
    faults += ["disconnects"] if results["disconnects"]["still_held"] else []
    faults += ["flood"] if not {"200", "429"} >= set(results["flood"]) - {"requests"} else []
    faults += ["no 429 in the flood"] if not results["flood"].get("429") else []
    faults += ["memory"] if grown > MOST_GROWTH else []
    faults += ["SIGTERM"] if ended != {"code": 0, "said": ""} else []
    rows = [[part, name, str(value)] for part, found in results.items() for name, value in found.items()]
    click.echo(grid(["part", "what", "value"], rows))
    click.echo(json.dumps({**results, "faults": faults}))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
