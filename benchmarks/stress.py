"""Does the money hold? Kills at random moments, threads near a cap, and the rate of asking; each is a small command.

    python -m bridge_edge.benchmarks.stress --kills 1000
    python -m bridge_edge.benchmarks.stress --rounds 1000 --threads 64
    python -m bridge_edge.benchmarks.stress --rounds 200 --threads 16 --processes 4
    python -m bridge_edge.benchmarks.stress --requests 5000 --concurrency 64 --latency-ms 50

Prints a table for people and one line of JSON last; ends with code 1 where an answer was lost or a cap was passed.
The rate is measured twice in turn, against concurrency / latency: through the whole asking loop with its ledger, and
through the bare client, whose own processor time bounds what one process can reach.

Not covered: power cuts, network file systems, several machines.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import click

from bridge_edge.benchmarks.billing_server import running
from bridge_edge.benchmarks.stress_kills import PRICE, kills
from bridge_edge.benchmarks.stress_rounds import rounds
from bridge_edge.budget import Ledger
from bridge_edge.errors import UserError
from bridge_edge.plain import grid
from bridge_edge.prices import Caps
from bridge_edge.teacher.ask import ask_all
from bridge_edge.teacher.attempt import Result
from bridge_edge.teacher.base import Request
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher


def bare(teacher: OpenAITeacher, requests: list[Request], concurrency: int) -> None:
    """The same requests through the client alone: no ledger, no retries; raises where one fails."""
    landed: SimpleQueue[Result] = SimpleQueue()
    for place, request in enumerate(requests):
        if place >= concurrency:
            checked(landed.get())
        teacher.begin(request, landed.put)
    for _ in range(min(concurrency, len(requests))):
        checked(landed.get())


def checked(result: Result) -> None:
    if isinstance(result[0], Exception):
        raise result[0]


def clocked(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def rate(count: int, concurrency: int, latency_ms: float, folder: Path) -> dict[str, Any]:
    """Requests a second against concurrency / latency, with the ledger and without."""
    requests = [Request.of(f"item-{i}", f"Is {i} even?", 20) for i in range(count)]
    ideal = concurrency / latency_ms * 1000
    found: dict[str, Any] = {"requests": count, "concurrency": concurrency, "latency_ms": latency_ms, "ideal": ideal}
    with running(latency_ms) as address, closing(Ledger(folder / "rate.sqlite", Caps(), PRICE)) as ledger:
        teacher = OpenAITeacher(Endpoint("rate", f"{address}/v1", "", 60.0), PRICE)
        bare(teacher, requests[: 2 * concurrency], concurrency)  # opens the connections
        for name, work in (
            ("bare", lambda: bare(teacher, requests, concurrency)),
            ("asking", lambda: ask_all(teacher, ledger, requests, concurrency)),
        ):
            wall, cpu = clocked(work)
            found[name] = {
                "per_s": round(count / wall, 1),
                "of_ideal": round(count / wall / ideal, 3),
                "cpu_ms_each": round(1000 * cpu / count, 3),
                "cpu_share": round(cpu / wall, 2),
            }
        found["answered"] = sum(row["status"] == "ok" for row in ledger.attempts())
        ledger.verify()
    return found


def table(results: dict[str, Any]) -> str:
    rows = [[part, name, str(value)] for part, found in results.items() for name, value in found.items()]
    return grid(["part", "what", "value"], rows)


@click.command()
@click.option("--kills", "kill_count", type=click.IntRange(0), default=0, help="Kill an asking process so many times.")
@click.option("--rounds", "round_count", type=click.IntRange(0), default=0, help="Reserve near the cap so many times.")
@click.option("--threads", type=click.IntRange(1), default=64, show_default=True, help="Of each process, for --rounds.")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="For --rounds.")
@click.option("--requests", "request_count", type=click.IntRange(0), default=0, help="Measure the rate of so many.")
@click.option("--concurrency", type=click.IntRange(1, 1024), default=64, show_default=True, help="For --requests.")
@click.option("--latency-ms", type=click.FloatRange(0.1), default=50.0, show_default=True, help="For --requests.")
@click.option("--seed", type=int, default=0, show_default=True)
def main(
    kill_count: int,
    round_count: int,
    threads: int,
    processes: int,
    request_count: int,
    concurrency: int,
    latency_ms: float,
    seed: int,
) -> None:
    """Run the parts that are asked for."""
    if not (kill_count or round_count or request_count):
        raise click.UsageError(str(UserError("nothing to do", "name --kills N, --rounds N or --requests N")))
    results: dict[str, Any] = {}
    wrong = False
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kill_count:
            results["kills"] = found = vars(kills(kill_count, seed, folder))
            wrong |= bool(found["wrong"])
        if round_count:
            results["rounds"] = found = rounds(round_count, threads, processes, seed, folder)
            wrong |= bool(found["overspent_nano"] or found["wrong_rounds"] or found["granted"] != found["rows"])
        if request_count:
            results["rate"] = found = rate(request_count, concurrency, latency_ms, folder)
            wrong |= found["answered"] != request_count
    click.echo(table(results))
    click.echo(json.dumps({**results, "seconds": round(time.monotonic() - start, 1), "ok": not wrong}))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
