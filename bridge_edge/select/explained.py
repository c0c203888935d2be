"""What the assistant misses when it explains itself: the difficulty of items between rounds of selection.

An assistant that has only seen labels answers at chance what takes several steps, and then no measure of its direct
answers foretells what it will miss once it has learnt to explain: on the pools of the shipped domains the loss of the
warmed-up assistant ranks the items that its trained successor misses no better than chance (area under the curve 0.50,
0.49, 0.48; benchmarks/foretold.py). Between rounds the assistant can explain, so a sample of the pool is put to it, as
the annotation will put all of it, and what it misses is what the next round asks.

Difficulty is 1 - p, p being the geometric mean of the probabilities of the rationale's tokens, and one more where the
item is missed: no answer that can be read, a false statement of arithmetic, or another answer than the gold one.
Without labels only the first two show, and the self-consistency check of `consistency.py` finds more.

Not covered: what is wrong with a rationale whose answer and arithmetic are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bridge_edge.data.arithmetic import first_error
from bridge_edge.data.card import normal, parse
from bridge_edge.data.encode import prompt_ids
from bridge_edge.data.samples import Sample
from bridge_edge.generate.engine import generate
from bridge_edge.progress import Advance
from bridge_edge.select.strategies import BY_DIFFICULTY, Candidates, choose

MISSED = 1.0
"""The difficulty from which an item counts as missed."""
ROWS = 64  # prompts decoded at once on each core


@dataclass(frozen=True)
class Explained:
    """Difficulty (n,) in [0, 2), float32, and the answers that were read, "" where there was none."""

    difficulty: np.ndarray
    answers: list[str]

    @property
    def missed(self) -> int:
        return int((self.difficulty >= MISSED).sum())


def draw_rows(pool: int, count: int, seed: int, round_: int) -> np.ndarray:
    """The places of `count` items of the pool, in its order; other ones in every round."""
    return np.sort(np.random.default_rng((seed, round_)).choice(pool, min(count, pool), replace=False))


def is_missed(text: str, gold: str | None, answers: tuple[str, ...]) -> bool:
    """Whether a completion has no answer that can be read, another than the gold one, or states a false sum."""
    answer = parse(text, answers).answer
    return answer is None or (gold is not None and normal(answer) != normal(gold)) or bool(first_error(text))


def explain(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Sample],
    answers: tuple[str, ...],
    bound: int,
    advance: Advance,
) -> Explained:
    """Let the model write on the items, greedily and at most `bound` tokens each, and say how hard that was."""
    ids, ends = prompt_ids(tokenizer, [s.prompt for s in items]), frozenset([tokenizer.eos_token_id])
    hard, said = np.zeros(len(items), dtype=np.float32), [""] * len(items)
    for row in generate(model, ids, bound, ends, ROWS):
        text = str(tokenizer.decode(row.ids, skip_special_tokens=True))
        missed = is_missed(text, items[row.index].answer, answers)
        hard[row.index] = min(-np.expm1(row.logprob), 1 - 1e-6) + missed
        said[row.index] = parse(text, answers).answer or ""
        advance(1, "")
    return Explained(hard, said)


def shortlist(difficulty: np.ndarray, free: np.ndarray, wanted: int, labelled: bool) -> np.ndarray:
    """The places of the free items that are worth asking, in their order: all that were missed, or the hardest where
    fewer were missed than are wanted; without labels, where a miss may not show, twice as many as are wanted."""
    places = np.flatnonzero(free)
    size = max(int((difficulty[places] >= MISSED).sum()), wanted if labelled else 2 * wanted)
    return np.sort(places[np.argsort(-difficulty[places], kind="stable")][:size])


@dataclass(frozen=True)
class Sampled:
    """The items that were explained: their places `rows` (n,) in the pool of `total`, difficulty (n,), embeddings
    (n, d), and the gold answers of the whole pool, None without labels."""

    rows: np.ndarray
    difficulty: np.ndarray
    embeddings: np.ndarray
    gold: Sequence[str | None] | None
    total: int


def choose_missed(
    found: Sampled, wanted: int, strategy: str, alpha: float, trim: float, seed: int, already: Sequence[int]
) -> list[int]:
    """The places in the pool of `wanted` items, none of them asked `already`: of the shortlist by a strategy that looks
    at difficulty, of all that were explained by another. Where those are too few, others are drawn."""
    free = ~np.isin(found.rows, already)
    by_difficulty = strategy in BY_DIFFICULTY
    short = shortlist(found.difficulty, free, wanted, found.gold is not None) if by_difficulty else np.flatnonzero(free)
    rows = found.rows[short]
    groups = [found.gold[i] for i in rows] if found.gold is not None else None
    chosen: list[int] = []
    if len(rows):
        part = Candidates(found.difficulty[short], found.embeddings[short], groups)
        chosen = rows[choose(part, wanted, strategy, alpha, trim, seed)].tolist()
    rest = np.setdiff1d(np.arange(found.total), [*already, *chosen])
    more = np.random.default_rng(seed).permutation(rest)[: max(0, wanted - len(chosen))]
    return chosen + more.tolist()
