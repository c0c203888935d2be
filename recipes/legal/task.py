"""Diversity jurisdiction (28 U.S.C. 1332): fact patterns with an exact answer, a checker and an embedded expert.

The rule, as it is public: federal courts hear a case between citizens of different states when diversity is complete
(no plaintiff shares a state of citizenship with any defendant; 28 U.S.C. 1332(a)(1), Strawbridge v. Curtiss, 7 U.S.
267) and the amount in controversy exceeds $75,000. A corporation is a citizen of its state of incorporation and of
its principal place of business (1332(c)(1)). One plaintiff's claims against one defendant are added up; claims
against different defendants are not (Snyder v. Harris, 394 U.S. 332); where several defendants face claims of their
own, one sufficient total carries the rest (28 U.S.C. 1367, Exxon v. Allapattah, 545 U.S. 546).

The patterns follow the public LegalBench diversity tasks (arXiv 2308.11462) in style and go beyond them: paraphrases,
corporations with two citizenships, distractors. Not covered: aliens, legal certainty, removal, class actions.
"""

from __future__ import annotations

import random
import re
from dataclasses import asdict, dataclass
from typing import Any

from bridge_edge.data.arithmetic import first_error
from bridge_edge.data.card import normal
from bridge_edge.data.samples import Check, Sample

PLACE = r"[A-Z][a-z]+(?: [A-Z][a-z]+)?"
QUESTION = "Is there diversity jurisdiction?"
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
STATES = """
Alabama Alaska Arizona Arkansas California Colorado Connecticut Delaware Florida Georgia Hawaii
Idaho Illinois Indiana Iowa Kansas Kentucky Louisiana Maine Maryland Massachusetts Michigan
Minnesota Mississippi Missouri Montana Nebraska Nevada Ohio Oklahoma Oregon Pennsylvania Tennessee
Texas Utah Vermont Virginia Washington Wisconsin Wyoming
""".split()
STATES += [
    "New York",
    "New Jersey",
    "New Mexico",
    "New Hampshire",
    "North Carolina",
    "South Carolina",
    "North Dakota",
    "South Dakota",
    "West Virginia",
    "Rhode Island",
]
CAUSES = """negligence;defamation;trespass;breach of contract;medical malpractice;legal malpractice;wrongful eviction;
copyright infringement;patent infringement;trademark infringement;securities fraud;fraud;battery;conversion;
unpaid wages;product liability;nuisance;breach of warranty""".replace("\n", "").split(";")
FIRMS = """
Acme Northwind Bluebird Redwood Summit Harbor Lakeside Ironwood Silverline Pioneer Granite Evergreen
Crescent Meridian Beacon Cobalt Juniper Falcon Orchard Sterling
""".split()
FORMS = ("Corporation", "Inc.", "Company", "Industries")
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


def join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


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


def kind_of(case: Case) -> str:
    if any(p.name.split()[-1] in FORMS for p in case.plaintiffs + case.defendants):
        return "corporation"
    if len(case.claims) > 1:
        return "separate claims"
    several = len(case.plaintiffs) > 1, len(case.defendants) > 1, len(case.claims[0][1]) > 1
    names = [n for n, flag in zip(("plaintiffs", "defendants", "claims"), several, strict=True) if flag]
    return "several " + " and ".join(names) if names else "simple"


def sum_text(claims: tuple[tuple[str, int], ...]) -> str:
    """Running total of the claims, one addition a step."""
    total, steps = claims[0][1], []
    for _, amount in claims[1:]:
        steps.append(f"${total:,} + ${amount:,} = ${total + amount:,}.")
        total += amount
    return " ".join(steps)


def relation(total: int) -> str:
    return "more than" if total > LIMIT else "less than" if total < LIMIT else "equal to"


def compared(case: Case) -> list[str]:
    """Each defendant's states held against each plaintiff's, up to the first match: one small judgement a step."""
    steps = []
    mine = list(dict.fromkeys(s for p in case.plaintiffs for s in p.states))
    for theirs in dict.fromkeys(s for d in case.defendants for s in d.states):
        for state in mine:
            steps.append(f"{state} and {theirs} {'match' if state == theirs else 'differ'}.")
            if state == theirs:
                return steps
    return steps


