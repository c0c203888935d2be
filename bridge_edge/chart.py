"""Figures as SVG that takes its colours from the page, so that one drawing serves in the light, the dark and in print.
`standalone` makes a file of one.

Drawn by matplotlib, which is an extra (`pip install 'bridge-edge[report]'`): a run needs none of it, and without it a
page says in words and tables what a figure would. Colours are placeholders that become the page's CSS variables; text
stays text, so that it can be searched and scaled. Labels come from outside and are never read as formulas.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

HINT = "pip install 'bridge-edge[report]'"
INK, LINE = "#010101", "#020202"
SERIES = tuple(f"#03030{k}" for k in range(6))
VARIABLES = {INK: "--ink", LINE: "--line", **{colour: f"--c{k}" for k, colour in enumerate(SERIES)}}
ON_PAPER = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # of a file: apart for the colour-blind
MARKS, DASHES = ("o", "s", "^", "D", "v", "P"), ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
WIDTH = 5.2  # inches: on a telephone's screen the letters then keep about their size
MOST_MARKS = 6  # of an axis: more would run into each other
LOG_FROM = 8.0  # spread of the values from which their axis is logarithmic


@dataclass(frozen=True)
class Point:
    """A value with its interval, and where it stands on the other axis if there is one."""

    label: str
    value: float
    low: float
    high: float
    x: float = 0.0


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


@contextmanager
def _axes(name: str, height: float) -> Iterator[tuple[Any, list[str]]]:
    """Axes to draw on, and a list that holds the SVG afterwards; `name` makes the ids of a page's figures differ."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": LINE,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.formatter.useoffset": False,
        "legend.frameon": False,
        "font.size": 10,
    }
    made: list[str] = []
    with rc_context(settings):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure.add_subplot(), made
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    made.append(themed(text.getvalue()))


def themed(svg: str) -> str:
    """The drawing without its file header, its metadata and its size, in the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # numbered in every figure alike, and nothing refers to them
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg))
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.strip()


def standalone(svg: str) -> str:
    """A drawing with colours of its own on white, for a file that no page frames."""
    for k, colour in enumerate(ON_PAPER):
        svg = svg.replace(f"var(--c{k})", colour)
    svg = svg.replace("var(--ink)", "#000000").replace("var(--line)", "#dddddd")
    return svg.replace("<svg ", '<svg style="background: white" ', 1) + "\n"


def intervals(name: str, label: str, points: Sequence[Point], mark: tuple[str, float] | None = None) -> str:
    """One line a point, its interval as a whisker; `mark` is a value to compare with, and its name."""
    with _axes(name, 0.9 + 0.32 * len(points)) as (axes, made):
        rows = np.arange(len(points))[::-1]
        for k, (row, p) in enumerate(zip(rows, points, strict=True)):
            spread = [[p.value - p.low], [p.high - p.value]]
            axes.errorbar([p.value], [row], xerr=spread, fmt=MARKS[0], capsize=4, color=SERIES[k % len(SERIES)])
        if mark:
            axes.axvline(mark[1], color=INK, linestyle="--", linewidth=1, label=mark[0])
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1))
        if spreads([p.low for p in points] + [p.high for p in points]):
            axes.set_xscale("log")
            plain_numbers(axes.xaxis)
        else:
            axes.locator_params(axis="x", nbins=MOST_MARKS)
        axes.set_yticks(rows, [short(p.label) for p in points])
        axes.set_ylim(-0.6, len(points) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(label)
    return made[0]


def trade(name: str, across: str, up: str, points: Sequence[Point]) -> str:
    """Value against cost (less is better), and the line of those that no other beats in both."""
    best = front(points)
    with _axes(name, 3.6) as (axes, made):
        axes.plot([p.x for p in best], [p.value for p in best], color=LINE, linewidth=2, drawstyle="steps-post")
        for k, p in enumerate(points):
            spread = [[p.value - p.low], [p.high - p.value]]
            axes.errorbar([p.x], [p.value], yerr=spread, fmt=MARKS[k % len(MARKS)], capsize=3,
                          color=SERIES[k % len(SERIES)], label=short(p.label))  # fmt: skip
        _frame(axes, across, up, [p.x for p in points])
    return made[0]


def series(name: str, across: str, up: str, lines: Mapping[str, Sequence[Point]]) -> str:
    """One line a series of points, the interval of each as a whisker."""
    with _axes(name, 3.8) as (axes, made):
        for k, (label, points) in enumerate(lines.items()):
            spread = np.array([[p.value - p.low, p.high - p.value] for p in points]).T
            axes.errorbar([p.x for p in points], [p.value for p in points], yerr=spread, capsize=3,
                          marker=MARKS[k % len(MARKS)], linestyle=DASHES[k % len(DASHES)],
                          color=SERIES[k % len(SERIES)], label=short(label))  # fmt: skip
        _frame(axes, across, up, [p.x for points in lines.values() for p in points])
    return made[0]


def _frame(axes: Any, across: str, up: str, places: Sequence[float]) -> None:
    """What axes are called, a logarithmic one across where the places lie far apart, and the legend."""
    if spreads(places):
        axes.set_xscale("log")
        plain_numbers(axes.xaxis)
    else:
        axes.locator_params(axis="x", nbins=MOST_MARKS)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def curves(name: str, across: str, up: str, lines: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """One line a series of (x, y)."""
    with _axes(name, 3.4) as (axes, made):
        for k, (label, points) in enumerate(lines.items()):
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, color=SERIES[k % len(SERIES)], linestyle=DASHES[k % len(DASHES)], label=short(label))
        if spreads([p[1] for points in lines.values() for p in points]):
            axes.set_yscale("log")
            plain_numbers(axes.yaxis)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return made[0]


def cloud(name: str, background: np.ndarray, chosen: Mapping[str, np.ndarray]) -> str:
    """Points of the plane (n, 2), with some of them marked."""
    with _axes(name, 3.8) as (axes, made):
        axes.plot(*background.T, "o", markersize=2.5, color=SERIES[5], alpha=0.45, markeredgewidth=0, label="pool")
        for k, (label, points) in enumerate(chosen.items()):
            axes.plot(*points.T, MARKS[k % len(MARKS)], markersize=4.5, color=SERIES[(k + 1) % 5],
                      markeredgewidth=0, label=label)  # fmt: skip
        axes.set(xticks=[], yticks=[], aspect="equal", xlabel="first component", ylabel="second component")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return made[0]


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other point beats: going up in cost, each is better than every cheaper one."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, -p.value)):
        if not found or point.value > found[-1].value:
            found.append(point)
    return found


def spreads(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) > LOG_FROM


def plain_numbers(axis: Any) -> None:
    """On a logarithmic axis say 2 and 0.5, not powers of ten."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.set_minor_formatter(StrMethodFormatter("{x:g}"))


def short(label: str, most: int = 34) -> str:
    """A label that leaves room for the drawing; its end, which tells files of a folder apart, is kept."""
    return label if len(label) <= most else "…" + label[1 - most :]
