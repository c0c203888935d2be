"""Reasoning of a set length: the control signal, the count of tokens thought, and rationales cut to a budget.

What: `asked` puts the budget into the prompt, as the last line, in the same words for every task and model; `thought`
counts the tokens that stand before the answer's marker; `shorter` makes parts of a rationale that fit a budget.
Why: the budget is the reader's, so it has to be said in a form that a student can be trained on, and that any runtime
can send (BARD, arXiv 2511.01470; the wording is ours).
Not covered: rewriting a rationale in other words; `shorter` leaves whole sentences out, and somebody else has to judge
whether what is left still carries the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from bridge_edge.data.card import ANSWER, Card

if TYPE_CHECKING:  # packed apps read this module too, and have no transformers
    from transformers import PreTrainedTokenizerBase

SIGNAL = "Think for maximum {budget} tokens."
CARD_KEY = "think"
ROOM = 64  # tokens of an answer, and of the marker before it
AIM = 0.85  # of a budget, that a rationale which was cut to it fills at most
SENTENCE = re.compile(r"(?<=[.!?])\s+")


def asked(prompt: str, budget: int) -> str:
    """The prompt with the control signal."""
    return f"{prompt}\n{SIGNAL.format(budget=budget)}"


def names(prompt: str, budget: int) -> bool:
    """Whether a prompt holds the control signal of this budget."""
    return prompt.endswith("\n" + SIGNAL.format(budget=budget))


def budgets_of(card: Card | None) -> tuple[int, ...]:
    """The budgets that a student was trained on, as its card says; none where it knows no signal."""
    known = card.extra.get(CARD_KEY) if card and isinstance(card.extra, dict) else None
    return tuple(b for b in known if isinstance(b, int)) if isinstance(known, list) else ()


def thought(decode: Callable[[Sequence[int]], str], ids: Sequence[int]) -> tuple[int, bool]:
    """How many of the new tokens `ids` stand before the answer's marker, and whether the marker is there.

    A last line that may yet become the marker is no thought either: its tokens are not counted.
    """
    text = decode(ids)
    at = text.find(ANSWER)
    answering = at >= 0
    if not answering:
        last = text.rpartition("\n")[2]
        if not last or not ANSWER.startswith(last):
            return len(ids), False
        at = len(text) - len(last)
    low, high = 0, len(ids)  # the most tokens whose text does not reach past the place
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(decode(ids[:middle])) <= at else (low, middle - 1)
    return low, answering


def closing(text: str) -> tuple[str, ...]:
    """What ends a line of thought and begins the answer, in pieces that are encoded one by one, as in training."""
    return (ANSWER,) if not text or text.endswith("\n") else ("\n", ANSWER)


def counter(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], int]:
    """Counts the tokens of a rationale as `thought` does, the end of its line included."""
    return lambda text: len(tokenizer(f"{text.strip()}\n", add_special_tokens=False)["input_ids"])


def fits(tokens: int, budget: int) -> bool:
    """Whether a rationale of so many tokens teaches this budget: no longer than it, and no less than half of it."""
    return budget / 2 <= tokens <= budget


def shorter(rationale: str, budget: int, count: Callable[[str], int]) -> Iterator[str]:
    """Parts of a rationale that fit a budget, the ones that are worth most first.

    Its last sentences (each that there is room for, since what comes last follows from what came before), its first one
    and the last ones, and its runs of sentences, the longest first. They leave room (`AIM`), for who learns to stop at
    a length misses it by a little; those that leave none come behind.
    """
    sentences = [s for s in SENTENCE.split(rationale.strip()) if s]
    sizes = [count(s) for s in sentences]
    places = range(len(sentences))

    def last(start: int, room: float) -> list[int]:
        kept: list[int] = []
        for i in reversed(places[start:]):
            if sizes[i] <= room:
                kept, room = [i, *kept], room - sizes[i]
        return kept

    parts: list[tuple[list[int], float]] = []
    for room in (AIM * budget, budget):
        runs = sorted((list(places[i : j + 1]) for i in places for j in places[i:]), key=lambda r: (-len(r), -r[0]))
        chosen = [last(0, room), [0, *last(1, room - sizes[0])] if sizes else [], *runs]
        parts += [(part, room) for part in chosen if 0 < len(part) < len(sentences)]
    seen: set[str] = set()
    for part, room in parts:
        text = " ".join(sentences[i] for i in part)
        if text not in seen and fits(tokens := count(text), budget) and tokens <= room:
            seen.add(text)
            yield text
