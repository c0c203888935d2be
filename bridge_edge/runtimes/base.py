"""One small interface over torch, GGUF and ONNX: load, encode, logits, prefill and decode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from bridge_edge.data.card import Card
from bridge_edge.errors import UserError


class MissingRuntime(UserError):
    """The package that runs a format is not installed."""


class Runtime(Protocol):
    """A loaded student. Token ids are the model's own; prompts go through the chat template exactly once."""

    name: str  # "torch", "gguf" or "onnx"
    path: Path
    card: Card | None
    eos_ids: frozenset[int]
    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; special tokens written out in it are recognised, none is added."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""

    def chat(self, prompt: str) -> list[int]:
        """Token ids of one user message framed by the model's chat template, generation prompt included."""

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Teacher-forced logits (T, V) in float32 for a sequence of T token ids."""

    def stream(self, ids: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        """Greedy decoding: prefill `ids`, then yield new token ids until an end token (not yielded) or the bound."""

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Greedy completions (decoded text) of user messages; batched where the runtime can."""

    def close(self) -> None:
        """Free the model."""
