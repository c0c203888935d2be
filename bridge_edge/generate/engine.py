"""Batched generation for annotation and evaluation in torch.

What: rows of near-equal prompt length are decoded together; the key-value cache is preallocated and written in
place; rows that have ended leave the batch as soon as a quarter of it is idle.
Why: annotating a whole pool is the longest inference of a run, and `generate` pays for padding, for growing caches
and for finished rows.
Small dense decoders go through `dense.py`, where a finished row's place is given to the next prompt at once.
Models with sliding windows use the library's own cache layers. With a `Draw`, several completions of each prompt are
sampled; `dense.py` reads their prompt once. Not covered: beams, recurrent states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from bridge_edge.generate.dense import Dense, Slots, fits
from bridge_edge.generate.draw import Draw, scored
from bridge_edge.generate.fixed_cache import new_cache
from bridge_edge.memory import trim
from bridge_edge.parallel import side_by_side
from bridge_edge.train.precision import use_bf16


@dataclass(frozen=True)
class Generated:
    """New token ids of one row (end token left out), their mean log-probability, and whether the row ended itself.

    `index` is the place of its prompt; with k samples, k times that place plus the number of the sample."""

    index: int
    ids: list[int]
    logprob: float
    ended: bool


LARGEST_PREFILL = 600_000  # rows x length x length of one prefill; each head holds a few float32 matrices of that size


def grouped(lengths: Sequence[int], order: Sequence[int], batch_rows: int) -> list[list[int]]:
    """Batches of `order` (by rising length): at most `batch_rows` rows, fewer where their attention would be large.

    Prefill holds a few matrices of rows x heads x length x length, so long prompts at full batch size would take
    gigabytes.
    """
    groups: list[list[int]] = [[]]
    for i in order:
        rows = len(groups[-1]) + 1
        if groups[-1] and (rows > batch_rows or rows * lengths[i] ** 2 > LARGEST_PREFILL):
            groups.append([])
        groups[-1].append(i)
    return groups if groups[0] else []


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    eos_ids: frozenset[int],
    batch_rows: int = 256,
    precision: str = "auto",
    draw: Draw | None = None,
) -> Iterator[Generated]:
    """Completions of tokenised prompts, batch after batch (use `.index`): greedy ones, or as `draw` says."""
    if draw is not None:  # the samples of a prompt share one list, and stay together in the order
        prompts = [p for p in prompts for _ in range(draw.samples)]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    model.eval()
    bf16 = use_bf16(precision, model.device)
    if fits(model):
        yield from _flow(model, prompts, order, max_new_tokens, eos_ids, batch_rows, bf16, draw)
        return
    groups = grouped([len(p) for p in prompts], order, batch_rows)

    def work(rows: list[int]) -> list[Generated]:
        return list(_decode(model, rows, [prompts[i] for i in rows], max_new_tokens, eos_ids, bf16, draw))

    with side_by_side(model) as run:
        for finished in run(work, groups):
            yield from finished
            trim()


def _flow(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    order: Sequence[int],
    bound: int,
    eos_ids: frozenset[int],
    batch_rows: int,
    bf16: bool,
    draw: Draw | None,
) -> Iterator[Generated]:
    """Completions by continuous batching, as they end; each core takes every other prompt of the order."""
    dense, copies = Dense(model, bf16), draw.samples if draw else 1
    cores = max(1, min(torch.get_num_threads(), len(order) // copies))
    inbox: SimpleQueue[Generated | None] = SimpleQueue()

    def work(part: Sequence[int]) -> None:
        try:
            for row in Flow(dense, prompts, bound, eos_ids, batch_rows, draw).run(part):
                inbox.put(row)
        finally:
            inbox.put(None)

    if cores == 1:
        yield from Flow(dense, prompts, bound, eos_ids, batch_rows, draw).run(order)
    else:
        with side_by_side(model) as run:
            alike = [order[i : i + copies] for i in range(0, len(order), copies)]
            results = run(work, [list(chain.from_iterable(alike[i::cores])) for i in range(cores)])
            for _ in range(cores):
                while (row := inbox.get()) is not None:
                    yield row
            list(results)  # raises what a worker raised
    trim()


class Flow:
    """Decoding of a queue of prompts in a fixed number of slots."""

    def __init__(
        self,
        dense: Dense,
        prompts: Sequence[Sequence[int]],
        bound: int,
        eos_ids: frozenset[int],
        slots: int,
        draw: Draw | None = None,
    ) -> None:
        self.dense, self.prompts, self.bound, self.size, self.draw = dense, prompts, bound, slots, draw
        self.ends = torch.tensor(sorted(eos_ids), dtype=torch.long)

    def run(self, prompts: Sequence[int]) -> Iterator[Generated]:
        """Completions of the prompts at these places, by their end."""
        queue = list(reversed(prompts))
        size = min(self.size, len(queue))
        longest = max((len(self.prompts[i]) for i in queue), default=0) + self.bound
        cache = Slots(self.dense, size, longest)
        owner = torch.full((size,), -1)  # which prompt a slot works on; -1: none
        token, position, made = (torch.zeros(size, dtype=torch.long) for _ in range(3))
        new, score = torch.zeros(size, self.bound, dtype=torch.long), torch.zeros(size, self.bound)
        chances = torch.zeros(size, self.bound if self.draw else 0, dtype=torch.float64)
        while True:
            free = torch.nonzero(owner < 0).squeeze(1)
            if queue and 4 * len(free) >= size:
                rows, logits = self._admit(queue, free, cache)
                taken = free[: len(rows)]
                owner[taken] = torch.tensor(rows)
                position[taken] = torch.tensor([len(self.prompts[i]) for i in rows])
                made[taken] = 0
                if self.draw:
                    chances[taken] = chances_of(self.draw, rows, self.bound)
            elif (owner >= 0).any():
                if not queue and 4 * len(free) >= len(owner):
                    kept = torch.nonzero(owner >= 0).squeeze(1)
                    cache.keep(kept)
                    owner, token, position, made = owner[kept], token[kept], position[kept], made[kept]
                    new, score, chances = new[kept], score[kept], chances[kept]
                taken = torch.nonzero(owner >= 0).squeeze(1)
                logits = self.dense.step(token, position.clamp(max=longest - 1), cache)[taken]
                position[taken] += 1
            else:
                return
            if self.draw:
                best, chosen = scored(logits, self.draw.temperature, chances[taken, made[taken]])
            else:
                best, chosen = logits.log_softmax(-1).max(-1)
            token[taken] = chosen
            new[taken, made[taken]], score[taken, made[taken]] = chosen, best
            made[taken] += 1
            ended = torch.isin(chosen, self.ends)
            over = torch.nonzero(ended | (made[taken] == self.bound)).squeeze(1)
            for slot, stopped in zip(taken[over].tolist(), ended[over].tolist(), strict=True):
                count = int(made[slot])
                yield _row(int(owner[slot]), new[slot, : count - stopped], score[slot, :count], stopped)
            owner[taken[over]] = -1

    def _admit(self, queue: list[int], free: torch.Tensor, cache: Slots) -> tuple[list[int], torch.Tensor]:
        """Prefill the next prompts into free slots; their rows and the logits of their first new token."""
        rows: list[int] = []
        read: list[Sequence[int]] = []  # samples of one prompt, which follow each other, read it once
        source: list[int] = []
        while queue and len(rows) < len(free):
            prompt = self.prompts[queue[-1]]
            if not read or read[-1] is not prompt:
                if rows and (len(read) + 1) * len(prompt) ** 2 > LARGEST_PREFILL:
                    break
                read.append(prompt)
            rows.append(queue.pop())
            source.append(len(read) - 1)
        lengths = torch.tensor([len(p) for p in read])
        ids = torch.zeros(len(read), int(lengths.max()), dtype=torch.long)
        for k, prompt in enumerate(read):
            ids[k, : len(prompt)] = torch.tensor(prompt)
        copied = torch.tensor(source) if len(read) < len(rows) else None
        states = self.dense.prefill(ids, cache, free[: len(rows)], copied)
        logits = self.dense.logits(states[torch.arange(len(read)), lengths - 1])
        return rows, logits if copied is None else logits[copied]


def chances_of(draw: Draw, rows: Sequence[int], bound: int) -> torch.Tensor:
    """The random numbers (rows, bound) of these completions."""
    return torch.from_numpy(np.stack([draw.chances(row, bound) for row in rows]))


def _forward(
    model: PreTrainedModel, bf16: bool, temperature: float = 0.0, chance: torch.Tensor | None = None, **inputs: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and id of the next token of each row, the best one or a drawn one. The modes end here: a
    generator that kept them open would switch them on for whoever reads it."""
    with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        out = model(**inputs, use_cache=True, logits_to_keep=1)
        return scored(out.logits[:, -1].float(), temperature, chance)  # (B, V) -> (B,)


