"""Rules over named values, drawn at random and worked out: what a reading is put into.

Each is a function `(rng, names) -> Sum`. None is a domain's own: sums, differences, ratios and products.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from bridge_edge.embedded.skills.drills import neighbour
from bridge_edge.embedded.skills.material import decimal, product


@dataclass(frozen=True)
class Sum:
    """A rule worked out: the values it needs, its wording, its steps, and the two numbers compared at the end."""

    values: tuple[str, ...]
    told: str
    steps: str
    left: int
    right: int
    limit: str


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
