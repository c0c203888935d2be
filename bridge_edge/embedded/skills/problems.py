"""Skills of several steps: tables and figures, stated formulas and conditions, points and accounts."""

from __future__ import annotations

import random

from bridge_edge.embedded.skills.material import (
    THINGS,
    WORDS,
    Item,
    join,
    name,
    names,
    product,
    sum_steps,
    thousands,
    with_noise,
    word,
    yes,
)


def points(rng: random.Random) -> Item:
    """A game's score: each feature that is present adds its points, then the total is compared with a limit."""
    features = rng.sample(rng.choice((THINGS, WORDS)), rng.randint(3, 7))
    worth = [rng.choice((1, 1, 1, 2, 2, 3, 5)) for _ in features]
    has = [rng.random() < 0.5 for _ in features]
    who = name(rng)
    rules = "Points: " + ", ".join(f"{f} {w}" for f, w in zip(features, worth, strict=True)) + "."
    held = [f for f, h in zip(features, has, strict=True) if h]
    missing = [f for f, h in zip(features, has, strict=True) if not h]
    rng.shuffle(held)
    story = [f"{who} has {join(held)}." if held else f"{who} has nothing."]
    if missing and rng.random() < 0.5:
        story.append(f"{who} has no {rng.choice(missing)}.")
    total, parts = 0, []
    for feature, value, present in zip(features, worth, has, strict=True):
        if present:
            parts.append(f"{feature} +{value} = {total + value}")
            total += value
    body = ", ".join(parts) + "." if parts else "No points."
    steps = f"{body} Total {total}."
    if rng.random() < 0.5:
        limit = max(0, total + rng.randint(-2, 2))
        steps += f" {total} is {'at least' if total >= limit else 'less than'} {limit}."
        return (
            f"{rules} {with_noise(rng, story)}",
            f"Does {who} have at least {limit} points?",
            steps,
            yes(total >= limit),
        )
    return f"{rules} {with_noise(rng, story)}", f"How many points does {who} have?", steps, str(total)


def conditions(rng: random.Random) -> Item:
    who, limit, low = name(rng), rng.randint(5, 80), rng.randint(20, 200)
    age, height = max(1, limit + rng.randint(-10, 10)), max(1, low + rng.randint(-30, 30))
    first, second = age >= limit, height > low
    both = rng.random() < 0.6
    rule = f"Rule: entry needs age at least {limit} {'and' if both else 'or'} height above {low}."
    steps = (
        f"Age {age} is {'at least' if first else 'less than'} {limit}: {'met' if first else 'not met'}. "
        f"Height {height} is {'above' if second else 'not above'} {low}: {'met' if second else 'not met'}. "
    )
    truth = (first and second) if both else (first or second)
    steps += f"{'Both are' if both else 'One is'} needed, so entry is {'allowed' if truth else 'refused'}."
    return (
        f"{rule} {with_noise(rng, [f'{who} is {age} years old.', f'{who} is {height} tall.'])}",
        f"May {who} enter?",
        steps,
        yes(truth),
    )


