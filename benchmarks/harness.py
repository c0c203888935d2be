"""Accuracy through lm-evaluation-harness: its tasks, or task files of one's own, on artifacts as they ship.

    bridge-edge bench MODEL --lm-eval arc_easy,my-task.yaml

A file of one's own names local data (`dataset_path: json`, `dataset_kwargs: {data_files: ...}`) and needs no network;
tasks by name fetch their data from the hub once. A task's file may name functions of a Python file beside it, which the
harness then runs: use only files that you trust. The harness is an extra (`pip install 'bridge-edge[lm-eval]'`).
Intervals are Wilson's for shares of items, and from the harness's standard errors otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bridge_edge.benchmarks.options import BenchOptions
from bridge_edge.errors import Failures, UserError, first_line, unknown
from bridge_edge.evaluate import Z95, wilson
from bridge_edge.plain import grid
from bridge_edge.runtimes.load import load_runtime

SHARES = ("acc", "acc_norm", "exact_match")  # metrics that are a share of the items
DRAWS = 1_000  # of the harness's bootstrap, for the metrics that need one
SEED = 1234  # of few-shot examples and bootstrap, the harness's own
NEW = 256  # tokens of an answer where neither task nor card bounds them


def assess(
    paths: Sequence[Path], tasks: str, limit: int, options: BenchOptions, failures: Failures | None = None
) -> list[dict[str, Any]]:
    """One result an artifact, of the same items in the same order."""
    loaded, failures = load_tasks(tasks), failures or Failures(keep=False)
    found = []
    for path in paths:
        with failures.of(path):
            found.append(_assessed(path, loaded, limit, options.thread_count))
    return found


def _assessed(path: Path, loaded: Any, limit: int, threads: int) -> dict[str, Any]:
    from lm_eval.evaluator import evaluate

    from bridge_edge.benchmarks.harness_model import Student

    settings = {"limit": limit, "bootstrap_iters": DRAWS, "log_samples": False, "apply_chat_template": True}
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(seed=SEED)
    random.seed(SEED)
    runtime = load_runtime(path, threads)
    try:
        with told():
            new = runtime.card.max_new_tokens if runtime.card else NEW
            result = evaluate(Student(runtime, new), loaded, fewshot_as_multiturn=False, **settings)
    finally:
        runtime.close()
    return {"artifact": {"path": str(path), "runtime": runtime.name}, "tasks": plain(result or {})}


def load_tasks(tasks: str) -> Any:
    """The harness's tasks of a comma-separated list of names and files, without examples unless a task names some."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise UserError("lm-evaluation-harness is not installed", "pip install 'bridge-edge[lm-eval]'") from None
    wanted = [word.strip() for word in tasks.split(",") if word.strip()]
    files = [word for word in wanted if word.endswith((".yaml", ".yml"))]
    for file in files:
        if not Path(file).is_file():
            raise UserError(f"there is no task file {file!r}", "name a task of the harness, or a YAML file")
    manager = TaskManager(include_defaults=len(files) < len(wanted))  # reading all of the harness's own takes seconds
    for word in wanted:
        if word not in files and word not in manager.all_tasks:
            raise unknown("task", word, manager.all_tasks)
    with told():
        loaded = manager.load(wanted)
        for task in loaded["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
    return loaded


@contextmanager
def told() -> Iterator[None]:
    """Tasks are code and data of others and may raise anything: say it in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        hint = "tasks from the hub need the network once; a YAML file with local data needs none"
        raise UserError(f"lm-evaluation-harness failed: {first_line(error)}", hint) from error


def plain(result: dict[str, Any]) -> dict[str, Any]:
    """The harness's result as one entry a task: items, version, and each metric with its interval."""
    found: dict[str, Any] = {}
    for task, values in result.get("results", {}).items():
        counts = result.get("n-samples", {}).get(task, {})
        n = int(counts.get("effective") or 0)
        metrics = {}
        for key, value in values.items():
            name, _, rule = key.partition(",")
            if rule and not name.endswith("_stderr") and isinstance(value, int | float):
                spread = values.get(f"{name}_stderr,{rule}")
                metrics[name if rule == "none" else key] = {"value": value, "ci95": interval(name, value, n, spread)}
        found[task] = {"n": n, "version": result.get("versions", {}).get(task), "metrics": metrics}
    return found


def interval(name: str, value: float, n: int, spread: Any) -> list[float] | None:
    """A 95 % interval; none where the harness gives no standard error."""
    if name in SHARES and n and abs(value * n - round(value * n)) < 1e-6:
        return list(wilson(round(value * n), n))
    if not isinstance(spread, int | float):
        return None
    return [value - Z95 * spread, value + Z95 * spread]


def table(found: Sequence[dict[str, Any]]) -> str:
    """The results for people."""
    header, rows = parts(found)
    return grid(header, rows, right=range(2, len(header)))


def parts(found: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row a task and metric, one column an artifact."""
    names = [f"{r['artifact']['runtime']}: {Path(r['artifact']['path']).name}" for r in found]
    kinds = [(task, metric) for task, t in found[0]["tasks"].items() for metric in t["metrics"]]
    rows = [
        [task, metric, str(found[0]["tasks"][task]["n"]), *(_cell(r["tasks"][task]["metrics"][metric]) for r in found)]
        for task, metric in kinds
    ]
    return ["task", "metric", "n", *names], rows


def _cell(metric: dict[str, Any]) -> str:
    bounds = metric["ci95"]
    return f"{metric['value']:.4g}" + (f" ({bounds[0]:.3g} to {bounds[1]:.3g})" if bounds else "")
