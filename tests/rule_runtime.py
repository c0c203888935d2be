"""A real, tiny Runtime for tests: bytes are its tokens and a rule is its model.

It answers "Answer: yes" to a prompt with a 7 in it and "Answer: no" to any other, one byte a step; `seen` keeps the
prompts that reached `stream`, `pause` slows each step down.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bridge_edge.data.card import Card

CARD = Card(recipe="toy", prompt="{text}", answers=("yes", "no"), max_new_tokens=20)
END = 0


class RuleSession:
    """Keeps what was fed, and how: (position, tokens) of every call; see `bridge_edge.runtimes.session.Session`."""

    def __init__(self, runtime: RuleRuntime, room: int) -> None:
        self.runtime, self.room, self.length = runtime, room, 0
        runtime.sessions.append(self)
        self.calls: list[tuple[int, list[int]]] = []

    def feed(self, ids: Sequence[int]) -> None:
        assert self.length + len(ids) <= self.room
        time.sleep(self.runtime.pause)
        self.calls.append((self.length, list(ids)))
        self.length += len(ids)

    def rewind(self, length: int) -> None:
        assert length <= self.length
        self.length = length


class RuleRuntime:
    """See `bridge_edge.runtimes.base.Runtime`."""

    name = "rule"
    eos_ids = frozenset({END})
    vocab_size = 256

    def __init__(self, path: Path, card: Card | None = CARD, pause: float = 0.0, context: int = 512) -> None:
        self.path, self.card, self.pause, self.context_length = path, card, pause, context
        self.seen: list[list[int]] = []
        self.sessions: list[RuleSession] = []
        self.closed = False

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")

    def chat(self, prompt: str) -> list[int]:
        return self.encode(f"<{prompt}>")

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return np.eye(self.vocab_size, dtype=np.float32)[list(ids)]

    def stream(self, ids: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        self.seen.append(list(ids))
        for token in self.encode("Answer: yes" if ord("7") in ids else "Answer: no")[:max_new_tokens]:
            time.sleep(self.pause)
            yield token

    def session(self, room: int) -> RuleSession:
        return RuleSession(self, room)

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        return [self.decode(list(self.stream(self.chat(p), max_new_tokens))) for p in prompts]

    def close(self) -> None:
        self.closed = True
