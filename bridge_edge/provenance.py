"""Where a student comes from, as lines for its model card: data, teacher, accuracy, licence.

A licence is only passed on where something says it: the card of a checkpoint folder, or this package for its own base
models. What a paid teacher's terms allow is for their reader to judge, so the lines name the teacher and no more. Not
covered: the licence of the data, which no recipe states.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from bridge_edge.deliver import run_of
from bridge_edge.recipe_io import read_yaml
from bridge_edge.run import Run

Facts = dict[str, tuple[str, ...]]
OWN = "apache-2.0"  # of the embedded base models


def facts(source: Path) -> Facts:
    """What the run's manifest and recipe know of the student, for its model card; outside a run only its licence."""
    folder = run_of(source)
    if folder is None:
        return licence(stated(source), None)
    run = Run(folder)

    def of(stage: str) -> dict[str, Any]:
        return dict((run.stage(stage) or {}).get("metrics", {}))

    data, teach, test = of("data"), of("teach"), of("evaluate").get("student")
    found: Facts = {}
    if data:
        found["Data"] = (
            f"source: {data.get('source', 'not recorded')}",
            f"{data.get('pool')} pool items, {data.get('dev')} dev, {data.get('test')} test; no test item "
            "ever reaches the teacher",
            *(f"SHA-256 of {name}: `{digest}`" for name, digest in sorted(data.get("sha256", {}).items())),
        )
    if teach:
        found["Teacher"] = (
            f"{teach.get('teacher')}: {teach.get('queries')} queries, {teach.get('tokens')} tokens, "
            f"${teach.get('usd', 0):.2f}",
        )
    if test and source.name == "tutor":
        low, high = test["ci95"]
        found["Accuracy of the checkpoint"] = (
            f"{test['accuracy']:.1%} on {test['n']} test items, 95 % interval {low:.1%} to {high:.1%} "
            f"(always the most frequent answer: {test['majority']:.1%}); measured before export",
        )
    return {**found, **_of_recipe(read_yaml(folder / "recipe.yaml"))}


def stated(folder: Path) -> str | None:
    """The licence in the front matter of a checkpoint's README.md, as the hub writes it."""
    path = folder / "README.md"
    if not path.is_file():
        return None
    head = re.match(r"---\n(.*?)\n---", path.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        found = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError:
        return None
    named = found.get("license") if isinstance(found, dict) else None
    return named if isinstance(named, str) and re.fullmatch(r"[\w.+-]{1,60}", named) else None


def licence(base: str | None, teacher: str | None) -> Facts:
    """The lines on the licence, where that of the base model is known; `teacher` is one whose terms apply too."""
    if base is None:
        return {}
    lines = [f"base model: {base}"]
    if teacher:
        lines.append(f"trained on what {teacher} wrote; its terms of use apply")
    return {"license": ("other" if teacher else base,), "Licence": tuple(lines)}


def _of_recipe(recipe: dict[str, Any]) -> Facts:
    """The licence as far as a run's recipe tells it."""
    model, teacher = (recipe.get(key, {}) for key in ("student", "teacher"))
    name = str(model.get("model", ""))
    base = OWN if name.startswith("embedded:") else stated(Path(name))
    return licence(base, None if teacher.get("kind") == "expert" else str(teacher.get("model") or "the teacher"))
