"""Small statement tables for the finance domain: who reports, which rows, which years, in which layout.

What: rows of whole numbers over two or three years as a table, as a sentence a row or as a line a year, with rows that
do not matter mixed in among those that do; and how a figure is looked up there.
Why: the ratio has to be read out of a statement, in the right row and the right year.
Not covered: negative figures, restated years, figures with decimals, quarters.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from bridge_edge.recipes._steps import Facts, beside

FIRST = """Alder Amber Arrow Aspen Birch Bolt Cedar Clover Copper Coral Delta Dune Echo Elm Fern Flint Forge Glacier
Harvest Hazel Iris Ivory Jade Kestrel Lark Linden Lotus Maple Marble Nova Oak Onyx Opal Orion Pearl Pine Quartz Raven
Ridge Sable Sage Slate Sparrow Swift Tidal Topaz Vista Willow Zephyr""".split()
LAST = ("Foods", "Motors", "Textiles", "Logistics", "Media", "Energy", "Tools", "Paper", "Steel", "Retail", "Labs",
        "Hotels", "Shipping", "Software", "Glass", "Farms")  # fmt: skip
UNITS = ("$ million", "$ thousand", "EUR million", "USD million", "GBP million")
OTHERS = {"Insurance": (2, 50), "Training": (2, 40), "Marketing": (5, 80), "Goodwill": (10, 300), "Patents": (2, 60),
          "Income tax": (2, 60), "Capital spending": (5, 150), "Dividends": (1, 40), "Research": (3, 90)}  # fmt: skip
Rows = dict[str, list[int]]
TABLE, ROWS, YEARS = range(3)  # layouts


def company(rng: random.Random) -> str:
    return f"{rng.choice(FIRST)} {rng.choice(LAST)}"


def years(rng: random.Random, least: int = 2) -> list[int]:
    """Two or three years in a row (never fewer than `least`)."""
    first = rng.randint(2005, 2026)
    return list(range(first, first + rng.randint(least, 3)))


def fill(rng: random.Random, span: int, known: Mapping[str, Mapping[int, int]]) -> Rows:
    """Rows with the known figures in their places, the other years near them, and one to three irrelevant rows."""
    rows: Rows = {}
    for name, figures in known.items():
        anchor = next(iter(figures.values()))
        rows[name] = [figures[i] if i in figures else _near(rng, anchor) for i in range(span)]
    for name in rng.sample(list(OTHERS), rng.randint(1, max(1, 4 - len(known) - (span > 2)))):
        base = rng.randint(*OTHERS[name])
        rows[name] = [_near(rng, base) for _ in range(span)]
    order = list(rows)
    rng.shuffle(order)
    return {name: rows[name] for name in order}


def _near(rng: random.Random, base: int) -> int:
    return beside(rng, base, rng.random() < 0.5, 1, 999)


def statement(rng: random.Random, span: list[int], rows: Rows, layout: int) -> str:
    """The rows in one of three layouts (a table, a sentence a row, a line a year), with the company's name and unit."""
    who, unit = company(rng), rng.choice(UNITS)
    if layout == TABLE:
        head = f"{who}, {unit}\nitem | " + " | ".join(map(str, span))
        return "\n".join([head, *(f"{name} | {' | '.join(map(str, cells))}" for name, cells in rows.items())])
    if layout == ROWS:
        return f"{who} ({unit}). " + " ".join(f"{_row(name, span, cells)}." for name, cells in rows.items())
    told = [_year(rows, span, year) for year in span]
    return f"Figures of {who} in {unit}.\n" + "\n".join(told)


def _row(name: str, span: list[int], cells: list[int]) -> str:
    return f"{name}: {', '.join(f'{year} {cell}' for year, cell in zip(span, cells, strict=True))}"


def _year(rows: Rows, span: list[int], year: int) -> str:
    return f"{year}: {', '.join(f'{_inside(name)} {cells[span.index(year)]}' for name, cells in rows.items())}"


def _inside(name: str) -> str:
    """A row's name within a sentence; abbreviations stay as they are."""
    return name if name.isupper() else name.lower()


def look_up(facts: Mapping[str, Any], *wanted: tuple[str, int]) -> str:
    """The figures of some rows and years, each found in two steps: the line that holds it, then the figure in it.

    A figure in a table has two keys. Who looks for both at once takes the right row in the wrong year, so the row (or,
    in the layout of a line a year, the year) is written out first, each figure beside its key.
    """
    rows, span = dict(facts["rows"]), facts["years"]
    parts = []
    if facts["layout"] == YEARS:
        for year in dict.fromkeys(year for _, year in wanted):
            found = [f"{_inside(n)} {rows[n][span.index(year)]}" for n, y in wanted if y == year]
            parts.append(f"{_year(rows, span, year)}; {', '.join(found)}.")
    else:
        for name in dict.fromkeys(name for name, _ in wanted):
            found = [f"{y}: {rows[name][span.index(y)]}" for n, y in wanted if n == name]
            parts.append(f"{_row(name, span, rows[name])}; {', '.join(found)}.")
    return " ".join(parts)


def pose(rng: random.Random, span: list[int], rows: Rows, question: str, facts: Facts) -> tuple[str, Facts]:
    """Statement, then the question on a line of its own or, after a text of one line, behind it; and all the facts."""
    layout = rng.choice((TABLE, ROWS, YEARS))
    text = statement(rng, span, rows, layout)
    prompt = f"{text}{chr(10) if chr(10) in text or rng.random() < 0.5 else ' '}{question}"
    listed = [[name, cells] for name, cells in rows.items()]  # an object's keys lose their order in a file
    return prompt, facts | {"rows": listed, "years": span, "layout": layout}
