"""Score completions against gold answers, and run a runtime over samples to get them.

The metrics are pure functions of (samples, completions); a completion whose answer cannot be read counts as wrong and
is reported as a parse failure too, so that a model cannot gain by staying silent. Intervals: Wilson's score interval
for one accuracy, Newcombe's (1998, method 10) for the difference of two on the same items, with the exact McNemar
test. Not covered: scoring by likelihood, partial credit, judging the rationale's steps (a task's `check` does that).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from bridge_edge.data.card import Card, normal, parse
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from bridge_edge.plain import grid
from bridge_edge.runtimes.base import Runtime

Z95 = NormalDist().inv_cdf(0.975)
BATCH = 32
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Record:
    """One scored item; `prediction` is None where no answer could be read."""

    id: str
    kind: str
    gold: str
    prediction: str | None
    correct: bool
    parsed: bool
    completion_tokens: int | None = None


@dataclass(frozen=True)
class Scores:
    """Metrics of one set of items. `majority` is the accuracy of always giving the most frequent gold answer;
    `balanced_accuracy` is the mean recall over the gold answers that occur. `records` hold the items themselves."""

    n: int
    accuracy: float
    ci95: tuple[float, float]
    balanced_accuracy: float
    majority: float
    parse_failure_rate: float
    mean_completion_tokens: float | None
    per_task: dict[str, Scores] = field(default_factory=dict)
    records: tuple[Record, ...] = field(default=(), repr=False)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion; unlike the normal one it stays inside [0, 1]."""
    p, z2 = hits / n, Z95 * Z95
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # At the ends the bounds are exactly 0 and 1; floating point leaves them a hair off.
    return (0.0 if hits == 0 else centre - half, 1.0 if hits == n else centre + half)


def score(
    samples: Sequence[Sample],
    completions: Sequence[str],
    answers: Sequence[str] = (),
    tokens: Sequence[int] | None = None,
) -> Scores:
    """Scores of `completions` (texts as the model wrote them) for `samples`; `answers` are the card's choices."""
    if len(samples) != len(completions):
        raise ValueError(f"{len(completions)} completions for {len(samples)} samples")
    if not samples:
        raise UserError("there is nothing to evaluate: no samples", "give a file with at least one row")
    counts = tokens if tokens is not None else [None] * len(samples)
    records = tuple(_record(s, c, tuple(answers), t) for s, c, t in zip(samples, completions, counts, strict=True))
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.kind].append(record)
    return _scores(records, {kind: _scores(groups[kind], {}) for kind in sorted(groups)})


def _record(sample: Sample, completion: str, answers: tuple[str, ...], tokens: int | None) -> Record:
    if sample.answer is None:
        raise UserError(
            f"the sample {sample.id} has no gold answer", "name the answer column with --columns answer=COLUMN"
        )
    given = parse(completion, answers).answer
    correct = given is not None and normal(given) == normal(sample.answer)
    return Record(sample.id, sample.kind, sample.answer, given, correct, given is not None, tokens)


def _scores(records: Sequence[Record], per_task: dict[str, Scores]) -> Scores:
    n, hits = len(records), sum(r.correct for r in records)
    gold = Counter(normal(r.gold) for r in records)
    right = Counter(normal(r.gold) for r in records if r.correct)
    tokens = [r.completion_tokens for r in records if r.completion_tokens is not None]
    return Scores(
        n=n,
        accuracy=hits / n,
        ci95=wilson(hits, n),
        balanced_accuracy=sum(right[g] / gold[g] for g in gold) / len(gold),
        majority=max(gold.values()) / n,
        parse_failure_rate=sum(not r.parsed for r in records) / n,
        mean_completion_tokens=sum(tokens) / len(tokens) if tokens else None,
        per_task=per_task,
        records=tuple(records) if per_task else (),
    )


