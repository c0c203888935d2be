"""Skills of readings: values looked up in a report, put into a stated rule, and held against a limit.

What: reports of named values on a thing or a person in several layouts, and counts of points by stated thresholds; the
rules (rules.py) are given in the text and drawn at random.
Why: most domains ask for this chain of steps, and a small model loses it at the look-up.
"""

from __future__ import annotations

import random
from collections.abc import Callable

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
    word,
    yes,
)
from bridge_edge.embedded.skills.rules import RULES, Sum

UNITS = ("", "", "kg", "cm", "m", "g", "mm", "%", "/min", "C", "km", "points", "l", "hours", "g/l", "mg/l", "kg/m2")


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


def stated(rng: random.Random, worked: Sum, n: list[str], units: list[str]) -> tuple[str, list[tuple[str, str]], str]:
    """The rule's wording, its values as a report has them, and the sentence that reads them out."""
    if len(worked.values) == 2 and rng.random() < 0.2:  # a pair written with a stroke
        both = labels(rng, 1)[0] + " pair"
        told = worked.told.replace(n[0], f"first of {both}").replace(n[1], f"second of {both}")
        pair = f"{worked.values[0]}/{worked.values[1]}"
        return told, [(both, f"{pair} {units[0]}".strip())], f"{both.capitalize()} {pair}."
    values = [(x, f"{v} {u}".strip()) for x, v, u in zip(n, worked.values, units, strict=False)]
    read = ", ".join(f"{x} {v}" for x, v in zip(n, worked.values, strict=False))
    return worked.told, values, f"{read}.".capitalize()


def readings(rng: random.Random) -> Item:
    """Look the values of a rule up in a report, work the rule out, hold the result against a limit."""
    n = labels(rng, rng.randint(3, 5))
    worked = rng.choice(RULES)(rng, n)
    k = len(worked.values)
    units = [rng.choice(UNITS) for _ in n]
    others = [f"{rng.randint(2, 300)}" if rng.random() < 0.6 else decimal(rng.randint(11, 400)) for _ in n[k:]]
    told, values, given = stated(rng, worked, n, units)
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
    show: Callable[[int], str] = (lambda v: decimal(v, 2)) if "0." in worked.told else str
    end = ending(
        rng, show(worked.left), show(worked.right), relation(worked.left, worked.right),
        subject if subject.startswith("the ") else "the result", asked, worked.limit, truth,
    )  # fmt: skip
    steps = " ".join(part for part in (given if rng.random() < 0.7 else "", worked.steps, end) if part)
    return text, f"Is {subject} {way} {worked.limit}{unit}?", steps, yes(truth)


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
