"""Reinforcement behind the tutoring (`reasoning.rl`): answers that are right, within their budget if they have one, are
made likelier.

What: group-relative policy optimisation (GRPO, arXiv 2402.03300) as token losses of the one training loop. A batch's
rows are questions, which name one of the recipe's budgets or none, in equal parts, so that a student of budgets stays
as good without one; for each a group of answers is drawn, and a token's loss is
    -A * ratio + kl * (exp(d) - d - 1), d = log p_before(token) - log p(token),
with A = (R - mean) / (std + 1e-4) within the group and p_before the model that the training began with. The loss of a
batch is the mean over its tokens. Every group is drawn from the model of that step, so the ratio is 1 (its gradient is
what counts) and nothing is clipped. A test holds a step against one of TRL's GRPOTrainer (loss_type bnpo, the
divergence not weighted by the ratio).
Groups whose answers are all worth the same tell nothing but the divergence and are left out (as DAPO, arXiv 2503.14476,
does); of a batch of such groups one answer is kept.
The reward is R = [right] * f with f = 1 up to the budget, falling linearly to 0 at 1.25 of it (BARD, arXiv 2511.01470,
has a product; this form of f is ours), or at once where `tolerance` is 0, and f = 1 without a budget. With `least` it
also falls linearly to 0 below that share of the budget: else a right answer in fewer tokens is worth as much, and all
answers become shorter, those with room to think too. `additive` is [right] + f, which pays for short wrong answers too.
Why in the loop: resuming, optimiser, schedule and progress are the tutoring's own.
Not covered: rewards by a model, a step on groups of an earlier one, answers beyond `task.max_new_tokens`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bridge_edge.data.card import normal, parse
from bridge_edge.data.encode import prompt_ids
from bridge_edge.data.samples import Sample
from bridge_edge.data.thinking import asked, thought
from bridge_edge.generate.engine import generate
from bridge_edge.parallel import Map
from bridge_edge.recipe_methods import TOLERANCE
from bridge_edge.rollouts import Rollouts, drawn_together, rows_of
from bridge_edge.train.batches import ANSWER, PROMPT, RATIONALE, Batch, Encoded, collate, key_of
from bridge_edge.train.hybrid import chosen
from bridge_edge.train.losses import supervised_states

FLAT = 1e-4  # keeps a group of equal rewards from being divided by 0


@dataclass(frozen=True)
class Aim:
    """What is wanted of the answers to a question."""

    budget: int | None
    answer: str


def questions(
    tokenizer: PreTrainedTokenizerBase, samples: Sequence[Sample], budgets: Sequence[int | None], count: int, seed: int
) -> tuple[list[Encoded], dict[bytes, Aim]]:
    """`count` questions with each of the budgets (None: without one), as different as there are, and the aim of each.
    The one supervised token of an example only says where its prompt ends."""
    pairs = [(sample, budget) for sample in samples for budget in budgets]
    random.Random(seed).shuffle(pairs)
    pairs = list(islice(cycle(pairs), count))
    examples, aims = [], {}
    prompts = prompt_ids(tokenizer, [asked(s.prompt, budget) if budget else s.prompt for s, budget in pairs])
    for (sample, budget), ids in zip(pairs, prompts, strict=True):
        codes = np.array([PROMPT] * len(ids) + [ANSWER], np.int8)
        examples.append(Encoded(np.array([*ids, tokenizer.eos_token_id], np.int32), codes))
        aims[key_of(examples[-1].ids, codes)] = Aim(budget, sample.answer or "")
    return examples, aims


def fidelity(tokens: int, budget: int | None, tolerance: float = TOLERANCE, least: float = 0.0) -> float:
    """f: how well so many tokens of thought keep to a budget, 0 to 1; without one they always do. Beyond the budget it
    falls to 0 within a share of it (`tolerance`), and from the share `least` of it down to 0 tokens."""
    if budget is None:
        return 1.0
    if tokens <= budget:
        return min(1.0, tokens / (least * budget)) if least else 1.0
    return max(0.0, 1 - (tokens - budget) / (tolerance * budget)) if tolerance else 0.0


def advantages(rewards: torch.Tensor) -> torch.Tensor:
    """A of rewards (groups, size), by the mean and spread of each group."""
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + FLAT)


def grpo_losses(own: torch.Tensor, before: torch.Tensor, advantage: torch.Tensor, kl: float) -> torch.Tensor:
    """Losses (N,) of tokens with log-probabilities `own` now and `before` the training, whose answers have these
    advantages."""
    d = before - own
    return -advantage * (own - own.detach()).exp() + kl * (d.exp() - d - 1)


@dataclass(frozen=True)
class Reward:
    """R of what was said to a question. `answers` are the task's choices."""

    tokenizer: PreTrainedTokenizerBase
    aims: Mapping[bytes, Aim]
    answers: tuple[str, ...]
    additive: bool = False
    tolerance: float = TOLERANCE
    least: float = 0.0

    def __call__(self, said: np.ndarray, aim: Aim) -> float:
        tokens, _ = thought(lambda ids: str(self.tokenizer.decode(list(ids))), said.tolist())
        given = parse(str(self.tokenizer.decode(said, skip_special_tokens=True)), self.answers).answer
        right = float(given is not None and normal(given) == normal(aim.answer))
        kept = fidelity(tokens, aim.budget, self.tolerance, self.least)
        return right + kept if self.additive else right * kept


