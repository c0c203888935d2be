"""Samples: the rows that the stages hand each other, and the tasks that make them.

A sample knows where it came from: `provenance` says who wrote its rationale and answer (gold, teacher, ta, student),
and its id is a hash of its prompt, so the same question has the same id in every file.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

GOLD, TEACHER, ASSISTANT, STUDENT = "gold", "teacher", "ta", "student"


def prompt_id(prompt: str) -> str:
    """16 hex digits of the SHA-256 of the prompt."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Sample:
    """One question with what is known of it.

    `prompt` is the user message as the model sees it (before the chat template); `facts` are what an embedded
    expert and checker need and no model ever sees; `kind` groups items for reports (a subtask, a file).
    """

    prompt: str
    answer: str | None = None
    rationale: str | None = None
    provenance: str = GOLD
    kind: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return prompt_id(self.prompt)


@dataclass(frozen=True)
class Check:
    """What an exact checker says of a rationale and answer: `answer` right, and every stated step right."""

    answer: bool
    steps: bool
    problem: str = ""


class Task(Protocol):
    """A domain with a checkable truth; `recipes/<domain>/task.py` holds one as the module-level name TASK."""

    name: str
    alike: Mapping[str, Sequence[str]]
    """Lists of words of which any may stand in the place of any other without a change to what is right; often none."""

    def generate(self, n: int, seed: int) -> list[Sample]:
        """`n` distinct samples with gold answers and facts, the same for the same seed."""

    def expert(self, sample: Sample, rng: random.Random) -> tuple[str, str]:
        """The embedded expert: a rationale in varied natural language, and the answer."""

    def briefs(self, sample: Sample, rng: random.Random) -> list[str]:
        """The expert's reasoning in ever fewer words, without the answer."""

    def check(self, sample: Sample, rationale: str, answer: str) -> Check:
        """Check an answer and the stated steps against the sample's facts."""


def write_jsonl(path: Path, samples: Iterable[Sample]) -> None:
    """One JSON object a line, keys sorted, so that equal samples give equal files."""
    with path.open("w", encoding="utf-8") as file:
        for sample in samples:
            file.write(json.dumps(asdict(sample), sort_keys=True, ensure_ascii=False) + "\n")


def read_jsonl(path: Path) -> Iterator[Sample]:
    """Samples written by `write_jsonl`."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield Sample(**json.loads(line))
