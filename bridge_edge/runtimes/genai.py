"""Greedy decoding of an ONNX folder by onnxruntime-genai, and a runtime that needs nothing else.

`GenAI` is what every ONNX runtime shares; `BareONNX` adds the package's own tokenizer, for devices without
transformers. Prompts are run one after another, because the runtime derives the attention mask of a padded batch from
the padding id, which may be a real token. A prompt goes in by parts: the graph computes the logits of every token it is
given, which for a prompt of 1,000 and a vocabulary of 152,000 would be 600 MB in one piece. Not covered: whether the
folder can be trusted (`onnx_check`, an app's sums).
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og

from bridge_edge.data.card import Card
from bridge_edge.errors import UserError, first_line, in_one_line
from bridge_edge.runtimes.gguf_header import FORMS
from bridge_edge.runtimes.onnx_config import read_config

PART = 128  # tokens at once; in larger parts a prompt is not faster


def append(generator: Any, ids: Sequence[int], path: Path) -> Iterator[int]:
    """Run `ids` through a generator by parts; yields the length of each once it is in."""
    for i in range(0, len(ids), PART):
        part = list(ids[i : i + PART])
        try:
            generator.append_tokens(np.array([part], dtype=np.int32))
        except RuntimeError as error:
            raise broken(path, error) from None
        yield len(part)


def broken(path: Path, error: RuntimeError) -> UserError:
    """What a user is told of an error in native code."""
    return UserError(f"onnxruntime cannot run {path}: {first_line(error)}", "export the model again")


class GenAI:
    """The model of a folder whose `config` has been read; see `bridge_edge.runtimes.base.Runtime`."""

    name = "onnx"

    def __init__(self, path: Path, config: dict[str, Any], threads: int | None = None) -> None:
        self.path = path
        self.card = Card.load(path)
        model = config["model"]
        eos = model["eos_token_id"]
        self.eos_ids = frozenset(eos if isinstance(eos, list) else [eos])
        self.vocab_size, self.context_length = int(model["vocab_size"]), int(model["context_length"])
        self.threads = threads or max(1, (os.cpu_count() or 2) // 2)
        og.disable_telemetry_events()
        options = {"intra_op_num_threads": self.threads, "inter_op_num_threads": 1}
        try:
            opened = og.Config(str(path))
            opened.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
            self._model: Any = og.Model(opened)
        except Exception as error:
            raise UserError(
                f"onnxruntime-genai cannot load {path}: {in_one_line(error)}", "export the model again"
            ) from None

    def _generator(self, ids: Sequence[int], new: int) -> Any:
        """A greedy generator in which `ids` have room; the cache is sized for this call, not for the model's limit."""
        if self._model is None:
            raise UserError(f"{self.path} was closed", "load it again")
        bad = [i for i in ids if not 0 <= i < self.vocab_size]
        if bad:
            raise UserError(f"token id {bad[0]} is outside the vocabulary of {self.vocab_size}", "encode the text anew")
        if len(ids) > self.context_length:
            raise self._too_long(ids)
        params = og.GeneratorParams(self._model)
        length = min(len(ids) + new, self.context_length)
        params.set_search_options(
            max_length=length, min_length=0, do_sample=False, num_beams=1, repetition_penalty=1.0, batch_size=1
        )
        try:
            return og.Generator(self._model, params)
        except RuntimeError as error:
            raise broken(self.path, error) from None

    def _too_long(self, ids: Sequence[int]) -> UserError:
        return UserError(
            f"the prompt has {len(ids)} tokens; the model's context is {self.context_length}", "shorten it"
        )

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        if not ids:
            return np.zeros((0, self.vocab_size), dtype=np.float32)
        generator, found = self._generator(ids, 1), []
        for size in append(generator, ids, self.path):
            out = np.asarray(generator.get_output("logits"), dtype=np.float32)
            found.append(out.reshape(-1, self.vocab_size)[-size:])
        return np.concatenate(found)  # (T, V)

    def stream(self, ids: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        if not ids:
            raise UserError("cannot generate from an empty prompt", "give at least one token")
        if max_new_tokens <= 0:
            return
        if len(ids) >= self.context_length:
            raise self._too_long(ids)
        room = min(max_new_tokens, self.context_length - len(ids))
        generator = self._generator(ids, room)
        for _ in append(generator, ids, self.path):
            pass
        for _ in range(room):
            if generator.is_done():
                return
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            if token in self.eos_ids:
                return
            yield token

    def generate(self: Any, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        return [self.decode(list(self.stream(self.chat(p), max_new_tokens))) for p in prompts]

    def close(self) -> None:
        self._model = None


class BareONNX(GenAI):
    """With the tokenizer of onnxruntime-genai, which leaves out the Unicode normalisation that the folder asks for. It
    decodes as transformers does up to the first bytes that are no UTF-8, and nothing behind them."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        super().__init__(path, read_config(path), threads)
        self._tokenizer: Any = og.Tokenizer(self._model)
        self._form = (json.loads((path / "tokenizer.json").read_text("utf-8")).get("normalizer") or {}).get("type")

    def encode(self, text: str) -> list[int]:
        if self._form in FORMS:
            text = unicodedata.normalize(self._form, text)
        return [int(i) for i in self._tokenizer.encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(np.array(ids, dtype=np.int32)))

    def chat(self, prompt: str) -> list[int]:
        messages = json.dumps([{"role": "user", "content": prompt}])
        try:
            return self.encode(self._tokenizer.apply_chat_template(messages=messages, add_generation_prompt=True))
        except RuntimeError as error:
            raise UserError(
                f"the chat template in {self.path} fails: {first_line(error)}", "mend the template"
            ) from None