@dataclass(frozen=True)
class Group:
    """Answers to one question, and their rewards (n,)."""

    said: list[Encoded]
    rewards: torch.Tensor

    @property
    def tells(self) -> bool:
        """Whether the answers differ in what they are worth; else none is better than the mean."""
        return bool(self.rewards.min() < self.rewards.max())


@dataclass(frozen=True)
class Grpo:
    """Token losses of a student that learns from its own answers, `group` to a question (see
    `train.losses.TokenLosses`). `before` is the model that it must not leave too far."""

    rollouts: Rollouts
    reward: Reward
    before: PreTrainedModel
    group: int
    kl: float
    drawn: dict[bytes, Group] = field(default_factory=dict, compare=False)

    def ahead(self, model: PreTrainedModel, batches: Sequence[Batch], progress: float, run: Map) -> None:
        """Draw for all questions of a step together."""
        size = max(1, self.rollouts.rows // self.group)
        self.drawn.clear()
        self.drawn.update(drawn_together(batches, size, lambda rows: self.draw(model, rows, progress), run))

    def draw(self, model: PreTrainedModel, rows: Sequence[Encoded], progress: float) -> list[Group]:
        """A group of answers to each question, and what they are worth."""
        batch = collate(rows, 0)
        said = self.rollouts(model, batch.to(model.device), progress, self.group)
        rewards = self.rewards(batch, said)
        return [Group(said[i * self.group : (i + 1) * self.group], rewards[i]) for i in range(len(rows))]

    def __call__(self, model: PreTrainedModel, batch: Batch, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        rows = rows_of(batch)
        known = [self.drawn[key] for key in (key_of(row.ids, row.segments) for row in rows) if key in self.drawn]
        groups = known if len(known) == len(rows) else self.draw(model, rows, progress)
        kept = [group for group in groups if group.tells]
        said = [answer for group in kept for answer in group.said] or groups[0].said[:1]
        weights = torch.cat([advantages(group.rewards[None])[0] for group in kept]) if kept else torch.zeros(1)
        drawn = collate(said, 0).to(model.device)
        with torch.no_grad():
            before = chosen(supervised_states(self.before, drawn))
        states = supervised_states(model, drawn)
        losses = grpo_losses(chosen(states), before, weights.to(model.device)[states.rows], self.kl)
        return losses, torch.full_like(states.segments, RATIONALE)

    def worth(self, model: PreTrainedModel, examples: Sequence[Encoded]) -> np.ndarray:
        """What a model's answer to each of these questions (N,), drawn at temperature 0, is worth."""
        rows = self.rollouts
        prompts = [row.ids[row.segments == PROMPT].tolist() for row in examples]
        aims = [self.reward.aims[key_of(row.ids, row.segments)] for row in examples]
        said = generate(model, prompts, rows.bound, frozenset([rows.end]), rows.rows, rows.precision)
        found = np.zeros(len(examples))
        for row in said:
            found[row.index] = self.reward(np.array(row.ids, np.int32), aims[row.index])
        return found

    def rewards(self, batch: Batch, said: Sequence[Encoded]) -> torch.Tensor:
        """R of the answers (questions, group)."""
        rows = zip(batch.ids.cpu().numpy(), batch.segments.cpu().numpy(), strict=True)
        aims = [self.reward.aims[key_of(*row)] for row in rows]
        found = [self.reward(row.ids[row.segments > PROMPT], aims[i // self.group]) for i, row in enumerate(said)]
        return torch.tensor(found).view(-1, self.group)
