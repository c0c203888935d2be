"""Figures of arms that mix hard and soft labels (`kd.mix`): what a cell keeps of them, and their table.

lambda's histogram stays in the manifest of each run. Tokens and seconds are those of the tutoring alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FIGURES = {
    "lambda_mean": ("lambda", ".3f"),
    "teacher_forced_kl": ("teacher-forced KL", ".4f"),
    "rollout_kl": ("rollout KL", ".4f"),
    "exposure_bias": ("exposure bias", "+.4f"),
    "tokens": ("tokens", ",.0f"),
    "seconds": ("seconds", ".0f"),
}


def label_figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a tutoring; none where labels were not mixed."""
    if "kd" not in metrics:
        return {}
    return {name: value for name in FIGURES if (value := {**metrics, **metrics["kd"]}.get(name)) is not None}


def label_table(arms: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of a table of the arms that have such figures; none where no arm has any."""
    known = [arm for arm in arms if any(v is not None for v in arm.get("labels", {}).values())]
    if not known:
        return []
    header = ["arm", *(label for label, _ in FIGURES.values())]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for arm in known:
        values = [(arm["labels"][name], form) for name, (_, form) in FIGURES.items()]
        shown = ["-" if value is None else format(value, form) for value, form in values]
        lines.append("| " + " | ".join([arm["arm"], *shown]) + " |")
    return [*lines, ""]