def _decode(
    model: PreTrainedModel,
    indices: list[int],
    prompts: list[Sequence[int]],
    bound: int,
    eos_ids: frozenset[int],
    bf16: bool,
    draw: Draw | None = None,
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
    cache = new_cache(model, width + bound)
    ends = torch.tensor(sorted(eos_ids), dtype=torch.long, device=device)
    new = torch.zeros(len(prompts), bound, dtype=torch.long, device=device)
    score = torch.zeros(len(prompts), bound, device=device)
    alive = torch.arange(len(prompts), device=device)
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    chances = chances_of(draw, indices, bound).to(device) if draw else None
    current, positions = ids, (columns[None, :width] - (width - lengths)[:, None]).clamp(min=0)
    for step in range(bound):
        seen = mask[alive, : width + step] if padded else None
        inputs: dict[str, Any] = {
            "input_ids": current,
            "position_ids": positions,
            "attention_mask": seen,
            "past_key_values": cache,
        }
        if draw and chances is not None:
            inputs |= {"temperature": draw.temperature, "chance": chances[alive, step]}
        best, token = _forward(model, bf16, **inputs)
        new[alive, step], score[alive, step] = token, best
        ended = torch.isin(token, ends) & ~done[alive]
        done[alive[ended]] = True
        keep = torch.nonzero(~done[alive]).squeeze(1)
        for row in alive[ended].tolist():
            yield _row(indices[row], new[row, :step], score[row, : step + 1], True)
        if not len(keep):
            return
        if len(keep) < 0.75 * len(alive):
            cache.batch_select_indices(keep)
            alive, token = alive[keep], token[keep]
        current = token[:, None]
        positions = (lengths[alive] + step)[:, None]
        if done[alive].any():
            current = current.masked_fill(done[alive][:, None], int(ends[0]))
    for row in torch.nonzero(~done).squeeze(1).tolist():
        yield _row(indices[row], new[row], score[row], False)


def _row(index: int, ids: torch.Tensor, scores: torch.Tensor, ended: bool) -> Generated:
    return Generated(index, ids.tolist(), float(scores.mean()) if len(scores) else 0.0, ended)
