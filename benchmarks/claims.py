"""The README's table of results: BRIDGE against direct distillation, over seeds, on held-out items and on public files.

    python -m bridge_edge.benchmarks.claims --recipe legal --seeds 3 --data FILE.tsv --data FILE2.tsv

Arms, each with the same student and the same stages as `bridge-edge distill`:
  bridge       TA taught by the selected 5 %, student tutored by the TA on the whole pool
  direct       student trained on the same 5 % of teacher answers
  direct-100   student trained on teacher answers for the whole pool
Finished arms are kept in results.jsonl of the runs folder, so the same command resumes. Not covered: the full grid of
strategies and budgets.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bridge_edge.cli import quiet_environment
from bridge_edge.errors import UserError

ARMS = ("bridge", "direct", "direct-100")


def run_arm(recipe: str, arm: str, seed: int, extra: Sequence[str], runs_dir: Path) -> tuple[Path, dict[str, Any]]:
    """Train one arm; returns the student's folder and what the teacher cost."""
    from bridge_edge.distill import distill

    words = [f"recipe={recipe}", f"seed={seed}", *extra]
    if arm == "direct-100":
        words += ["budget.fraction=1.0", "budget.usd=null", "select.strategy=random", "baseline.epochs=2"]
    target = {"bridge": "tutor", "direct": "baseline", "direct-100": "baseline"}[arm]
    summary = distill(words, runs_dir, target=target)
    return Path(summary["run"]) / target, summary["teacher"] | {"gate": summary["gate"]["accuracy"]}


def measure(folder: Path, files: Sequence[Path], threads: int | None) -> dict[str, Any]:
    """Accuracy on the generated test items and, pooled, on the files."""
    from bridge_edge.deliver import evaluate_files, held_out
    from bridge_edge.evaluate import evaluate, to_json
    from bridge_edge.runtimes.load import load_runtime

    runtime = load_runtime(folder, threads)
    if runtime.card is None:
        raise UserError(f"{folder} has no task card", "make it with `bridge-edge distill`")
    found = {"test": to_json(evaluate(runtime, held_out(folder, "test"), runtime.card))}
    runtime.close()
    if files:
        found["files"] = to_json(evaluate_files(folder, files, "", None, None, None, threads))
    return found


def finished(path: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Records of results.jsonl by (recipe, arm, seed)."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return {(r["recipe"], r["arm"], r["seed"]): r for r in rows}


def spread(values: Sequence[float]) -> str:
    """Mean and range in percent."""
    mean = 100 * statistics.mean(values)
    return f"{mean:.1f} ({100 * min(values):.1f} to {100 * max(values):.1f})"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table with one line a recipe and arm."""
    lines = ["| recipe | arm | teacher queries | held-out accuracy % | public files % | seeds |", "|---" * 6 + "|"]
    for recipe in dict.fromkeys(r["recipe"] for r in rows):
        for arm in ARMS:
            mine = [r for r in rows if r["recipe"] == recipe and r["arm"] == arm]
            if mine:
                public = [r["scores"]["files"]["accuracy"] for r in mine if "files" in r["scores"]]
                held = [r["scores"]["test"]["accuracy"] for r in mine]
                cells = [recipe, arm, str(mine[0]["teacher"]["queries"]), spread(held)]
                lines.append("| " + " | ".join([*cells, spread(public) if public else "", str(len(mine))]) + " |")
    return "\n".join(lines)


@click.command()
@click.option("--recipe", "recipes", multiple=True, default=("legal", "medical", "finance"), show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--arm", "arms", multiple=True, type=click.Choice(ARMS), default=ARMS, show_default=True)
@click.option(
    "--data", "files", multiple=True, type=click.Path(path_type=Path), help="Public files for the legal recipe."
)
@click.option("--set", "extra", multiple=True, help="Recipe overrides, e.g. data.pool=1000.")
@click.option("--runs-dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option("--threads", type=int, default=None)
def main(
    recipes: Sequence[str],
    seeds: int,
    arms: Sequence[str],
    files: Sequence[Path],
    extra: Sequence[str],
    runs_dir: Path,
    threads: int | None,
) -> None:
    """Measure the arms and print a table, then one JSON line."""
    runs_dir.mkdir(parents=True, exist_ok=True)
    path = runs_dir / "results.jsonl"
    for seed in range(seeds):
        for recipe in recipes:
            for arm in arms:
                if (recipe, arm, seed) in finished(path):
                    continue
                start = time.time()
                folder, teacher = run_arm(recipe, arm, seed, extra, runs_dir)
                scores = measure(folder, files if recipe == "legal" else (), threads)
                record = {"recipe": recipe, "arm": arm, "seed": seed, "teacher": teacher, "scores": scores}
                record["seconds"] = round(time.time() - start, 1)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                print(markdown(list(finished(path).values())), flush=True)
    rows = [r for r in finished(path).values() if r["recipe"] in recipes]
    print(markdown(rows))
    results = [
        {k: r[k] for k in ("recipe", "arm", "seed", "teacher")}
        | {"accuracy": {n: s["accuracy"] for n, s in r["scores"].items()}}
        for r in rows
    ]
    print(json.dumps({"results": results}))


if __name__ == "__main__":
    quiet_environment()
    main()
