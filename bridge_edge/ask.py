"""`bridge-edge run`: one question, or a prompt loop, answered token by token."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from bridge_edge.data.card import ANSWER, Card, parse
from bridge_edge.runtimes.base import Runtime


def split_words(words: Sequence[str]) -> tuple[str | None, str | None]:
    """(model, question): a single word is a model if such a path exists, a question otherwise."""
    if not words:
        return None, None
    looks_like_model = Path(words[0]).exists() or words[0].endswith(".gguf")
    if looks_like_model:
        return words[0], " ".join(words[1:]) or None
    return None, " ".join(words)


def ask_prompt(card: Card | None, question: str) -> str:
    """The user message: a card with one column frames the question unless it already ends as the card's prompt does."""
    if card is None or card.columns() != ["text"]:
        return question
    tail = card.prompt.partition("{text}")[2].strip()
    if tail and question.rstrip().endswith(tail):
        return question.strip()
    return card.render({"text": question})


def answer_once(runtime: Runtime, question: str, max_new_tokens: int | None, show: bool = True) -> dict[str, Any]:
    """Stream the rationale dimmed and the answer plain; returns rationale, answer, text, tokens and timings."""
    card = runtime.card
    prompt = ask_prompt(card, question)
    bound = max_new_tokens or (card.max_new_tokens if card else 256)
    start = time.perf_counter()
    ids: list[int] = []
    first = 0.0
    write = _writer() if show else None
    for token in runtime.stream(runtime.chat(prompt), bound):
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
        click.secho(f"{len(ids)} tokens, first after {first * 1000:.0f} ms, {speed}", dim=True, err=True)
    return {
        "question": question,
        "rationale": parsed.rationale,
        "answer": parsed.answer,
        "text": text,
        "tokens": len(ids),
        "ttft_s": round(first, 4),
        "seconds": round(seconds, 4),
        "runtime": runtime.name,
    }


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


def answer_loop(runtime: Runtime, max_new_tokens: int | None) -> None:
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
        answer_once(runtime, question, max_new_tokens)
