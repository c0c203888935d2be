"""Batched greedy generation for annotation and evaluation in torch.

What: rows of near-equal prompt length are decoded together; the key-value cache is preallocated and written in
place; rows that have ended leave the batch as soon as a quarter of it is idle.
Why: annotating a whole pool is the longest inference of a run, and `generate` pays for padding, for growing caches
and for finished rows.
Not covered: sampling, beams, models whose cache is not plain keys and values (they go through `generate`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from bridge_edge.train.loop import use_bf16


@dataclass(frozen=True)
class Generated:
    """New token ids of one row (end token left out), their mean log-probability, and whether the row ended itself."""

    index: int
    ids: list[int]
    logprob: float
    ended: bool


class FixedLayer(DynamicLayer):
    """Keys and values of one layer in buffers of a fixed length, written in place and returned as views."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.used = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        batch, groups, new, width = key_states.shape
        if self.used == 0:
            self.key_buffer = key_states.new_empty(batch, groups, self.length, width)
            self.value_buffer = value_states.new_empty(batch, groups, self.length, width)
            self.is_initialized = True
        end = self.used + new
        self.key_buffer[:, :, self.used : end] = key_states
        self.value_buffer[:, :, self.used : end] = value_states
        self.used = end
        self.keys, self.values = self.key_buffer[:, :, :end], self.value_buffer[:, :, :end]
        return self.keys, self.values

    def keep(self, rows: torch.Tensor) -> None:
        """Keep only the given rows of the batch."""
        self.key_buffer, self.value_buffer = self.key_buffer[rows], self.value_buffer[rows]

    def get_seq_length(self) -> int:
        return self.used


def plain_cache(model: PreTrainedModel) -> bool:
    """Whether every layer keeps plain keys and values of all positions."""
    kinds = getattr(model.config, "layer_types", None)
    return kinds is None or all(kind == "full_attention" for kind in kinds)


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    eos_ids: frozenset[int],
    batch_rows: int = 256,
    precision: str = "auto",
) -> Iterator[Generated]:
    """Greedy completions of tokenised prompts, in the order in which they finish (use `.index`)."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    model.eval()
    with (
        torch.inference_mode(),
        torch.autocast(model.device.type, torch.bfloat16, enabled=use_bf16(precision, model.device)),
    ):
        for start in range(0, len(order), batch_rows):
            rows = order[start : start + batch_rows]
            yield from _decode(model, rows, [prompts[i] for i in rows], max_new_tokens, eos_ids)


def _decode(
    model: PreTrainedModel, indices: list[int], prompts: list[Sequence[int]], bound: int, eos_ids: frozenset[int]
) -> Iterator[Generated]:
    """Decode one batch: left padding, so that the last prompt tokens stand in one column."""
    width = max(len(p) for p in prompts)
    device = model.device
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    ids = torch.zeros(len(prompts), width, dtype=torch.long, device=device)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt, device=device)
    columns = torch.arange(width + bound, device=device)
    mask = (columns >= (width - lengths)[:, None]).long()  # (B, width + bound), 1 from the first real token on
    padded = bool((lengths != width).any())
    cache = Cache(layers=[FixedLayer(width + bound) for _ in range(model.config.num_hidden_layers)])
    ends = torch.tensor(sorted(eos_ids), device=device)
    new = torch.zeros(len(prompts), bound, dtype=torch.long, device=device)
    score = torch.zeros(len(prompts), bound, device=device)
    alive = torch.arange(len(prompts), device=device)
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    current, positions = ids, (columns[None, :width] - (width - lengths)[:, None]).clamp(min=0)
    for step in range(bound):
        out = model(
            input_ids=current,
            position_ids=positions,
            attention_mask=mask[alive, : width + step] if padded else None,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logprobs = out.logits[:, -1].float().log_softmax(-1)  # (B, V)
        best, token = logprobs.max(-1)
        new[alive, step], score[alive, step] = token, best
        ended = torch.isin(token, ends) & ~done[alive]
        done[alive[ended]] = True
        keep = torch.nonzero(~done[alive]).squeeze(1)
        finished_rows = alive[ended].tolist()
        for row in finished_rows:
            yield _row(indices[row], new[row, :step], score[row, : step + 1], True)
        if not len(keep):
            return
        if len(keep) < 0.75 * len(alive):
            for layer in cache.layers:
                layer.keep(keep)
            alive, token = alive[keep], token[keep]
        current = token[:, None]
        positions = (lengths[alive] + step)[:, None]
        if done[alive].any():
            ended_rows = done[alive]
            current = current.masked_fill(ended_rows[:, None], int(ends[0]))
    for row in torch.nonzero(~done).squeeze(1).tolist():
        yield _row(indices[row], new[row], score[row], False)


def _row(index: int, ids: torch.Tensor, scores: torch.Tensor, ended: bool) -> Generated:
    return Generated(index, ids.tolist(), float(scores.mean()) if len(scores) else 0.0, ended)
