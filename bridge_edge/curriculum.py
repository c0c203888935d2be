"""The student's curriculum: the order of its first epoch, and whether it could do without instruction alignment.

What: `tutor.order` orders the first epoch, later ones are shuffled, so that the student meets all of the pool in every
order but the first time. easy-to-hard goes by the assistant's loss on the rationale that it wrote (its mean
log-probability, kept with each decision of the annotation); short-to-long by the tokens that are learnt. Items that the
assistant has no surviving rationale for, the teacher's own among them, are the hardest by that measure and come last.
Why: Bengio et al. (ICML 2009); a model of few parameters is thrown less by its first steps. Whether it helps is a
question for the data, hence the default of shuffling.
Not covered: pacing functions, orders in later epochs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from bridge_edge.train.batches import PROMPT, Encoded

SHUFFLED, EASY, SHORT = "shuffled", "easy-to-hard", "short-to-long"
DECISIONS = "decisions.jsonl"
PARSE_FAILURES = 0.05  # of the dev answers, above which a student that was not aligned should have been

T = TypeVar("T")


def easy_first(samples: Sequence[Sample], annotated: Path) -> list[Sample]:
    """The samples by the assistant's loss on what it wrote on them, as the annotation stage left it."""
    losses: dict[str, float] = {}
    path = annotated / DECISIONS
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        record: dict[str, Any] = json.loads(line)
        if not record.get("kept", True):
            continue
        if record["logprob"] is None:
            raise UserError(
                f"tutor.order={EASY} needs the assistant's log-probabilities, which its engine did not report",
                f"set tutor.order={SHORT}, or annotate with another engine (annotate.engine)",
            )
        losses[record["id"]] = -record["logprob"]
    return sorted(samples, key=lambda s: losses.get(s.id, float("inf")))  # stable: equals stay as they were


def short_first(examples: Sequence[Encoded]) -> list[Encoded]:
    """The examples by the number of tokens that are learnt."""
    return sorted(examples, key=lambda e: int((e.segments != PROMPT).sum()))


def spread(main: Sequence[T], extra: Sequence[T]) -> list[T]:
    """`main` in its order, with `extra` spread evenly among it."""
    found: list[T] = []
    for place, one in enumerate(main, 1):
        found.append(one)
        found += extra[(place - 1) * len(extra) // len(main) : place * len(extra) // len(main)]
    return found


def alignment_note(parse_failures: float) -> str:
    """What to say of a student that was not aligned, given the share of its dev answers that cannot be read."""
    if parse_failures <= PARSE_FAILURES:
        return ""
    return (
        f"{parse_failures:.1%} of the student's dev answers cannot be read, and it was not aligned; "
        "align.enabled=true (with align.epochs above 0) teaches it to follow instructions first"
    )
