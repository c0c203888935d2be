"""Drafts: what the assistant wrote on an item, whichever engine it ran in, and the choice among several.

What: an engine (`Writer`) turns items into `Draft`s; of k drafts of one item a vote picks the answer and the drafts
that argue for it (self-consistency, Wang et al., arXiv 2203.11171). Where the gold answer is known and some draft hit
it, those drafts win whatever the majority said; the agreement is recorded all the same.
Not covered: weighing votes by their probability, which needs engines that report it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bridge_edge.data.arithmetic import first_error
from bridge_edge.data.card import Parsed, normal, parse
from bridge_edge.data.samples import Sample
from bridge_edge.progress import Advance


@dataclass(frozen=True)
class Draft:
    """One completion of an item. `logprob` is the mean log-probability of its tokens at temperature 1, None where the
    engine does not say; `ended` whether it ended itself and not at the bound."""

    text: str
    tokens: int
    logprob: float | None
    ended: bool
    sample: int = 0

    def record(self, item: str) -> dict[str, Any]:
        """One line of the stage's raw file; the number of the sample is left out where there is one only."""
        known = {"logprob": self.logprob, "ended": self.ended, "tokens": self.tokens}
        return {"id": item, "text": self.text, **known, **({"sample": self.sample} if self.sample else {})}

    @staticmethod
    def of(record: dict[str, Any]) -> Draft:
        return Draft(record["text"], record["tokens"], record["logprob"], record["ended"], record.get("sample", 0))


@dataclass(frozen=True)
class Wish:
    """What an engine is asked for: `samples` drafts of at most `bound` tokens; temperature 0 is greedy decoding."""

    bound: int
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0

    def entropy(self, item: Sample) -> tuple[int, int]:
        """Where the random numbers of an item come from: the seed and the item itself, not its place in the pool."""
        return self.seed, int(item.id, 16)


class Writer(Protocol):
    """An engine with the assistant loaded."""

    def write(self, items: Sequence[Sample], advance: Advance) -> Iterator[tuple[int, Draft]]:
        """The drafts of all `items` with the places of their items, in any order; `advance` counts finished items."""

    def close(self) -> None:
        """Free the model."""


@dataclass(frozen=True)
class Candidate:
    """A draft that can be read: what it says, and the first false statement of arithmetic in it, or "". Of several
    tellings `accord` is how far the others bear it out, between 0 and 1 (`tellings.py`)."""

    draft: Draft
    parsed: Parsed
    false: str = ""
    accord: float | None = None

    @property
    def sureness(self) -> float:
        return float("-inf") if self.draft.logprob is None else self.draft.logprob


@dataclass(frozen=True)
class Verdict:
    """The vote on one item: the drafts for the winning answer, best first, and how the readable drafts divided.

    `agreement` is the winner's share of all drafts, unreadable ones included; `by` says what decided ("gold" or
    "majority")."""

    candidates: tuple[Candidate, ...]
    votes: dict[str, int]
    agreement: float
    by: str


def vote(drafts: Sequence[Draft], answers: tuple[str, ...], gold: str | None) -> Verdict:
    """Read the drafts of one item and choose its answer; no candidates where none could be read or was finished."""
    read = [(d, parse(d.text, answers)) for d in sorted(drafts, key=lambda d: d.sample)]
    usable = [(d, p) for d, p in read if d.ended and p.answer is not None]
    votes = Counter(normal(p.answer or "") for _, p in usable)
    if not votes:
        return Verdict((), {}, 0.0, "majority")
    right = gold is not None and normal(gold) in votes
    winner = normal(gold or "") if right else votes.most_common(1)[0][0]  # of equals the one that was said first
    found = [Candidate(d, p, first_error(p.rationale)) for d, p in usable if normal(p.answer or "") == winner]
    found.sort(key=lambda c: (bool(c.false), -c.sureness, c.draft.sample))
    return Verdict(tuple(found), dict(votes), votes[winner] / len(drafts), "gold" if right else "majority")
