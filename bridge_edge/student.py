"""A student as a call: `Student.load("runs/legal-1").answer("...", think=64)`.

What a completion is stands here once, for `bridge-edge run`, the server and packed apps alike: how a question is
framed, how its text streams, what is read from it. So nothing is imported that an app has no need of; whatever looks
for files and checks them is imported by `load` alone. One call at a time, as a runtime has one cache. Not covered:
sampling, batches.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from bridge_edge.data.card import Card, parse
from bridge_edge.data.thinking import asked, budgets_of
from bridge_edge.errors import UserError
from bridge_edge.runtimes.base import Runtime
from bridge_edge.runtimes.think import Thinking

NEW = 256  # tokens of a reply at most, where no card says


@dataclass(frozen=True)
class Bounds:
    """New tokens at most (the card's bound where None), and tokens of reasoning at most (None: as many as it takes)."""

    new: int | None = None
    think: int | None = None

    def __post_init__(self) -> None:
        for name, bound in (("max_new_tokens", self.new), ("think", self.think)):
            if bound is not None and (type(bound) is not int or bound < 1):
                raise UserError(f"{name} is {bound!r}", "give a whole number of at least 1, or leave it out")


FREE = Bounds()


@dataclass(frozen=True)
class Reply:
    """What a student said. `answer` is None where none could be read; `ttft_s` is the time to the first token;
    `thought` counts the tokens before the answer, `closed` says whether the budget had to be enforced (both None
    without a budget); `complete` is False where the reply was cut off by a bound; `ids` are the tokens themselves."""

    rationale: str
    answer: str | None
    text: str
    tokens: int
    prompt_tokens: int
    ttft_s: float
    seconds: float
    runtime: str
    complete: bool
    think: int | None = None
    thought: int | None = None
    closed: bool | None = None
    ids: tuple[int, ...] = field(default=(), repr=False)

    @property
    def tokens_per_s(self) -> float:
        """Of decoding alone; 0 where there was no second token."""
        return (self.tokens - 1) / (self.seconds - self.ttft_s) if self.tokens > 1 and self.seconds > self.ttft_s else 0


def ask_prompt(card: Card | None, question: str, think: int | None = None) -> str:
    """The user message: a card with one column frames the question unless it already ends as the card's prompt does.
    A budget is named to a student that has learnt what that means."""
    if card is not None and card.columns() == ["text"]:
        tail = card.prompt.partition("{text}")[2].strip()
        framed = tail and question.rstrip().endswith(tail)
        question = question.strip() if framed else card.render({"text": question})
    return asked(question, think) if think and budgets_of(card) else question


class Writing:
    """A completion in the making: iterate for the pieces of its text, then `reply` says what it came to. `text` is
    what there is so far; a character whose bytes are not all there waits."""

    def __init__(self, runtime: Runtime, prompt: Sequence[int], bounds: Bounds = FREE) -> None:
        self.runtime, self.prompt, self.bounds = runtime, prompt, bounds
        self.thinking = Thinking(runtime, bounds.think) if bounds.think else None
        self.ids: list[int] = []
        self.text = ""
        self.complete = True
        self._start = self._first = self._end = 0.0

    def __iter__(self) -> Iterator[str]:
        self._start = time.perf_counter()
        card = self.runtime.card
        most = self.bounds.new or (card.max_new_tokens if card else NEW)
        tokens = self.thinking.stream(self.prompt) if self.thinking else self.runtime.stream(self.prompt, most)
        for token in islice(tokens, self.bounds.new if self.thinking else most):
            self._first = self._first or time.perf_counter() - self._start
            self.ids.append(token)
            if piece := self._grown(self.runtime.decode(self.ids)):
                yield piece
        self._end = time.perf_counter()
        if piece := self._grown(self.runtime.decode(self.ids), last=True):
            yield piece
        context = getattr(self.runtime, "context_length", None)
        full = context is not None and len(self.prompt) + len(self.ids) >= context
        most = self.bounds.new or (0 if self.thinking else most)
        self.complete = not full and (not most or len(self.ids) < most)

    def _grown(self, text: str, last: bool = False) -> str:
        if text.endswith("\ufffd") and not last:
            return ""
        piece, self.text = text[len(self.text) :], text
        return piece

    def reply(self) -> Reply:
        """Of what there is so far: the whole, if it was iterated to its end."""
        parsed = parse(self.text, self.runtime.card.answers if self.runtime.card else ())
        thinking = self.thinking
        return Reply(
            rationale=parsed.rationale,
            answer=parsed.answer,
            text=self.text,
            tokens=len(self.ids),
            prompt_tokens=len(self.prompt),
            ttft_s=round(self._first, 4),
            seconds=round((self._end or time.perf_counter()) - self._start, 4),
            runtime=self.runtime.name,
            complete=self.complete,
            think=self.bounds.think,
            thought=thinking.tokens if thinking else None,
            closed=thinking.closed if thinking else None,
            ids=tuple(self.ids),
        )


class Student:
    """A loaded student, whatever its format. Close it, or use it as a context manager."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.closed = runtime, False

    @classmethod
    def load(cls, path: str | Path, threads: int | None = None, key: str | Path | None = None) -> Student:
        """The student of a run folder, a Hugging Face folder, a .gguf file or an ONNX folder. Where `SHA256SUMS` lies
        beside it nothing is loaded from changed files; with a public `key` its signature must hold as well."""
        from bridge_edge.deliver import chosen_model
        from bridge_edge.parcel import check_beside
        from bridge_edge.runtimes.load import load_runtime

        model = chosen_model(str(path), Path("runs"))
        check_beside(model, Path(key) if key else None)
        return cls(load_runtime(model, threads))

    @property
    def card(self) -> Card | None:
        """How the student is asked, its examples and choices; None where the model has no task card."""
        return self.runtime.card

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budgets of reasoning that the student was trained on; without any, `think` is a bound alone."""
        return budgets_of(self.runtime.card)

    def write(self, question: str, think: int | None = None, max_new_tokens: int | None = None) -> Writing:
        """The completion of a question, to be iterated piece by piece."""
        bounds = Bounds(max_new_tokens, think)
        if self.closed:  # a library in C would end the whole process
            raise UserError("this student was closed", "load it again")
        if any("\ud800" <= c <= "\udfff" for c in question):
            raise UserError("the question holds bytes that are no text", "give it in UTF-8")
        prompt = self.runtime.chat(ask_prompt(self.runtime.card, question, think))
        return Writing(self.runtime, prompt, bounds)

    def answer(self, question: str, think: int | None = None, max_new_tokens: int | None = None) -> Reply:
        """The whole reply, with at most `think` tokens of reasoning before the answer."""
        writing = self.write(question, think, max_new_tokens)
        for _ in writing:
            pass
        return writing.reply()

    def close(self) -> None:
        self.closed = True
        self.runtime.close()

    def __enter__(self) -> Student:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
