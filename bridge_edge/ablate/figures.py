"""Figures of a grid as SVG: accuracy against budget, accuracy against cost, each with its 95 % intervals.

Written by hand, since a plotting library would be one more dependency for two pictures: points, whiskers, lines, ticks
and a legend, in colours that stay apart for the colour-blind. Arms whose names differ only by their share of the pool
are one line. Not covered: bars, and experiments whose arms have no share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from bridge_edge.ablate.grid import percent

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 190, 40, 50
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
WIDE = 8.0  # spread of the values from which their axis is logarithmic


@dataclass(frozen=True)
class Point:
    """An arm: where it stands on the axis, and its accuracy with the interval, all in percent but `x`."""

    x: float
    mean: float
    low: float
    high: float


Series = dict[str, list[Point]]


def series_of(arms: Sequence[dict[str, Any]], x: str) -> Series:
    """Points of the measured arms that have a share of the pool, a line for each way of working."""
    found: Series = {}
    for arm in arms:
        if arm["seeds"] and arm["share"] is not None and arm[x] is not None:
            parts = [part for part in arm["arm"].split(", ") if part != percent(arm["share"])]
            at = 100 * arm[x] if x == "share" else arm[x]
            interval = [100 * arm["accuracy"][name] for name in ("mean", "low", "high")]
            found.setdefault(", ".join(parts), []).append(Point(at, *interval))
    return {name: sorted(points, key=lambda p: p.x) for name, points in found.items()}


def figures(name: str, arms: Sequence[dict[str, Any]]) -> dict[str, str]:
    """SVG texts by file name; none where there is nothing to draw a line through."""
    axes = {"budget": ("share", "share of the pool that the teacher is asked, %"),
            "cost": ("usd", "cost of the teacher, $")}  # fmt: skip
    made = {}
    for end, (key, label) in axes.items():
        series = series_of(arms, key)
        if len({point.x for points in series.values() for point in points}) > 1:
            made[f"{name}-{end}.svg"] = draw(f"{name}: accuracy against {end}", label, series)
    return made


def scale(values: Sequence[float]) -> tuple[Callable[[float], float], list[float]]:
    """Where a value stands between 0 and 1, and the values to mark; logarithmic where they lie far apart."""
    low, high = min(values), max(values)
    if low > 0 and high / low > WIDE:
        begin, end = math.log(low), math.log(high)
        return lambda v: (math.log(v) - begin) / (end - begin), sorted(set(values))
    return lambda v: (v - low) / (high - low or 1), sorted(set(values))


def draw(title: str, label: str, series: Series) -> str:
    """One figure."""
    points = [point for line in series.values() for point in line]
    place, marks = scale([point.x for point in points])
    floor = 10 * math.floor(min(point.low for point in points) / 10)
    floor = min(floor, 90)

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + 10 + place(x) * (WIDTH - LEFT - RIGHT - 20)
        return round(across, 1), round(HEIGHT - BOTTOM - (y - floor) / (100 - floor) * (HEIGHT - TOP - BOTTOM), 1)

    parts = [f'<text x="{LEFT}" y="20" font-weight="bold">{escape(title)}</text>', *_axes(at, marks, floor, label)]
    for number, (name, line) in enumerate(series.items()):
        parts += _line(at, line, COLOURS[number % len(COLOURS)])
        y = TOP + 10 + 20 * number
        parts.append(f'<rect x="{WIDTH - RIGHT + 15}" y="{y - 9}" width="10" height="10" '
                     f'fill="{COLOURS[number % len(COLOURS)]}"/>')  # fmt: skip
        parts.append(f'<text x="{WIDTH - RIGHT + 30}" y="{y}">{escape(name)}</text>')
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *parts, "</svg>", "",
    ])  # fmt: skip


Place = Callable[[float, float], tuple[float, float]]


def _axes(at: Place, marks: Sequence[float], floor: int, label: str) -> list[str]:
    found = []
    for y in range(floor, 101, 10 if floor > 40 else 20):
        height = at(marks[0], y)[1]
        found.append(f'<path d="M{LEFT} {height}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        found.append(f'<text x="{LEFT - 8}" y="{height + 4}" text-anchor="end">{y}</text>')
    last = -math.inf
    for x in marks:
        across, base = at(x, floor)
        if across - last < 34:  # marks that would overlap
            continue
        last = across
        found.append(f'<text x="{across}" y="{base + 18}" text-anchor="middle">{x:.3g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    found.append(f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">{escape(label)}</text>')
    found.append(f'<text x="16" y="{HEIGHT / 2}" transform="rotate(-90 16 {HEIGHT / 2})" text-anchor="middle">'
                 "accuracy, % (95 % interval)</text>")  # fmt: skip
    return found


def _line(at: Place, points: Sequence[Point], colour: str) -> list[str]:
    path = " ".join("{} {}".format(*at(p.x, p.mean)) for p in points)
    found = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>']
    for p in points:
        (x, y), top, bottom = at(p.x, p.mean), at(p.x, p.high)[1], at(p.x, p.low)[1]
        found.append(
            f'<path d="M{x} {top}V{bottom}M{x - 4} {top}h8M{x - 4} {bottom}h8" stroke="{colour}" fill="none"/>'
        )
        found.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>')
    return found
