"""Skills of readings: values looked up in a report, put into a stated rule, and held against a limit.

What: reports of named values on a thing or a person in several layouts, lines of figures over some years, and counts
of points by stated thresholds; the rules are given in the text and drawn at random.
Why: most domains ask for this chain of steps, and a small model loses it at the look-up.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from bridge_edge.embedded.skills.drills import WAYS, ending, holds, neighbour, relation
from bridge_edge.embedded.skills.material import (
    COLORS,
    FIRST,
    THINGS,
    WORDS,
    Item,
    decimal,
    join,
    name,
    product,
    word,
    yes,
)

UNITS = ("", "", "kg", "cm", "m", "g", "mm", "%", "/min", "C", "km", "points", "l", "hours", "g/l", "mg/l", "kg/m2")


@dataclass(frozen=True)
class Sum:
    """A rule worked out: the values it needs, its wording, its steps, and the two numbers compared at the end."""

    values: tuple[str, ...]
    told: str
    steps: str
    left: int
    right: int
    limit: str


def labels(rng: random.Random, k: int) -> list[str]:
    """Names of values, of one word or two, a few of them made up."""
    found: list[str] = []
    while len(found) < k:
        roll = rng.random()
        one = word(rng) if roll < 0.2 else rng.choice(WORDS)
        one = f"{one} {rng.choice(WORDS)}" if rng.random() < 0.25 else one
        if all(not set(one.split()) & set(other.split()) for other in found):
            found.append(one)
    return found


def head(rng: random.Random) -> str:
    """What a report is about; its own numbers are not among the values."""
    n = rng.randint(2, 99)
    person, kind = rng.choice(FIRST), rng.choice(("boy", "girl", "man", "woman"))
    return rng.choice((
        f"The {rng.choice(COLORS)} {rng.choice(THINGS)[:-1]}",
        f"Sample {n}",
        f"Report {n} of {name(rng)}",
        f"A {n}-year-old {rng.choice(WORDS)}",
        f"{person}, a {kind} of {n} years",
        f"{person} ({kind}, {n} years)",
        f"A {kind} aged {n} {rng.choice(('in', 'at', 'from', 'after'))} the {rng.choice(WORDS)}",
    ))  # fmt: skip


def report(rng: random.Random, values: list[tuple[str, str]]) -> str:
    """The values in random order and one of five layouts, after a head."""
    items = list(values)
    rng.shuffle(items)
    layout = rng.randrange(5)
    who = head(rng)
    if layout == 0:
        return f"{who} has {join([f'{n} {v}' for n, v in items])}."
    if layout == 1:
        return f"{who}. " + ". ".join(f"{n.capitalize()}: {v}" for n, v in items) + "."
    if layout == 2:
        return f"{who}:\n" + "\n".join(f"{n} | {v}" for n, v in items)
    if layout == 3:
        return f"{who} shows {join([f'a {n} of {v}' for n, v in items])}."
    verb, what = rng.choice(("with", "has", "comes with")), rng.choice(WORDS)
    return f"{who} {verb} {what}: {', '.join(f'{n} {v}' for n, v in items)}."


def difference(rng: random.Random, n: list[str]) -> Sum:
    b, c = rng.randint(3, 160), rng.randint(2, 60)
    a = b + c + rng.randint(0, 60)
    rest = a - b
    limit = neighbour(rng, rest - c)
    steps = f"{a} - {b} = {rest}. {rest} - {c} = {rest - c}."
    return Sum((f"{a}", f"{b}", f"{c}"), f"{n[0]} - {n[1]} - {n[2]}", steps, rest - c, limit, str(limit))


def double(rng: random.Random, n: list[str]) -> Sum:
    a, b, k = rng.randint(20, 199), rng.randint(10, 150), rng.choice((2, 2, 3, 4, 5))
    part = k * b
    total = a + part
    m = rng.choice((1, 1, 2, 3, 4))
    limit = neighbour(rng, total // m)
    steps = f"{k} * {b} = {part}. {part} + {a} = {total}."
    told = f"{n[0]} + {k} * {n[1]}"
    if m > 1:
        steps, told = f"{steps} {m} * {limit} = {m * limit}.", f"({told}) / {m}"
    return Sum((f"{a}", f"{b}"), told, steps, total, m * limit, str(limit))


def ratio(rng: random.Random, n: list[str]) -> Sum:
    b, limit = rng.randint(3, 400), rng.choice((2, 3, 4, 5, 6, 8, 10, 12, 20, 25, 30, 40))
    right = b * limit
    a = max(1, neighbour(rng, right))
    return Sum((f"{a}", f"{b}"), f"{n[0]} / {n[1]}", product(b, limit), a, right, str(limit))


def percentage(rng: random.Random, n: list[str]) -> Sum:
    b, percent = rng.randint(20, 900), rng.choice((2, 4, 5, 6, 8, 10, 20, 30, 40, 50, 60, 75))
    a = max(1, neighbour(rng, b * percent // 100))
    scale, share = (10, percent // 10) if percent % 10 == 0 and rng.random() < 0.5 else (100, percent)
    steps = f"{product(a, scale)} {product(b, share)}"
    return Sum((f"{a}", f"{b}"), f"{n[0]} / {n[1]}", steps, a * scale, b * share, f"{percent}%")


def square(rng: random.Random, n: list[str]) -> Sum:
    b, limit = rng.randint(3, 25), rng.choice((2, 3, 5, 10, 15, 20, 25, 30, 40))
    right = b * b * limit
    scale = rng.choice((1, 10, 100))
    a = max(1, neighbour(rng, max(1, right // scale)))
    steps = f"{b} * {b} = {b * b}. {product(b * b, limit)}" + (f" {product(a, scale)}" if scale > 1 else "")
    told = f"{f'{scale} * ' if scale > 1 else ''}{n[0]} / {n[1]}^2"
    return Sum((f"{a}", f"{b}"), told, steps, a * scale, right, str(limit))


def scaled(rng: random.Random, n: list[str]) -> Sum:
    top, factor = rng.randint(60, 200), rng.randint(2, 90)
    a, b = rng.randint(10, top - 5), rng.choice((rng.randint(2, 99), 10 * rng.randint(2, 12)))
    rest = top - a
    left = rest * b
    c, limit = rng.choice(((1, 0), (5, 0), (2, 0), (3, 0), (10, 0)))[0], max(1, round(left / factor))
    limit = max(1, neighbour(rng, limit) // 10 * 10)
    right = c * factor * (limit // c if limit >= c else 1)
    limit = right // (c * factor)
    steps = f"{top} - {a} = {rest}. {product(rest, b)} {factor} * {c} = {factor * c}. {product(factor * c, limit)}"
    told = f"({top} - {n[0]}) * {n[1]} / ({factor} * {n[2]})"
    return Sum((f"{a}", f"{b}", f"{c}"), told, steps, left, right, str(limit))


def added(rng: random.Random, n: list[str]) -> Sum:
    """In tenths: a + 0.k * (top - b)."""
    top, k = rng.randint(3, 9), rng.choice((2, 4, 5, 6, 8))
    b = rng.choice((5, 10)) * rng.randint(1, top * 2 - 1)
    b = b if b < top * 10 else b % (top * 10)
    lack = top * 10 - b
    more = k * lack  # in hundredths
    more -= more % 10
    b = top * 10 - more // k if k and more % k == 0 else b
    lack = top * 10 - b
    more = k * lack
    a = rng.randint(20, 190)
    total, places = a * 10 + more, 2
    limit = neighbour(rng, total // 10) * 10
    steps = f"{top} - {decimal(b)} = {decimal(lack)}. 0.{k} * {decimal(lack)} = {decimal(more, places)}."
    steps += f" {decimal(a)} + {decimal(more, places)} = {decimal(total, places)}."
    told = f"{n[0]} + 0.{k} * ({top} - {n[1]})"
    return Sum((decimal(a), decimal(b)), told, steps, total, limit, decimal(limit, places))


RULES: tuple[Callable[[random.Random, list[str]], Sum], ...] = (
    difference, double, ratio, percentage, square, scaled, added,
)  # fmt: skip


def readings(rng: random.Random) -> Item:
    """Look the values of a rule up in a report, work the rule out, hold the result against a limit."""
    n = labels(rng, rng.randint(3, 5))
    worked = rng.choice(RULES)(rng, n)
    k = len(worked.values)
    units = [rng.choice(UNITS) for _ in n]
    others = [f"{rng.randint(2, 300)}" if rng.random() < 0.6 else decimal(rng.randint(11, 400)) for _ in n[k:]]
    if k == 2 and rng.random() < 0.2:  # a pair written with a stroke
        both = labels(rng, 1)[0] + " pair"
        told = worked.told.replace(n[0], f"first of {both}").replace(n[1], f"second of {both}")
        values = [(both, f"{worked.values[0]}/{worked.values[1]} {units[0]}".strip())]
        given = f"{both.capitalize()} {worked.values[0]}/{worked.values[1]}."
    else:
        told = worked.told
        values = [(x, f"{v} {u}".strip()) for x, v, u in zip(n, worked.values, units, strict=False)]
        given = f"{', '.join(f'{x} {v}' for x, v in zip(n, worked.values, strict=False))}.".capitalize()
    values += [(x, f"{v} {u}".strip()) for x, v, u in zip(n[k:], others, units[k:], strict=True)]
    text = report(rng, values)
    asked = rng.choice(list(WAYS))
    truth = holds(worked.left, asked, worked.right)
    percent = "%" in worked.limit
    way, unit = rng.choice(WAYS[asked]), "" if percent else rng.choice(("", "", f" {rng.choice(UNITS)}".rstrip()))
    subject = told
    if rng.random() < 0.5:
        subject = f"the {word(rng)}"
        text = (
            f"{subject.capitalize()} is {told}. {text}"
            if rng.random() < 0.5
            else f"{text} {subject.capitalize()} is {told}."
        )
    places = 100 if isinstance(worked.left, int) and "0." in worked.told else 1
    show: Callable[[int], str] = (lambda v: decimal(v, 2)) if places == 100 else str
    end = ending(
        rng, show(worked.left), show(worked.right), relation(worked.left, worked.right),
        subject if subject.startswith("the ") else "the result", asked, worked.limit, truth,
    )  # fmt: skip
    steps = " ".join(part for part in (given if rng.random() < 0.7 else "", worked.steps, end) if part)
    return text, f"Is {subject} {way} {worked.limit}{unit}?", steps, yes(truth)


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


def trends(rng: random.Random) -> Item:
    """Two or three cells of lines of figures, put into a rule, and held against a limit."""
    table = lines(rng)
    year = rng.choice(table.years[1:])
    row, other = rng.sample(table.rows, 2)
    a, b, old = table.at(row, year), table.at(other, year), table.at(row, year - 1)
    wanted = [(row, year), (other, year)]
    asked = rng.choice(list(WAYS))
    kind = rng.randrange(6)
    if kind == 0:  # a rise in percent
        percent = rng.choice((10, 20, 30, 40, 50))
        wanted = [(row, year), (row, year - 1)]
        told, limit, asked = f"the rise of {row} in {year}", f"{percent}%", "above"
        if a <= old:
            left, right, work = a, old, ""
        else:
            left, right = (a - old) * 10, old * percent // 10
            work = f"{a} - {old} = {a - old}. {product(a - old, 10)} {product(old, percent // 10)}"
    elif kind == 1:  # what is left, as a share
        percent = rng.choice((10, 20, 30, 40, 50, 60))
        a, b, row, other = (a, b, row, other) if a >= b else (b, a, other, row)
        wanted = [(row, year), (other, year)]
        left, right, limit = (a - b) * 10, a * percent // 10, f"{percent}%"
        work = f"{a} - {b} = {a - b}. {product(a - b, 10)} {product(a, percent // 10)}"
        told = f"({row} - {other}) / {row} in {year}"
    elif kind == 2:  # a share
        percent = rng.choice((4, 5, 6, 8, 10, 20, 30, 50))
        left, right, limit = a * 100, b * percent, f"{percent}%"
        work, told = f"{product(a, 100)} {product(b, percent)}", f"{row} / {other} in {year}"
    elif kind == 3:  # times
        times = rng.choice((2, 3, 4, 5, 6, 8, 9, 12))
        left, right, limit = a, b * times, str(times)
        work, told = product(b, times), f"{row} / {other} in {year}"
    elif kind == 4:  # halves
        halves = rng.choice((1, 3, 5))
        left, right, limit = a * 2, b * halves, decimal(halves * 5)
        work, told = f"{product(a, 2)} {product(b, halves)}", f"{row} / {other} in {year}"
    else:  # two together
        times = rng.choice((1, 2, 3))
        third = rng.choice(table.rows)
        c = table.at(third, year)
        wanted += [(third, year)] * (third not in (row, other))
        left, right, limit = a + b, c * times, str(times)
        work = f"{a} + {b} = {a + b}." + (f" {product(c, times)}" if times > 1 else "")
        told = f"({row} + {other}) / {third} in {year}"
    truth = holds(left, asked, right)
    end = ending(rng, str(left), str(right), relation(left, right), "the result", asked, limit, truth)
    way = rng.choice(WAYS[asked])
    steps = " ".join(p for p in (table.look_up(rng, wanted), work, end) if p)
    return table.text, f"Is {told} {way} {limit}?", steps, yes(truth)


def tally(rng: random.Random) -> Item:
    """Points by stated thresholds and features: every rule is looked at in turn, and the points are counted up."""
    k = rng.randint(3, 6)
    names, said, values, parts, total = labels(rng, k), [], [], [], 0
    for n in names:
        worth = rng.choice((1, 1, 1, 2, 3))
        if rng.random() < 0.4:
            present = rng.random() < 0.5
            said.append(f"{n} {worth}")
            values.append(n if present else f"no {n}")
            parts.append((n if present else f"no {n}", worth if present else 0))
            continue
        high, limit = rng.random() < 0.7, rng.randint(5, 120)
        value = neighbour(rng, limit)
        asked = rng.choice(("above", "at least")) if high else rng.choice(("below", "at most"))
        present = holds(value, asked, limit)
        said.append(f"{n} {asked} {limit} {worth}")
        values.append(f"{n} {value}")
        sign = ("high" if high else "low") if present else "normal"
        parts.append((f"{n} {value} {sign}", worth if present else 0))
    rng.shuffle(values)
    told = []
    for text, worth in parts:
        total += worth
        told.append(f"{text} +{worth} = {total}" if worth else text)
    steps = f"{', '.join(told)}. Total {total}."
    context = f"Points: {', '.join(said)}. {head(rng)} has {', '.join(values)}."
    if rng.random() < 0.3:
        return context, "How many points are there?", steps, str(total)
    limit = max(1, total + rng.randint(-2, 2))
    truth = total >= limit
    steps += f" {total} is {'at least' if truth else 'less than'} {limit}"
    steps += rng.choice((".", f", so it is {'' if truth else 'not '}at least {limit}."))
    return (
        context,
        rng.choice(("Are there at least {} points?", "Does it reach {} points?")).format(limit),
        steps,
        yes(truth),
    )
