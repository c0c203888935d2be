"""Difficulty and embeddings of the pool, from the warmed-up assistant alone; no teacher call.

BRIDGE (arXiv 2512.20403) balances predictive difficulty and semantic diversity with local inference only. Its code is
not public; the scores are our choice (measures.py), with the loss on the gold answer as default. Embeddings are the
last hidden states of the prompt's last token, L2-normalised, which cost nothing here; embed.py has others. (Means over
the prompt's tokens vary more for short prompts, so a k-center took those for the most diverse: of 300 items of the
legal pool 8 % were of its corporations' kind, against 12 % of the pool, and 21 % by the last token.)

An answer is asked for directly ("Answer: X" after the prompt), which is what the warm-up taught. Where the options are
known, one pass an option gives every measure. An assistant that has learnt to explain first finds the words "Answer:"
unlikely right after a prompt, so between rounds of selection the loss counts the answer alone (`Scoring.given`). Not
covered: difficulty of the rationale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bridge_edge.data.card import ANSWER, normal
from bridge_edge.data.encode import prompt_ids
from bridge_edge.data.samples import Sample
from bridge_edge.memory import trim
from bridge_edge.parallel import side_by_side
from bridge_edge.progress import Advance
from bridge_edge.select import measures
from bridge_edge.select.sampling import draw
from bridge_edge.train.batches import bucket
from bridge_edge.train.precision import use_bf16

LONGEST_ANSWER = 24
"""Tokens of a free-form answer that is sampled or decoded."""


@dataclass(frozen=True)
class Scoring:
    """How difficulty is measured: the name of the measure, the answers drawn for the sampled ones, the seed; `given`
    takes "Answer:" for granted, so that the loss is that of the answer itself."""

    difficulty: str
    samples: int = 8
    seed: int = 0
    given: bool = False


@dataclass(frozen=True)
class Scored:
    """Difficulty (n,) and embeddings (n, H), both float32, and the direct answers where they were read."""

    difficulty: np.ndarray
    vectors: np.ndarray
    direct: list[str] | None = None


@dataclass
class Readings:
    """Of o tails after each of n prompts: mean NLL, the same behind the skipped tokens, summed NLL, mean token entropy
    (n, o); entropy and margin (n,) of the token that follows the last tail; the states of the prompts' last tokens
    (n, H)."""

    mean: np.ndarray
    given: np.ndarray
    total: np.ndarray
    entropy: np.ndarray
    next_entropy: np.ndarray
    next_margin: np.ndarray
    vectors: np.ndarray

    @staticmethod
    def empty(items: int, tails: int, width: int) -> Readings:
        shapes = [(items, tails)] * 4 + [(items,)] * 2 + [(items, width)]
        return Readings(*(np.zeros(shape, dtype=np.float32) for shape in shapes))


def option_ids(tokenizer: PreTrainedTokenizerBase, options: Sequence[str]) -> list[list[int]]:
    """Token ids of "Answer: X" for each option."""
    return tokenizer([f"{ANSWER} {o}" for o in options], add_special_tokens=False)["input_ids"]


def marker_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of what stands before an answer."""
    return tokenizer([ANSWER], add_special_tokens=False)["input_ids"][0]


def score_pool(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pool: Sequence[Sample],
    answers: Sequence[str],
    how: Scoring,
    advance: Advance,
    max_tokens: int = 4096,
) -> Scored:
    """Difficulty of the pool by one of the measures, and its embeddings."""
    prompts, marker = prompt_ids(tokenizer, [s.prompt for s in pool]), marker_ids(tokenizer)
    name = how.difficulty
    if name == "loss":
        tails = [[t] for t in option_ids(tokenizer, [s.answer or "" for s in pool])]
        found = read(model, prompts, tails, len(marker), advance, max_tokens)
        return Scored((found.given if how.given else found.mean)[:, 0], found.vectors)
    options = option_ids(tokenizer, answers) if answers else [marker]
    found = read(model, prompts, [options] * len(pool), len(marker), advance, max_tokens)
    direct, votes = None, None
    if answers:
        p = measures.option_probabilities(found.total)
        best = p.argmax(1)
        direct = [answers[k] for k in best]
        table = {"entropy": measures.entropy(p), "margin": measures.margin(p)}
        table["token-entropy"] = found.entropy[np.arange(len(pool)), best]
        if name in measures.SAMPLED:
            votes = measures.draw_options(p, answers, how.samples, how.seed)
    else:
        table = {"entropy": found.next_entropy, "margin": found.next_margin}
        if name == "token-entropy":
            replies = answer_directly(model, tokenizer, prompts, 1, how.seed, 0.0)
            tails = [[marker + one] for [one] in replies]
            table[name] = read(model, prompts, tails, len(marker), lambda *_: None, max_tokens).entropy[:, 0]
        elif name in measures.SAMPLED:
            votes = texts(tokenizer, answer_directly(model, tokenizer, prompts, how.samples, how.seed, 1.0))
    if votes is not None:
        gold = [s.answer for s in pool]
        table[name] = measures.pass_rate(votes, gold) if name == "pass-rate" else measures.disagreement(votes)
    return Scored(table[name].astype(np.float32), found.vectors, direct)


