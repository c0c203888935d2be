"""Figures of arms that mix hard and soft labels (`kd.mix`): what a cell keeps of them, and their table.

Tokens and seconds are those of the tutoring alone; texts that a student draws on the way count in its seconds. `times`
compares the seconds with those of the first arm of the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bridge_edge.ablate.bootstrap import known_mean

FIGURES = {
    "lambda_mean": ("lambda", ".3f"),
    "teacher_forced_kl": ("teacher-forced KL", ".4f"),
    "rollout_kl": ("rollout KL", ".4f"),
    "exposure_bias": ("exposure bias", "+.4f"),
    "tokens": ("tokens", ",.0f"),
    "seconds": ("seconds", ".0f"),
}
HISTOGRAM = "lambda_histogram"


def label_figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a tutoring; none where labels were not mixed."""
    if "kd" not in metrics:
        return {}
    whole = {**metrics, **metrics["kd"]}
    return {name: whole[name] for name in (*FIGURES, HISTOGRAM) if whole.get(name) is not None}


def label_means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of an arm over its seeds, and the histograms of lambda added up."""
    found = [row.get("labels", {}) for row in rows]
    counts = [one[HISTOGRAM] for one in found if HISTOGRAM in one]
    means = {name: known_mean([one.get(name) for one in found]) for name in FIGURES}
    return {**means, HISTOGRAM: [sum(column) for column in zip(*counts, strict=True)] or None}


def label_table(arms: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of a table of the arms that have such figures; none where no arm has any."""
    known = [arm for arm in arms if any(v is not None for v in arm.get("labels", {}).values())]
    if not known:
        return []
    header = ["arm", *(label for label, _ in FIGURES.values()), "times", "% of tokens by tenths of lambda"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for arm in known:
        values = [(arm["labels"][name], form) for name, (_, form) in FIGURES.items()]
        shown = ["-" if value is None else format(value, form) for value, form in values]
        first, own, counts = known[0]["labels"]["seconds"], arm["labels"]["seconds"], arm["labels"][HISTOGRAM]
        shown.append(f"{own / first:.1f}" if first and own is not None else "-")
        shown.append(" ".join(f"{100 * n / sum(counts):.0f}" for n in counts) if counts else "-")
        lines.append("| " + " | ".join([arm["arm"], *shown]) + " |")
    return [*lines, ""]
