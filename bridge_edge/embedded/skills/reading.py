"""Skills of reading: looking up, comparing homes and teams, who does what to whom, instructions on words."""

from __future__ import annotations

import random

from bridge_edge.embedded.skills.material import (
    COLORS,
    JOBS,
    LIVES,
    THINGS,
    WORDS,
    Item,
    few_places,
    join,
    magnitude,
    names,
    place,
    thousands,
    with_noise,
    word,
    yes,
)


def lookup(rng: random.Random) -> Item:
    people = names(rng, rng.randint(2, 5))
    kind = rng.randrange(4)
    if kind == 0:
        values = few_places(rng, len(people))
        form = rng.choice(LIVES)
        asked, fact = "Where is {} from?", "{} is from {}."
    elif kind == 1:
        values = [rng.choice(JOBS) for _ in people]
        form, asked, fact = "{} works as a {}.", "What is the job of {}?", "{} works as a {}."
    elif kind == 2:
        values = [rng.choice(COLORS) for _ in people]
        form, asked, fact = "{} has a {} car.", "What color is the car of {}?", "The car of {} is {}."
    else:
        values = [f"{magnitude(rng)} {rng.choice(THINGS)}" for _ in people]
        form, asked, fact = "{} has {}.", "What does {} have?", "{} has {}."
    i = rng.randrange(len(people))
    context = with_noise(rng, [form.format(p, v) for p, v in zip(people, values, strict=True)])
    return context, asked.format(people[i]), fact.format(people[i], values[i]), values[i]


def compare_places(rng: random.Random) -> Item:
    people = names(rng, rng.randint(2, 5))
    homes = few_places(rng, len(people))
    form = rng.choice(LIVES)
    context = with_noise(rng, [form.format(p, h) for p, h in zip(people, homes, strict=True)])
    i, j = rng.sample(range(len(people)), 2)
    same = homes[i] == homes[j]
    question = rng.choice(
        ("Are {} and {} from the same place?", "Do {} and {} share a home?", "Is the home of {} also that of {}?")
    )
    relation = "the same place" if same else "different places"
    steps = rng.choice(
        (
            f"{people[i]} is from {homes[i]} and {people[j]} is from {homes[j]}. These are {relation}.",
            f"{people[i]}: {homes[i]}. {people[j]}: {homes[j]}. {homes[i]} and {homes[j]} are {relation}.",
        )
    )
    return context, question.format(people[i], people[j]), steps, yes(same)


def compare_teams(rng: random.Random) -> Item:
    """Does any member of one group share a property with any member of another?"""
    left, right = rng.randint(1, 3), rng.randint(1, 3)
    people = names(rng, left + right)
    homes = few_places(rng, left + right)
    form = rng.choice(LIVES)
    sentences = [form.format(p, h) for p, h in zip(people, homes, strict=True)]
    rng.shuffle(sentences)
    one, two = rng.choice(
        (("The red team", "The blue team"), ("Group A", "Group B"), ("The first table", "The second table"))
    )
    verb = rng.choice(("is", "has", "consists of"))
    sentences += [f"{one} {verb} {join(people[:left])}.", f"{two} {verb} {join(people[left:])}."]
    shared = [h for h in homes[:left] if h in homes[left:]]
    parts = [f"{one}: {join([f'{p} ({h})' for p, h in zip(people[:left], homes[:left], strict=True)])}."]
    parts.append(f"{two}: {join([f'{p} ({h})' for p, h in zip(people[left:], homes[left:], strict=True)])}.")
    parts.append(f"Both have {shared[0]}." if shared else "No place is on both sides.")
    question = rng.choice(
        ("Do the two sides share any place?", "Is someone on one side from the same place as someone on the other?")
    )
    return with_noise(rng, sentences), question, " ".join(parts), yes(bool(shared))


def counting(rng: random.Random) -> Item:
    target = rng.choice(COLORS)
    listed = [rng.choice((target, rng.choice(COLORS))) for _ in range(rng.randint(3, 9))]
    hits = [c for c in listed if c == target]
    steps = f"{', '.join(f'{c} {i + 1}' for i, c in enumerate(hits))}." if hits else f"There is no {target}."
    return f"The list: {', '.join(listed)}.", f"How many times does {target} occur?", steps, str(len(hits))


def words_task(rng: random.Random) -> Item:
    made_up = rng.random() < 0.35
    listed = [word(rng) for _ in range(rng.randint(2, 6))] if made_up else rng.sample(WORDS, rng.randint(2, 7))
    text = ", ".join(listed)
    kind = rng.randrange(6)
    if kind == 0:
        return "", f"Repeat: {text}", "", text
    if kind == 1:
        return "", f"Write in reverse order: {text}", "", ", ".join(reversed(listed))
    if kind == 2:
        return "", f"Write in alphabetical order: {text}", "", ", ".join(sorted(listed))
    if kind == 3:
        i = rng.randrange(len(listed))
        ordinal = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")[i]
        return "", f"Which word is the {ordinal} of these? {text}", f"The {ordinal} word is {listed[i]}.", listed[i]
    if kind == 4:
        probe = rng.choice((rng.choice(listed), word(rng) if made_up else rng.choice(WORDS)))
        return (
            "",
            f"Is {probe} among these? {text}",
            f"{probe} is {'' if probe in listed else 'not '}in the list.",
            yes(probe in listed),
        )
    return (
        "",
        f"How many words are there? {text}",
        f"{', '.join(f'{w} {i + 1}' for i, w in enumerate(listed))}.",
        str(len(listed)),
    )


def roles(rng: random.Random) -> Item:
    """Who does what to whom, in several phrasings, with several people on either side."""
    left, right = rng.randint(1, 3), rng.randint(1, 3)
    people = names(rng, left + right)
    verb, agent, patient = rng.choice(
        (
            ("calls", "caller", "called"),
            ("teaches", "teacher", "pupil"),
            ("pays", "payer", "paid"),
            ("invites", "host", "guest"),
            ("visits", "visitor", "visited"),
        )
    )
    givers, takers = people[:left], people[left:]
    amount = f"${thousands(rng):,}"
    topic = " ".join(rng.sample(WORDS, rng.randint(1, 2)))
    other = "them" if right > 1 else "the other"
    text = rng.choice(
        (
            f"{join(givers)} {verb} {join(takers)} about {topic} for {amount}.",
            f"{join(takers)} met {join(givers)}, who {verb} {other} over {topic} and {amount}.",
            f"For {amount}, {join(givers)} {verb} {join(takers)} in {place(rng)}.",
        )
    )
    kind = rng.randrange(3)
    steps = f"{agent.capitalize()}: {join(givers)}. {patient.capitalize()}: {join(takers)}. Amount: {amount}."
    answer = (join(givers), join(takers), amount)[kind]
    asked = (f"Who is on the side of the {agent}?", f"Who is on the side of the {patient}?", "What is the amount?")[
        kind
    ]
    return with_noise(rng, [text]), asked, steps, answer
