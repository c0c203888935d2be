"""Brings the stages of a run up to date: what is finished is skipped, what is half done is gone on with, and what an
equal stage of this or another run has made is taken from it.

A stage works in a folder of its own that becomes the stage's only when it is done. Not covered: stages side by side.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from bridge_edge import apprenticeship
from bridge_edge.memory import release
from bridge_edge.phases import Context, Metrics
from bridge_edge.progress import say
from bridge_edge.recipe import Recipe
from bridge_edge.run import Run, all_runs, commit, digest_tree
from bridge_edge.stage_key import stage_key
from bridge_edge.stages import Stage, needed_for
from bridge_edge.teacher.make import make_teacher

KEY = "stage.json"


def run_stages(run: Run, recipe: Recipe, ctx: Context, target: str | None = None) -> int:
    """Bring the stages that `target` needs (default: all) up to date; returns how many did any work."""
    stages = needed_for(target, recipe)
    outputs: dict[str, str] = {}
    worked = 0
    neighbours = [r for r in all_runs(run.path.parent) if r.path != run.path]
    ledgers = [r.path / apprenticeship.LEDGER for r in neighbours]
    ctx = replace(ctx, borrow=lambda: [path for path in ledgers if path.exists()])
    for number, stage in enumerate(stages, 1):
        key = stage_key(stage, recipe, outputs)
        record = run.stage(stage.name)
        if record and record["key"] == key and run.folder(stage.name).is_dir():
            outputs[stage.name] = record["output"]
            continue
        head = f"[{number}/{len(stages)}] {stage.title}"
        if source := _take_from(neighbours, stage, key, run):
            say(f"{head}: taken from {source}")
        else:
            say(head)
            if not worked and any((s.kind or s.name) == "teach" for s in stages[number - 1 :]):
                make_teacher(recipe, [])  # a missing key or file is said before hours of work
            _work(run, stage, key, replace(ctx, recipe=stage.sees(recipe), places=stage.found, part=stage.part))
            worked += 1
        outputs[stage.name] = run.manifest["stages"][stage.name]["output"]
    return worked


def find_equal(neighbours: Sequence[Run], stage: Stage, key: str, run: Run) -> tuple[Run, str] | None:
    """The run and its stage (of any round) with this key, if its files are still what its manifest says."""
    teaches = (stage.kind or stage.name) == "teach"
    if teaches and (stage.part != (1, 1) or (run.path / apprenticeship.LEDGER).exists()):
        return None  # of a ledger that holds more than this, or beside an own one: teach works, and takes answers over
    for other in [*neighbours, run]:  # of the run itself another stage of the same kind
        found = [stage.name] if teaches else other.manifest.get("stages", {})
        for name in found:
            record, folder = other.stage(name), other.folder(name)
            if record and record["key"] == key and folder.is_dir() and digest_tree(folder) == record["output"]:
                return other, name
    return None


def _take_from(neighbours: Sequence[Run], stage: Stage, key: str, run: Run) -> str:
    """Copy an equal finished stage, where there is one; what it was taken from, in words."""
    found = find_equal(neighbours, stage, key, run)
    if found is None:
        return ""
    other, name = found
    partial = run.folder(f"{stage.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(other.folder(name), partial)
    if stage.name == "teach":
        _copy_ledger(other.path / apprenticeship.LEDGER, run.path / apprenticeship.LEDGER)
    commit(run, stage.name, partial, {**other.manifest["stages"][name], "taken_from": other.path.name})
    return f"the equal stage {name}" if other is run else "an equal run"


def _copy_ledger(source: Path, target: Path) -> None:
    """Copy a ledger through SQLite: what a killed process left in the write-ahead log belongs to it too."""
    if source.exists():
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)


def _work(run: Run, stage: Stage, key: str, ctx: Context) -> None:
    """Do the stage in its partial folder: go on with a half-done one of the same key, start afresh otherwise."""
    if run.finished:  # until it is whole again, nobody should take it for finished
        run.manifest["status"] = "running"
        run.save()
    partial = run.folder(f"{stage.name}.partial")
    marker = partial / KEY
    if partial.exists() and (not marker.exists() or marker.read_text() != key):
        shutil.rmtree(partial)
    partial.mkdir(exist_ok=True)
    marker.write_text(key)
    start = time.time()
    metrics = stage.work(ctx, partial)
    release()
    marker.unlink()
    seconds = round(time.time() - start, 2)
    record = {"key": key, "version": stage.version, "started": start, "seconds": seconds, "metrics": metrics}
    commit(run, stage.name, partial, record)
    say(f"  done in {seconds:.0f} s{_brief(metrics)}")


def _brief(metrics: Metrics) -> str:
    """The figures of a stage that fit in a line, behind a colon; nothing where there are none."""
    shown = [f"{k} {v}" for k, v in metrics.items() if isinstance(v, (int, float, str)) and not isinstance(v, bool)]
    return f": {', '.join(shown)}" if shown else ""
