"""Drawing tokens instead of taking the best one, with random numbers that belong to an item and not to a batch.

Each completion has random numbers of its own, made from the seeds of its prompt and its number among the samples, and a
token is the one on whose stretch of the summed probabilities the next number falls. So batches, threads and their order
change nothing but rounding. Not covered: top-k and nucleus cuts, which would hide disagreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Draw:
    """`samples` completions of every prompt at `temperature`, from random numbers made of the prompt's `seeds`."""

    temperature: float
    samples: int
    seeds: Sequence[Sequence[int]]

    def chances(self, row: int, bound: int) -> np.ndarray:
        """Random numbers (bound,) of the row-th completion; the samples of one prompt follow each other."""
        prompt, sample = divmod(row, self.samples)
        return np.random.default_rng([*self.seeds[prompt], sample]).random(bound)


def drawn(logits: torch.Tensor, temperature: float, chance: torch.Tensor) -> torch.Tensor:
    """One token (B,) a row of logits (B, V), by the random numbers `chance` (B,) in float64."""
    sums = (logits.double() / temperature).softmax(-1).cumsum(-1)  # (B, V)
    return torch.searchsorted(sums, chance[:, None].contiguous()).squeeze(1).clamp(max=logits.shape[-1] - 1)


def scored(logits: torch.Tensor, temperature: float, chance: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability (at temperature 1) and id of the next token of each row: the best one, or a drawn one."""
    logs = logits.log_softmax(-1)  # (B, V)
    if chance is None:
        best, chosen = logs.max(-1)
        return best, chosen
    chosen = drawn(logits, temperature, chance)
    return logs.gather(1, chosen[:, None]).squeeze(1), chosen
