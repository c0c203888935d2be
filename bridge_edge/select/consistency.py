"""The confidently wrong items of a pool without labels: easy by every measure, and never put to the teacher.

No measure can find them from the answers alone, since the model that is wrong is also the one that measures. But an
answer given at once can be held against answers that the same model reaches by reasoning: of the easiest quarter of the
pool, `check` items get k sampled rationales (self-consistency, Wang et al., arXiv 2203.11171), and where more than half
of them agree on another answer than the direct one, the item is doubtful. Selection counts doubtful items as hard.

Not covered, and reported as such: an item on which both ways are wrong alike, and every item that was not checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bridge_edge.data.card import normal, parse
from bridge_edge.data.encode import prompt_ids
from bridge_edge.data.samples import Sample
from bridge_edge.progress import Advance
from bridge_edge.select.sampling import draw
from bridge_edge.select.score import Scored, answer_directly, texts

EASY = 0.25


@dataclass(frozen=True)
class Check:
    """How many easy items are checked, by how many replies of at most how many tokens."""

    items: int
    samples: int
    bound: int
    seed: int = 0


def to_check(difficulty: np.ndarray, check: Check) -> list[int]:
    """A random draw of the easiest quarter of the pool, in the order of the pool."""
    easy = np.argsort(difficulty, kind="stable")[: round(EASY * len(difficulty))]
    count = min(check.items, len(easy))
    return sorted(np.random.default_rng(check.seed).choice(easy, count, replace=False).tolist()) if count else []


def majority(answers: Sequence[str | None], of: int) -> str | None:
    """The answer that more than half of all `of` replies gave; what could not be read counts against it."""
    counts = Counter(normal(a) for a in answers if a is not None).most_common(1)
    return counts[0][0] if counts and 2 * counts[0][1] > of else None


def told(report: dict[str, Any], pool: int) -> str:
    """One line for people: without labels, what is known of the answers, and of how many nothing is."""
    return (
        f"no labels: {report['checked']} of {pool} items were checked against sampled rationales, {report['doubtful']} "
        f"are doubtful; whether the other {report['not_checked']} are answered rightly could not be checked"
    )


def doubtful_items(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pool: Sequence[Sample],
    answers: tuple[str, ...],
    scored: Scored,
    check: Check,
    advance: Advance,
) -> tuple[list[int], dict[str, Any]]:
    """The places of the doubtful items, and what was and was not checked."""
    items = to_check(scored.difficulty, check)
    ids = prompt_ids(tokenizer, [pool[i].prompt for i in items])
    if scored.direct is not None:
        direct = [scored.direct[i] for i in items]
    else:
        direct = [said for [said] in texts(tokenizer, answer_directly(model, tokenizer, ids, 1, check.seed, 0.0))]
    ends = frozenset([tokenizer.eos_token_id])
    replies = draw(model, ids, check.samples, check.bound, ends, check.seed, advance=advance)
    doubtful, undecided = [], 0
    for i, said, row in zip(items, direct, replies, strict=True):
        reasoned = [parse(str(tokenizer.decode(r, skip_special_tokens=True)), answers).answer for r in row]
        vote = majority(reasoned, check.samples)
        if vote is None:
            undecided += 1
        elif vote != normal(said):
            doubtful.append(i)
    report = {"checked": len(items), "doubtful": len(doubtful), "undecided": undecided}
    return doubtful, report | {"not_checked": len(pool) - len(items) + undecided}
