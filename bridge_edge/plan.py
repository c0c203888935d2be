"""`bridge-edge plan`: what a run will ask, cost, take and do, before any money is spent and without doing any of it.

The stages are judged by their keys as `distill` judges them: finished ones are skipped, equal ones of another run are
copied, the rest is worked; a stage behind one that is worked cannot be judged yet and counts as work. `distill` keeps
the plan of its run in plan.json and sets it beside what happened.

Not covered: the exact items (selection needs the scores) and times on a machine that no run has been made on.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge_edge import apprenticeship, rounds, turns
from bridge_edge.budget import Ledger
from bridge_edge.data.pool import build_splits
from bridge_edge.data.samples import Sample, read_jsonl
from bridge_edge.data.swaps import swaps_of
from bridge_edge.errors import UserError
from bridge_edge.estimate import Tokens, money, percentile, stopping_cap, tokens_of
from bridge_edge.footprint import disk_needed, memory_needed
from bridge_edge.host import memory_available
from bridge_edge.mixing import check_shared, shared_rows
from bridge_edge.phases import LONGEST_GENERAL, Context, Metrics
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_io import load_recipe, read_yaml
from bridge_edge.run import ASSISTANTS, Run, all_runs, run_path, write_atomic
from bridge_edge.selection import budget_queries, items_to_ask
from bridge_edge.stage_key import stage_key
from bridge_edge.stage_runner import KEY, find_equal
from bridge_edge.stages import Stage, needed_for
from bridge_edge.teacher.make import check_teacher
from bridge_edge.train.signals import token_bytes

FILE = "plan.json"
ASSUMED_RATE, ASSUMED_START_S = 60.0, 1.0  # tokens a second and time to first token of an API, where nothing is known
BATCH_S = 24 * 3600.0
Role = tuple[Callable[[Context, Path], Metrics], frozenset[str]]


@dataclass(frozen=True)
class Step:
    """One stage: what is to be done with it and how long it took where it was done before."""

    name: str
    title: str
    action: str  # "finished", "copy", "resume" or "work"
    source: str = ""  # the run that it is copied from, and the name that it has there
    copied: str = ""
    seconds: float | None = None


def steps(run: Run, recipe: Recipe, others: Sequence[Run]) -> list[Step]:
    """What `distill` would do with every stage."""
    outputs: dict[str, str] = {}
    found = []
    alike = [r for r in others if (r.manifest.get("recipe"), r.manifest.get("scale")) == (recipe.name, recipe.scale)]
    stages = needed_for(None, recipe)
    took, roles = _took([run, *alike]), _roles(stages)
    for stage in stages:
        seconds = took.get(roles[stage.name])
        if not set(stage.needs) <= set(outputs):
            found.append(Step(stage.name, stage.title, "work", seconds=seconds))
            continue
        key = stage_key(stage, recipe, outputs)
        record = run.stage(stage.name)
        if record and record["key"] == key and run.folder(stage.name).is_dir():
            outputs[stage.name] = record["output"]
            found.append(Step(stage.name, stage.title, "finished", seconds=0.0))
        elif (equal := find_equal(others, stage, key, run)) is not None:
            source, name = equal
            outputs[stage.name] = source.manifest["stages"][name]["output"]
            found.append(Step(stage.name, stage.title, "copy", source.path.name, name, 0.0))
        else:
            marker = run.folder(f"{stage.name}.partial") / KEY
            half = marker.exists() and marker.read_text() == key
            found.append(Step(stage.name, stage.title, "resume" if half else "work", seconds=seconds))
    return found


def _roles(stages: Sequence[Stage]) -> dict[str, Role]:
    """What each stage does from the output of which kinds of stages; an assistant is one, refined or not.

    The same name is not the same work in every run: where tutoring goes in turns, the last drafts are the student's."""
    kinds = {stage.name: stage.kind or stage.name for stage in stages}
    kinds |= {name: ASSISTANTS[0] for name, kind in kinds.items() if kind in ASSISTANTS}
    return {stage.name: (stage.work, frozenset(kinds[name] for name in stage.needs)) for stage in stages}