def evaluate(
    runtime: Runtime,
    samples: Sequence[Sample],
    card: Card,
    max_new_tokens: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Greedy completions of every sample through `runtime`, scored; `progress` is told (done, total)."""
    # Prompts of like length go together, so that a batching runtime pads little; results return to file order.
    order = sorted(range(len(samples)), key=lambda i: (len(samples[i].prompt), i))
    completions = [""] * len(samples)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        texts = runtime.generate([samples[i].prompt for i in chosen], max_new_tokens or card.max_new_tokens)
        for i, text in zip(chosen, texts, strict=True):
            completions[i] = text
        if progress:
            progress(min(start + BATCH, len(order)), len(order))
    # Counted by encoding the text again: end tokens are not in it, so an answer counts what its reader sees.
    tokens = [len(runtime.encode(text)) for text in completions]
    return score(samples, completions, card.answers, tokens)


def paired(a: Sequence[bool], b: Sequence[bool]) -> dict[str, Any]:
    """Compare two systems on the same items: accuracy(a) - accuracy(b), its 95 % interval, the exact McNemar p."""
    if len(a) != len(b):
        raise ValueError(f"paired comparison of {len(a)} and {len(b)} items")
    if not a:
        raise UserError("there is nothing to compare: no items", "evaluate both on the same non-empty data")
    only_a = sum(x and not y for x, y in zip(a, b, strict=True))
    only_b = sum(y and not x for x, y in zip(a, b, strict=True))
    low, high = _newcombe(sum(x and y for x, y in zip(a, b, strict=True)), only_a, only_b, len(a))
    return {
        "n": len(a),
        "accuracy_a": sum(map(bool, a)) / len(a),
        "accuracy_b": sum(map(bool, b)) / len(b),
        "difference": (only_a - only_b) / len(a),
        "ci95": [low, high],
        "only_a": only_a,
        "only_b": only_b,
        "mcnemar_p": _mcnemar(only_a, only_b),
    }


def _mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact binomial test that the discordant items fall either way with equal chance."""
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / 2**n)


def _newcombe(both: int, only_a: int, only_b: int, n: int) -> tuple[float, float]:
    neither = n - both - only_a - only_b
    hits_a, hits_b = both + only_a, both + only_b
    pa, pb = hits_a / n, hits_b / n
    (la, ua), (lb, ub) = wilson(hits_a, n), wilson(hits_b, n)
    square = hits_a * (n - hits_a) * hits_b * (n - hits_b)
    product = float(both * neither - only_a * only_b)
    if product > 0:
        product = max(product - n / 2, 0.0)  # Newcombe's continuity correction of the correlation
    phi = product / math.sqrt(square) if square else 0.0

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

    difference = (only_a - only_b) / n
    return difference - reach(pa - la, ub - pb), difference + reach(ua - pa, pb - lb)


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation, equal values sharing their mean rank; None where one side does not vary."""
    ranks = []
    for values in (a, b):
        _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[place])
    x, y = (r - r.mean() for r in ranks)
    return float((x @ y) / math.sqrt((x @ x) * (y @ y))) if x.any() and y.any() else None


def to_json(scores: Scores) -> dict[str, Any]:
    """The metrics as plain JSON values, without the items (`records_json` has those)."""
    return {
        "n": scores.n,
        "accuracy": scores.accuracy,
        "ci95": list(scores.ci95),
        "balanced_accuracy": scores.balanced_accuracy,
        "majority": scores.majority,
        "parse_failure_rate": scores.parse_failure_rate,
        "mean_completion_tokens": scores.mean_completion_tokens,
        "per_task": {kind: to_json(part) for kind, part in scores.per_task.items()},
    }


def records_json(scores: Scores) -> list[dict[str, Any]]:
    """The scored items, one dict each, in the order of the samples."""
    return [asdict(record) for record in scores.records]


def table(scores: Scores) -> str:
    """The metrics for people: one row a task, the whole last."""
    rows = (
        [_cells(kind or "(none)", part) for kind, part in scores.per_task.items()] if len(scores.per_task) > 1 else []
    )
    header = ("task", "n", "accuracy", "95 % interval", "balanced", "majority", "unparsed", "tokens")
    return grid(header, [*rows, _cells("all", scores)], right=range(1, 8))


def _cells(name: str, scores: Scores) -> list[str]:
    low, high = scores.ci95
    tokens = "-" if scores.mean_completion_tokens is None else f"{scores.mean_completion_tokens:.1f}"
    shares = (scores.balanced_accuracy, scores.majority, scores.parse_failure_rate)
    return [
        name,
        str(scores.n),
        f"{scores.accuracy:.1%}",
        f"{low:.1%} to {high:.1%}",
        *(f"{share:.1%}" for share in shares),
        tokens,
    ]
