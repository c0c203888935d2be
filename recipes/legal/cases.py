"""The cases of the legal domain: who sues whom for what, drawn at random, with the exact answer.

What: parties with their states of citizenship, claims by groups of defendants, and the rule itself (`Case.answer`).
Why: the facts are drawn first and told afterwards (`story.py`), so the answer never depends on the wording.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from bridge_edge.data.places import STATES

LIMIT = 75_000
PEOPLE = """
James Mary Robert Patricia John Jennifer Michael Linda David Elizabeth William Barbara Richard Susan
Joseph Jessica Thomas Sarah Charles Karen Daniel Nancy Matthew Sandra Mark Ashley Steven Emily
Andrew Donna Paul Michelle Joshua Carol Kevin Amanda Brian Melissa George Deborah Timothy Stephanie
Ronald Rebecca Edward Laura Jason Sharon Jeffrey Cynthia Ryan Kathleen Jacob Amy Nicholas Angela
Gary Anna Eric Ruth Stephen Brenda Emma Olivia Noah Liam Sophia Ava Mia Lucas Henry Amelia Harper
Evelyn Elijah Theodore Benjamin Charlotte Isabella Oliver Maya Priya Diego Wei Omar Fatima Ravi
Sofia Hugo Ingrid Pedro Aisha Kofi Yuki Elena Marcus Nadia Tobias Greta Felix Clara Simon Iris
""".split()
CAUSES = """negligence;defamation;trespass;breach of contract;medical malpractice;legal malpractice;wrongful eviction;
copyright infringement;patent infringement;trademark infringement;securities fraud;fraud;battery;conversion;
unpaid wages;product liability;nuisance;breach of warranty""".replace("\n", "").split(";")
FIRMS = """
Acme Northwind Bluebird Redwood Summit Harbor Lakeside Ironwood Silverline Pioneer Granite Evergreen
Crescent Meridian Beacon Cobalt Juniper Falcon Orchard Sterling
""".split()
FORMS = ("Corporation", "Inc.", "Company", "Industries")


@dataclass(frozen=True)
class Party:
    """A person (one state) or a corporation (state of incorporation, then principal place of business)."""

    name: str
    states: tuple[str, ...]


# ((indices of defendants), ((cause, dollars), ...)) for each group
Claims = tuple[tuple[tuple[int, ...], tuple[tuple[str, int], ...]], ...]


@dataclass(frozen=True)
class Case:
    """Parties of both sides and, for each group of defendants sued together, the claims every one of them faces."""

    plaintiffs: tuple[Party, ...]
    defendants: tuple[Party, ...]
    claims: Claims

    @property
    def shared(self) -> list[str]:
        """States found on both sides, in the order of the defendants."""
        left = {s for p in self.plaintiffs for s in p.states}
        return list(dict.fromkeys(s for d in self.defendants for s in d.states if s in left))

    @property
    def totals(self) -> list[int]:
        return [sum(amount for _, amount in claims) for _, claims in self.claims]

    @property
    def answer(self) -> str:
        return "Yes" if not self.shared and max(self.totals) > LIMIT else "No"


def case_from(facts: dict[str, Any]) -> Case:
    """The case stored in a sample's facts (JSON turns tuples into lists)."""
    sides = [tuple(Party(p["name"], tuple(p["states"])) for p in facts[side]) for side in ("plaintiffs", "defendants")]
    claims = tuple((tuple(who), tuple((c, a) for c, a in each)) for who, each in facts["claims"])
    return Case(sides[0], sides[1], claims)


def draw_amount(rng: random.Random) -> int:
    roll = rng.random()
    if roll < 0.4:
        return rng.randint(1, 99) * 1000
    if roll < 0.55:
        return rng.choice((70, 72, 74, 75, 75, 76, 78, 80)) * 1000
    if roll < 0.75:
        return rng.randint(100, 999) * 1000
    return rng.randint(1000, 9999) * 1000


def draw_claims(rng: random.Random, k: int) -> tuple[tuple[str, int], ...]:
    causes = rng.sample(CAUSES, k)
    amounts = [rng.randint(1, 99) * 1000 if k > 1 else draw_amount(rng) for _ in causes]
    if k == 2 and rng.random() < 0.3:  # totals around the limit, where carrying matters
        amounts[1] = max(1000, LIMIT + rng.randint(-6, 6) * 1000 - amounts[0])
    return tuple(zip(causes, amounts, strict=True))


def draw_case(rng: random.Random) -> Case:
    left = rng.choice((1, 1, 1, 1, 2, 2, 2, 2, 2, 3))
    right = rng.choice((1, 1, 1, 1, 2, 2, 2, 3)) if left == 1 else rng.choice((1, 1, 1, 1, 1, 2))
    firms = rng.random() < 0.14
    people = rng.sample(PEOPLE, left + right)
    companies = rng.sample(FIRMS, left + right)
    shared = rng.random() < 0.36
    states = rng.sample(STATES, 2 * (left + right))
    parties = []
    for i in range(left + right):
        if firms and rng.random() < 0.5:
            pair = (states[2 * i], states[2 * i + 1] if rng.random() < 0.8 else states[2 * i])
            parties.append(Party(f"{companies[i]} {rng.choice(FORMS)}", tuple(dict.fromkeys(pair))))
        else:
            parties.append(Party(people[i], (states[2 * i],)))
    if rng.random() < 0.15 and left > 1:  # two parties of one side from one state: harmless, so a trap
        parties[1] = Party(parties[1].name, (parties[0].states[0],))
    if shared:
        i, j = rng.randrange(left), left + rng.randrange(right)
        common = rng.choice(parties[i].states)
        others = tuple(s for s in parties[j].states[1:] if s != common)
        parties[j] = Party(parties[j].name, (common, *others) if rng.random() < 0.5 else (*others, common))
    if right == 2 and rng.random() < 0.2:
        high = rng.random() < 0.5
        claims: Claims = tuple(((i,), _separate(rng, high)) for i in range(right))
    else:
        claims = ((tuple(range(right)), draw_claims(rng, rng.choice((1, 1, 1, 1, 2, 2, 2, 2, 3)))),)
    return Case(tuple(parties[:left]), tuple(parties[left:]), claims)


def _separate(rng: random.Random, high: bool) -> tuple[tuple[str, int], ...]:
    """Claims against one of several defendants, whose total lies on the asked side of the limit."""
    while True:
        claims = draw_claims(rng, rng.choice((1, 2)))
        if (sum(a for _, a in claims) > LIMIT) == high:
            return claims
