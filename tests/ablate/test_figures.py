"""Figures: every measured arm is a point at its place, with a whisker from the low to the high end of its interval."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from bridge_edge import chart
from bridge_edge.ablate.figures import figures, series_of

SPACE = "{http://www.w3.org/2000/svg}"


def arm(name: str, share: float | None, mean: float, usd: float = 1.0, seeds: int = 3) -> dict[str, Any]:
    accuracy = {"mean": mean, "low": mean - 0.05, "high": mean + 0.03}
    return {"arm": name, "share": share, "accuracy": accuracy, "usd": usd, "seeds": seeds}


ARMS = [
    arm("A < B, 100 %", 1.0, 0.95, 6.0),
    arm("A < B, 1 %", 0.01, 0.61, 0.06),
    arm("other, 1 %", 0.01, 0.55, 0.06),
    arm("other, 10 %", 0.1, 0.75, 0.6),
    {"arm": "other, 5 %", "share": 0.05, "seeds": 0},
    arm("no share", None, 0.8),
]


def test_arms_that_differ_by_their_share_are_one_line() -> None:
    found = series_of(ARMS, "share")
    assert {name: [point.x for point in points] for name, points in found.items()} == {
        "A < B": [1.0, 100.0],
        "other": [1.0, 10.0],
    }
    first = found["other"][0]
    assert [round(value, 6) for value in (first.x, first.value, first.low, first.high)] == [1, 55, 50, 58]


def strokes(svg: str, colour: str) -> list[list[tuple[float, float]]]:
    """The corners of every path within the axes that is drawn in this colour."""
    found = []
    for path in ElementTree.fromstring(svg).iter(f"{SPACE}path"):
        if "clip-path" in path.attrib and f"stroke: {colour}" in path.attrib["style"]:
            numbers = [float(part) for part in path.attrib["d"].split() if part not in "ML"]
            found.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return found


def test_points_stand_where_their_values_are() -> None:
    pytest.importorskip("matplotlib", reason="no plotting library, so no figures")
    made = figures("budgets", ARMS)
    assert set(made) == {"budgets-budget.svg", "budgets-cost.svg"}
    svg = made["budgets-budget.svg"]
    one, other = strokes(svg, chart.ON_PAPER[0]), strokes(svg, chart.ON_PAPER[1])
    (first, last), (low, middle) = one[-1], other[-1]  # the line comes after its whiskers
    assert first[0] == low[0] < middle[0] < last[0]
    assert middle[0] - low[0] == pytest.approx((last[0] - first[0]) / 2, abs=0.2)  # 1, 10, 100: logarithmic
    assert last[1] < middle[1] < first[1] < low[1]
    per_point = (low[1] - last[1]) / 40
    assert low[1] - first[1] == pytest.approx(6 * per_point, abs=0.2)
    whisker = one[0]  # from the low to the high end of 61 %
    assert [y for _, y in whisker] == pytest.approx([first[1] + 5 * per_point, first[1] - 3 * per_point], abs=0.2)
    assert "A < B" in [text.text for text in ElementTree.fromstring(svg).iter(f"{SPACE}text")]
    assert "var(" not in svg  # a file has no page to take colours from


def test_without_the_library_there_are_tables_and_a_line_that_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chart, "available", lambda: False)
    assert figures("budgets", ARMS) == {}
    assert figures("selection", [arm("x, 5 %", 0.05, 0.5)]) == {}  # nothing to draw: nothing to say
    (line,) = capsys.readouterr().err.splitlines()
    assert "no figures of budgets" in line
    assert chart.HINT in line


def test_one_budget_makes_no_figure() -> None:
    assert figures("selection", [arm("x, 5 %", 0.05, 0.5), arm("y, 5 %", 0.05, 0.6)]) == {}
    assert figures("filters", [arm("x", None, 0.5)]) == {}
