"""Figures of a grid as SVG files: accuracy against budget, accuracy against cost, each with its 95 % intervals.

Arms whose names differ only by their share of the pool are one line. Not covered: bars, experiments whose arms have no
share, and a machine without the plotting library (`chart.HINT`), which is said in a line: the tables say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bridge_edge import chart
from bridge_edge.ablate.arms import percent
from bridge_edge.progress import say

AXES = {
    "budget": ("share", "share of the pool that the teacher is asked, %"),
    "cost": ("usd", "cost of the teacher, $"),
}


def series_of(arms: Sequence[dict[str, Any]], x: str) -> dict[str, list[chart.Point]]:
    """Points of the measured arms that have a share of the pool, in percent; a line for each way of working."""
    found: dict[str, list[chart.Point]] = {}
    for arm in arms:
        if arm["seeds"] and arm["share"] is not None and arm[x] is not None:
            way = ", ".join(part for part in arm["arm"].split(", ") if part != percent(arm["share"]))
            at = 100 * arm[x] if x == "share" else arm[x]
            mean, low, high = (100 * arm["accuracy"][name] for name in ("mean", "low", "high"))
            found.setdefault(way, []).append(chart.Point(way, mean, low, high, at))
    return {way: sorted(points, key=lambda p: p.x) for way, points in found.items()}


def figures(name: str, arms: Sequence[dict[str, Any]]) -> dict[str, str]:
    """SVG texts by file name; none where there is nothing to draw a line through, or nothing to draw it with."""
    wanted = {}
    for end, (key, label) in AXES.items():
        lines = series_of(arms, key)
        if len({point.x for points in lines.values() for point in points}) > 1:
            wanted[end] = (label, lines)
    if wanted and not chart.available():
        say(f"no figures of {name}, since matplotlib is missing here ({chart.HINT}); its table says the same")
        return {}
    return {
        f"{name}-{end}.svg": chart.standalone(
            chart.series(f"{name}-{end}", label, "accuracy, % (95 % interval)", lines)
        )
        for end, (label, lines) in wanted.items()
    }
