"""Do two runs of the same bench agree within the intervals that they print?

    python -m bridge_edge.benchmarks.repeat MODEL [--times 20] [--repetitions 5]

Benches the model again and again and compares every two neighbours: the difference of their means against the larger of
the two printed spreads (mean ± sd), and against both together, beyond which the printed intervals do not even touch.
Runs that the guard calls disturbed are counted apart, since nothing is claimed of them. Takes a while.
Not covered: drift over days, other machines.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from bridge_edge.cli import quiet_environment
from bridge_edge.plain import grid

PROMPTS = ("Say yes or no: is 7 larger than 5?", "What is 3 times 250?", "Name the capital of France.")
Spread = tuple[float, float]
FIGURES = {"decode, tokens/s": ("decode", "tps"), "TTFT, s": ("ttft_s",), "answer, s": ("answer_s",)}


def spreads(reports: Sequence[dict[str, Any]]) -> dict[str, list[Spread]]:
    """Mean and sd of every figure, run by run."""
    found: dict[str, list[Spread]] = {name: [] for name in FIGURES}
    for report in reports:
        for name, keys in FIGURES.items():
            value: Any = report
            for key in keys:
                value = value and value[key]
            if value:
                found[name].append((value["mean"], value["sd"]))
    return {name: values for name, values in found.items() if len(values) > 1}


def agreement(runs: Sequence[Spread]) -> dict[str, float]:
    """Share of neighbouring runs whose means differ by less than the larger sd, and than both together."""
    pairs = [(abs(a - b), s, t) for (a, s), (b, t) in pairwise(runs)]
    return {
        "pairs": len(pairs),
        "within_larger": sum(off <= max(s, t) for off, s, t in pairs) / len(pairs),
        "within_both": sum(off <= s + t for off, s, t in pairs) / len(pairs),
    }


def table(found: dict[str, dict[str, float]]) -> str:
    rows = [
        [name, f"{f['pairs']:.0f}", f"{f['within_larger']:.0%}", f"{f['within_both']:.0%}"]
        for name, f in found.items()
    ]  # fmt: skip
    head = ["figure", "pairs", "differ by less than the larger sd", "intervals touch"]
    return grid(head, rows, right=range(1, 4))


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--times", type=click.IntRange(2), default=20, show_default=True)
@click.option("--repetitions", type=click.IntRange(2), default=5, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=None)
def main(model: Path, times: int, repetitions: int, threads: int | None) -> None:
    """Print the table and one JSON line."""
    quiet_environment()
    from bridge_edge.benchmarks.bench import bench
    from bridge_edge.benchmarks.options import BenchOptions
    from bridge_edge.data.samples import Sample

    options = BenchOptions(threads=threads, repetitions=repetitions, memory=False, accuracy=False)
    reports = [bench(model, [Sample(prompt) for prompt in PROMPTS], options) for _ in range(times)]
    quiet = [report for report in reports if report["publishable"]]
    sets = {"undisturbed": quiet, "all": reports}
    found = {name: {k: agreement(v) for k, v in spreads(some).items()} for name, some in sets.items()}
    for name, some in sets.items():
        click.echo(f"{len(some)} runs, {name}\n{table(found[name])}\n")
    click.echo(json.dumps({"undisturbed": len(quiet), "runs": len(reports), **found}))


if __name__ == "__main__":
    main()
