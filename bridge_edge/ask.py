"""`bridge-edge run`: one question, or a prompt loop, answered token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bridge_edge.data.card import ANSWER, Card
from bridge_edge.data.thinking import budgets_of
from bridge_edge.runtimes.base import Runtime
from bridge_edge.runtimes.think import Thinking
from bridge_edge.student import FREE, Bounds, Student


def split_words(words: Sequence[str]) -> tuple[str | None, str | None]:
    """(model, question): a single word is a model if such a path exists, a question otherwise."""
    if not words:
        return None, None
    looks_like_model = Path(words[0]).exists() or words[0].endswith(".gguf")
    if looks_like_model:
        return words[0], " ".join(words[1:]) or None
    return None, " ".join(words)


def answer_once(runtime: Runtime, question: str, bounds: Bounds = FREE, show: bool = True) -> dict[str, Any]:
    """Stream the rationale dimmed and the answer plain; returns rationale, answer, text, tokens and timings."""
    writing = Student(runtime).write(question, bounds.think, bounds.new)
    write = _writer() if show else None
    for _ in writing:
        if write:
            write(writing.text)
    reply = writing.reply()
    if show:
        speed = f"{reply.tokens_per_s:.0f} tokens/s" if reply.tokens_per_s else ""
        click.echo()
        if reply.answer is None:
            click.secho("no answer could be read from this reply", fg="yellow", err=True)
        said = f"{reply.tokens} tokens, first after {reply.ttft_s * 1000:.0f} ms, {speed}"
        click.secho(", ".join([said, *_thought(writing.thinking, runtime.card)]), dim=True, err=True)
    told = {k: v for k, v in asdict(reply).items() if k != "ids" and (v is not None or k == "answer")}
    return {"question": question, **told}


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


def answer_loop(runtime: Runtime, bounds: Bounds = FREE) -> None:
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
