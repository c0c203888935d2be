"""Which of the measured files wins: the smallest that loses no more than it may, with the noise of few items in mind.

Two hundred items tell half a point from nothing only by chance: each file flips some answers either way. But the loss
grows with the divergence from the original, so the losses are pooled: in the order of their KL they are replaced by
the nearest values that never fall (isotonic regression). A lucky coarse file then cannot win on its own, nor an unlucky
fine one be dropped, where its neighbours say otherwise. Not covered: how files are made and measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bridge_edge.export.wish import Goal
from bridge_edge.plain import grid

Types = dict[str, str]


@dataclass(frozen=True)
class Point:
    """One file that was made and measured; `drop` is in points, with its 95 % interval."""

    name: str
    bytes: int
    bits_per_weight: float
    kl: float
    accuracy: float
    drop: float
    drop_ci95: tuple[float, float]
    types: Types = field(default_factory=dict)


def isotonic(values: Sequence[float]) -> list[float]:
    """The values that never fall and lie nearest to these, by pooling neighbours that do."""
    blocks: list[tuple[float, int]] = []
    for value in values:
        mean, count = value, 1
        while blocks and blocks[-1][0] >= mean:
            before, n = blocks.pop()
            mean, count = (before * n + mean * count) / (n + count), n + count
        blocks.append((mean, count))
    return [mean for mean, count in blocks for _ in range(count)]


def pooled(points: Sequence[Point]) -> dict[str, float]:
    """The points of accuracy that each file loses, as all of them together tell."""
    order = sorted(points, key=lambda p: (p.kl, p.bytes))
    return dict(zip((p.name for p in order), isotonic([p.drop for p in order]), strict=True))


def passing(points: Sequence[Point], goal: Goal) -> set[str]:
    """Names of the files that lose no more than they may."""
    return {name for name, drop in pooled(points).items() if drop <= goal.max_drop + 1e-9}


def following(measured: Mapping[int, Point], points: Sequence[Point], goal: Goal, count: int) -> int | None:
    """The mixture to measure next, from 0 (the finest) to `count`: halfway between the coarsest that passes and
    the next one measured; None where those are neighbours. `measured` are the mixtures among `points`."""
    if not measured:
        return 0
    good = passing(points, goal)
    low = max((i for i, point in measured.items() if point.name in good), default=0)
    high = min((i for i in measured if i > low), default=count)
    return (low + high) // 2 if high - low > max(1, count // 64) else None


@dataclass(frozen=True)
class Found:
    """All files that were measured, for which goal, and whether the search ended before the time did."""

    points: tuple[Point, ...]
    goal: Goal
    complete: bool
    seconds: float

    @property
    def met(self) -> bool:
        return bool(passing(self.points, self.goal))

    @property
    def chosen(self) -> Point:
        """The smallest that passes; where none does, the one nearest to the original."""
        good = passing(self.points, self.goal)
        fit = [point for point in self.points if point.name in good]
        return min(fit, key=lambda p: p.bytes) if fit else min(self.points, key=lambda p: p.kl)

    def front(self) -> list[Point]:
        """Points that no other beats in both size and accuracy, smallest first."""
        best, kept = -math.inf, []
        for point in sorted(self.points, key=lambda p: (p.bytes, -p.accuracy)):
            if point.accuracy > best:
                best = point.accuracy
                kept.append(point)
        return kept

    def to_json(self) -> dict[str, Any]:
        front, drops = {p.name for p in self.front()}, pooled(self.points)
        points = [
            {**asdict(p), "pooled_drop": drops[p.name], "front": p.name in front}
            for p in sorted(self.points, key=lambda p: p.bytes)
        ]
        return {
            "goal": asdict(self.goal),
            "chosen": self.chosen.name,
            "met": self.met,
            "complete": self.complete,
            "seconds": round(self.seconds, 1),
            "points": points,
        }


def table(found: Mapping[str, Any]) -> str:
    """`Found.to_json` for people: size against accuracy, the front marked, the choice too."""
    rows = []
    for p in found["points"]:
        low, high = p["drop_ci95"]
        mark = ("*" if p["front"] else "") + (" chosen" if p["name"] == found["chosen"] else "")
        size = f"{p['bytes'] / 2**20:.3f}"
        bits, kl = f"{p['bits_per_weight']:.2f}", f"{p['kl']:.4f}"
        rows.append(
            [
                p["name"],
                size,
                bits,
                kl,
                f"{p['accuracy']:.1%}",
                f"{p['drop']:.1f} ({low:.1f} to {high:.1f})",
                f"{p['pooled_drop']:.1f}",
                mark,
            ]
        )
    header = ("mixture", "MiB", "bits", "KL", "accuracy", "points lost (95 %)", "pooled", "front")
    return grid(header, rows, right=range(1, 7))