def _took(runs: Sequence[Run]) -> dict[Role, float]:
    """How long work took in the newest of these runs that did it itself."""
    found: dict[Role, float] = {}
    for run in runs:
        if not (run.path / "recipe.yaml").is_file():
            continue  # the run that is planned, before it is begun
        try:
            recipe = Recipe.model_validate(read_yaml(run.path / "recipe.yaml"))
        except (UserError, ValueError):  # of another version
            continue
        for name, role in _roles(needed_for(None, recipe)).items():
            record = run.stage(name)
            if record and "taken_from" not in record and record.get("seconds") is not None:
                found.setdefault(role, float(record["seconds"]))
    return found


def make_plan(recipe: Recipe, runs_dir: Path, concurrency: int) -> dict[str, Any]:
    """The whole plan of a recipe as plain values."""
    run = Run(run_path(runs_dir, recipe))
    others = [r for r in all_runs(runs_dir) if r.path != run.path] if runs_dir.is_dir() else []
    todo = steps(run, recipe, others)
    pool, asked, known = _questions(run, recipe, todo, others)
    requests = apprenticeship.requests_for(recipe, asked)
    calls = items_to_ask(recipe, budget_queries(recipe, len(pool))) * recipe.teacher.samples
    ledgers = [p for r in [run, *others] if (p := r.path / apprenticeship.LEDGER).exists()]
    tokens = tokens_of(recipe, asked, requests, ledgers)
    teach = next(step for step in todo if step.name == "teach")
    seconds = 0.0 if teach.action in ("finished", "copy") else _teacher_seconds(recipe, tokens, calls, concurrency)
    times = {s.name: seconds if s.name == "teach" else s.seconds for s in todo}
    times |= {s.name: 0.0 for s in todo if s.name.startswith("teach-")}  # of an earlier round: in the whole already
    parts = [t for t in times.values() if t is not None]
    to_write = {s.name for s in todo if s.action != "finished"}
    where = next(p for p in [runs_dir.resolve(), *runs_dir.resolve().parents] if p.exists())
    return {
        "run": str(run.path),
        "recipe": recipe.name,
        "scale": recipe.scale,
        "made": time.time(),
        "teacher": {"kind": recipe.teacher.kind, "model": recipe.teacher.model, "samples": recipe.teacher.samples},
        "refused": None if teach.action in ("finished", "copy") else _refused(recipe),
        "pool": len(pool),
        "selected_known": known,
        "calls": calls,
        "already_paid": _paid(run),
        "tokens": _tokens_json(tokens, calls, recipe.reply_tokens, recipe.budget.tokens),
        "usd": money(recipe, tokens, calls),
        "stops": stopping_cap(recipe, tokens, calls, recipe.budget.queries or calls),
        "seconds": {"teacher": seconds, "stages": times, "known": round(sum(parts), 1)},
        "unknown_seconds": [name for name, value in times.items() if value is None],
        "expected": recipe.expected,
        "disk": {"needed": _disk(recipe, len(pool), to_write), "free": shutil.disk_usage(where).free},
        "signals": _signals(recipe, len(pool), to_write),
        "memory": {**memory_needed(recipe, _peaks(recipe, others)), "free": memory_available()},
        "stages": [vars(step) for step in todo],
    }  # fmt: skip


def _questions(
    run: Run, recipe: Recipe, todo: Sequence[Step], others: Sequence[Run]
) -> tuple[list[Sample], list[Sample], bool]:
    """The pool, and the items to count: the selected ones where the selection is made, else the whole pool."""

    def folder(name: str) -> Path | None:
        step = next(s for s in todo if s.name == name)
        if step.action == "copy":
            return next(r.folder(step.copied) for r in others if r.path.name == step.source)
        return run.folder(name) if step.action == "finished" else None

    data, select = folder("data"), folder("select")
    pool = list(read_jsonl(data / "pool.jsonl")) if data else build_splits(recipe)[0]["pool"]
    if select is None:
        return pool, pool, False
    chosen = {row["id"] for row in json.loads((select / "selected.json").read_text(encoding="utf-8"))}
    return pool, [s for s in pool if s.id in chosen], True


