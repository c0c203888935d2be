"""The ordered stages, their keys, and what is skipped, resumed or taken from another run.

A stage's key is the SHA-256 of canonical JSON: its name, its code version, the slice of the recipe that it reads, and
the digests of the outputs it reads. Equal keys mean equal work, so a finished stage of any run in the same folder is
copied instead of done again, and a changed value reruns just what depends on it.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bridge_edge import annotation, apprenticeship, phases, selection, tutoring
from bridge_edge.memory import release
from bridge_edge.phases import Context, Metrics
from bridge_edge.progress import say
from bridge_edge.recipe import METHODS, NEUTRAL, Recipe, settings
from bridge_edge.recipe_models import OWN_EMBEDDINGS
from bridge_edge.rounds import expand, recipe_of
from bridge_edge.run import Run, all_runs, canonical, commit, digest_tree, sha256_file, sha256_text, source_digest
from bridge_edge.teacher.make import make_teacher
from bridge_edge.train.models import locate

KEY = "stage.json"
SCORED = ("select.difficulty", "select.samples", "select.embeddings", "select.check")


@dataclass(frozen=True)
class Stage:
    """`reads` names the parts of the recipe that shape the output (less what follows a minus sign), `needs` the stages
    whose output it reads. A higher `version` makes former outputs of this stage stale.

    `also` names a stage that is read too where a part of the recipe is switched on, as (part, stage).

    Where selection goes in rounds there are several of a `kind` (see `rounds.py`): `places` maps what the work calls a
    stage to the one that it reads, and `part` says which round of how many this is."""

    name: str
    title: str
    work: Callable[[Context, Path], Metrics]
    reads: tuple[str, ...]
    needs: tuple[str, ...] = ()
    version: int = 1
    also: tuple[tuple[str, str], ...] = ()
    kind: str = ""
    places: tuple[tuple[str, str], ...] = ()
    part: tuple[int, int] = (1, 1)

    def seen(self, recipe: Recipe) -> Recipe:
        """The recipe as this stage sees it."""
        return recipe if self.part == (1, 1) else recipe_of(recipe, self.part)


STAGES = (
    Stage(
        "data",
        "Pool and held-out splits",
        phases.data,
        ("name", "task", "data", "seed", "ta.model", "student.model", "tutor.format", "shared_tokenizer"),
    ),
    Stage(
        "warmup",
        "Label-only warm-up of the assistant",
        phases.warmup,
        ("ta", "warmup", "seed", "data.labels"),
        ("data",),
    ),
    Stage(
        "score",
        "Difficulty and embeddings of the pool",
        selection.score_stage,
        (*SCORED, "task.answers", "task.max_new_tokens", "data.labels", "seed"),
        ("data", "warmup"),
        version=3,
    ),
    Stage(
        "select",
        "Selection of what to ask",
        selection.select,
        ("select", "budget", "data.labels", "seed"),
        ("data", "score"),
        version=4,
    ),
    Stage(
        "teach",
        "Teacher queries",
        apprenticeship.teach,
        ("teacher", "budget", "task.answers", "data.labels", "seed"),
        ("data", "select"),
    ),
    Stage(
        "apprentice",
        "Training of the assistant, and its gate",
        apprenticeship.apprentice,
        ("name", "ta", "gate", "seed", "tutor", "-tutor.order", "task"),
        ("data", "warmup", "teach"),
    ),
    Stage(
        "annotate",
        "Annotation of the pool by the assistant",
        annotation.annotate,
        ("annotate", "reasoning", "-reasoning.rl", "-reasoning.grpo", "task", "data.labels", "ta.precision"),
        ("data", "apprentice"),
    ),
    Stage(
        "align",
        "Instruction alignment of the student",
        phases.align,
        ("name", "student", "align", "seed", "tutor", "-tutor.order", "task"),
    ),
    Stage(
        "tutor",
        "Tutoring of the student",
        tutoring.tutor,
        ("name", "student", "tutor", "kd", "reasoning", "seed", "task"),
        ("teach", "annotate", "align"),
        also=(("kd", "apprentice"),),
    ),
    Stage(
        "baseline",
        "Baseline: direct distillation, same budget",
        phases.baseline,
        ("name", "student", "baseline", "tutor", "-tutor.order", "seed", "task"),
        ("teach", "align"),
    ),
    Stage(
        "evaluate",
        "Accuracy on the test split",
        phases.evaluate,
        ("task", "tutor.format", "reasoning"),
        ("data", "apprentice", "tutor", "baseline"),
    ),
)


def slice_of(recipe: Recipe, reads: Sequence[str]) -> dict[str, Any]:
    """The values of the dotted names in `reads`, without methods that are off."""
    whole = settings(recipe)
    found: dict[str, Any] = {}
    for dotted in reads:
        if dotted.startswith("-"):  # read by another stage only, though it stands among values that this one reads
            part, last = dotted[1:].split(".")
            whole.get(part, {}).pop(last, None)  # a method that is off has no values
            continue
        if dotted in METHODS and dotted not in whole:
            continue
        value: Any = whole
        *parts, last = dotted.split(".")
        for part in parts:
            value = value[part]
        if last in value or dotted not in NEUTRAL:  # a neutral value is as good as none
            found[dotted] = value[last]
    return found


def _base_digest(recipe: Recipe, reads: Sequence[str]) -> dict[str, str]:
    """Digests of models on disk: another base model under the same name is another input."""
    digests = {}
    for part, spec in (("ta", recipe.ta), ("student", recipe.student)):
        where = Path(locate(spec.model))
        if (part in reads or f"{part}.model" in reads) and where.is_dir():
            digests[part] = digest_tree(where)
    teacher = Path(recipe.teacher.model)
    if "teacher" in reads and recipe.teacher.kind == "local" and teacher.exists():
        digests["teacher"] = digest_tree(teacher)
    named = recipe.select.embeddings
    if "select.embeddings" in reads and named != OWN_EMBEDDINGS and Path(named).is_dir():
        digests["select.embeddings"] = digest_tree(Path(named))
    return digests


def _file_digests(recipe: Recipe, reads: Sequence[str]) -> dict[str, str]:
    """Digests of the user's own files, and of a domain's code: the same name with other content is another input."""
    files = {"data": (recipe.data.path, recipe.data.test_path), "teacher": (recipe.teacher.path,)}
    named = [path for part, paths in files.items() if part in reads for path in paths if path]
    found = {path: sha256_file(Path(path)) for path in named if Path(path).is_file()}
    by_code = "data" in reads or ("teacher" in reads and recipe.teacher.kind == "expert")
    return {**found, "domain": source_digest(recipe)} if by_code else found


def stage_key(stage: Stage, recipe: Recipe, outputs: dict[str, str]) -> str:
    """Key of `stage` for `recipe`, given the digests of the outputs it reads."""
    recipe, places = stage.seen(recipe), stage.places or [(name, name) for name in stage.needs]
    read = slice_of(recipe, stage.reads)
    places = [*places, *((name, name) for part, name in stage.also if part in read)]
    parts = {
        "stage": stage.kind or stage.name,
        "version": stage.version,
        "recipe": read,
        "inputs": {place: outputs[name] for place, name in places},
        "bases": _base_digest(recipe, stage.reads),
        "files": _file_digests(recipe, stage.reads),
    }
    return sha256_text(canonical(parts))


def needed_for(target: str | None, rounds: int = 1) -> list[Stage]:
    """All stages, or the ones that `target` rests on (itself included), in their order."""
    stages = expand(STAGES, rounds)
    if target is None:
        return stages
    wanted = {target}
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted.update(stage.needs)
    return [stage for stage in stages if stage.name in wanted]


def run_stages(run: Run, recipe: Recipe, ctx: Context, target: str | None = None) -> int:
    """Bring the stages that `target` needs (default: all) up to date; returns how many did any work."""
    stages = needed_for(target, recipe.select.rounds)
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
        if _take_from(neighbours, stage, key, run):
            say(f"{head}: taken from an equal run")
        else:
            say(head)
            if not worked and any((s.kind or s.name) == "teach" for s in stages[number - 1 :]):
                make_teacher(recipe, [])  # a missing key or file is said before hours of work
            _work(run, stage, key, replace(ctx, recipe=stage.seen(recipe), places=dict(stage.places), part=stage.part))
            worked += 1
        outputs[stage.name] = run.manifest["stages"][stage.name]["output"]
    return worked


def find_equal(neighbours: Sequence[Run], stage: Stage, key: str, run: Run) -> tuple[Run, str] | None:
    """Another run and its stage (of any round) with this key, if its files are still what its manifest says."""
    teaches = (stage.kind or stage.name) == "teach"
    if teaches and (stage.part != (1, 1) or (run.path / apprenticeship.LEDGER).exists()):
        return None  # of a ledger that holds more than this, or beside an own one: teach works, and takes answers over
    for other in neighbours:
        found = [stage.name] if teaches else other.manifest.get("stages", {})
        for name in found:
            record, folder = other.stage(name), other.folder(name)
            if record and record["key"] == key and folder.is_dir() and digest_tree(folder) == record["output"]:
                return other, name
    return None


def _take_from(neighbours: Sequence[Run], stage: Stage, key: str, run: Run) -> bool:
    """Copy an equal finished stage of another run, where there is one."""
    found = find_equal(neighbours, stage, key, run)
    if found is None:
        return False
    other, name = found
    partial = run.folder(f"{stage.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(other.folder(name), partial)
    if stage.name == "teach":
        _copy_ledger(other.path / apprenticeship.LEDGER, run.path / apprenticeship.LEDGER)
    commit(run, stage.name, partial, {**other.manifest["stages"][name], "taken_from": other.path.name})
    return True


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
    say(f"  done in {seconds:.0f} s: {_brief(metrics)}")


def _brief(metrics: Metrics) -> str:
    shown = [f"{k} {v}" for k, v in metrics.items() if isinstance(v, (int, float, str)) and not isinstance(v, bool)]
    return ", ".join(shown)
