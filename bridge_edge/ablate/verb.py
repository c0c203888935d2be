"""`bridge-edge ablate`: resolve the grid, bring its cells up to date, write the report.

All recipes are resolved before anything is run, so a wrong value is said at once. Output, in a folder beside the runs:
results.jsonl (a line a cell, with every item's outcome), report.md, report.json and figures where arms differ by their
budget. The same command again resumes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bridge_edge.ablate.arms import narrowed
from bridge_edge.ablate.cells import Cell, Setting, all_cells, run_cells
from bridge_edge.ablate.figures import figures
from bridge_edge.ablate.grid import EXPERIMENTS, FIRST, experiments
from bridge_edge.ablate.report import markdown, summarise
from bridge_edge.distill import check_device
from bridge_edge.errors import UserError, unknown
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_io import load_recipe
from bridge_edge.run import one_process, run_path, write_atomic
from bridge_edge.teacher.make import API

SMOKE = (
    "data.pool=60 data.dev=6 data.test=8 align.items=40 annotate.batch_rows=20 ta.epochs=1 student.epochs=1"
    " baseline.epochs=1 reasoning.grpo.items=16 annotate.keep=all annotate.surest=1"
).split()
"""Sizes at which a grid shows that it runs, and its figures mean nothing. What the user says comes later and wins."""


def split_words(words: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Names of experiments (the paper's first three where none is given) and the words of the recipe."""
    names = [word for word in words if "=" not in word]
    for name in names:
        if name not in EXPERIMENTS:
            raise unknown("experiment", name, EXPERIMENTS)
    return list(dict.fromkeys(names)) or list(FIRST), tuple(word for word in words if "=" in word)


def listing(words: Sequence[str], ta_only: bool = False) -> list[dict[str, Any]]:
    """The experiments, or those that are named for a recipe with their arms."""
    if words:
        names, rest = split_words(words)
        chosen = experiments(names, load_recipe(rest), ta_only)
        return [{"name": e.name, "about": e.question, "arms": [arm.name for arm in e.arms]} for e in chosen]
    return [{"name": name, "about": about, "default": name in FIRST} for name, (_, about) in EXPERIMENTS.items()]


def listing_text(rows: Sequence[dict[str, Any]]) -> str:
    if any("arms" in row for row in rows):
        return "\n".join(f"{row['name']}: {row['about']}\n  " + "\n  ".join(row["arms"]) for row in rows)
    width = max(len(row["name"]) for row in rows)
    lines = [f"{row['name']:{width}}  {row['about']}{' *' if row['default'] else ''}" for row in rows]
    return "\n".join([*lines, "* where none is named"])


def ablate(
    words: Sequence[str],
    setting: Setting,
    smoke: bool = False,
    paid: bool = False,
    ta_only: bool = False,
    arms: Sequence[str] = (),
) -> dict[str, Any]:
    """Run the named experiments of a recipe, or some of their arms; returns what `--json` prints."""
    names, rest = split_words(words)
    setting = replace(setting, words=_smoke_first(rest) if smoke else rest)
    for file in setting.files:
        if not file.is_file():
            raise UserError(f"no file {str(file)!r} for --data", "give a CSV, TSV or JSONL file")
    recipe = load_recipe(setting.words)
    seeds = range(recipe.seed, recipe.seed + setting.seeds)
    chosen = narrowed(experiments(names, recipe, ta_only), arms)
    cells = all_cells(chosen, seeds, setting)
    check_device(setting.device)
    check_money(cells, setting.runs_dir, paid)
    out = setting.runs_dir / f"ablate-{recipe.name}"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {out}: {error.strerror}", "choose another folder with --runs-dir") from error
    with one_process(out):
        results = run_cells(cells, setting, out)
        tables = summarise(chosen, seeds, setting, results)
        failed = [f"{cell.who} of {' '.join(cell.words)}: {results.failed[cell.id]}"
                  for cell in cells if cell.id in results.failed]  # fmt: skip
        title = f"Ablation of {recipe.name}, scale {recipe.scale}, {setting.seeds} seed{'s' * (setting.seeds > 1)}"
        drawn = {name: figures(name, found["sets"]["test"]["arms"]) for name, found in tables.items()}
        text = markdown(title, tables, failed, {name: list(files) for name, files in drawn.items()})
        found = {"recipe": recipe.name, "scale": recipe.scale, "words": list(setting.words), "seeds": list(seeds),
                 "cells": len(cells), "failed": failed, "folder": str(out), "experiments": tables}  # fmt: skip
        for name, svg in (pair for files in drawn.values() for pair in files.items()):
            write_atomic(out / name, svg)
        write_atomic(out / "report.md", text)
        write_atomic(out / "report.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return {**found, "text": text}


def _smoke_first(words: Sequence[str]) -> tuple[str, ...]:
    """Selectors may stand anywhere; of two equal keys the later wins."""
    return (*SMOKE, *words)


def check_money(cells: Sequence[Cell], runs_dir: Path, paid: bool) -> None:
    """A grid asks a paid teacher many times over: refused until that is agreed to, with the sum of the caps."""
    recipes: dict[Path, Recipe] = {run_path(runs_dir, cell.recipe): cell.recipe for cell in cells}
    asking = [recipe for recipe in recipes.values() if recipe.teacher.kind in API]
    if not asking or paid:
        return
    caps = [recipe.budget.usd for recipe in asking]
    most = "with no cap in dollars" if None in caps else f"within caps of ${sum(c or 0 for c in caps):.2f} together"
    raise UserError(
        f"{len(asking)} runs would ask {asking[0].teacher.model!r}, a paid teacher, {most} (answers are shared, so it "
        "may be far less)",
        "add --paid to agree, or use teacher=replay with recorded answers",
    )
