"""`bridge-edge distill`: run the stages of a recipe and say at the end what came of it."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bridge_edge import turns
from bridge_edge.data.swaps import swaps_of
from bridge_edge.errors import UserError, first_line
from bridge_edge.generate.writers import check_engine
from bridge_edge.mixing import check_shared
from bridge_edge.phases import Context
from bridge_edge.plan import make_plan, read_plan, write_plan
from bridge_edge.plan_report import comparison
from bridge_edge.progress import say
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_io import load_recipe
from bridge_edge.rounds import name_in
from bridge_edge.run import ASSISTANTS, STUDENT, Run
from bridge_edge.shipping import assistant_gguf
from bridge_edge.stage_runner import run_stages
from bridge_edge.teacher.reuse import shared_cache


def distill(
    words: Sequence[str],
    runs_dir: Path,
    device: str = "cpu",
    concurrency: int = 4,
    target: str | None = None,
    cache: str | None = None,
) -> dict[str, Any]:
    """Distil as the command-line words say; returns the summary that `--json` prints."""
    recipe = load_recipe(words)
    check_device(device)
    check_engine(recipe.annotate, device)
    check_shared(recipe)
    swaps_of(recipe)
    with shared_cache(cache, paid=False, run=""):  # a folder that cannot be used is said before hours of work
        pass
    run = Run.create(runs_dir, recipe)
    with run.lock():
        start = time.time()
        say(f"bridge-edge distill: recipe {recipe.name}, scale {recipe.scale}, run {run.path}")
        if read_plan(run.path) is None:
            write_plan(run.path, make_plan(recipe, runs_dir, concurrency))
        ctx = Context(recipe, run.path, device, concurrency, cache, convert=assistant_gguf)
        worked = run_stages(run, recipe, ctx, target)
        if worked and not target:
            run.manifest["status"] = "finished"
            run.manifest["finished"] = time.time()
            run.manifest["seconds"] = round(run.manifest.get("seconds", 0) + time.time() - start, 1)
            run.save()
        elif not run.finished and not target:
            run.manifest.update(status="finished", finished=time.time())
            run.save()
        summary = summarise(run, recipe)
        summary["plan"] = _beside_the_plan(run, summary, worked)
    summary["worked"] = worked
    if not worked:
        say("Nothing to do: this run is finished, and no value that it depends on has changed.")
    return summary


def _beside_the_plan(run: Run, summary: dict[str, Any], worked: int) -> dict[str, Any] | None:
    """The run's plan, with what happened once it has ended."""
    plan = read_plan(run.path)
    if plan is not None and run.finished and (worked or "actual" not in plan):
        teacher = {name: summary["teacher"][name] for name in ("queries", "tokens", "usd")}
        seconds = round(sum(s or 0 for s in summary["seconds"].values()), 1)
        disk = sum(p.stat().st_size for p in run.path.rglob("*") if p.is_file())
        plan["actual"] = {**teacher, "seconds": seconds, "peak_memory_mb": summary["peak_memory_mb"], "disk": disk}
        write_plan(run.path, plan)
    return plan


def check_device(name: str) -> None:
    """Refuse a device that torch does not know or cannot use here, before any work."""
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        hint = "leave it out for the CPU, or see `bridge-edge doctor`"
        raise UserError(f"cannot use --device {name}: {first_line(error)}", hint) from error


def summarise(run: Run, recipe: Recipe) -> dict[str, Any]:
    """What a user wants to know of a run, from its manifest alone."""
    stages = run.manifest["stages"]
    teach = stages.get("teach", {}).get("metrics", {})
    ta: dict[str, Any] = next((stages[n]["metrics"] for n in reversed(ASSISTANTS) if n in stages), {})
    return {
        "run": str(run.path),
        "recipe": recipe.name,
        "scale": recipe.scale,
        "student": str(run.path / STUDENT),
        "teacher": {
            "queries": teach.get("queries"),
            "usd": teach.get("usd"),
            "usd_cap": recipe.budget.usd,
            "tokens": teach.get("tokens"),
            "cached": teach.get("cached", 0),
            "cached_usd": teach.get("cached_usd", 0.0),
            "pool": stages.get("data", {}).get("metrics", {}).get("pool"),
        },
        "gate": {"accuracy": ta.get("dev", {}).get("accuracy"), "passed": ta.get("gate_passed")},
        "rounds": rounds_of(stages, recipe.select.rounds),
        "turns": turns_of(stages, recipe.turns.count),
        "annotation": annotation_of(stages.get("annotate", {}).get("metrics", {})),
        "test": stages.get("evaluate", {}).get("metrics", {}),
        "seconds": {name: _own_seconds(run, record) for name, record in stages.items()},
        "peak_memory_mb": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
        ),
    }


