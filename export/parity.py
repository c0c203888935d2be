"""Is the exported student still the same model? Compare it, through its own runtime, with the checkpoint in torch.

Token ids of the chat-framed prompts must be equal. Both models then complete every prompt greedily; where the texts
part, the first differing token is located, with how much the original preferred its own. Next both read the same texts
(prompt and the original's completion, teacher-forced) and their distributions are compared. With gold answers the
completions are scored too, and the difference of accuracy gets a paired interval. `bounds.py` holds what is allowed.
Not covered: sampling, long contexts, languages that the prompts do not speak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bridge_edge.data.card import Card
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from bridge_edge.evaluate import paired, score
from bridge_edge.export.bounds import BOUNDS
from bridge_edge.runtimes.base import Runtime
from bridge_edge.runtimes.torch_runtime import TorchRuntime

MAX_NEW_TOKENS, CHUNK = 48, 64  # completion tokens read teacher-forced; logit rows compared at a time
CLEAR = 0.02  # a top token leads clearly when the next one is at least this much less probable
SHOWN = 5  # divergences described one by one
DEFAULT_PROMPTS = (
    "Answer yes or no: is 17 greater than 12?",
    "A tenant pays 950 dollars a month. How much is it in a year?",
    "List three things to check before signing a contract.",
)


class ParityError(UserError):
    """The exported file is not close enough to the original; it was kept beside the target as `.rejected`."""

    exit_code = 1  # a check failed; the input was fine


@dataclass(frozen=True)
class Divergence:
    """Where two greedy completions part: the token's index in the completion, both choices (None: the text ended),
    and how much more probable the original held its own (0: a tie)."""

    prompt: int
    token: int
    original: int | None
    shipped: int | None
    lead: float


@dataclass(frozen=True)
class Parity:
    """How close an export is. `top1_clear` counts only the `clear` positions, where the original is not nearly
    undecided between two tokens; where there are none it is 1 and says nothing. `greedy_clear` likewise forgives
    completions that part where the original led by less than CLEAR. `accuracy` is `paired` of original and shipped."""

    prompts: int
    tokens: int
    clear: int
    max_abs_diff: float
    mean_abs_diff: float
    mean_kl: float
    max_kl: float
    top1: float
    top1_clear: float
    greedy_equal: float
    greedy_clear: float
    divergences: tuple[Divergence, ...] = ()
    accuracy: dict[str, Any] | None = field(default=None)

    def failures(self, quant: str) -> list[str]:
        """What exceeds the bounds of a type, in words."""
        bound = BOUNDS[quant]
        found = []
        if not self.mean_kl <= bound.mean_kl:  # also catches NaN
            found.append(f"mean KL {self.mean_kl:.4g} (at most {bound.mean_kl:g})")
        if not self.top1_clear >= bound.top1_clear:
            found.append(f"top-1 agreement {self.top1_clear:.3f} (at least {bound.top1_clear:g})")
        if not self.greedy_clear >= bound.greedy:
            first = self.divergences[0]
            found.append(
                f"{self.greedy_clear:.1%} of greedy completions equal (at least {bound.greedy:.0%}; the first parts "
                f"in prompt {first.prompt} at token {first.token})"
            )
        if self.accuracy and 100 * self.accuracy["ci95"][0] > bound.drop:
            low, high = (100 * x for x in self.accuracy["ci95"])
            found.append(
                f"accuracy {100 * self.accuracy['difference']:.1f} points lower, 95 % interval {low:.1f} to {high:.1f} "
                f"(at most {bound.drop:g})"
            )
        return found

    def report(self, quant: str) -> dict[str, Any]:
        """For parity.json: the figures, the bounds and the verdict."""
        failures = self.failures(quant)
        return {**asdict(self), "bounds": asdict(BOUNDS[quant]), "passed": not failures, "failures": failures}


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@dataclass
class _Rows:
    """Per-position figures of one text."""

    diff_max: list[float]
    diff_mean: list[float]
    kl: list[float]
    same: list[bool]
    clear: list[bool]


def _compare(original: np.ndarray, shipped: np.ndarray, into: _Rows) -> None:
    """Compare two logit matrices (T, V), some rows at a time to bound memory."""
    for start in range(0, len(original), CHUNK):
        a, b = original[start : start + CHUNK], shipped[start : start + CHUNK]  # (C, V)
        p, q = log_softmax(a), log_softmax(b)
        top = np.sort(np.exp(np.partition(p, -2, axis=-1)[:, -2:]), axis=-1)  # (C, 2)
        into.diff_max += np.abs(a - b).max(-1).tolist()
        into.diff_mean += np.abs(a - b).mean(-1).tolist()
        into.kl += (np.exp(p) * (p - q)).sum(-1).tolist()
        into.same += (a.argmax(-1) == b.argmax(-1)).tolist()
        into.clear += (top[:, 1] - top[:, 0] >= CLEAR).tolist()


def frame(original: Runtime, shipped: Runtime, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of the chat-framed prompts; raises ParityError where the two disagree."""
    framed = []
    for text in prompts:
        ids = original.chat(text)
        if shipped.chat(text) != ids:
            raise ParityError(
                f"the {shipped.name} file frames the prompt {text[:60]!r} in other tokens than the original",
                "its chat template or tokenizer was not carried over; report this",
            )
        framed.append(ids)
    return framed