def answer_directly(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    samples: int,
    seed: int,
    temperature: float,
) -> list[list[list[int]]]:
    """Free-form answers without a rationale: what follows "Answer:", up to the end of turn."""
    marker, ends = marker_ids(tokenizer), frozenset([tokenizer.eos_token_id])
    return draw(model, [p + marker for p in prompts], samples, LONGEST_ANSWER, ends, seed, temperature)


def texts(tokenizer: PreTrainedTokenizerBase, replies: Sequence[Sequence[list[int]]]) -> list[list[str]]:
    """The first line of each reply."""
    return [[(str(tokenizer.decode(r, skip_special_tokens=True)).strip().splitlines() or [""])[0] for r in row]
            for row in replies]  # fmt: skip


def read(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    tails: Sequence[Sequence[list[int]]],
    skip: int,
    advance: Advance,
    max_tokens: int,
) -> Readings:
    """One forward pass for each tail of each prompt; the first `skip` tokens do not count for entropy and `given`."""
    width = model.config.get_text_config().hidden_size
    found = Readings.empty(len(prompts), max(map(len, tails)), width)
    lengths = [len(p) + max(len(t) for t in ts) for p, ts in zip(prompts, tails, strict=True)]
    bf16 = use_bf16("auto", model.device)
    model.eval()

    def work(rows: list[int]) -> list[int]:
        with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            for k in range(len(tails[rows[0]])):
                _forward(model, [prompts[i] for i in rows], [tails[i][k] for i in rows], skip, found, (rows, k))
        return rows

    with side_by_side(model) as run:
        for rows in run(work, bucket(lengths, max_tokens, range(len(prompts)))):
            advance(len(rows), "")
            trim()
    return found


def _forward(
    model: PreTrainedModel,
    prompts: list[list[int]],
    tails: list[list[int]],
    skip: int,
    found: Readings,
    where: tuple[list[int], int],
) -> None:
    """Write the readings of one batch to rows and column `where` of `found`."""
    width = max(len(p) + len(t) for p, t in zip(prompts, tails, strict=True))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    in_tail, counted = (torch.zeros(len(prompts), width, dtype=torch.bool) for _ in range(2))
    counts = torch.tensor([len(p) for p in prompts], device=model.device)
    for row, (p, t) in enumerate(zip(prompts, tails, strict=True)):
        end = len(p) + len(t)
        ids[row, :end] = torch.tensor(p + t)
        in_tail[row, len(p) : end] = True
        counted[row, len(p) + min(skip, len(t) - 1) : end] = True
    ids, in_tail, counted = (x.to(model.device) for x in (ids, in_tail, counted))
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state  # (B, T, H)
    asked = hidden[torch.arange(len(prompts)), counts - 1].float()  # (B, H)
    head = model.get_output_embeddings()
    before = in_tail[:, 1:]  # position t predicts t + 1
    logs = head(hidden[:, :-1][before]).float().log_softmax(-1)  # (tokens, V)
    nll = F.nll_loss(logs, ids[:, 1:][before], reduction="none")
    rows = torch.nonzero(before)[:, 0]

    def summed(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(prompts), device=values.device).index_add_(0, rows, values)

    weight = counted[:, 1:][before].float()
    total, sizes = summed(nll), in_tail.sum(1)
    last = hidden[torch.arange(len(prompts)), counts + sizes - 1]
    after = head(last).float().softmax(-1)  # (B, V)
    best = after.topk(2, -1).values
    at, k = where
    found.total[at, k] = total.cpu().numpy()
    found.mean[at, k] = (total / sizes).cpu().numpy()
    found.given[at, k] = (summed(nll * weight) / summed(weight)).cpu().numpy()
    found.entropy[at, k] = (summed(_entropies(logs.exp()) * weight) / summed(weight)).cpu().numpy()
    found.next_entropy[at] = _entropies(after).cpu().numpy()
    found.next_margin[at] = (1 - (best[:, 0] - best[:, 1])).cpu().numpy()
    found.vectors[at] = F.normalize(asked, dim=-1).cpu().numpy()


def _entropies(p: torch.Tensor) -> torch.Tensor:
    return torch.special.entr(p).sum(-1)


def truth(pool: Sequence[Sample], scored: Scored) -> dict[str, float]:
    """How often the direct answers are right, over all labelled items and among the easiest quarter of the pool."""
    if scored.direct is None:
        return {}
    right = np.array([s.answer is not None and normal(d) == normal(s.answer)
                      for s, d in zip(pool, scored.direct, strict=True)])  # fmt: skip
    known = np.array([s.answer is not None for s in pool])
    easy = known & (scored.difficulty <= np.quantile(scored.difficulty, 0.25))
    shares = {"direct_accuracy": known, "easy_but_wrong": easy}
    values = {name: float(right[mask].mean()) for name, mask in shares.items() if mask.any()}
    if "easy_but_wrong" in values:
        values["easy_but_wrong"] = 1 - values["easy_but_wrong"]
    return {name: round(value, 4) for name, value in values.items()}
