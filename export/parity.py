"""Is the exported student still the same model? Compare it, through its own runtime, with the checkpoint in torch.

Token ids of the chat-framed prompts must be equal. Then both models read the same texts (prompt and the original's
greedy completion, teacher-forced) and their distributions are compared; last, both generate on their own. The bounds
are one table, four to five times the divergences published for 8B models, since small models lose more. What is
not covered: the task's accuracy, which an evaluation of the shipped file measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bridge_edge.errors import UserError
from bridge_edge.runtimes.base import Runtime

MAX_NEW_TOKENS, CHUNK = 48, 64
CLEAR = 0.02  # a top token leads clearly when the next one is at least this much less probable
DEFAULT_PROMPTS = (
    "Answer yes or no: is 17 greater than 12?",
    "A tenant pays 950 dollars a month. How much is it in a year?",
    "List three things to check before signing a contract.",
)


@dataclass(frozen=True)
class Bound:
    """The most mean KL divergence and the least agreement on clear top tokens that a type may show."""

    mean_kl: float
    top1_clear: float


# Types by name in GGUF (upper case) and ONNX (lower case).
BOUNDS = {
    "F32": Bound(1e-3, 0.98),  # llama.cpp keeps keys and values in 16 bits whatever the weights' type
    "fp32": Bound(1e-4, 0.99),
    "F16": Bound(1e-3, 0.98),
    "BF16": Bound(5e-3, 0.97),
    "Q8_0": Bound(0.01, 0.95),
    "int8": Bound(0.02, 0.95),
    "Q6_K": Bound(0.03, 0.92),
    "Q5_K_M": Bound(0.06, 0.90),
    "Q5_K_S": Bound(0.07, 0.90),
    "Q5_0": Bound(0.07, 0.88),
    "Q4_K_M": Bound(0.15, 0.85),
    "Q4_K_S": Bound(0.18, 0.85),
    "IQ4_XS": Bound(0.18, 0.85),
    "IQ4_NL": Bound(0.18, 0.85),
    "Q4_0": Bound(0.25, 0.80),
    "int4": Bound(0.25, 0.80),
    "Q3_K_M": Bound(0.45, 0.70),
}


class ParityError(UserError):
    """The exported file is not close enough to the original; it was kept beside the target as `.rejected`."""

    exit_code = 1  # a check failed; the input was fine


@dataclass(frozen=True)
class Parity:
    """How close an export is. `top1_clear` counts only the `clear` positions, where the original is not nearly
    undecided between two tokens; where there are none it is 1 and says nothing."""

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

    def failures(self, quant: str) -> list[str]:
        """What exceeds the bounds of a type, in words."""
        bound = BOUNDS[quant]
        found = []
        if not self.mean_kl <= bound.mean_kl:  # also catches NaN
            found.append(f"mean KL {self.mean_kl:.4g} (at most {bound.mean_kl:g})")
        if not self.top1_clear >= bound.top1_clear:
            found.append(f"top-1 agreement {self.top1_clear:.3f} (at least {bound.top1_clear:g})")
        return found

    def report(self, quant: str) -> dict[str, Any]:
        """For parity.json: the figures, the bounds and the verdict."""
        return {**asdict(self), "bounds": asdict(BOUNDS[quant]), "passed": not self.failures(quant)}


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


def compare(original: Runtime, shipped: Runtime, prompts: Sequence[str], max_new_tokens: int) -> Parity:
    """Parity of `shipped` with `original` on user messages; raises ParityError where token ids differ."""
    texts = list(prompts) or list(DEFAULT_PROMPTS)
    rows = _Rows([], [], [], [], [])
    equal = 0
    for text in texts:
        ids = original.chat(text)
        if shipped.chat(text) != ids:
            raise ParityError(
                f"the {shipped.name} file frames the prompt {text[:60]!r} in other tokens than the original",
                "its chat template or tokenizer was not carried over; report this",
            )
        completion = list(original.stream(ids, max_new_tokens))
        equal += list(shipped.stream(ids, max_new_tokens)) == completion
        _compare(original.logits(ids + completion), shipped.logits(ids + completion), rows)
    same, clear = np.array(rows.same), np.array(rows.clear)
    return Parity(
        prompts=len(texts),
        tokens=len(same),
        clear=int(clear.sum()),
        max_abs_diff=float(np.max(rows.diff_max)),
        mean_abs_diff=float(np.mean(rows.diff_mean)),
        mean_kl=max(0.0, float(np.mean(rows.kl))),
        max_kl=max(0.0, float(np.max(rows.kl))),
        top1=float(same.mean()),
        top1_clear=float(same[clear].mean()) if clear.any() else 1.0,
        greedy_equal=equal / len(texts),
    )
