"""How long selection takes on a large pool, how much memory it needs, and what its approximation loses.

    python -m bridge_edge.benchmarks.selection --pool 1000000 --budget 10000

Each strategy runs in a process of its own on a made-up pool, so that the peak of its resident memory is its own. The
pool itself is included (1,000,000 x 384 in float32 are 1,465 MiB), the time to make it is not. Then, on a pool where
the exact method fits (`--exact-pool`), facility location in parts is set against the exact one, both as the ratio of
their values and as the share of the exact method's gain over a random choice, which is the stricter figure. `bridge`
and `diversity` are exact at every size: there the plain method, which reads the whole pool at each pick, gives the
reference. Last line: one JSON object.

Not covered: real embeddings; the pool is a mixture of topics of uneven sizes around a common direction, as sentence
embeddings are, each item off its topic in `--spread` directions.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import click
import numpy as np

from bridge_edge.benchmarks.contention import contention, environment, snapshot, watch
from bridge_edge.benchmarks.memory import peak_rss
from bridge_edge.cli import quiet_environment
from bridge_edge.errors import UserError

CHUNK, TOPICS = 16_384, 500


def make_pool(items: int, width: int, spread: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Difficulty (n,) and normalised embeddings (n, d), chunk by chunk."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(TOPICS, width)) + 2 * rng.normal(size=width)
    directions = 0.6 * rng.normal(size=(spread, width)) / np.sqrt(spread)
    weights = np.arange(1, TOPICS + 1) ** -0.8
    vectors = np.empty((items, width), dtype=np.float32)
    for start in range(0, items, CHUNK):
        count = min(CHUNK, items - start)
        part = centres[rng.choice(TOPICS, count, p=weights / weights.sum())]
        part += rng.normal(size=(count, spread)) @ directions + 0.1 * rng.normal(size=(count, width))
        vectors[start : start + count] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return rng.random(items, dtype=np.float32), vectors


def run_one(strategy: str, items: int, budget: int, width: int, spread: int, seed: int) -> dict[str, Any]:
    """Time and peak memory of one strategy, meant for a process that does nothing else."""
    from bridge_edge.select.strategies import Candidates, choose

    difficulty, vectors = make_pool(items, width, spread, seed)
    before, start, cpu = peak_rss(), time.perf_counter(), time.process_time()
    chosen = choose(Candidates(difficulty, vectors), budget, strategy, trim=0.03, seed=seed)
    return {
        "strategy": strategy,
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "pool_mib": round(before / 2**20),
        "peak_mib": round(peak_rss() / 2**20),
        "chosen": len(set(chosen)),
    }


def in_child(strategy: str, items: int, budget: int, width: int, spread: int, seed: int) -> dict[str, Any]:
    """`run_one` in a fresh process."""
    words = ["--pool", items, "--budget", budget, "--width", width, "--spread", spread, "--seed", seed]
    command = [sys.executable, "-m", "bridge_edge.benchmarks.selection", "--child", strategy, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"selection by {strategy} failed: {said}", f"run it alone to see why: {' '.join(command[1:])}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def plain_greedy(ranks: np.ndarray, vectors: np.ndarray, budget: int, alpha: float, first: int) -> list[int]:
    """The greedy pick that reads the whole pool at each step."""
    chosen, distance = [first], 1 - vectors @ vectors[first]
    while len(chosen) < budget:
        distance[chosen] = 0
        gain = alpha * distance.max() * ranks + (1 - alpha) * distance
        gain[chosen] = -np.inf
        chosen.append(int(np.argmax(gain)))
        np.minimum(distance, 1 - vectors @ vectors[chosen[-1]], out=distance)
    return chosen


def against_exact(items: int, budget: int, width: int, spread: int, seed: int) -> dict[str, Any]:
    """What is lost on a pool where the exact methods fit."""
    from bridge_edge.select.facility import PART, facility, value
    from bridge_edge.select.greedy import greedy
    from bridge_edge.select.strategies import percentile_ranks

    difficulty, vectors = make_pool(items, width, spread, seed)
    chance = np.random.default_rng(seed).permutation(items)[:budget].tolist()
    sets = {"exact": facility(vectors, budget, seed, part=items), "random": chance}
    for part in sorted({PART, max(2, items // 4), max(2, items // 16)}):
        sets[f"parts of {part}"] = facility(vectors, budget, seed, part=part)
    values = {name: value(vectors, chosen) for name, chosen in sets.items()}
    gap = values["exact"] - values["random"]
    report: dict[str, Any] = {
        name: {
            "value_of_exact": round(v / values["exact"], 5),
            "gain_over_random": round((v - values["random"]) / gap, 4),
        }
        for name, v in values.items()
    }
    ranks = percentile_ranks(difficulty).astype(np.float32)
    allowed, first = np.ones(items, dtype=bool), int(np.argmax(ranks))
    for name, alpha in (("greedy", 0.5), ("diversity", 0.0)):
        plain = plain_greedy(ranks, vectors, budget, alpha, first)
        report[f"{name}_equal_picks"] = sum(
            a == b for a, b in zip(greedy(ranks, vectors, budget, alpha, allowed, first), plain, strict=True)
        )
    return report | {"items": items, "budget": budget}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of the strategies."""
    lines = ["| strategy | seconds | processor seconds | peak MiB (pool) |", "|---|---|---|---|"]
    for r in rows:
        lines.append(f"| {r['strategy']} | {r['seconds']} | {r['cpu_seconds']} | {r['peak_mib']} ({r['pool_mib']}) |")
    return "\n".join(lines)


@click.command()
@click.option("--pool", "items", type=click.IntRange(2), default=100_000, show_default=True)
@click.option("--budget", type=click.IntRange(1), default=2_000, show_default=True)
@click.option("--width", type=click.IntRange(2), default=384, show_default=True)
@click.option("--spread", type=click.IntRange(1), default=32, show_default=True, help="Directions within a topic.")
@click.option("--strategy", "strategies", multiple=True, help="Default: all.")
@click.option("--exact-pool", type=click.IntRange(0), default=8_000, show_default=True, help="0 leaves it out.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--child", hidden=True)
def main(
    items: int,
    budget: int,
    width: int,
    spread: int,
    strategies: Sequence[str],
    exact_pool: int,
    seed: int,
    child: str | None,
) -> None:
    """Measure the strategies and print a table, then one JSON line."""
    if child:
        print(json.dumps(run_one(child, items, budget, width, spread, seed)))
        return
    from bridge_edge.select.strategies import STRATEGIES

    rows, idle = [], watch()
    for strategy in strategies or STRATEGIES:
        rows.append(in_child(strategy, items, budget, width, spread, seed))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    busy = contention(idle, snapshot())
    print(table(rows))
    for reason in busy["reasons"]:
        print(f"not to be published: {reason}")
    exact = against_exact(exact_pool, max(1, exact_pool * budget // items), width, spread, seed) if exact_pool else None
    setting = {"pool": items, "budget": budget, "width": width, "spread": spread, "seed": seed}
    machine = {"contention": busy, "publishable": not busy["reasons"], "environment": environment(None)}
    print(json.dumps({**setting, "strategies": rows, "against_exact": exact, **machine}))


if __name__ == "__main__":
    quiet_environment()
    main()
