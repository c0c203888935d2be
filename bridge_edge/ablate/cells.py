"""The cells of a grid: one arm under one seed, trained by `distill` and measured item by item.

A cell's recipe gives its run folder, so an interrupted cell is resumed there, and stages that equal those of another
cell, or of any other run in the same folder, are taken from it. What was measured is a line of results.jsonl, flushed
to the disk before the next cell begins. A line counts as long as the model that it measured is the one that the cell's
recipe gives now, which is checked by digest each time; cells that come to the same model share one measurement.

Not covered: several cells at once.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridge_edge.ablate.arms import TARGETS, Arm, Experiment
from bridge_edge.ablate.labels import label_figures
from bridge_edge.ablate.thinking import KEPT, scores_at
from bridge_edge.distill import distill
from bridge_edge.errors import UserError
from bridge_edge.evaluate import Scores
from bridge_edge.phases import Context, measure, student_suffix
from bridge_edge.progress import say
from bridge_edge.recipe import Recipe, settings
from bridge_edge.recipe_io import load_recipe
from bridge_edge.run import ASSISTANTS, Run, canonical, sha256_file, sha256_text
from bridge_edge.tutoring import SFT

RESULTS = "results.jsonl"
VERSION = 1  # of the measurement: a higher one makes former lines stale


@dataclass(frozen=True)
class Cell:
    """A recipe under a seed, the model of it that counts, and the budgets of reasoning that it is measured at."""

    words: tuple[str, ...]
    recipe: Recipe
    who: str
    think: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        return sha256_text(canonical([settings(self.recipe), self.who, *self.think]))[:16]


@dataclass(frozen=True)
class Setting:
    """What all cells have in common: the words of the command line, where runs lie, and what no result depends on."""

    words: tuple[str, ...]
    runs_dir: Path
    seeds: int
    files: tuple[Path, ...] = ()
    device: str = "cpu"
    concurrency: int = 8
    cache: str | None = None
    threads: int | None = None


@dataclass
class Results:
    """Lines of results.jsonl by cell, and why cells have none."""

    path: Path
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def read(path: Path) -> Results:
        """The lines that are whole; a later one of a cell replaces the former."""
        found = Results(path)
        if path.exists():
            whole, _, rest = path.read_text(encoding="utf-8").rpartition("\n")
            if rest:  # cut off by a kill; what comes next must not be glued to it
                path.write_text(whole + "\n" if whole else "", encoding="utf-8")
            for line in whole.splitlines():
                row = json.loads(line)
                found.rows[row["cell"]] = row
        return found

    def add(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows[row["cell"]] = row

    def measured(self, key: str) -> dict[str, Any] | None:
        """What was measured of the same model on the same items, in whichever cell."""
        return next((row["sets"] for row in self.rows.values() if row["key"] == key), None)


def cell_of(arm: Arm, seed: int, setting: Setting) -> Cell:
    words = (*setting.words, f"seed={seed}", *arm.words)
    return Cell(words, load_recipe(words), arm.who, arm.think)


def all_cells(experiments: Sequence[Experiment], seeds: Sequence[int], setting: Setting) -> list[Cell]:
    """Every cell once, seed by seed, so that a grid that is stopped early has all arms of the first seeds."""
    found: dict[str, Cell] = {}
    for seed in seeds:
        for experiment in experiments:
            for arm in experiment.arms:
                cell = cell_of(arm, seed, setting)
                found.setdefault(cell.id, cell)
    return list(found.values())


def run_cells(cells: Sequence[Cell], setting: Setting, out: Path) -> Results:
    """Bring all cells up to date; one that fails is named, keeps no result and does not stop the others."""
    results = Results.read(out / RESULTS)
    for number, cell in enumerate(cells, 1):
        say(f"\n== cell {number} of {len(cells)}: {cell.who} of {' '.join(cell.words)}")
        try:
            run_cell(cell, setting, results)
        except UserError as error:
            say(f"  this cell failed: {error}")
            results.failed[cell.id] = str(error)
            results.rows.pop(cell.id, None)
    return results


def target_of(cell: Cell) -> str:
    """The stage whose model is measured: of the assistant's the last one that the recipe has."""
    return ASSISTANTS[-1] if cell.who == "ta" and cell.recipe.refine.on else TARGETS[cell.who]


def run_cell(cell: Cell, setting: Setting, results: Results) -> None:
    """Train what is not trained yet, and measure what is not measured yet."""
    start, target = time.time(), target_of(cell)
    summary = distill(cell.words, setting.runs_dir, setting.device, setting.concurrency, target, setting.cache)
    run = Run(Path(summary["run"]))
    stages = run.manifest["stages"]
    sha = stages["data"]["metrics"]["sha256"]["test"]
    suffix = "" if cell.who == "ta" else student_suffix(cell.recipe)
    files = [sha256_file(path) for path in setting.files]
    key = sha256_text(
        canonical([VERSION, stages[target]["output"], sha, suffix, cell.recipe.task.max_new_tokens, files, *cell.think])
    )
    former = results.rows.get(cell.id)
    if former is not None and former["key"] == key:
        return
    sets = results.measured(key)
    if sets is None:
        ctx = Context(cell.recipe, run.path, setting.device, setting.concurrency)
        scores = measure(ctx, run.folder(target), ctx.samples("data", "test"), f"test of {cell.who}", suffix)
        sets = {"test": as_marks(scores, sha)}
        if cell.think:
            test = ctx.samples("data", "test")
            at, sets[KEPT] = scores_at(run.folder(target), test, cell.recipe, setting.device, cell.think)
            sets |= {part: as_marks(found, sha) for part, found in at.items()}
        if setting.files:
            sets["files"] = _on_files(run.folder(target), setting, sha256_text(canonical(files)))
    taught = stages.get(SFT, stages.get(TARGETS["student"], {}))  # of labels, where it was reinforced afterwards
    notes = stages.get("annotate", {}).get("metrics", {}) if cell.who == "student" else {}
    results.add({
        "cell": cell.id, "key": key, "recipe": cell.recipe.name, "scale": cell.recipe.scale, "seed": cell.recipe.seed,
        "words": list(cell.words), "who": cell.who, "run": run.path.name, "sets": sets,
        "teacher": {name: summary["teacher"][name] for name in ("queries", "usd", "tokens", "pool")},
        "annotate": {k: v for k, v in notes.items() if isinstance(v, (int, float))},
        "labels": label_figures(taught.get("metrics", {})) if cell.who == "student" else {},
        "seconds": round(time.time() - start, 1),
    })  # fmt: skip


def _on_files(model: Path, setting: Setting, sha: str) -> dict[str, Any]:
    from bridge_edge.deliver import Exam, evaluate_files

    return as_marks(evaluate_files(model, Exam(setting.files), setting.threads), sha)


def as_marks(scores: Scores, sha: str) -> dict[str, Any]:
    """Which items were right and which could be read, one character an item, with the digest of the items."""

    def marks(values: list[bool]) -> str:
        return "".join("1" if v else "0" for v in values)

    right, read = ([getattr(r, name) for r in scores.records] for name in ("correct", "parsed"))
    return {"items": sha, "n": scores.n, "correct": marks(right), "parsed": marks(read)}
