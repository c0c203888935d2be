"""Skills of two sides: who stands on which and where from, and each entry of one held against each of the other."""

from __future__ import annotations

import random

from bridge_edge.embedded.skills.material import (
    COLORS,
    LIVES,
    WORDS,
    Item,
    few_places,
    join,
    names,
    place,
    with_noise,
    word,
    yes,
)

MEETINGS = (
    ("visits", "visit", "visited by", "Visitor", "Host"),
    ("calls", "call", "called by", "Caller", "Called"),
    ("teaches", "teach", "taught by", "Teacher", "Pupil"),
    ("invites", "invite", "invited by", "Host", "Guest"),
    ("pays", "pay", "paid by", "Payer", "Paid"),
    ("beats", "beat", "beaten by", "Winner", "Loser"),
    ("helps", "help", "helped by", "Helper", "Helped"),
    ("hires", "hire", "hired by", "Employer", "Worker"),
)

TWO_HOMES = (
    "{} has a house in {} and an office in {}.",
    "{} was founded in {} and has its main shop in {}.",
    "{}, an old club, is registered in {} with its hall in {}.",
    "{} works in {} and sleeps in {}.",
)


def sides(rng: random.Random) -> Item:
    """Who stands on which side of a meeting, and where each one is from."""
    left, right = rng.choice((1, 1, 2, 2, 3)), rng.choice((1, 1, 1, 2, 3))
    people = names(rng, left + right)
    homes = [[h] for h in few_places(rng, left + right)]
    for home in homes if rng.random() < 0.3 else ():
        if rng.random() < 0.5:
            home.append(place(rng))
    form, two_homes = rng.choice(LIVES), rng.choice(TWO_HOMES)
    sentences = [(form if len(h) == 1 else two_homes).format(p, *h) for p, h in zip(people, homes, strict=True)]
    order = list(range(left + right))
    if rng.random() < 0.3:
        rng.shuffle(order)
    sentences = [sentences[i] for i in order]
    one, many, passive, agent, patient = rng.choice(MEETINGS)
    givers, takers = people[:left], people[left:]
    both = {1: "", 2: rng.choice(("", " both")), 3: rng.choice(("", " all"))}[left]
    each = rng.choice(("", " each")) if right > 1 else ""
    topic = " ".join(rng.sample(WORDS, rng.randint(1, 2)))
    story = rng.choice((
        f"{join(givers)}{both} {one if left == 1 else many} {join(takers)}{each} for {topic}.",
        f"{join(givers)}{both} {one if left == 1 else many} {join(takers)}{each} for {topic} and {rng.choice(WORDS)}.",
        f"{join(takers)} {'is' if right == 1 else 'are'} {passive} {join(givers)} for {topic}.",
    ))  # fmt: skip
    sentences.insert(rng.choice((0, len(sentences), len(sentences), len(sentences))), story)
    told = [f"{p} ({' and '.join(h)})" for p, h in zip(people, homes, strict=True)]
    one_side, other_side = join(told[:left]), join(told[left:])
    steps = rng.choice((
        f"{agent}: {one_side}. {patient}: {other_side}.",
        f"{one_side} against {other_side}.",
        f"On one side {one_side}, on the other {other_side}.",
    ))  # fmt: skip
    kind = rng.randrange(3)
    asked = ("Who is on which side, and where from?", f"Who is the {patient.lower()}?", f"Who is the {agent.lower()}?")[
        kind
    ]
    answer = (f"{left} against {right}", join(takers), join(givers))[kind]
    return with_noise(rng, sentences), asked, steps, answer


VERDICTS = (
    ("match", "differ"),
    ("are the same", "are different"),
    ("agree", "disagree"),
    ("are equal", "are not equal"),
)


def pairs(rng: random.Random) -> Item:
    """Hold each entry of one side against each entry of the other, one small judgement a step."""
    left, right = rng.choice((1, 1, 2, 2, 3)), rng.choice((1, 1, 2, 2, 3))
    source = rng.random()
    if source < 0.75:
        entries = few_places(rng, left + right)
    elif source < 0.9:
        entries = [rng.choice(COLORS) for _ in range(left + right)]
    else:
        entries = [word(rng) for _ in range(max(1, left + right - rng.randint(0, 2)))]
        entries = [rng.choice(entries) for _ in range(left + right)]
    same, different = rng.choice(VERDICTS)
    first, second = entries[:left], entries[left:]
    told, told_too = first, second
    opening = ""
    if rng.random() < 0.6:
        people = names(rng, left + right)
        told = [f"{p} ({e})" for p, e in zip(people[:left], first, strict=True)]
        told_too = [f"{p} ({e})" for p, e in zip(people[left:], second, strict=True)]
        if rng.random() < 0.3:
            opening = f"{join(told)} against {join(told_too)}. "
    stop = rng.random() < 0.5
    steps: list[str] = []
    hits = 0
    for other in dict.fromkeys(second):
        for one in dict.fromkeys(first):
            if not (stop and hits):
                steps.append(f"{one} and {other} {same if one == other else different}.")
                hits += one == other
    context = rng.choice(("One side: {}. Other side: {}.", "{} meet {}.", "A is {}. B is {}.")).format(
        join(told), join(told_too)
    )
    question = f"Which entries {same}, which {different}?"
    if opening:
        question += " Name the sides first."
    if stop:
        return context, f"{question} Stop when two {same}.", opening + " ".join(steps), yes(bool(hits))
    return context, f"{question} How many pairs {same}?", opening + " ".join(steps), str(hits)


def overlap(rng: random.Random) -> Item:
    """Which entry do two short lists share?"""
    pool = few_places(rng, 7) if rng.random() < 0.7 else rng.sample(WORDS, 7)
    pool = list(dict.fromkeys(pool))
    left = rng.sample(pool, min(len(pool), rng.randint(1, 3)))
    right = rng.sample(pool, min(len(pool), rng.randint(1, 3)))
    common = [w for w in right if w in left]
    steps = f"{common[0]} is in both." if common else "Nothing is in both."
    return f"A: {join(left)}. B: {join(right)}.", "Do A and B share an entry?", steps, yes(bool(common))
