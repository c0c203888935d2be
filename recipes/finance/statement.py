"""Small statement tables for the finance domain: who reports, which rows, which years, in which layout.

What: rows of whole numbers over two or three years as a table, as lines or as a sentence a year, with rows that do
not matter mixed in among those that do.
Why: the ratio has to be read out of a statement, in the right row and the right year.
Not covered: negative figures, restated years, figures with decimals, quarters.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from bridge_edge.recipes._steps import beside

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
    """The rows in one of three layouts, with the company's name and the unit."""
    who, unit = company(rng), rng.choice(UNITS)
    layout = rng.randrange(3)
    if layout == 0:
        head = f"{who}, {unit}\nitem | " + " | ".join(map(str, span))
        return "\n".join([head, *(f"{name} | {' | '.join(map(str, cells))}" for name, cells in rows.items())])
    if layout == 1:
        told = [
            f"{n}: {', '.join(f'{c} in {y}' for y, c in zip(span, cells, strict=True))}" for n, cells in rows.items()
        ]
        return f"{who} ({unit}). " + ". ".join(told) + "."
    told = [f"{y}: {', '.join(f'{_inside(n)} {cells[i]}' for n, cells in rows.items())}" for i, y in enumerate(span)]
    return f"Figures of {who} in {unit}.\n" + "\n".join(told)


def _inside(name: str) -> str:
    """A row's name within a sentence; abbreviations stay as they are."""
    return name if name.isupper() else name.lower()


def pose(rng: random.Random, span: list[int], rows: Rows, question: str) -> str:
    """Statement, then the question on a line of its own or, after a text of one line, behind it."""
    text = statement(rng, span, rows)
    return f"{text}{chr(10) if chr(10) in text or rng.random() < 0.5 else ' '}{question}"
