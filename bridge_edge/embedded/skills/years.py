"""Skills of figures over years: cells of a small table read out, and put into a comparison.

What: two to five rows over two or three years in four layouts; several cells looked up one after another; rises, shares
and multiples of them held against a limit.
Why: the look-up is two steps, the line and then the figure in it, and a small model confuses neighbouring cells.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from bridge_edge.embedded.skills.drills import WAYS, ending, holds, neighbour, relation
from bridge_edge.embedded.skills.material import WORDS, Item, decimal, name, product, word, yes
from bridge_edge.embedded.skills.readings import labels


@dataclass(frozen=True)
class Lines:
    """Figures of some rows over some years, told in one of four layouts; `by_year` where a line is a year."""

    text: str
    rows: list[str]
    years: list[int]
    cells: dict[str, list[int]]
    by_year: bool

    def at(self, row: str, year: int) -> int:
        return self.cells[row][self.years.index(year)]

    def look_up(self, rng: random.Random, wanted: list[tuple[str, int]]) -> str:
        """The wanted cells, read at once or in two steps: the line that holds one, then the figure in it."""
        if rng.random() < 0.3:
            form = rng.choice(("{} in {}: {}.", "{} {}: {}."))
            return " ".join(form.format(row, year, self.at(row, year)) for row, year in wanted)
        parts = []
        if self.by_year:
            for year in dict.fromkeys(y for _, y in wanted):
                line = ", ".join(f"{r.lower()} {self.at(r, year)}" for r in self.rows)
                found = ", ".join(f"{r.lower()} {self.at(r, year)}" for r, y in wanted if y == year)
                parts.append(f"{year}: {line}; {found}.")
        else:
            for row in dict.fromkeys(r for r, _ in wanted):
                line = ", ".join(f"{y} {v}" for y, v in zip(self.years, self.cells[row], strict=True))
                found = ", ".join(f"{y}: {self.at(r, y)}" for r, y in wanted if r == row)
                parts.append(f"{row}: {line}; {found}.")
        return " ".join(parts)


def lines(rng: random.Random) -> Lines:
    """Figures of two to five rows over two or three years."""
    rows = labels(rng, rng.randint(2, 5))
    if rng.random() < 0.4:
        rows = [r.capitalize() for r in rows]
    first = rng.randint(1990, 2029)
    years = [first + i for i in range(rng.choice((2, 3, 3)))]
    cells = {}
    for r in rows:
        base = rng.choice((rng.randint(10, 99), rng.randint(100, 900)))
        cells[r] = [max(2, min(999, neighbour(rng, base) if rng.random() < 0.7 else base)) for _ in years]
    unit = rng.choice(("thousand", "million", "kg", "points", rng.choice(WORDS)))
    who = f"{word(rng).capitalize()} {rng.choice(WORDS).capitalize()}" if rng.random() < 0.5 else name(rng)
    layout = rng.choice((0, 0, 1, 2, 2, 3, 3))
    if layout == 0:
        told = [f"{y}: " + ", ".join(f"{r.lower()} {cells[r][i]}" for r in rows) for i, y in enumerate(years)]
        text = f"Figures of {who} in {unit}.\n" + "\n".join(told)
    elif layout == 1:
        told = [f"{r}: " + ", ".join(f"{cells[r][i]} in {y}" for i, y in enumerate(years)) for r in rows]
        text = f"{who} ({unit}). " + ". ".join(told) + "."
    elif layout == 2:
        told = [f"{r} | " + " | ".join(map(str, cells[r])) for r in rows]
        text = "\n".join([f"{who}, {unit}", "item | " + " | ".join(map(str, years)), *told])
    else:
        told = [f"{r}: " + ", ".join(f"{y} {cells[r][i]}" for i, y in enumerate(years)) for r in rows]
        text = f"{who} ({unit}). " + ". ".join(told) + "."
    return Lines(text, rows, years, cells, layout == 0)


def cells(rng: random.Random) -> Item:
    """Read several cells out of lines of figures, one after another."""
    table = lines(rng)
    asked = [(rng.choice(table.rows), rng.choice(table.years)) for _ in range(rng.randint(2, 4))]
    wanted = ", ".join(f"{row} in {year}" for row, year in asked)
    question = rng.choice(("Read out: {}.", "What is {}?", "Give {}.")).format(wanted)
    return table.text, question, table.look_up(rng, asked), str(table.at(*asked[-1]))


@dataclass(frozen=True)
class Comparison:
    """Two numbers made of cells: the wording, the cells wanted, the two numbers, the limit as said, the working."""

    told: str
    wanted: list[tuple[str, int]]
    left: int
    right: int
    limit: str
    work: str


@dataclass(frozen=True)
class Pick:
    """Two rows of a table and a year that is not its first."""

    table: Lines
    row: str
    other: str
    year: int

    @property
    def a(self) -> int:
        return self.table.at(self.row, self.year)

    @property
    def b(self) -> int:
        return self.table.at(self.other, self.year)

    @property
    def both(self) -> list[tuple[str, int]]:
        return [(self.row, self.year), (self.other, self.year)]


def rise(rng: random.Random, p: Pick) -> Comparison:
    """A rise in percent; always asked for as `above`."""
    percent = rng.choice((10, 20, 30, 40, 50))
    a, old = p.a, p.table.at(p.row, p.year - 1)
    if a <= old:
        left, right, work = a, old, ""
    else:
        left, right = (a - old) * 10, old * percent // 10
        work = f"{a} - {old} = {a - old}. {product(a - old, 10)} {product(old, percent // 10)}"
    wanted = [(p.row, p.year), (p.row, p.year - 1)]
    return Comparison(f"the rise of {p.row} in {p.year}", wanted, left, right, f"{percent}%", work)


def remainder(rng: random.Random, p: Pick) -> Comparison:
    """What is left of the larger, as a share."""
    percent = rng.choice((10, 20, 30, 40, 50, 60))
    p = p if p.a >= p.b else Pick(p.table, p.other, p.row, p.year)
    a, b = p.a, p.b
    work = f"{a} - {b} = {a - b}. {product(a - b, 10)} {product(a, percent // 10)}"
    told = f"({p.row} - {p.other}) / {p.row} in {p.year}"
    return Comparison(told, p.both, (a - b) * 10, a * percent // 10, f"{percent}%", work)


def share(rng: random.Random, p: Pick) -> Comparison:
    percent = rng.choice((4, 5, 6, 8, 10, 20, 30, 50))
    work = f"{product(p.a, 100)} {product(p.b, percent)}"
    return Comparison(f"{p.row} / {p.other} in {p.year}", p.both, p.a * 100, p.b * percent, f"{percent}%", work)


def times(rng: random.Random, p: Pick) -> Comparison:
    k = rng.choice((2, 3, 4, 5, 6, 8, 9, 12))
    return Comparison(f"{p.row} / {p.other} in {p.year}", p.both, p.a, p.b * k, str(k), product(p.b, k))


def halves(rng: random.Random, p: Pick) -> Comparison:
    k = rng.choice((1, 3, 5))
    work = f"{product(p.a, 2)} {product(p.b, k)}"
    return Comparison(f"{p.row} / {p.other} in {p.year}", p.both, p.a * 2, p.b * k, decimal(k * 5), work)


def together(rng: random.Random, p: Pick) -> Comparison:
    """Two rows together, as a multiple of a third, which may be one of them."""
    k = rng.choice((1, 2, 3))
    third = rng.choice(p.table.rows)
    c = p.table.at(third, p.year)
    wanted = p.both + [(third, p.year)] * (third not in (p.row, p.other))
    work = f"{p.a} + {p.b} = {p.a + p.b}." + (f" {product(c, k)}" if k > 1 else "")
    return Comparison(f"({p.row} + {p.other}) / {third} in {p.year}", wanted, p.a + p.b, c * k, str(k), work)


KINDS: tuple[Callable[[random.Random, Pick], Comparison], ...] = (rise, remainder, share, times, halves, together)


def trends(rng: random.Random) -> Item:
    """Two or three cells of lines of figures, put into a rule, and held against a limit."""
    table = lines(rng)
    year = rng.choice(table.years[1:])
    row, other = rng.sample(table.rows, 2)
    asked = rng.choice(list(WAYS))
    kind = KINDS[rng.randrange(len(KINDS))]
    asked = "above" if kind is rise else asked  # how a rise is worded is part of it; the draw above is made for all
    c = kind(rng, Pick(table, row, other, year))
    truth = holds(c.left, asked, c.right)
    end = ending(rng, str(c.left), str(c.right), relation(c.left, c.right), "the result", asked, c.limit, truth)
    way = rng.choice(WAYS[asked])
    steps = " ".join(p for p in (table.look_up(rng, c.wanted), c.work, end) if p)
    return table.text, f"Is {c.told} {way} {c.limit}?", steps, yes(truth)
