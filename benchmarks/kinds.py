"""How right are the arms of a finished grid on frequent and on rare kinds of items?

    bridge-edge ablate recipe=medical uneven --ta-only --seeds 3
    python -m bridge_edge.benchmarks.kinds runs

Kinds are ranked by how many items of the pool are of them (under each seed anew). For each arm: how many items of a
rank were asked and what share of the test items of that rank is right, the mean over seeds. Two summaries: the share of
all test items, which `report.md` compares, and the share where kinds weigh `as the pool` has them; the latter beside
the first arm, with a 95 % interval of a bootstrap over seeds and, within a seed and kind, over items. Last line: JSON.

Not covered: grids over several pools, and kinds that no test item is of.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from bridge_edge.ablate.bootstrap import DRAWS, Interval, interval, outcomes
from bridge_edge.benchmarks.rows import answer
from bridge_edge.cli import quiet_environment
from bridge_edge.errors import UserError


@dataclass(frozen=True)
class Measured:
    """One arm under one seed: of each rank the share of the pool, how many were asked, and the right test items."""

    arm: str
    seed: int
    shares: list[float]
    asked: list[int]
    right: list[np.ndarray]

    @property
    def weights(self) -> np.ndarray:
        """The shares of the pool (ranks,) of those ranks that test items are of, in all 1."""
        found = np.array(self.shares) * [len(hits) > 0 for hits in self.right]
        return found / found.sum()

    @property
    def as_pool(self) -> float:
        return float(self.weights @ [hits.mean() if len(hits) else 0.0 for hits in self.right])


def read(runs: Path) -> list[Measured]:
    """Every cell of the grids in a folder of runs; UserError where there is none, or its runs are gone."""
    from bridge_edge.data.samples import read_jsonl

    found = []
    for line in (line for file in sorted(runs.glob("ablate-*/results.jsonl")) for line in file.open(encoding="utf-8")):
        row = json.loads(line)
        run = runs / row["run"]
        try:
            pool, test = (list(read_jsonl(run / "data" / f"{name}.jsonl")) for name in ("pool", "test"))
            asked = {item["id"] for item in json.loads((run / "select" / "selected.json").read_bytes())}
        except OSError as error:
            lacks = f"{run} lacks {Path(error.filename).name}"
            raise UserError(lacks, "give the folder that `ablate` has made") from None
        count, chosen = Counter(s.kind for s in pool), Counter(s.kind for s in pool if s.id in asked)
        ranks = sorted(count, key=lambda kind: (-count[kind], kind))
        hits = np.array([int(c) for c in row["sets"]["test"]["correct"]])
        if len(hits) != len(test):
            raise UserError(f"{len(hits)} outcomes for the {len(test)} test items of {run}", "run `ablate` again")
        words = [w for w in row["words"] if not w.startswith(("seed=", "recipe="))]
        found.append(Measured(
            f"{row['who']}: {' '.join(words)}", row["seed"], [count[k] / len(pool) for k in ranks],
            [chosen[k] for k in ranks], [hits[[s.kind == k for s in test]] for k in ranks],
        ))  # fmt: skip
    if not found:
        raise UserError(f"{runs} has no results of a grid", "run `bridge-edge ablate` there first")
    return found


def difference(pairs: Sequence[tuple[Measured, Measured]]) -> Interval:
    """The mean difference of a and b over seeds, as the pool has the kinds, from paired outcomes."""
    rng = np.random.default_rng(0)
    which = rng.integers(len(pairs), size=(DRAWS, len(pairs)))
    drawn = np.zeros(which.shape)
    for seed, (a, b) in enumerate(pairs):
        mine = which == seed  # a seed that is drawn twice has its items drawn twice
        for weight, x, y in zip(a.weights, a.right, b.right, strict=True):
            if len(x):
                counts = rng.multinomial(len(x), np.array(outcomes(x.tolist(), y.tolist())) / len(x), int(mine.sum()))
                drawn[mine] += weight * (counts[:, 1] - counts[:, 2]) / len(x)
    return interval(float(np.mean([a.as_pool - b.as_pool for a, b in pairs])), drawn.mean(1))


def table(cells: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row for each arm, in the order of the results."""
    arms: dict[str, dict[int, Measured]] = {}
    for cell in cells:
        arms.setdefault(cell.arm, {})[cell.seed] = cell
    first = next(iter(arms.values()))
    found = []
    for arm, seeds in arms.items():
        mine = list(seeds.values())
        row: dict[str, Any] = {"arm": arm, "seeds": sorted(seeds)}
        row["asked"] = np.mean([m.asked for m in mine], 0).round(1).tolist()
        row["right"] = [round(float(np.mean([h.mean() for h in hits if len(h)])), 4) if any(map(len, hits)) else None
                        for hits in zip(*(m.right for m in mine), strict=True)]  # fmt: skip
        row["all"] = round(float(np.mean([np.concatenate(m.right).mean() for m in mine])), 4)
        row["as the pool"] = round(float(np.mean([m.as_pool for m in mine])), 4)
        pairs = [(seeds[s], first[s]) for s in seeds if s in first and seeds is not first]
        beside = difference(pairs) if pairs else None
        row["points"] = beside and [round(100 * x, 1) for x in (beside.mean, beside.low, beside.high)]
        found.append(row)
    return found


@click.command()
@click.argument("runs", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(runs: Path) -> None:
    """Print a table, then one JSON line."""
    answer(lambda: table(read(runs)))


if __name__ == "__main__":
    quiet_environment()
    main()
