"""What a run's folder says of it, read once: manifest, recipe, plan, scores, exports, benchmarks, one taught item.

Reads files and nothing else, so that a page is made in a second, also of a run that has not ended. What is not there is
left out of the page; what is there and damaged is an error, since a page without it would pass for a whole one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from bridge_edge import bench_store
from bridge_edge.benchmarks.html.projection import Map, selection_map
from bridge_edge.benchmarks.schema import check
from bridge_edge.data.samples import Sample, read_jsonl
from bridge_edge.deliver import place_of
from bridge_edge.errors import UserError, first_line
from bridge_edge.run import Run

MODELS = {"ta": "TA", "student": "Student", "baseline": "Baseline (direct distillation)"}


@dataclass(frozen=True)
class Facts:
    """A run in plain values. `benches` are the reports of `bridge-edge bench` by where they were measured, `harness`
    those of its --lm-eval by the tasks."""

    run: Run
    recipe_text: str
    recipe: dict[str, Any]
    plan: dict[str, Any]
    tests: dict[str, dict[str, Any]]
    exports: list[dict[str, Any]]
    benches: dict[str, dict[str, Any]]
    harness: dict[str, dict[str, Any]]
    example: Sample | None
    drawn: Map | None
    predictions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.run.path.resolve().name

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """The finished stages in the order in which they were worked."""
        found: dict[str, dict[str, Any]] = self.run.manifest["stages"]
        return dict(sorted(found.items(), key=lambda item: item[1].get("started", 0)))

    def metrics(self, stage: str) -> dict[str, Any]:
        return dict((self.run.stage(stage) or {}).get("metrics", {}))

    def of(self, dotted: str) -> Any:
        """A value of the recipe; None where this version of it had no such value."""
        value: Any = self.recipe
        for part in dotted.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


def read_facts(folder: Path) -> Facts:
    """All of it; raises UserError where there is no run or one of its files is damaged."""
    run = Run(folder)
    if not run.manifest:
        raise UserError(f"no run at {str(folder)!r}", "name a folder that `bridge-edge distill` made")
    text, recipe = _recipe(folder / "recipe.yaml")
    tests = {name: read_json(folder / "evaluate" / f"{name}.json") for name in MODELS}
    exports = [_export(path) for path in sorted(folder.glob("export/*/export.json"))]
    taught = folder / "teach" / "taught.jsonl"
    example = next(islice(read_jsonl(taught), 1), None) if taught.is_file() else None
    try:
        drawn = selection_map(folder)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise damaged(folder / "select", error) from error
    plan, benches = read_json(folder / "plan.json"), read_json(folder / bench_store.FILE)
    for place, entry in benches.items():
        for report in entry["reports"]:
            check(report, f"{folder / bench_store.FILE} ({place})")
    found = {name: value for name, value in tests.items() if value}
    harness = read_json(folder / bench_store.HARNESS)
    return Facts(run, text, recipe, plan, found, exports, benches, harness, example, drawn)


def _export(path: Path) -> dict[str, Any]:
    """The record of an export, with the path that the artifact has now."""
    found = read_json(path)
    return {**found, "path": str(place_of(path, found))}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no such file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    if not isinstance(found, dict):
        raise damaged(path, ValueError("it holds no object"))
    return found


def _recipe(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        found = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise damaged(path, error) from error
    if not isinstance(found, dict):
        raise damaged(path, ValueError("it holds no values"))
    return text, found


def damaged(path: Path, why: Exception) -> UserError:
    return UserError(f"{path} cannot be read: {first_line(why)}", "run the command that wrote it again")
