"""Decode with a bound on the reasoning, in any runtime: at the bound the thought is closed and the answer asked for.

The student is told its budget in the prompt (`data/thinking.py`) and may keep to it by itself; where it does not, what
goes beyond is dropped, the answer's marker is put in its place, and decoding goes on from there. The prompt and the
thought are then read again, as the common interface of the runtimes keeps no cache from one call to the next.

Not covered: batches, sampling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bridge_edge.data.thinking import ROOM, closing, thought
from bridge_edge.runtimes.base import Runtime


class Thinking:
    """One answer within a budget; `tokens` (thought) and `closed` (by the bound) are known once it is decoded."""

    def __init__(self, runtime: Runtime, budget: int) -> None:
        self.runtime, self.budget = runtime, budget
        self.tokens, self.closed = 0, False

    def stream(self, prompt: Sequence[int]) -> Iterator[int]:
        """New tokens behind `prompt`, as `Runtime.stream` yields them. Tokens that may yet become the answer's marker
        are held back until that is known."""
        ids: list[int] = []
        sent = 0
        for token in self.runtime.stream(prompt, self.budget + ROOM):
            ids.append(token)
            self.tokens, answering = thought(self.runtime.decode, ids)
            if self.tokens > self.budget:
                self.tokens, self.closed, ids = self.budget, True, ids[: self.budget]
                break
            ready = len(ids) if answering else self.tokens
            yield from ids[sent:ready]
            sent = max(sent, ready)
        yield from ids[sent:]
        if self.closed:
            end = [t for piece in closing(self.runtime.decode(ids)) for t in self.runtime.encode(piece)]
            yield from end
            yield from self.runtime.stream([*prompt, *ids, *end], ROOM)
