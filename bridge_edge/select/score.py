"""Difficulty and embeddings of the pool, from one pass of the warmed-up assistant over it; no teacher call.

BRIDGE (arXiv 2512.20403) balances predictive difficulty and semantic diversity with local inference only. Its code is
not public; the exact scores are our choice: mean token NLL of the gold answer (labelled pools), or the entropy over
the answer options (unlabelled pools); embeddings are mean-pooled last hidden states of the prompt, L2-normalised.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bridge_edge.data.encode import prompt_ids
from bridge_edge.data.samples import Sample
from bridge_edge.memory import trim
from bridge_edge.parallel import side_by_side
from bridge_edge.progress import Advance
from bridge_edge.train.batches import bucket
from bridge_edge.train.loop import use_bf16


def option_ids(tokenizer: PreTrainedTokenizerBase, options: Sequence[str]) -> list[list[int]]:
    """Token ids of "Answer: X" for each option."""
    return tokenizer([f"Answer: {o}" for o in options], add_special_tokens=False)["input_ids"]


def score_pool(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pool: Sequence[Sample],
    answers: Sequence[str],
    difficulty: str,
    advance: Advance,
    max_tokens: int = 4096,
) -> tuple[np.ndarray, np.ndarray]:
    """Difficulty (n,) float32 and embeddings (n, H) float32 of the pool.

    `loss`: mean NLL of the tokens of the gold answer. `entropy`: entropy of the distribution over the options
    (softmax of their summed log-probabilities), or, without options, of the first answer token.
    """
    prompts = prompt_ids(tokenizer, [s.prompt for s in pool])
    if difficulty == "loss":
        tails = [[t] for t in option_ids(tokenizer, [s.answer or "" for s in pool])]
    else:
        marker = tokenizer(["Answer:"], add_special_tokens=False)["input_ids"]
        tails = [option_ids(tokenizer, answers) if answers else marker] * len(pool)
    hard = np.zeros(len(pool), dtype=np.float32)
    vectors = np.zeros((len(pool), model.config.get_text_config().hidden_size), dtype=np.float32)
    lengths = [len(p) + max(len(t) for t in ts) for p, ts in zip(prompts, tails, strict=True)]
    bf16 = use_bf16("auto", model.device)

    def work(rows: list[int]) -> list[int]:
        per_option = []
        with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            for option in range(max(len(tails[i]) for i in rows)):
                nll, vectors[rows], entropy = _forward(
                    model, [prompts[i] for i in rows], [tails[i][option] for i in rows]
                )
                per_option.append(nll)
        if difficulty == "loss":
            hard[rows] = per_option[0][0]
        elif len(per_option) > 1:
            hard[rows] = _entropy(np.stack([total for _, total in per_option]))
        else:
            hard[rows] = entropy
        return rows

    with side_by_side(model) as run:
        for rows in run(work, bucket(lengths, max_tokens, range(len(pool)))):
            advance(len(rows), "")
            trim()
    return hard, vectors


def _forward(
    model: PreTrainedModel, prompts: list[list[int]], tails: list[list[int]]
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """((mean NLL, summed NLL) of each tail, pooled prompt states, entropy of the token after the tail)."""
    width = max(len(p) + len(t) for p, t in zip(prompts, tails, strict=True))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    in_prompt = torch.zeros(len(prompts), width, dtype=torch.bool)
    in_tail = torch.zeros(len(prompts), width, dtype=torch.bool)
    for row, (p, t) in enumerate(zip(prompts, tails, strict=True)):
        ids[row, : len(p) + len(t)] = torch.tensor(p + t)
        in_prompt[row, : len(p)] = True
        in_tail[row, len(p) : len(p) + len(t)] = True
    ids, in_prompt, in_tail = (x.to(model.device) for x in (ids, in_prompt, in_tail))
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state  # (B, T, H)
    counts = in_prompt.sum(1, keepdim=True)
    pooled = (hidden.float() * in_prompt[..., None]).sum(1) / counts  # (B, H)
    head = model.get_output_embeddings()
    before = in_tail[:, 1:]  # position t predicts t + 1
    logits = head(hidden[:, :-1][before]).float()
    nll = F.cross_entropy(logits, ids[:, 1:][before], reduction="none")
    total = torch.zeros(len(prompts), device=nll.device).index_add_(0, torch.nonzero(before)[:, 0], nll)
    sizes = in_tail.sum(1)
    last = hidden[torch.arange(len(prompts)), counts[:, 0] + sizes - 1]
    after = head(last).float().log_softmax(-1)
    entropy = -(after.exp() * after).sum(-1)
    return (
        ((total / sizes).cpu().numpy(), total.cpu().numpy()),
        F.normalize(pooled, dim=-1).cpu().numpy(),
        entropy.cpu().numpy(),
    )


def _entropy(nll: np.ndarray) -> np.ndarray:
    """Entropy over options (k, n) of the softmax of the negated summed NLL."""
    logits = -nll
    logits = logits - logits.max(0)
    p = np.exp(logits) / np.exp(logits).sum(0)
    return -(p * np.log(np.clip(p, 1e-12, 1))).sum(0)
