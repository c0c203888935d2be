"""What a student that is being trained says itself: completions drawn from it for the prompts of a batch.

What: `Rollouts` draws completions of a batch's prompts from the model as it is at this step, encoded as examples whose
answers are told from their rationales by the marker. `OnPolicy` puts them in the place of a share of the batches, under
the TA's distribution (GKD, arXiv 2306.13649): with D reverse KL and a share of 1 it is on-policy reverse KL.
Why: a student that learns from others' texts alone has never seen its own mistakes. As a source of batches this is one
more loss of the one training loop; what it costs is the drawing, which the loop's seconds count and its tokens do not.
Random numbers belong to the seed, the step and the row, whatever it is drawn together with, so that a resumed training
draws the same again.
Not covered: gradients through the drawing; texts older than a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bridge_edge.data.card import ANSWER as MARKER
from bridge_edge.generate.draw import Draw
from bridge_edge.generate.engine import generate
from bridge_edge.parallel import Map
from bridge_edge.train.batches import ANSWER, PROMPT, RATIONALE, Batch, Encoded, collate, key_of
from bridge_edge.train.hybrid import Taught
from bridge_edge.train.losses import label_losses

FINE = 1 << 40  # steps are told apart by their progress, as a whole number

T = TypeVar("T")


def rows_of(batch: Batch) -> list[Encoded]:
    """The examples of a batch, without padding."""
    found = []
    for ids, codes in zip(batch.ids.cpu().numpy(), batch.segments.cpu().numpy(), strict=True):
        end = int(np.flatnonzero(codes)[-1]) + 1
        found.append(Encoded(ids[:end], codes[:end]))
    return found


def drawn_together(
    batches: Iterable[Batch], size: int, draw: Callable[[list[Encoded]], Sequence[T]], run: Map
) -> dict[bytes, T]:
    """What `draw` makes of each row of these batches, by the row's key: `size` prompts of like length at a time, parts
    side by side. Sixty-four rows take about three times the time of eight."""
    rows = [row for batch in batches for row in rows_of(batch)]
    rows.sort(key=lambda row: int((row.segments == PROMPT).sum()))
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    found: dict[bytes, T] = {}
    for part, made in zip(parts, run(draw, parts), strict=True):
        found.update(zip((key_of(row.ids, row.segments) for row in part), made, strict=True))
    return found


@dataclass(frozen=True)
class Rollouts:
    """Draws at most `bound` tokens for each prompt, at temperature 1. `end` and `marker` are token ids; `rows` prompts
    are decoded at once."""

    end: int
    marker: tuple[int, ...]
    bound: int
    rows: int
    precision: str
    seed: int

    @staticmethod
    def of(tokenizer: PreTrainedTokenizerBase, bound: int, rows: int, precision: str, seed: int) -> Rollouts:
        marker = tokenizer(MARKER, add_special_tokens=False)["input_ids"]
        return Rollouts(int(tokenizer.eos_token_id), tuple(marker), bound, rows, precision, seed)

    def __call__(self, model: PreTrainedModel, batch: Batch, progress: float, copies: int = 1) -> list[Encoded]:
        """`copies` completions of every row's prompt, row by row."""
        ids, segments = batch.ids.cpu().numpy(), batch.segments.cpu().numpy()
        prompts = [row[: int(np.flatnonzero(codes)[0])].tolist() for row, codes in zip(ids, segments, strict=True)]
        keys = [int.from_bytes(key_of(*row)[:6]) for row in zip(ids, segments, strict=True)]
        seeds = [[self.seed, int(progress * FINE), key, keys[:place].count(key)] for place, key in enumerate(keys)]
        draw = Draw(1.0, copies, seeds)
        found: dict[int, Encoded] = {}
        for row in generate(model, prompts, self.bound, frozenset([self.end]), self.rows, self.precision, draw):
            said = row.ids + ([self.end] if row.ended else [])
            found[row.index] = self.encoded(prompts[row.index // copies], said)
        model.train()  # generating ends that
        return [found[i] for i in range(len(prompts) * copies)]

    def encoded(self, prompt: Sequence[int], said: Sequence[int]) -> Encoded:
        """A prompt and what was said to it; from the answer's marker on it is the answer."""
        size = len(self.marker)
        at = next((i for i in range(len(said) - size + 1) if tuple(said[i : i + size]) == self.marker), len(said))
        codes = [PROMPT] * len(prompt) + [RATIONALE] * at + [ANSWER] * (len(said) - at)
        return Encoded(np.array([*prompt, *said], np.int32), np.array(codes, np.int8))


@dataclass(frozen=True)
class OnPolicy:
    """Token losses under the TA, of which from `start` of the steps on a `share` of the batches is what the student
    itself says (see `train.losses.TokenLosses`). Before, it learns the data's texts by hard labels, since on-policy
    distillation begins with a student that has been fine-tuned (GKD, arXiv 2306.13649)."""

    taught: Taught
    rollouts: Rollouts
    share: float
    start: float = 0.0
    drawn: dict[bytes, Encoded] = field(default_factory=dict, compare=False)

    def ahead(self, model: PreTrainedModel, batches: Sequence[Batch], progress: float, run: Map) -> None:
        """Draw for all batches of a step that are replaced (see `train.losses.Ahead`)."""

        def draw(rows: list[Encoded]) -> list[Encoded]:
            return self.rollouts(model, collate(rows, 0).to(model.device), progress)

        own = [batch for batch in batches if self.own(batch, progress)]
        self.drawn.clear()
        self.drawn.update(drawn_together(own, self.rollouts.rows, draw, run))

    def __call__(self, model: PreTrainedModel, batch: Batch, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        if progress < self.start:
            return label_losses(model, batch, progress)
        if self.own(batch, progress):
            found = [self.drawn.get(key_of(row.ids, row.segments)) for row in rows_of(batch)]
            known = [said for said in found if said is not None]
            said = known if len(known) == len(found) else self.rollouts(model, batch, progress)
            batch = collate(said, 0).to(model.device)
        return self.taught(model, batch, progress)

    def own(self, batch: Batch, progress: float) -> bool:
        """Whether this batch is replaced."""
        place = [self.rollouts.seed, int(progress * FINE), int(batch.ids.sum())]
        return progress >= self.start and bool(np.random.default_rng(place).random() < self.share)
