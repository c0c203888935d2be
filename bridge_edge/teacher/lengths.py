"""A teacher that says its reasoning at several lengths in one reply (`reasoning.compress=teacher`).

What: `wish` is the part of the prompt that asks for it, `fields` the same for JSON, `split` takes a reply's rationale
apart. A shorter rationale is a line of its own, behind the whole one and before the answer:

    Within 32 tokens: No shared state. $90,000 is more than $75,000.

Why: one reply holds one answer, so all lengths argue for the same one, an item stays one query, and the ledger needs no
second kind of question (BARD, arXiv 2511.01470, has its teacher compress; that it is done in the same reply is ours).
A teacher counts other tokens than the student, so it is told words: as many as would fill the budget if the student's
tokenizer made as many tokens of each as of the question's, less what `AIM` leaves free. What does not fit after all is
found out by that tokenizer.
Not covered: telling a teacher which of its rationales were too long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bridge_edge.data.card import ANSWER
from bridge_edge.data.thinking import AIM, counter, fits
from bridge_edge.recipe import Recipe

MARK = "Within {budget} tokens:"
Words = Mapping[int, int]
"""Budgets of tokens, each with the words that a teacher is to stay within."""
_LINE = re.compile(r"^[ \t>*-]*Within (\d{1,5}) tokens:[ \t*]*(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Shorter:
    """The budgets, and how the student counts a rationale."""

    budgets: tuple[int, ...]
    count: Callable[[str], int]

    def words(self, question: str) -> dict[int, int]:
        """The words of each budget, by what `count` makes of a question."""
        each = max(1.0, self.count(question) / max(1, len(question.split())))
        return {b: max(1, int(AIM * b / each)) for b in self.budgets}

    def fits(self, text: str, budget: int) -> bool:
        """Whether a rationale teaches this budget (see `data.thinking.fits`)."""
        return fits(self.count(text), budget)

    def chosen(self, texts: Sequence[str]) -> dict[int, str]:
        """What a teacher that counts so says: of `texts` the longest that keeps to each budget, with room where one
        does; the longest budget first."""
        sizes = {text: self.count(text) for text in texts}
        found = {}
        for budget in sorted(self.budgets, reverse=True):
            fitting = next(filter(None, ([t for t in texts if sizes[t] <= r] for r in (AIM * budget, budget))), [])
            if fitting:
                found[budget] = max(fitting, key=lambda text: sizes[text])
        return found


def at_budgets(recipe: Recipe) -> Shorter | None:
    """The budgets that the recipe's teacher is asked for, as the student counts; None where it is asked for none."""
    from bridge_edge.train.models import load_tokenizer

    budgets = recipe.reasoning.asked
    return Shorter(budgets, counter(load_tokenizer(recipe.ta.model))) if budgets else None


def wish(words: Words) -> str:
    """What asks for the shorter rationales; "" where there are none."""
    if not words:
        return ""
    lines = "; ".join(f"'{MARK.format(budget=b)} ...' of at most {words[b]} words" for b in sorted(words, reverse=True))
    return (
        f"After the reasoning write it again, shorter, on one line for each limit: {lines}. Each of these lines must "
        "lead to the answer by itself, with the facts and sums that decide it first and without naming the answer."
    )


def field_of(budget: int) -> str:
    return f"within_{budget}_tokens"


def fields(budgets: Iterable[int]) -> dict[str, dict[str, str]]:
    """The fields of a JSON reply for the shorter rationales, the longest first. The words of each differ from question
    to question, so the prompt says them."""
    return {
        field_of(b): {"type": "string", "description": f"what is asked for as '{MARK.format(budget=b)}', on one line"}
        for b in sorted(budgets, reverse=True)
    }


def join(rationale: str, shorter: Mapping[int, str]) -> str:
    """A rationale and the shorter ones as one text, which `split` takes apart."""
    lines = (f"{MARK.format(budget=b)} {' '.join(text.split())}" for b, text in shorter.items())
    return "\n".join([rationale.strip(), *lines])


def split(text: str, budgets: Iterable[int]) -> tuple[str, dict[int, str]]:
    """The rationale before the first such line, and the text of each line that names one of `budgets` (of two with the
    same budget the first). An answer that is said before its place is left out."""
    wanted = set(budgets)
    found = [m for m in _LINE.finditer(text) if int(m[1]) in wanted]
    shorter: dict[int, str] = {}
    for match in found:
        if said := match[2].partition(ANSWER)[0].strip():
            shorter.setdefault(int(match[1]), said)
    if not found:
        return text.strip(), {}
    whole = text[: found[0].start()].strip()
    head, _, last = whole.rpartition("\n")
    return (head.strip() if last.lstrip().startswith(ANSWER) else whole), shorter
