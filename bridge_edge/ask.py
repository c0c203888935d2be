"""`bridge-edge run`: one question, or a prompt loop, answered token by token."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click

from bridge_edge.data.card import ANSWER, Card, parse
from bridge_edge.data.thinking import asked, budgets_of
from bridge_edge.runtimes.base import Runtime
from bridge_edge.runtimes.think import Thinking


def split_words(words: Sequence[str]) -> tuple[str | None, str | None]:
    """(model, question): a single word is a model if such a path exists, a question otherwise."""
    if not words:
        return None, None
    looks_like_model = Path(words[0]).exists() or words[0].endswith(".gguf")
    if looks_like_model:
        return words[0], " ".join(words[1:]) or None
    return None, " ".join(words)


def ask_prompt(card: Card | None, question: str, think: int | None = None) -> str:
    """The user message: a card with one column frames the question unless it already ends as the card's prompt does.
    A budget is named to a student that has learnt what that means."""
    if card is not None and card.columns() == ["text"]:
        tail = card.prompt.partition("{text}")[2].strip()
        framed = tail and question.rstrip().endswith(tail)
        question = question.strip() if framed else card.render({"text": question})
    return asked(question, think) if think and budgets_of(card) else question


@dataclass(frozen=True)
class Bounds:
    """New tokens at most (the card's bound where None), and tokens of reasoning at most (None: as many as it takes)."""

    new: int | None = None
    think: int | None = None


def answer_once(runtime: Runtime, question: str, bounds: Bounds = Bounds(), show: bool = True) -> dict[str, Any]:
    """Stream the rationale dimmed and the answer plain; returns rationale, answer, text, tokens and timings."""
    card = runtime.card
    prompt = runtime.chat(ask_prompt(card, question, bounds.think))
    thinking = Thinking(runtime, bounds.think) if bounds.think else None
    bound = bounds.new or (card.max_new_tokens if card else 256)
    tokens = thinking.stream(prompt) if thinking else runtime.stream(prompt, bound)
    start = time.perf_counter()
    ids: list[int] = []
    first = 0.0
    write = _writer() if show else None
    for token in islice(tokens, bounds.new):
        first = first or time.perf_counter() - start
        ids.append(token)
        if write:
            write(runtime.decode(ids))
    seconds = time.perf_counter() - start
    text = runtime.decode(ids)
    parsed = parse(text, card.answers if card else ())
    if show:
        speed = f"{(len(ids) - 1) / (seconds - first):.0f} tokens/s" if len(ids) > 1 and seconds > first else ""
        click.echo()
        if parsed.answer is None:
            click.secho("no answer could be read from this reply", fg="yellow", err=True)
        said = f"{len(ids)} tokens, first after {first * 1000:.0f} ms, {speed}"
        click.secho(", ".join([said, *_thought(thinking, card)]), dim=True, err=True)
    return {
        "question": question,
        "rationale": parsed.rationale,
        "answer": parsed.answer,
        "text": text,
        "tokens": len(ids),
        "ttft_s": round(first, 4),
        "seconds": round(seconds, 4),
        "runtime": runtime.name,
        **({"think": bounds.think, "thought": thinking.tokens, "closed": thinking.closed} if thinking else {}),
    }


def _thought(thinking: Thinking | None, card: Card | None) -> list[str]:
    """What is said of a budget: tokens thought, whether the bound had to be enforced, and whether it was all."""
    if thinking is None:
        return []
    said = [f"thought {thinking.tokens} of {thinking.budget}{' (closed at the bound)' if thinking.closed else ''}"]
    return said if budgets_of(card) else [*said, "this student has not learnt budgets, so the bound alone holds"]


def _writer() -> Callable[[str], None]:
    """Prints what is new of a growing text; the answer's line is bold, an unfinished character waits."""
    shown = 0

    def write(text: str) -> None:
        nonlocal shown
        if text.endswith("\ufffd"):
            return
        mark = text.rfind(ANSWER)
        held = len(text) if mark >= 0 else max(shown, len(text) - len(ANSWER))
        if mark >= shown:
            click.secho(text[shown:mark], dim=True, nl=False)
            shown = mark
        answer = 0 <= mark <= shown
        click.secho(text[shown:held], nl=False, bold=answer or None, dim=not answer or None)
        shown = max(shown, held)

    return write


def answer_loop(runtime: Runtime, bounds: Bounds = Bounds()) -> None:
    """Ask until an empty line or the end of the input."""
    name = runtime.card.recipe if runtime.card else runtime.path.name
    click.echo(f"{name} ({runtime.name}); an empty line ends", err=True)
    while True:
        try:
            question = click.prompt("?", default="", show_default=False, prompt_suffix=" ", err=True).strip()
        except click.Abort:
            click.echo(err=True)
            return
        if not question:
            return
        answer_once(runtime, question, bounds)