def _own_seconds(run: Run, record: dict[str, Any]) -> float | None:
    """How long a stage took; nothing where it is a copy of one of this very run, whose time is told there."""
    return 0.0 if record.get("taken_from") == run.path.name else record.get("seconds")


def rounds_of(stages: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    """What was asked by the end of each round, and how good the assistant then was on dev; none for one round."""
    found = []
    for k in range(1, rounds + 1) if rounds > 1 else ():
        teach, ta = (stages.get(name_in(name, k, rounds), {}).get("metrics", {}) for name in ("teach", "apprentice"))
        found.append({"queries": teach.get("queries"), "accuracy": ta.get("dev", {}).get("accuracy")})
    return found


def turns_of(stages: dict[str, Any], count: int) -> list[int]:
    """How many annotations were kept in each turn of the tutoring that has been; none for one turn."""
    names = [turns.name_in("annotate", k, count) for k in range(1, count + 1)] if count > 1 else []
    return [stages[name]["metrics"]["kept"] for name in names if name in stages]


def annotation_of(metrics: dict[str, Any]) -> dict[str, Any]:
    """How many annotations were kept, and what each filter took; empty where the stage has not run."""
    names = ("kept", "pool", "filters", "agreement", "right_answer_wrong_steps")
    return {name: metrics[name] for name in names if name in metrics}


def summary_text(summary: dict[str, Any]) -> str:
    """The closing lines of a run, for people."""
    teacher, test = summary["teacher"], summary["test"]
    cap = f" of ${summary['teacher']['usd_cap']:.2f}" if teacher["usd_cap"] is not None else ""
    lines = ["", f"Run        {summary['run']}"]
    if teacher["queries"] is not None:
        share = teacher["queries"] / teacher["pool"]
        lines.append(
            f"Teacher    {teacher['queries']} queries ({share:.1%} of {teacher['pool']}), "
            f"${teacher['usd']:.4f}{cap}, {teacher['tokens']:,} tokens"
        )
        if teacher["cached"]:
            lines.append(f"Cache      {teacher['cached']} of them, which had cost ${teacher['cached_usd']:.4f} before")
    known = [r for r in summary["rounds"] if r["accuracy"] is not None]
    if known:
        steps = ", ".join(f"{r['accuracy']:.1%} after {r['queries']} queries" for r in known)
        lines.append(f"Rounds     TA on dev: {steps}")
    if notes := summary["annotation"]:
        taken = ", ".join(f"{row['name']} {row['removed']}" for row in notes.get("filters", ()) if row["removed"])
        lines.append(f"Annotated  {notes['kept']} of {notes['pool']} kept" + (f"; dropped: {taken}" if taken else ""))
    if kept := summary["turns"]:
        later = "".join(f", then {n} by the student" for n in kept[1:])
        lines.append(f"Turns      {kept[0]} kept by the assistant{later}")
    for key, label in (("ta", "TA"), ("student", "Student"), ("baseline", "Baseline")):
        if key in test:
            low, high = test[key]["ci95"]
            note = {
                "student": f"  (always the majority answer: {test[key]['majority']:.1%})",
                "baseline": "  (direct distillation, same budget)",
            }
            lines.append(
                f"{label:10} {test[key]['accuracy']:.1%} on {test[key]['n']} test items, "
                f"95 % interval {low:.1%} to {high:.1%}{note.get(key, '')}"
            )
    wrong = test.get("student", {}).get("right_answer_wrong_steps")
    if wrong is not None:
        lines.append(
            f"Steps      {wrong:.1%} of the student's right answers have a wrong step, by the domain's checker"
        )
    lines.append(
        f"Time       {sum(s or 0 for s in summary['seconds'].values()):.0f} s of work, "
        f"peak memory {summary['peak_memory_mb']} MB"
    )
    if table := comparison(summary.get("plan") or {}):
        lines += ["", table, ""]
    lines.append("Next       bridge-edge export --format gguf")
    return "\n".join(lines)