def _disk(recipe: Recipe, pool: int, names: set[str]) -> int | None:
    """Bytes to write at the most; each round before the last one leaves an assistant and its scores, or what it
    explained, each turn of the tutoring before the last one drafts and a student."""
    often = {rounds.OFTEN: recipe.select.rounds, ("refine",): recipe.refine.rounds, turns.OFTEN: recipe.turns.count}
    parts = [names, *({kind for kind in kinds if f"{kind}-{k}" in names}
                      for kinds, count in often.items() for k in range(1, count))]  # fmt: skip
    needed = [disk_needed(recipe, pool, part) for part in parts]
    return None if None in needed else sum(n or 0 for n in (*needed, _signals(recipe, pool, names)))


def _signals(recipe: Recipe, pool: int, names: set[str]) -> int | None:
    """Bytes that `kd.top_k` keeps while the student is tutored, each completion being as long as it may be."""
    if not recipe.kd.top_k or not recipe.kd.kept or not {"sft", "tutor"} & names:
        return None
    passes = max(1, round(recipe.student.epochs))
    different = passes if recipe.swap.on else 1  # where words or numbers are swapped no pass repeats a text
    tokens = pool * (different * (recipe.task.max_new_tokens + 1) + passes * recipe.student.rehearsal * LONGEST_GENERAL)
    return round(tokens * token_bytes(recipe.kd.top_k, shared_rows(recipe.ta.model, recipe.student.model)))


def _refused(recipe: Recipe) -> str | None:
    """Why `distill` would not begin; a plan needs no key and no model."""
    try:
        check_teacher(recipe.teacher)
    except UserError as error:
        return str(error)
    return None


def _paid(run: Run) -> dict[str, Any]:
    path = run.path / apprenticeship.LEDGER
    if not path.exists():
        return {"queries": 0, "usd": 0.0}
    with closing(Ledger(path)) as ledger:
        totals = ledger.totals()
    return {"queries": totals.queries, "usd": float(totals.usd)}


def _tokens_json(tokens: Tokens, calls: int, most: int, cap: int | None) -> dict[str, Any]:
    def spread(values: list[int]) -> dict[str, int]:
        return {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95)}

    each = sum(tokens.prompts) / len(tokens.prompts) + sum(tokens.answers) / len(tokens.answers)
    worst = sum(tokens.bounds) / len(tokens.bounds) + most
    return {
        "prompt": spread(tokens.prompts),
        "answer": spread(tokens.answers),
        "expected": round(calls * each),
        "high": round(calls * worst),
        "cap": cap,
        "counted_by": tokens.counted_by,
        "answers_from": tokens.answers_from,
    }


def _teacher_seconds(recipe: Recipe, tokens: Tokens, calls: int, concurrency: int) -> float | None:
    """Time of the asking: a day at most for batches, nothing for a recording, the latency known or assumed else."""
    kind = recipe.teacher.kind
    if kind == "openai-batch":
        return BATCH_S
    if kind in ("expert", "replay"):
        return round(0.01 * calls, 1)  # two flushed writes a call
    if tokens.latency_s is not None:
        return round(calls * tokens.latency_s / concurrency, 1)
    if kind == "local":
        return None
    each = ASSUMED_START_S + sum(tokens.answers) / len(tokens.answers) / ASSUMED_RATE
    return round(calls * each / concurrency, 1)


def _peaks(recipe: Recipe, others: Sequence[Run]) -> list[float]:
    """Peak memory of earlier runs of this recipe and scale, in bytes, as their plan.json keeps it."""
    found = []
    for other in others:
        if (other.manifest.get("recipe"), other.manifest.get("scale")) == (recipe.name, recipe.scale):
            actual = (read_plan(other.path) or {}).get("actual", {})
            found += [actual["peak_memory_mb"] * 1e6] if actual.get("peak_memory_mb") else []
    return found


def read_plan(folder: Path) -> dict[str, Any] | None:
    """The plan kept in a run folder; None where there is none that can be read."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_plan(folder: Path, plan: dict[str, Any]) -> None:
    write_atomic(folder / FILE, json.dumps(plan, indent=1, sort_keys=True) + "\n")


def plan(words: Sequence[str], runs_dir: Path, concurrency: int) -> dict[str, Any]:
    """The plan of a command line; writes nothing."""
    recipe = load_recipe(words)
    check_shared(recipe)
    swaps_of(recipe)
    return make_plan(recipe, runs_dir, concurrency)
