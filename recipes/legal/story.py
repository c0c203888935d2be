"""The cases of the legal domain told as fact patterns, in varied wording and with sentences that do not matter."""

from __future__ import annotations

import random

from bridge_edge.data.places import STATES
from bridge_edge.recipes.legal.cases import FORMS, PEOPLE, Case, Party

QUESTION = "Is there diversity jurisdiction?"
HOMES = (
    "{} is from {}.",
    "{} is from {}.",
    "{} is from {}.",
    "{} is a citizen of {}.",
    "{} is domiciled in {}.",
    "{}, a citizen of {}, is a party.",
)
INCORPORATED = (
    "{} is incorporated in {} and has its principal place of business in {}.",
    "{}, a corporation, is incorporated in {} with its headquarters in {}.",
)
DISTRACTORS = (
    "The events took place in {}.",
    "A witness, {}, lives in {}.",
    "The judge once practised in {}.",
    "The contract was signed in {}.",
    "{} once went to college in {}.",
    "The accident was reported in {}.",
)


def join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def tell_party(rng: random.Random, party: Party, form: str, firm_form: str) -> str:
    if len(party.states) == 2:
        return firm_form.format(party.name, *party.states)
    if party.name.split()[-1] in FORMS:
        return firm_form.format(party.name, party.states[0], party.states[0])
    return form.format(party.name, party.states[0])


def tell_claims(rng: random.Random, case: Case) -> list[str]:
    left = [p.name for p in case.plaintiffs]
    both = {1: "", 2: " both"}.get(len(left), " all")
    verb = "sues" if len(left) == 1 else "sue"
    style = rng.random()
    sentences = []
    for who, claims in case.claims:
        right = [case.defendants[i].name for i in who]
        each = " each" if len(right) > 1 else ""
        listed = [f"{cause} for ${amount:,}" for cause, amount in claims]
        if style < 0.76:
            sentences.append(f"{join(left)}{both} {verb} {join(right)}{each} for {join(listed)}.")
        elif style < 0.85:
            sums = join([f"${a:,} for {c}" for c, a in claims])
            sentences.append(f"{join(left)}{both} {verb} {join(right)}{each}, claiming {sums}.")
        elif style < 0.93:
            sums = join([f"${a:,} for {c}" for c, a in claims]) + (" from each" if each else "")
            claim = "claims" if len(left) == 1 else "each claim"
            sentences.append(f"In a suit against {join(right)}, {join(left)} {claim} {sums}.")
        else:
            sentences.append(
                f"{join(right)} {'is' if len(right) == 1 else 'are each'} sued by {join(left)} for {join(listed)}."
            )
    return sentences


def tell(rng: random.Random, case: Case) -> str:
    """The fact pattern as text, ending in the question."""
    form, firm_form = rng.choice(HOMES), rng.choice(INCORPORATED)
    sentences = [tell_party(rng, p, form, firm_form) for p in case.plaintiffs + case.defendants]
    if rng.random() < 0.15:
        rng.shuffle(sentences)
    if rng.random() < 0.2:
        template = rng.choice(DISTRACTORS)
        filler = [rng.choice(PEOPLE), rng.choice(STATES)] if template.count("{}") == 2 else [rng.choice(STATES)]
        used = {p.name for p in case.plaintiffs + case.defendants}
        if filler[0] not in used:
            sentences.insert(rng.randint(0, len(sentences)), template.format(*filler))
    told = tell_claims(rng, case)
    sentences = told + sentences if rng.random() < 0.08 else sentences + told
    return f"{' '.join(sentences)} {QUESTION}"
