"""Arms at budgets of reasoning: what a cell measures of them, and their table.

At each budget the bound is enforced; a student that has learnt no budgets is asked without the control signal, so that
its figures are those of plain truncation. Each budget is a set of answers of its own, with claims of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bridge_edge.ablate.bootstrap import known_mean
from bridge_edge.data.samples import Sample
from bridge_edge.evaluate import Scores
from bridge_edge.recipe import Recipe
from bridge_edge.thinking import at_budgets

KEPT = "thinking"  # the figures of a cell, beside its sets of answers
FIGURES = {
    "accuracy": ("accuracy %", 100, ".1f"),
    "left_alone": ("left alone %", 100, ".1f"),
    "violations": ("beyond the budget %", 100, ".1f"),
    "distance": ("mean distance to it %", 100, ".1f"),
    "thought": ("tokens thought", 1, ".1f"),
}


def part_of(budget: int) -> str:
    return f"think-{budget}"


def heading(part: str) -> str:
    return f"held-out items, at most {part.removeprefix('think-')} tokens of reasoning"


def scores_at(
    folder: Path, samples: Sequence[Sample], recipe: Recipe, device: str, budgets: Sequence[int]
) -> tuple[dict[str, Scores], dict[str, Any]]:
    """The answers of a student at each budget, by the name of the set, and its figures."""
    figures, scores = at_budgets(folder, samples, recipe, device, budgets)
    return {part_of(budget): found for budget, found in scores.items()}, figures


def thinking_means(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of an arm, over its seeds; none where it was not measured at budgets."""
    known = [row["sets"][KEPT] for row in rows if KEPT in row["sets"]]

    if not known:
        return {}
    budgets = {
        b: {name: known_mean([k[b][name] for k in known]) for name in FIGURES} for b in known[0] if b != "spearman"
    }
    return {**budgets, "spearman": known_mean([k["spearman"] for k in known])}


def thinking_table(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a table, one an arm and budget; none where no arm has such figures."""
    header = ["arm", "budget", *(label for label, _, _ in FIGURES.values()), "rank correlation of budget and tokens"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for arm in arms:
        found = dict(arm.get(KEPT, {}))
        rank = found.pop("spearman", None)
        for budget, values in found.items():
            shown = [format(unit * values[name], form) for name, (_, unit, form) in FIGURES.items()]
            lines.append("| " + " | ".join([arm["arm"], budget, *shown, "-" if rank is None else f"{rank:.3f}"]) + " |")
    return [*lines, ""] if len(lines) > 2 else []