def formula(rng: random.Random) -> Item:
    """Substitute into a stated formula, compute, and sometimes compare with a limit."""
    a, b, c = rng.sample(
        ["a", "b", "c", "d", "e", "f", "g", "h", "k", "m", "n", "p", "q", "r", "s", "t", "u", "v", "w", "x", "y", "z"],
        3,
    )
    label = word(rng)
    va, vb, vc = rng.randint(1, 150), rng.randint(1, 60), rng.randint(2, 9)
    kind = rng.randrange(4)
    if kind == 0:
        text, total = f"{a} + {c} * {b}", va + vc * vb
        work = f"{vc} * {vb} = {vc * vb}. {va} + {vc * vb} = {total}."
    elif kind == 1:
        va += vb + 20
        text, total = f"{a} - {b} - {c}", va - vb - vc
        work = f"{va} - {vb} = {va - vb}. {va - vb} - {vc} = {total}."
    elif kind == 2:
        text, total = f"{a} * {b}", va * vb
        work = product(va, vb)
    else:
        top = vb + vc
        text, total = f"({b} - {c}) * {a}", (top - vc) * va
        work = f"{top} - {vc} = {vb}. {product(vb, va)}"
        vb = top
    given = [f"{a} = {va}", f"{b} = {vb}", f"{c} = {vc}"]
    if c not in text:
        given = given[:2]
    rng.shuffle(given)
    context = f"{label} = {text}. Given: {', '.join(given)}."
    if rng.random() < 0.5:
        limit = max(1, total + rng.choice((-1, 1)) * rng.randint(0, max(2, total // 2)))
        relation = "more than" if total > limit else "less than" if total < limit else "equal to"
        return context, f"Is {label} above {limit}?", f"{work} {total} is {relation} {limit}.", yes(total > limit)
    return context, f"What is {label}?", work, str(total)


def table(rng: random.Random) -> Item:
    rows = rng.sample(rng.choice((THINGS, WORDS)), rng.randint(2, 5))
    first = rng.randint(1980, 2030)
    columns = [str(first + i) for i in range(rng.randint(2, 3))]
    cells = {r: [rng.choice((rng.randint(1, 99), rng.randint(100, 999))) for _ in columns] for r in rows}
    lines = ["item | " + " | ".join(columns)] + [f"{r} | " + " | ".join(map(str, cells[r])) for r in rows]
    row = rng.choice(rows)
    i, j = rng.sample(range(len(columns)), 2)
    a, b = cells[row][i], cells[row][j]
    context = "\n".join(lines)
    kind = rng.randrange(4)
    if kind == 0:
        return context, f"What is the value of {row} in {columns[i]}?", f"{row} in {columns[i]}: {a}.", str(a)
    if kind == 1:
        relation = "more than" if a > b else "less than" if a < b else "equal to"
        steps = f"{row} in {columns[i]}: {a}. {row} in {columns[j]}: {b}. {a} is {relation} {b}."
        return context, f"Was {row} higher in {columns[i]} than in {columns[j]}?", steps, yes(a > b)
    if kind == 2:
        high, low = max(a, b), min(a, b)
        steps = f"{row}: {a} in {columns[i]}, {b} in {columns[j]}. {high} - {low} = {high - low}."
        return context, f"By how much does {row} differ between {columns[i]} and {columns[j]}?", steps, str(high - low)
    other = rng.choice([r for r in rows if r != row])
    c = cells[other][i]
    steps = f"{row} in {columns[i]}: {a}. {other} in {columns[i]}: {c}. {a} + {c} = {a + c}."
    return context, f"What do {row} and {other} add up to in {columns[i]}?", steps, str(a + c)


def budget(rng: random.Random) -> Item:
    """Add up amounts scattered in a text, then compare the total with a limit."""
    who, k = name(rng), rng.randint(1, 3)
    values = [thousands(rng) if rng.random() < 0.8 else rng.randint(1, 99) * 1000 for _ in range(k)]
    total = sum(values)
    limit = rng.choice((rng.randint(1, 30) * 10_000, max(1000, total + rng.randint(-9, 9) * 1000), 50_000, 100_000))
    bought = rng.sample(THINGS, k) if rng.random() < 0.4 else [f"{rng.choice(WORDS)} {w}" for w in rng.sample(WORDS, k)]
    text = f"{who} spends {join([f'${v:,} on {t}' for v, t in zip(values, bought, strict=True)])}."
    work = sum_steps(values, lambda v: f"${v:,}")
    relation = "more than" if total > limit else "less than" if total < limit else "equal to"
    steps = f"{work} ${total:,} is {relation} ${limit:,}.".strip()
    return with_noise(rng, [text]), f"Does {who} spend more than ${limit:,}?", steps, yes(total > limit)


def accounts(rng: random.Random) -> Item:
    """Add up what each of several receives, each account on its own, and hold every total against one limit."""
    who, *others = names(rng, rng.randint(2, 3) + 1)
    limit = rng.choice((rng.randint(1, 30) * 10_000, 50_000, 100_000, rng.randint(10, 99) * 1000))
    story, steps, over = [], [], 0
    verb = rng.choice(("owes", "sends", "lends", "sells"))
    for other in others:
        values = [thousands(rng) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
        parts = [f"${v:,} for {' '.join(rng.sample(WORDS, rng.choice((1, 2))))}" for v in values]
        story.append(f"{who} {verb} {other} {join(parts)}.")
        total = sum(values)
        relation = "more than" if total > limit else "less than" if total < limit else "equal to"
        work = sum_steps(values, lambda v: f"${v:,}")
        steps.append(f"{work} ${total:,} is {relation} ${limit:,}.".strip())
        over += total > limit
    asked = f"How many of them get more than ${limit:,}?"
    return with_noise(rng, story), asked, " ".join(steps), str(over)


def figures(rng: random.Random) -> Item:
    """Read two numbers out of lines of figures, in several layouts, and work with them."""
    rows = rng.sample(rng.choice((THINGS, WORDS)), rng.randint(2, 5))
    first = rng.randint(1980, 2030)
    years = [first + i for i in range(rng.randint(2, 3))]
    cells = {r: [rng.choice((rng.randint(1, 99), rng.randint(100, 999))) for _ in years] for r in rows}
    layout = rng.randrange(3)
    if layout == 0:
        lines = [f"{y}: " + ", ".join(f"{r} {cells[r][i]}" for r in rows) for i, y in enumerate(years)]
        context = f"Figures of {name(rng)}.\n" + "\n".join(lines)
    elif layout == 1:
        parts = [f"{r}: " + ", ".join(f"{cells[r][i]} in {y}" for i, y in enumerate(years)) + "." for r in rows]
        context = f"{name(rng)}. " + " ".join(parts)
    else:
        head = "item | " + " | ".join(map(str, years))
        context = f"{name(rng)}\n" + "\n".join([head] + [f"{r} | " + " | ".join(map(str, cells[r])) for r in rows])
    row, other = rng.sample(rows, 2)
    i = rng.randrange(len(years))
    a, b, year = cells[row][i], cells[other][i], years[i]
    read = f"{row} in {year}: {a}. {other} in {year}: {b}."
    kind = rng.randrange(4)
    if kind == 0:
        j = rng.choice([k for k in range(len(years)) if k != i])
        high, low = max(a, cells[row][j]), min(a, cells[row][j])
        steps = f"{year}: {a}. {years[j]}: {cells[row][j]}. {high} - {low} = {high - low}."
        return context, f"How much did {row} change between {year} and {years[j]}?", steps, str(high - low)
    if kind == 1:
        high, low = max(a, b), min(a, b)
        return (
            context,
            f"How far apart are {row} and {other} in {year}?",
            f"{read} {high} - {low} = {high - low}.",
            str(high - low),
        )
    factor, times = rng.choice((2, 3, 4, 5, 6, 8, 10, 20)), rng.choice((1, 2, 3, 5, 10))
    left, right = a * times, b * factor
    relation = "more than" if left > right else "less than" if left < right else "equal to"
    work = f"{product(b, factor)}" if times == 1 else f"{product(a, times)} {product(b, factor)}"
    question = f"Is {times} * {row} more than {factor} * {other} in {year}?"
    return context, question, f"{read} {work} {left} is {relation} {right}.", yes(left > right)
