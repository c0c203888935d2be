"""The embedded expert as a teacher: metered, priced and capped like a paid one, with no network and no key.

It knows the facts behind each sample (a task's own program wrote them) and puts the reasoning into words. Its tokens
are counted by `quarter` unless a tokenizer's count is given; a completion longer than `max_tokens` is cut as an API
would. The text of an item depends on the seed, the item and the sample index only, never on the order of asking.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from bridge_edge.data.card import completion
from bridge_edge.data.samples import Sample, Task
from bridge_edge.prices import Price
from bridge_edge.teacher.base import Reply, Request, TeacherError, count_messages, digest, quarter
from bridge_edge.teacher.lengths import Shorter, join


def explain(task: Task, sample: Sample, rng: random.Random, shorter: Shorter | None = None) -> str:
    """What a domain's expert says: the rationale, the longest brief one that keeps to each budget, the answer."""
    rationale, answer = task.expert(sample, rng)
    if shorter is not None:
        rationale = join(rationale, shorter.chosen(task.briefs(sample, rng)))
    return completion(rationale, answer)


class ExpertTeacher:
    """`task.expert` behind the interface of a paid teacher."""

    def __init__(
        self,
        task: Task,
        samples_by_id: Mapping[str, Sample],
        price: Price | None = None,
        seed: int = 0,
        count: Callable[[str], int] = quarter,
        edition: str = "",
        shorter: Shorter | None = None,
    ) -> None:
        self.task = task
        self.samples = samples_by_id
        self.price = price or Price()
        self.seed = seed
        self.name = f"embedded:{task.name}"
        self.shorter = shorter
        self._count = count
        self._edition = edition  # of the program: another one gives other answers to the same request

    def count_tokens(self, text: str) -> int:
        return self._count(text)

    def prompt_tokens(self, request: Request) -> int:
        return count_messages(request, self._count)

    def request_hash(self, request: Request) -> str:
        # The item is part of it: the expert answers from the item's facts, not from the messages.
        extra = {"seed": self.seed, "item": request.item_id, "edition": self._edition}
        return digest("expert", "", self.name, request, extra)

    def ask(self, request: Request) -> Reply:
        sample = self.samples.get(request.item_id)
        if sample is None:
            message = f"the embedded expert has no facts about item {request.item_id!r}"
            raise TeacherError(message, "unknown item", billed="no", scope="item")
        rng = random.Random(f"{self.seed}:{request.item_id}:{request.sample}")
        text, reason = self._cut(explain(self.task, sample, rng, self.shorter), request.max_tokens)
        return Reply(text, self.prompt_tokens(request), self._count(text), reason, self.name)

    def _cut(self, text: str, max_tokens: int) -> tuple[str, str]:
        """The longest beginning of `text` within `max_tokens`, found by halving, and the finish reason."""
        if self._count(text) <= max_tokens:
            return text, "stop"
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._count(text[:middle]) <= max_tokens else (low, middle - 1)
        return text[:low], "length"