class Diversity:
    """The `legal` task; see the module docstring for the rule and its sources."""

    name = "legal"

    def generate(self, n: int, seed: int) -> list[Sample]:
        rng = random.Random(f"legal-{seed}")
        found: dict[str, Sample] = {}
        while len(found) < n:
            case = draw_case(rng)
            prompt = tell(rng, case)
            found.setdefault(prompt, Sample(prompt, case.answer, kind=kind_of(case), facts=asdict(case)))
        return list(found.values())

    def expert(self, sample: Sample, rng: random.Random) -> tuple[str, str]:
        case = case_from(sample.facts)
        left = join([f"{p.name} ({' and '.join(p.states)})" for p in case.plaintiffs])
        right = join([f"{p.name} ({' and '.join(p.states)})" for p in case.defendants])
        style = rng.randrange(3)
        one = "Plaintiff" if len(case.plaintiffs) == 1 else "Plaintiffs"
        two = "Defendant" if len(case.defendants) == 1 else "Defendants"
        parts = [
            (
                f"{one}: {left}. {two}: {right}.",
                f"{left} against {right}.",
                f"On one side {left}, on the other {right}.",
            )[style]
        ]
        parts += compared(case)
        if case.shared:
            both = case.shared[0]
            parts.append(
                (
                    f"Both sides have {both}: not diverse.",
                    f"Both have {both}, so diversity fails.",
                    f"{both} is on both sides: not diverse.",
                )[style]
            )
        else:
            parts.append(
                (
                    "No state is on both sides: diverse.",
                    "No shared state, so diversity holds.",
                    "No state is on both sides: diverse.",
                )[style]
            )
        for _, claims in case.claims:
            total = sum(a for _, a in claims)
            if len(claims) > 1:
                parts.append(sum_text(claims))
            parts.append(f"${total:,} is {relation(total)} ${LIMIT:,}.")
        return " ".join(parts), case.answer

    def check(self, sample: Sample, rationale: str, answer: str) -> Check:
        case = case_from(sample.facts)
        right = normal(answer) == normal(case.answer)
        problem = first_error(rationale) or self._parties_problem(case, rationale) or self._law_problem(case, rationale)
        return Check(right, not problem, problem)

    @staticmethod
    def _parties_problem(case: Case, rationale: str) -> str:
        for party in case.plaintiffs + case.defendants:
            wanted = f"{party.name} ({' and '.join(party.states)})"
            if wanted not in rationale:
                return f"the citizenship of {party.name} is not stated as {' and '.join(party.states)}"
        places = [[rationale.index(f"{p.name} (") for p in side] for side in (case.plaintiffs, case.defendants)]
        return "" if max(places[0]) < min(places[1]) else "the plaintiffs are not named before the defendants"

    @staticmethod
    def _law_problem(case: Case, rationale: str) -> str:
        denies = bool(re.search(r"\bNo (?:shared )?state\b", rationale))
        fails = bool(re.search(r"\bnot diverse\b|\bdiversity fails\b", rationale))
        holds = bool(re.search(r"(?<!\bnot )\bdiverse\b|\bdiversity holds\b", rationale))
        if denies == bool(case.shared) or (holds if case.shared else fails):
            return f"shared states are {case.shared or 'none'}"
        for one, other, verdict in re.findall(rf"({PLACE}) and ({PLACE}) (differ|match)\b", rationale):
            if (one == other) != (verdict == "match"):
                return f"{one} and {other} do not {verdict}"
        named = re.search(
            r"Both (?:sides )?have ([A-Z][A-Za-z ]*?)[,:.]|([A-Z][A-Za-z ]*?) is on both sides", rationale
        )
        if case.shared and named and (named.group(1) or named.group(2)).strip() not in case.shared:
            return f"{(named.group(1) or named.group(2)).strip()} is not shared"
        for total in case.totals:
            if f"${total:,} is {relation(total)} ${LIMIT:,}" not in rationale:
                return f"the total ${total:,} is not compared with ${LIMIT:,}"
        return ""


TASK = Diversity()
