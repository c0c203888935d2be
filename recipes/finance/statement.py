"""Small statement tables for the finance domain: who reports, which rows, which years.

What: rows of whole numbers over two or three years as a table or as a sentence a row, with others that do not matter
mixed in among those that do; and how a figure is looked up there.
Why: the ratio has to be read out of a statement, in the right row and the right year.
Not covered: negative figures, restated years, figures with decimals, quarters, a line a year (statements have a line an
item).
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


def statement(rng: random.Random, span: list[int], rows: Rows) -> str:
    """The rows as a table or as a sentence each, with the company's name and unit."""
    who, unit = company(rng), rng.choice(UNITS)
    if rng.random() < 0.5:
        head = f"{who}, {unit}\nitem | " + " | ".join(map(str, span))
        return "\n".join([head, *(f"{name} | {' | '.join(map(str, cells))}" for name, cells in rows.items())])
    return f"{who} ({unit}). " + " ".join(f"{_row(name, span, cells)}." for name, cells in rows.items())


def _row(name: str, span: list[int], cells: list[int]) -> str:
    return f"{name}: {', '.join(f'{year} {cell}' for year, cell in zip(span, cells, strict=True))}"


def look_up(facts: Mapping[str, Any], *wanted: tuple[str, int]) -> str:
    """The figures of some rows and years, each found in two steps: the row that holds it, then the figure in it.

    A figure in a table has two keys. Who looks for both at once takes the right row in the wrong year, so the row is
    written out first, each figure beside its year.
    """
    rows, span = dict(facts["rows"]), facts["years"]
    parts = []
    for name in dict.fromkeys(name for name, _ in wanted):
        found = [f"{y}: {rows[name][span.index(y)]}" for n, y in wanted if n == name]
        parts.append(f"{_row(name, span, rows[name])}; {', '.join(found)}.")
    return " ".join(parts)


def pose(rng: random.Random, span: list[int], rows: Rows, question: str, facts: Facts) -> tuple[str, Facts]:
    """Statement, then the question on a line of its own or, after a text of one line, behind it; and all the facts."""
    text = statement(rng, span, rows)
    prompt = f"{text}{chr(10) if chr(10) in text or rng.random() < 0.5 else ' '}{question}"
    listed = [[name, cells] for name, cells in rows.items()]  # an object's keys lose their order in a file
    return prompt, facts | {"rows": listed, "years": span}
