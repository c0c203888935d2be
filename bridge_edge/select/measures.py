"""What makes an item hard: pure functions from what the assistant said or gave weight to, to a number an item.

| name          | from                                             | hard is                                      |
|---------------|--------------------------------------------------|----------------------------------------------|
| loss          | the gold answer                                  | a high mean token NLL of it                  |
| entropy       | the distribution over the options                | a flat one                                   |
| token-entropy | the tokens of the assistant's own likeliest answer | flat next-token distributions on its way   |
| margin        | the distribution over the options                | little between the best two                  |
| pass-rate     | k sampled answers and the gold one               | a pass rate p with a large p (1 - p)         |
| disagreement  | k sampled answers                                | two of them being likely to differ           |

Without options, entropy and margin are those of the first token of the answer. p (1 - p) is the variance of passing: it
is 0 for what never passes as for what always does, so it leaves out items that the assistant cannot do at all. All of
them are used by rank only (strategies.py), so no scale matters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from bridge_edge.data.card import normal

NEEDS_LABELS = ("loss", "pass-rate")
SAMPLED = ("pass-rate", "disagreement")


def option_probabilities(nll: np.ndarray) -> np.ndarray:
    """Softmax of the negated summed NLL of each option (n, o), in float64."""
    logits = -nll.astype(np.float64)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def entropy(p: np.ndarray) -> np.ndarray:
    """Entropy of each row of p (n, o)."""
    return -(p * np.log(np.clip(p, 1e-12, 1))).sum(1)


def margin(p: np.ndarray) -> np.ndarray:
    """One minus what the likeliest option is ahead of the second one (n,); 0 where there is only one option."""
    if p.shape[1] < 2:
        return np.zeros(len(p))
    best = np.sort(p, axis=1)[:, -2:]
    return 1 - (best[:, 1] - best[:, 0])


def draw_options(p: np.ndarray, answers: Sequence[str], samples: int, seed: int) -> list[list[str]]:
    """`samples` answers an item, drawn from its distribution over the options (n, o)."""
    counts = np.random.default_rng(seed).multinomial(samples, p)  # (n, o)
    return [[a for a, times in zip(answers, row, strict=True) for _ in range(times)] for row in counts.tolist()]


def pass_rate(votes: Sequence[Sequence[str]], gold: Sequence[str | None]) -> np.ndarray:
    """p (1 - p) for the share p of an item's answers that are the gold one (n,)."""
    p = np.array(
        [sum(normal(v) == normal(g or "") for v in said) / len(said) for said, g in zip(votes, gold, strict=True)]
    )
    return p * (1 - p)


def disagreement(votes: Sequence[Sequence[str]]) -> np.ndarray:
    """The chance that two of an item's answers, drawn without putting back, differ (n,)."""
    found = np.zeros(len(votes))
    for i, said in enumerate(votes):
        counts = Counter(map(normal, said)).values()
        pairs = len(said) * (len(said) - 1)
        found[i] = 1 - sum(c * (c - 1) for c in counts) / pairs if pairs else 0.0
    return found
