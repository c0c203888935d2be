"""Does the difficulty that selection went by foretell what the trained assistant misses?

    python -m bridge_edge.benchmarks.foretold runs/legal-...

For each scoring of the pool in a finished run: the area under the curve with which its difficulty ranks the items that
the assistant missed when it annotated the pool (0.5 is chance, 1 foretells all), less the items that were asked, and
the share that it missed. A later round scores a sample by the explanations of an earlier assistant, so its area says
how far two assistants miss the same. Last line: one JSON object.

Not covered: annotations by several drafts (the first counts); difficulty of pools without labels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from bridge_edge.benchmarks.rows import answer
from bridge_edge.cli import quiet_environment
from bridge_edge.errors import UserError


def area(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """Area under the ROC curve (Mann-Whitney), ties counting half; None where only one class is there."""
    from bridge_edge.select.strategies import percentile_ranks

    count, most = int(positive.sum()), len(scores)
    if count in (0, most):
        return None
    ranks = percentile_ranks(scores) * max(1, most - 1) + 1
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (most - count)))


def missed_in(run: Path) -> tuple[dict[str, int], np.ndarray, set[str]]:
    """The place of each item in the pool, which of them the assistant missed, and the ids that were asked."""
    from bridge_edge.data.samples import read_jsonl
    from bridge_edge.recipe_io import load_recipe
    from bridge_edge.select.explained import is_missed

    files = [run / name for name in ("recipe.yaml", "data/pool.jsonl", "draft/raw.jsonl", "select/selected.json")]
    for file in files:
        if not file.is_file():
            raise UserError(f"{run} has no {file.relative_to(run)}", "give the folder of a run that was annotated")
    answers = load_recipe([f"recipe={files[0]}"]).task.answers
    pool = list(read_jsonl(files[1]))
    place = {sample.id: i for i, sample in enumerate(pool)}
    missed = np.zeros(len(pool), dtype=bool)
    for line in files[2].read_text(encoding="utf-8").splitlines():
        draft = json.loads(line)
        if not draft.get("sample"):
            missed[place[draft["id"]]] = is_missed(draft["text"], pool[place[draft["id"]]].answer, answers)
    return place, missed, {row["id"] for row in json.loads(files[3].read_text(encoding="utf-8"))}


def measured(run: Path) -> list[dict[str, Any]]:
    """A row for each scoring of a run."""
    place, missed, asked = missed_in(run)
    open_ = np.ones(len(missed), dtype=bool)
    open_[[place[name] for name in asked]] = False
    found = []
    for folder in (*sorted(run.glob("score-*"), key=lambda p: int(p.name[6:])), run / "score"):
        hard = np.load(folder / "difficulty.npy")
        rows = np.load(folder / "rows.npy") if (folder / "rows.npy").exists() else np.arange(len(missed))
        kept = open_[rows]
        auc = area(hard[kept], missed[rows[kept]])
        found.append({
            "run": run.name, "stage": folder.name, "items": int(kept.sum()),
            "missed": round(float(missed[rows[kept]].mean()), 4), "auc": None if auc is None else round(auc, 3),
        })  # fmt: skip
    return found


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
def main(runs: tuple[Path, ...]) -> None:
    """Print a table, then one JSON line."""
    answer(lambda: [row for run in runs for row in measured(run)])


if __name__ == "__main__":
    quiet_environment()
    main()