def greedy(runtime: Runtime, framed: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
    """Greedy completions, side by side where the runtime is torch, whose single steps are slow."""
    if isinstance(runtime, TorchRuntime):
        return runtime.complete(framed, max_new_tokens)
    return [list(runtime.stream(ids, max_new_tokens)) for ids in framed]


def diverge(original: Runtime, at: int, ids: Sequence[int], a: Sequence[int], b: Sequence[int]) -> Divergence:
    """Describe the first difference of completions `a` (the original's) and `b` of prompt number `at`."""
    token = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    mine, theirs = (c[token] if token < len(c) else None for c in (a, b))
    p = np.exp(log_softmax(original.logits([*ids, *a[:token]])[-1]))
    ends = [i for i in original.eos_ids if i < len(p)]  # a completion that stopped chose one of these

    def chance(choice: int | None) -> float:
        return float(p[choice]) if choice is not None else float(p[ends].max(initial=0.0))

    return Divergence(at, token, mine, theirs, max(0.0, chance(mine) - chance(theirs)))


def accuracy(
    original: Runtime, shipped: Runtime, samples: Sequence[Sample], ours: list[list[int]], theirs: list[list[int]]
) -> dict[str, Any] | None:
    """The paired comparison of both models' completions, or None where an item has no gold answer."""
    if not samples or any(s.answer is None for s in samples):
        return None
    answers = (original.card or Card("task")).answers
    right = [
        [r.correct for r in score(samples, [runtime.decode(c) for c in completions], answers).records]
        for runtime, completions in ((original, ours), (shipped, theirs))
    ]
    return paired(right[0], right[1])


def compare(original: Runtime, shipped: Runtime, prompts: Sequence[str | Sample], max_new_tokens: int) -> Parity:
    """Parity of `shipped` with `original` on user messages, scored too where they are samples with answers."""
    items = list(prompts) or list(DEFAULT_PROMPTS)
    samples = [item for item in items if isinstance(item, Sample)]
    framed = frame(original, shipped, [item.prompt if isinstance(item, Sample) else item for item in items])
    ours, theirs = (greedy(runtime, framed, max_new_tokens) for runtime in (original, shipped))
    parted = [
        diverge(original, i, ids, a, b)
        for i, (ids, a, b) in enumerate(zip(framed, ours, theirs, strict=True))
        if a != b
    ]
    rows = _Rows([], [], [], [], [])
    for ids, completion in zip(framed, ours, strict=True):
        text = [*ids, *completion[:MAX_NEW_TOKENS]]
        wanted = original.logits(text)
        if not np.isfinite(wanted).all():
            raise UserError(
                f"the model in {original.path} computes values that are not finite",
                "the training diverged, or config.json is not the weights' own",
            )
        _compare(wanted, shipped.logits(text), rows)
    same, clear = np.array(rows.same), np.array(rows.clear)
    return Parity(
        prompts=len(items),
        tokens=len(same),
        clear=int(clear.sum()),
        max_abs_diff=float(np.max(rows.diff_max)),
        mean_abs_diff=float(np.mean(rows.diff_mean)),
        mean_kl=float(np.maximum(0.0, np.mean(rows.kl))),  # of Python's max(0.0, NaN) nothing would be seen
        max_kl=float(np.maximum(0.0, np.max(rows.kl))),
        top1=float(same.mean()),
        top1_clear=float(same[clear].mean()) if clear.any() else 1.0,
        greedy_equal=1 - len(parted) / len(items),
        greedy_clear=1 - sum(d.lead >= CLEAR for d in parted) / len(items),
        divergences=tuple(sorted(parted, key=lambda d: -d.lead)[:SHOWN]),
        accuracy=accuracy(original, shipped, samples, ours, theirs) if len(samples) == len(items) else None,
    )
