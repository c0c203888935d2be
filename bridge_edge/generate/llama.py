"""The assistant in llama.cpp on the CPU: many sequences in one context, finished ones replaced at once.

What: the checkpoint as GGUF F16 (made by the caller), decoded with one native call a step for all slots; a slot whose
draft has ended takes the next prompt in the same call. The samples of an item share the cells of their prompt. Texts
become ids by the checkpoint's own tokenizer, so that every engine reads the same ids.
Why: for TAs of several billions on a machine without a GPU, where llama.cpp's kernels are ahead of torch's.
Not covered: GPUs (the shipped build has none), quantised assistants, more than 64 drafts at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bridge_edge.data.encode import prompt_ids
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from bridge_edge.generate.drafts import Draft, Wish
from bridge_edge.generate.draw import Draw
from bridge_edge.progress import Advance
from bridge_edge.runtimes.llama_native import last_error, load_model, native, vocabulary
from bridge_edge.train.models import load_tokenizer

SLOTS, BATCH = 64, 512


@dataclass
class Slot:
    """A draft in the making: its row (item times samples plus sample), where the next token stands, what it has."""

    row: int
    position: int
    chances: np.ndarray | None
    ids: list[int] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)
    ended: bool = False


class LlamaWriter:
    """See `bridge_edge.generate.drafts.Writer`."""

    def __init__(self, path: Path, folder: str, wish: Wish, rows: int, threads: int | None = None) -> None:
        self.wish = wish
        self.slots = max(min(rows, SLOTS), wish.samples)
        self.threads = threads or max(1, (os.cpu_count() or 2) // 2)
        self.tokenizer = load_tokenizer(folder)
        self.end = self.tokenizer.eos_token_id
        self._model: Any = load_model(path)
        self.vocab_size = native.llama_vocab_n_tokens(vocabulary(self._model))
        self._context: Any = None
        self._batch: Any = None
        self._room = (0, 0)

    def write(self, items: Sequence[Sample], advance: Advance) -> Iterator[tuple[int, Draft]]:
        wish = self.wish
        prompts = prompt_ids(self.tokenizer, [s.prompt for s in items])
        draw = Draw(wish.temperature, wish.samples, [wish.entropy(s) for s in items]) if wish.temperature else None
        self._open(max(map(len, prompts)))
        queue, busy = list(reversed(range(len(prompts)))), dict[int, Slot]()
        while queue or busy:
            rows = self._fill(prompts, queue, busy, draw)
            if native.llama_decode(self._context, self._batch) != 0:
                raise UserError(f"llama.cpp failed to decode: {last_error()}", "lower annotate.batch_rows")
            for place, numbers in rows:
                logits = np.ctypeslib.as_array(
                    native.llama_get_logits_ith(self._context, place), shape=(self.vocab_size,)
                ).astype(np.float64)
                for number in numbers:
                    self._choose(busy[number], logits)
            for number in [n for n, s in busy.items() if s.ended or len(s.ids) == wish.bound]:
                native.llama_memory_seq_rm(native.llama_get_memory(self._context), number, -1, -1)
                yield self._draft(busy.pop(number))
                advance(1 / wish.samples, "")

    def _fill(
        self, prompts: Sequence[Sequence[int]], queue: list[int], busy: dict[int, Slot], draw: Draw | None
    ) -> list[tuple[int, list[int]]]:
        """Put the newest token of every busy slot into the batch, and prompts into free slots; returns the places
        whose logits are wanted, each with the slots that choose from them."""
        self._batch.n_tokens, wanted, samples = 0, [], self.wish.samples
        for number, slot in busy.items():
            wanted.append((self._add(slot.ids[-1], slot.position, [number], True), [number]))
            slot.position += 1
        while queue and self.slots - len(busy) >= samples:
            prompt = prompts[queue[-1]]
            if self._batch.n_tokens + len(prompt) > self._room[1]:
                break
            item = queue.pop()
            numbers = [n for n in range(self.slots) if n not in busy][:samples]
            for sample, number in enumerate(numbers):
                row = item * samples + sample
                busy[number] = Slot(row, len(prompt), draw.chances(row, self.wish.bound) if draw else None)
            places = [self._add(token, i, numbers, i + 1 == len(prompt)) for i, token in enumerate(prompt)]
            wanted.append((places[-1], numbers))
        return wanted

    def _add(self, token: int, position: int, numbers: Sequence[int], logits: bool) -> int:
        """One token of the sequences `numbers` at the end of the batch; returns its place."""
        batch, place = self._batch, self._batch.n_tokens
        batch.token[place], batch.pos[place], batch.logits[place] = token, position, logits
        batch.n_seq_id[place] = len(numbers)
        for k, number in enumerate(numbers):
            batch.seq_id[place][k] = number
        batch.n_tokens = place + 1
        return int(place)

    def _choose(self, slot: Slot, logits: np.ndarray) -> None:
        """The next token of a slot from logits (V,): the best one, or the one that its random number names."""
        logs = logits - logits.max()
        logs -= np.log(np.exp(logs).sum())
        if slot.chances is None:
            token = int(logs.argmax())
        else:
            heated = np.exp((logs - logs.max()) / self.wish.temperature)
            sums = np.cumsum(heated / heated.sum())
            token = min(int(np.searchsorted(sums, slot.chances[len(slot.ids)])), len(sums) - 1)
        slot.logs.append(float(logs[token]))
        slot.ended = token == self.end
        if not slot.ended:
            slot.ids.append(token)

    def _draft(self, slot: Slot) -> tuple[int, Draft]:
        item, sample = divmod(slot.row, self.wish.samples)
        text = str(self.tokenizer.decode(slot.ids, skip_special_tokens=True))
        return item, Draft(text, len(slot.ids), round(sum(slot.logs) / len(slot.logs), 5), slot.ended, sample)

    def _open(self, longest: int) -> None:
        """A context with cells for all slots at their full length, and a batch for a prompt beside all slots."""
        cells, tokens = self.slots * (longest + self.wish.bound), max(BATCH, longest + self.slots)
        if self._context and cells <= self._room[0] and tokens <= self._room[1]:
            return
        limit = native.llama_model_n_ctx_train(self._model)
        if longest + self.wish.bound > limit:
            raise UserError(
                f"a prompt of {longest} tokens and task.max_new_tokens={self.wish.bound} exceed the context of {limit}",
                "lower task.max_new_tokens, or shorten the items",
            )
        self._drop()
        params = native.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = cells, tokens, BATCH, self.slots
        params.n_threads = params.n_threads_batch = self.threads
        params.kv_unified, params.no_perf = True, True  # unified: the samples of an item share their prompt's cells
        self._context = native.llama_init_from_model(self._model, params)
        if not self._context:
            raise UserError(f"llama.cpp cannot open a context of {cells} cells: {last_error()}",
                            "lower annotate.batch_rows")  # fmt: skip
        self._batch = native.llama_batch_init(tokens, 0, self.slots)
        self._room = (cells, tokens)

    def _drop(self) -> None:
        if self._batch is not None:
            native.llama_batch_free(self._batch)
        if self._context:
            native.llama_free(self._context)
        self._context = self._batch = None

    def close(self) -> None:
        self._drop()
        if self._model:
            native.llama_model_free(self._model)
            self._model = None
