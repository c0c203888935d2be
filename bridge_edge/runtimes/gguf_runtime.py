"""A student in GGUF, run by llama.cpp on the CPU.

The tokenizer, the chat template and the card are those inside the file, so what is measured is what ships. The
context starts small and grows on demand up to the model's own limit, because reserving a 32k context costs a
device more memory than a small student's weights. Prompts are run one after another.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bridge_edge.data.card import GGUF_KEY, Card
from bridge_edge.errors import UserError
from bridge_edge.runtimes.gguf_header import EOS_KEY, FORMS, NORMALIZER_KEY, read_header
from bridge_edge.runtimes.llama_native import fill, last_error, load_model, native, piece, tokenize, vocabulary
from bridge_edge.runtimes.template import render

FIRST_CONTEXT, BATCH, LOGIT_ROWS = 1024, 512, 64


class GGUFRuntime:
    """See `bridge_edge.runtimes.base.Runtime`."""

    name = "gguf"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self.path = path
        self.header = read_header(path)
        metadata = self.header.metadata
        card = metadata.get(GGUF_KEY)
        self.card = Card.loads(card) if isinstance(card, str) else None
        self.threads = threads or max(1, (os.cpu_count() or 2) // 2)
        self._context: Any = None
        self._batch: Any = None
        self._size = 0
        self._seen: tuple[int, int] | None = None  # where the last logits lay, and how many rows
        self._view = np.zeros((0, 0), dtype=np.float32)
        self._pieces: dict[int, bytes] = {}
        self._model: Any = load_model(path)
        self._vocab = vocabulary(self._model)
        self.vocab_size = native.llama_vocab_n_tokens(self._vocab)
        self.context_length = native.llama_model_n_ctx_train(self._model)
        self.eos_ids = self._end_tokens(metadata)
        self._template = metadata.get("tokenizer.chat_template")
        self._form = metadata.get(NORMALIZER_KEY)

    def _end_tokens(self, metadata: dict[str, Any]) -> frozenset[int]:
        """The ids the exporter recorded; for files by others, every token that llama.cpp takes for an end."""
        recorded = metadata.get(EOS_KEY)
        if isinstance(recorded, str):
            try:
                ids = json.loads(recorded)
                sound = all(type(i) is int and 0 <= i < self.vocab_size for i in ids)
            except (ValueError, TypeError, RecursionError):
                sound = False
            if not sound:
                raise UserError(f"{self.path} names end tokens {recorded[:40]!r} that it lacks", "export it again")
            return frozenset(ids)
        return frozenset(i for i in range(self.vocab_size) if native.llama_vocab_is_eog(self._vocab, i))

    def encode(self, text: str) -> list[int]:
        """llama.cpp applies no Unicode normalisation to BPE text; do here what the original tokenizer does."""
        if self._form in FORMS:
            text = unicodedata.normalize(self._form, text)
        return tokenize(self._vocab, text)

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self._piece(int(i)) for i in ids).decode("utf-8", "replace")

    def _piece(self, token: int) -> bytes:
        """A token's bytes, asked of llama.cpp once: whoever streams an answer decodes all of it at every token."""
        found = self._pieces.get(token)
        if found is None:
            found = self._pieces[token] = piece(self._vocab, token)
        return found

    def framed(self, prompt: str) -> str:
        """One user message as text, in the file's own chat template."""
        if not isinstance(self._template, str):
            raise UserError(f"{self.path} has no chat template", "export it from a checkpoint whose tokenizer has one")
        return render(self._template, prompt, self.special())

    def chat(self, prompt: str) -> list[int]:
        return self.encode(self.framed(prompt))

    def special(self) -> dict[str, str]:
        """The texts of the tokens that a template may name: bos_token, eos_token and their like."""
        special = {}
        for role in ("bos", "eos", "unk", "padding"):
            token = self.header.metadata.get(f"tokenizer.ggml.{role}_token_id")
            if isinstance(token, int) and 0 <= token < self.vocab_size:
                name = "pad_token" if role == "padding" else f"{role}_token"
                special[name] = native.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace")
        return special

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        self._prepare(ids, 0)
        rows = [self._run(ids[i : i + LOGIT_ROWS], i, every=True) for i in range(0, len(ids), LOGIT_ROWS)]
        return np.concatenate(rows) if rows else np.zeros((0, self.vocab_size), dtype=np.float32)  # (T, V)

    def stream(self, ids: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        if not ids:
            raise UserError("cannot generate from an empty prompt", "give at least one token")
        bound = self._prepare(ids, max_new_tokens)
        row = np.zeros(0)
        for i in range(0, len(ids), BATCH):
            row = self._run(ids[i : i + BATCH], i, every=False)[-1]
        for step in range(bound):
            token = int(row.argmax())
            if token in self.eos_ids:
                return
            yield token
            if step + 1 < bound:
                row = self._run([token], len(ids) + step, every=False)[-1]

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        return [self.decode(list(self.stream(self.chat(p), max_new_tokens))) for p in prompts]

    def close(self) -> None:
        self._drop_context()
        if self._model:
            native.llama_model_free(self._model)
            self._model = None

    def __del__(self) -> None:
        # A forgotten close() must not leak a model; while the interpreter ends, the native library may be gone already.
        if getattr(self, "_model", None) and not sys.is_finalizing():
            self.close()

    def _drop_context(self) -> None:
        if self._batch is not None:
            native.llama_batch_free(self._batch)
            self._batch = None
        if self._context:
            native.llama_free(self._context)
            self._context, self._size, self._seen = None, 0, None

    def _prepare(self, ids: Sequence[int], new: int) -> int:
        """Empty the cache, with room for `ids` and `new` tokens; how many new tokens the model's limit allows."""
        if not self._model:
            raise UserError(f"{self.path} was closed", "load it again")
        bad = [i for i in ids if not 0 <= i < self.vocab_size]
        if bad:
            raise UserError(f"token id {bad[0]} is outside the vocabulary of {self.vocab_size}", "encode the text anew")
        if len(ids) >= self.context_length + (new == 0):
            raise UserError(
                f"the prompt has {len(ids)} tokens; the model's context is {self.context_length}", "shorten it"
            )
        need = min(len(ids) + new, self.context_length)
        if need > self._size:
            self._open_context(min(self.context_length, max(FIRST_CONTEXT, 1 << (need - 1).bit_length())))
        native.llama_memory_clear(native.llama_get_memory(self._context), True)
        return min(new, self.context_length - len(ids))

    def _open_context(self, size: int) -> None:
        self._drop_context()
        params = native.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = size, BATCH, BATCH, 1
        params.n_threads = params.n_threads_batch = self.threads
        params.no_perf = True
        self._context = native.llama_init_from_model(self._model, params)
        if not self._context:
            raise UserError(f"llama.cpp cannot open a context of {size} tokens: {last_error()}", "free some memory")
        self._batch = native.llama_batch_init(BATCH, 0, 1)
        self._size = size

    def _run(self, ids: Sequence[int], first: int, every: bool) -> np.ndarray:
        """Decode one batch; logits of all its tokens, (N, V), or of the last, (1, V), until the next batch."""
        fill(self._batch, ids, first, every)
        code = native.llama_decode(self._context, self._batch)
        if code != 0:
            raise UserError(f"llama.cpp failed to decode (code {code}): {last_error()}", "free some memory")
        return self._rows(len(ids)).copy() if every else self._rows(1)

    def _rows(self, count: int) -> np.ndarray:
        """The last batch's logits where llama.cpp keeps them, (count, V). To make an array of an address takes most of
        what a step costs here, so it is made again only when the buffer has moved."""
        rows = native.llama_get_logits(self._context)
        seen = ctypes.addressof(rows.contents), count
        if seen != self._seen:
            self._seen, self._view = seen, np.ctypeslib.as_array(rows, shape=(count, self.vocab_size))
        return self._view
