"""Skills of plain numbers: comparing, the four operations with their steps, percentages, dates, units."""

from __future__ import annotations

import random
from collections.abc import Callable

from bridge_edge.embedded.skills.material import (
    MONTHS,
    THINGS,
    Item,
    decimal,
    magnitude,
    name,
    names,
    product,
    show,
    sum_steps,
    thousands,
    with_noise,
    yes,
)


def more_or_less(rng: random.Random) -> Item:
    commas = rng.random() < 0.6
    mark = "$" if rng.random() < 0.4 else ""
    scale = rng.random()
    if scale < 0.35:
        a, b = thousands(rng), thousands(rng)
    elif scale < 0.7:
        a = magnitude(rng)
        b = max(1, a + rng.choice((-1, 1)) * rng.randint(0, max(1, a // 3)))
    else:
        a, b = magnitude(rng), magnitude(rng)
    left, right = mark + show(a, commas), mark + show(b, commas)
    if rng.random() < 0.25 and not mark:
        left, right = decimal(a), decimal(b)
    relation = "more than" if a > b else "less than" if a < b else "equal to"
    ask, truth = rng.choice(
        (("more than", a > b), ("less than", a < b), ("at least", a >= b), ("at most", a <= b), ("greater than", a > b))
    )
    phrase = rng.choice(
        (
            f"{left} is {relation} {right}.",
            f"{left} is {relation} {right}, so it is {'' if truth else 'not '}{ask} {right}.",
        )
    )
    return "", f"Is {left} {ask} {right}?", phrase, yes(truth)


def compare_symbols(rng: random.Random) -> Item:
    a = magnitude(rng)
    b = a if rng.random() < 0.1 else rng.choice((magnitude(rng), max(1, a + rng.randint(-9, 9))))
    left, right = (decimal(a), decimal(b)) if rng.random() < 0.4 else (str(a), str(b))
    sign = ">" if a > b else "<" if a < b else "="
    return "", f"Which sign belongs between {left} and {right}?", f"{left} {sign} {right}.", sign


def addition(rng: random.Random) -> Item:
    k = rng.choice((2, 2, 2, 3, 3, 4))
    style = rng.random()
    if style < 0.35:
        values = [thousands(rng) for _ in range(k)]
        text: Callable[[int], str] = rng.choice(("{:,}", "${:,}")).format
    elif style < 0.75:
        values = [magnitude(rng) for _ in range(k)]
        text = str
    else:
        values = [rng.randint(1, 999) for _ in range(k)]
        text = decimal
    total = text(sum(values))
    if rng.random() < 0.5:
        thing = rng.choice(THINGS)
        people = names(rng, k)
        context = with_noise(
            rng, [f"{p} paid {text(v)} for {rng.choice(THINGS)}." for p, v in zip(people, values, strict=True)]
        )
        return context, f"How much was paid in all for the {thing} and the rest?", sum_steps(values, text), total
    question = rng.choice(("What is {}?", "Compute {}.", "Add up: {}"))
    return "", question.format(" + ".join(text(v) for v in values)), sum_steps(values, text), total


def subtraction(rng: random.Random) -> Item:
    a, b = sorted((magnitude(rng), magnitude(rng)), reverse=True)
    text: Callable[[int], str] = decimal if rng.random() < 0.35 else str
    steps = f"{text(a)} - {text(b)} = {text(a - b)}."
    if rng.random() < 0.3:
        c = rng.randint(0, a - b)
        steps += f" {text(a - b)} - {text(c)} = {text(a - b - c)}."
        return "", f"What is {text(a)} - {text(b)} - {text(c)}?", steps, text(a - b - c)
    return (
        "",
        rng.choice(("What is {} - {}?", "Take away: {} - {}", "Compute {} - {}.")).format(text(a), text(b)),
        steps,
        text(a - b),
    )


def multiplication(rng: random.Random) -> Item:
    roll = rng.random()
    if roll < 0.3:
        a, b = rng.randint(2, 12), rng.randint(2, 12)
    elif roll < 0.65:
        a, b = rng.randint(10, 999), rng.randint(2, 9) * rng.choice((1, 1, 10, 100))
    elif roll < 0.9:
        a, b = rng.randint(10, 299), rng.randint(11, 99)
    else:
        a, b = magnitude(rng), rng.choice((10, 100, 1000))
    return (
        "",
        rng.choice(("What is {} * {}?", "Multiply {} by {}.", "Compute {} times {}.")).format(a, b),
        product(a, b),
        str(a * b),
    )


def decimal_product(rng: random.Random) -> Item:
    a, b = rng.randint(2, 99), rng.randint(2, 30)
    result = decimal(a * b)
    steps = f"{a} * {b} = {a * b}, so {decimal(a)} * {b} = {result}."
    return "", f"What is {decimal(a)} * {b}?", steps, result


def division(rng: random.Random) -> Item:
    b, q = rng.randint(2, 12), rng.randint(2, 60)
    if rng.random() < 0.6:
        return "", f"What is {b * q} / {b}?", f"{b} * {q} = {b * q}, so {b * q} / {b} = {q}.", str(q)
    r = rng.randint(1, b - 1)
    steps = f"{b} * {q} = {b * q} and {b * q + r} - {b * q} = {r}."
    return "", f"Divide {b * q + r} by {b}: how many times, and what is left?", steps, f"{q} rest {r}"


def percent(rng: random.Random) -> Item:
    p, base = rng.choice((1, 5, 10, 15, 20, 25, 30, 40, 50, 60, 75)), rng.randint(1, 99) * rng.choice((1, 10, 100))
    value = p * base
    steps = f"{p} * {base} = {value}, and {value} / 100 = {decimal(value, 2)}."
    return "", f"What is {p}% of {base}?", steps, decimal(value, 2)


def cross_compare(rng: random.Random) -> Item:
    """Compare two products without dividing."""
    a, b, c, d = (
        rng.randint(2, 400),
        rng.choice((2, 3, 4, 5, 10, 20, 30, 100)),
        rng.randint(2, 400),
        rng.choice((2, 3, 5, 10, 11, 12, 15, 40)),
    )
    left, right = a * b, c * d
    relation = "more than" if left > right else "less than" if left < right else "equal to"
    steps = f"{product(a, b)} {product(c, d)} {left} is {relation} {right}."
    return "", f"Is {a} * {b} more than {c} * {d}?", steps, yes(left > right)


def dates(rng: random.Random) -> Item:
    kind = rng.randrange(3)
    if kind == 0:
        year, age = rng.randint(1900, 2000), rng.randint(1, 99)
        who = name(rng)
        steps = f"{year} + {age} = {year + age}."
        return f"{who} was born in {year}.", f"In which year does {who} turn {age}?", steps, str(year + age)
    if kind == 1:
        day, step, month = rng.randint(1, 14), rng.randint(1, 14), rng.choice(MONTHS)
        return (
            "",
            f"Which date is {step} days after {month} {day}?",
            f"{day} + {step} = {day + step}.",
            f"{month} {day + step}",
        )
    i, j = rng.sample(range(12), 2)
    relation = "less" if i < j else "more"
    steps = f"{MONTHS[i]} is month {i + 1}. {MONTHS[j]} is month {j + 1}. {i + 1} is {relation} than {j + 1}."
    return "", f"Does {MONTHS[i]} come before {MONTHS[j]}?", steps, yes(i < j)


def units(rng: random.Random) -> Item:
    small, big, factor = rng.choice(
        (
            ("cm", "m", 100),
            ("g", "kg", 1000),
            ("minutes", "hours", 60),
            ("mm", "cm", 10),
            ("days", "weeks", 7),
            ("months", "years", 12),
        )
    )
    value = rng.randint(2, 40)
    if rng.random() < 0.5 or factor not in (10, 100):
        return (
            "",
            f"How many {small} are {value} {big}?",
            f"1 {big} is {factor} {small}. {product(value, factor)}",
            f"{value * factor} {small}",
        )
    value = rng.randint(1, 300)
    result = decimal(value, 2 if factor == 100 else 1)
    return (
        "",
        f"How many {big} are {value} {small}?",
        f"1 {big} is {factor} {small}. {value} / {factor} = {result}.",
        f"{result} {big}",
    )
