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
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType

from bridge_edge.data.arithmetic import first_error
from bridge_edge.data.card import normal
from bridge_edge.data.places import STATES
from bridge_edge.data.samples import Check, Sample
from bridge_edge.recipes.legal import names
from bridge_edge.recipes.legal.cases import CAUSES, FIRMS, FORMS, LIMIT, PEOPLE, Case, case_from, draw_case
from bridge_edge.recipes.legal.story import join, tell

PLACE = r"[A-Z][a-z]+(?: [A-Z][a-z]+)?"


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


TAKEN = frozenset((*PEOPLE, *FIRMS, *names.FIRST, *(word for name in STATES for word in name.split())))
OTHERS = names.people(1_200, TAKEN)


class Diversity:
    """The `legal` task; see the module docstring for the rule and its sources."""

    name = "legal"
    alike: Mapping[str, Sequence[str]] = MappingProxyType(
        {
            "people": (*PEOPLE, *OTHERS),
            "firms": (*FIRMS, *names.firms(400, {*TAKEN, *OTHERS})),
            "states": STATES,
            "causes": CAUSES,
        }
    )

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

    def briefs(self, sample: Sample, rng: random.Random) -> list[str]:
        """Parties, states and sums without holding each pair of states against each other; the states alone; what
        decides."""
        case = case_from(sample.facts)
        both = (case.plaintiffs, case.defendants)
        sides = [join([f"{p.name} ({' and '.join(p.states)})" for p in side]) for side in both]
        states = [join(list(dict.fromkeys(s for p in side for s in p.states))) for side in both]
        shared, brief = "No state is on both sides: diverse.", "No shared state."
        if case.shared:
            shared, brief = f"Both sides have {case.shared[0]}: not diverse.", f"Both have {case.shared[0]}."
        sums = [(sum_text(claims), sum(a for _, a in claims)) for _, claims in case.claims]
        told = " ".join(f"{how} ${total:,} is {relation(total)} ${LIMIT:,}.".strip() for how, total in sums)
        most = max(case.totals)
        last = f"${most:,} is {relation(most)} ${LIMIT:,}."
        return [
            f"{sides[0]} against {sides[1]}. {shared} {told}",
            f"{states[0]} against {states[1]}. {shared} {told}",
            f"{shared} {told}",
            f"{brief} {told}",
            f"{brief} {last}",
            brief if case.shared else last,
        ]

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
