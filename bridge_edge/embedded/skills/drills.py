"""Drills of plain numbers: several short sums or comparisons a document, so that most of its tokens are worked steps.

Why: a rationale is as good as its weakest step. Carries and comparisons, equal numbers above all, are what a small
model gets wrong, and a document with one sum in it teaches one sum.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from bridge_edge.embedded.skills.material import WORDS, Item, decimal, product, word, yes

WAYS = {
    "above": ("above", "more than", "over"),
    "below": ("below", "less than", "under"),
    "at least": ("at least",),
    "at most": ("at most",),
}
"""How a limit may be asked about; the key is how a verdict words it."""


def holds(a: int, asked: str, b: int) -> bool:
    """Whether `a` is `asked` (a key of WAYS) `b`."""
    return {"above": a > b, "below": a < b, "at least": a >= b, "at most": a <= b}[asked]


def relation(a: int, b: int) -> str:
    return "more than" if a > b else "less than" if a < b else "equal to"


def number(rng: random.Random) -> int:
    """A whole number, mostly of two or three digits."""
    digits = rng.choice((1, 2, 2, 2, 3, 3, 3, 4, 4, 5))
    return rng.randint(10 ** (digits - 1), 10**digits - 1)


def neighbour(rng: random.Random, value: int) -> int:
    """A number to compare with `value`: often equal or close, or with one digit changed."""
    roll = rng.random()
    if roll < 0.2:
        return value
    if roll < 0.45:
        return max(0, value + rng.choice((-1, 1)) * rng.randint(1, max(2, value // 12)))
    if roll < 0.7:
        digits = list(str(value))
        digits[rng.randrange(len(digits))] = str(rng.randint(1, 9))
        return int("".join(digits))
    if roll < 0.85:
        return max(0, round(value * rng.uniform(0.3, 2.5)))
    return number(rng)


def comparisons(rng: random.Random) -> Item:
    """Several pairs of numbers, each held against the other."""
    text: Callable[[int], str] = decimal if rng.random() < 0.3 else str
    mark = "$" if rng.random() < 0.15 else ""
    pairs = [(a, neighbour(rng, a)) for a in (number(rng) for _ in range(rng.randint(2, 5)))]
    if mark:
        text, pairs = (lambda v: f"${v:,}"), [(a * 1000, b * 1000) for a, b in pairs]
    asked = rng.choice((", ", "; ")).join(f"{text(a)} and {text(b)}" for a, b in pairs)
    steps = " ".join(f"{text(a)} is {relation(a, b)} {text(b)}." for a, b in pairs)
    question = rng.choice(
        ("Compare {}. How many of the first are more?", "Of {}, in how many pairs is the first more?")
    )
    return "", question.format(asked), steps, str(sum(a > b for a, b in pairs))


def sums(rng: random.Random) -> Item:
    """Several sums, differences and products, each worked on its own."""
    asked, steps, result = [], [], ""
    for _ in range(rng.randint(2, 5)):
        kind, a, b = rng.randrange(5), number(rng), number(rng)
        if kind == 0:
            text: Callable[[int], str] = decimal if rng.random() < 0.2 else str
            result = text(a + b)
            asked.append(f"{text(a)} + {text(b)}")
            steps.append(f"{asked[-1]} = {result}.")
        elif kind in (1, 2):
            text = decimal if rng.random() < 0.25 else str
            a, b = max(a, b), min(a, b)
            result = text(a - b)
            asked.append(f"{text(a)} - {text(b)}")
            steps.append(f"{asked[-1]} = {result}.")
        else:
            a = rng.randint(2, 999) if kind == 3 else rng.randint(2, 250)
            b = rng.choice((1, 1, 10, 100)) * rng.randint(1, 9) if kind == 3 else rng.randint(11, 150)
            result = str(a * b)
            asked.append(f"{a} * {b}")
            steps.append(product(a, b))
    question = rng.choice(("Work out: {}.", "What is the last of these? {}", "Compute one after another: {}"))
    return "", question.format(rng.choice((", ", "; ")).join(asked)), " ".join(steps), result


def keyed(rng: random.Random) -> Item:
    """Values by keys that are numbers and differ in one digit, looked up one after another."""
    first, count = rng.choice((rng.randint(1980, 2035), number(rng))), rng.randint(2, 6)
    keys = [first + i for i in range(count)]
    if rng.random() < 0.3:
        rng.shuffle(keys)
    base = number(rng) % 1000
    values = [base if rng.random() < 0.15 else rng.choice((neighbour(rng, base), number(rng) % 1000)) for _ in keys]
    said = rng.choice((", ", "; ", " | ", "\n"))
    link = rng.choice((" ", " ", ": ", " | ")) if said != " | " else " "
    context = said.join(f"{k}{link}{v}" for k, v in zip(keys, values, strict=True))
    asked = [rng.choice(keys) for _ in range(rng.randint(2, 5))]
    steps = [f"{k}: {values[keys.index(k)]}." for k in asked]
    question = rng.choice(("Read out: {}.", "What belongs to {}?")).format(", ".join(map(str, asked)))
    return context, question, " ".join(steps), str(values[keys.index(asked[-1])])


def verdicts(rng: random.Random) -> Item:
    """Hold a stated number against a limit, and say so in one of several wordings."""
    what = rng.choice((rng.choice(WORDS), word(rng), f"{rng.choice(WORDS)} {rng.choice(WORDS)}"))
    a = number(rng)
    b, asked = neighbour(rng, a), rng.choice(list(WAYS))
    text: Callable[[int], str] = decimal if rng.random() < 0.3 else str
    unit = rng.choice(("", "", "", "%", f" {rng.choice(WORDS)}"))
    context = rng.choice(("The {} is {}.", "The {} was {}.", "{}: {}.")).format(what, text(a))
    question = rng.choice(("Is the {} {} {}?", "Was the {} {} {}?"))
    return (
        context,
        question.format(what, rng.choice(WAYS[asked]), text(b) + unit),
        ending(rng, text(a), text(b), relation(a, b), f"the {what}", asked, text(b) + unit, holds(a, asked, b)),
        yes(holds(a, asked, b)),
    )


def ending(
    rng: random.Random, left: str, right: str, stands: str, subject: str, asked: str, limit: str, truth: bool
) -> str:
    """A comparison, alone or with what follows from it."""
    plain = f"{left} is {stands} {right}"
    verdict = f"{subject} is {'' if truth else 'not '}{asked} {limit}"
    return rng.choice((f"{plain}.", f"{plain}, so {verdict}.", f"{plain}: {verdict}."))
