"""General skills: the generated corpus on which the embedded base models are pretrained.

What: short documents that exercise what a larger pretrained model already knows: reading, copying, looking up,
comparing, arithmetic with carries, dates, tables, conditions, formulas, counting, instructions of many forms.
Why: a base model that has these skills learns a domain from a few hundred rationales; one that lacks them does not.
Not covered: the domains themselves. Nothing here is about jurisdiction, medicine or company ratios, and a test checks
that no text of a recipe's pool comes out of this module.

Each skill is a function `(rng) -> (context, question, steps, answer)`; `documents(seed)` mixes them, writes them in
several layouts and never ends.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bridge_edge.embedded.skills.drills import comparisons, keyed, sums, verdicts
from bridge_edge.embedded.skills.material import WORDS, Item
from bridge_edge.embedded.skills.numbers import (
    addition,
    compare_symbols,
    cross_compare,
    dates,
    decimal_product,
    division,
    more_or_less,
    multiplication,
    percent,
    subtraction,
    units,
)
from bridge_edge.embedded.skills.problems import accounts, budget, conditions, figures, formula, points, table
from bridge_edge.embedded.skills.reading import compare_places, compare_teams, counting, lookup, roles, words_task
from bridge_edge.embedded.skills.readings import readings, tally
from bridge_edge.embedded.skills.sides import overlap, pairs, sides
from bridge_edge.embedded.skills.years import cells, trends

Skill = Callable[[random.Random], Item]

__all__ = ["SKILLS", "WORDS", "Document", "Item", "Skill", "documents", "draw"]

SKILLS: dict[str, tuple[Skill, float]] = {
    "sides": (sides, 3.0),
    "pairs": (pairs, 2.5),
    "accounts": (accounts, 1.2),
    "overlap": (overlap, 1.0),
    "figures": (figures, 1.0),
    "lookup": (lookup, 0.6),
    "compare_places": (compare_places, 0.8),
    "compare_teams": (compare_teams, 1.2),
    "more_or_less": (more_or_less, 0.6),
    "compare_symbols": (compare_symbols, 0.4),
    "addition": (addition, 1.0),
    "subtraction": (subtraction, 0.8),
    "multiplication": (multiplication, 0.8),
    "decimal_product": (decimal_product, 0.8),
    "division": (division, 0.3),
    "percent": (percent, 0.3),
    "counting": (counting, 0.3),
    "points": (points, 1.0),
    "conditions": (conditions, 0.8),
    "formula": (formula, 0.8),
    "table": (table, 0.6),
    "cross_compare": (cross_compare, 0.6),
    "dates": (dates, 0.3),
    "units": (units, 0.4),
    "words_task": (words_task, 0.8),
    "roles": (roles, 0.6),
    "budget": (budget, 1.2),
    "comparisons": (comparisons, 2.5),
    "sums": (sums, 3.5),
    "verdicts": (verdicts, 1.5),
    "readings": (readings, 5.0),
    "cells": (cells, 4.0),
    "keyed": (keyed, 3.0),
    "trends": (trends, 5.0),
    "tally": (tally, 3.0),
}


@dataclass(frozen=True)
class Document:
    """A prompt, the worked steps (may be empty) and the answer; `chat` says whether the chat template frames it."""

    skill: str
    prompt: str
    steps: str
    answer: str
    chat: bool


def draw(rng: random.Random) -> tuple[str, Item]:
    """One skill by weight, and one item of it."""
    chosen = rng.choices(list(SKILLS), weights=[w for _, w in SKILLS.values()])[0]
    return chosen, SKILLS[chosen][0](rng)


def documents(seed: int, chat_share: float = 0.5, direct_share: float = 0.1) -> Iterator[Document]:
    """An endless stream of documents, the same for the same seed.

    `chat_share` of them are framed by the chat template, the rest are plain text; `direct_share` are answered
    without steps.
    """
    rng = random.Random(seed)
    while True:
        skill, (context, question, steps, answer) = draw(rng)
        layout = rng.randrange(4)
        if not context:
            prompt = question
        elif layout == 0:
            prompt = f"{question}\n{context}"
        elif layout == 1:
            prompt = f"{context}\n{question}"
        else:
            prompt = f"{context} {question}" if "\n" not in context else f"{context}\n{question}"
        if rng.random() < direct_share:
            steps = ""
        yield Document(skill, prompt, steps, answer, rng.random() < chat_share)
