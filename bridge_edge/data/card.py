"""The task card: what a student needs to be asked and understood outside its run.

It travels with every artifact: `bridge_edge.json` in a Hugging Face or ONNX folder, the metadata key
`bridge_edge.card` in a GGUF.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bridge_edge.errors import UserError

FILE = "bridge_edge.json"
GGUF_KEY = "bridge_edge.card"
ANSWER = "Answer:"
ANSWER_TASK = "\nAnswer only."  # ends the prompts of students that were taught the answer as a task of its own
MOST_NEW = 1 << 20  # no card asks for more tokens; a larger number is damage


@dataclass(frozen=True)
class Card:
    """How to ask (`prompt`: a template over column names) and how to read the answer (`answers`: the choices, or
    none for free-form answers). `max_new_tokens` bounds rationale and answer together."""

    recipe: str
    prompt: str = "{text}"
    answers: tuple[str, ...] = ()
    max_new_tokens: int = 256
    examples: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def columns(self) -> list[str]:
        """The columns that the prompt template names."""
        return [name for _, name, _, _ in string.Formatter().parse(self.prompt) if name]

    def render(self, row: Mapping[str, Any]) -> str:
        """The user message for one row; raises UserError naming a column that the row lacks."""
        missing = [c for c in self.columns() if c not in row]
        if missing:
            raise UserError(
                f"the data has no column {missing[0]!r}",
                f"columns present: {', '.join(map(str, row))}; map one with --columns {missing[0]}=NAME",
            )
        return self.prompt.format_map({c: str(row[c]).strip() for c in self.columns()})

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(self.dumps() + "\n", encoding="utf-8")

    def dumps(self) -> str:
        return json.dumps({"schema": 1, **asdict(self)}, sort_keys=True, ensure_ascii=False)

    @staticmethod
    def loads(text: str) -> Card:
        """Parse a card; unknown keys are ignored so that newer cards still open."""
        try:
            data = json.loads(text)
            known = {k: data[k] for k in Card.__dataclass_fields__ if k in data}
            for key in ("answers", "examples"):
                known[key] = tuple(known.get(key, ()))
            card = Card(**known)
            card.columns()
        except (ValueError, TypeError, RecursionError, AttributeError) as error:
            raise UserError(
                f"the task card is damaged: {error}", "export the model again, or remove the card"
            ) from None
        texts = (card.recipe, card.prompt, *card.answers, *card.examples)
        tokens = card.max_new_tokens
        if not all(isinstance(t, str) for t in texts) or not isinstance(tokens, int) or not 0 < tokens <= MOST_NEW:
            raise UserError("the task card holds values of the wrong kind", "export the model again")
        return card

    @staticmethod
    def load(folder: Path) -> Card | None:
        path = folder / FILE
        return Card.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def completion(rationale: str | None, answer: str) -> str:
    """The text a student writes: the rationale, then a last line with the answer."""
    return f"{rationale.strip()}\n{ANSWER} {answer}" if rationale and rationale.strip() else f"{ANSWER} {answer}"


@dataclass(frozen=True)
class Parsed:
    """A completion taken apart; `answer` is None where no answer could be read (a parse failure)."""

    rationale: str
    answer: str | None


def normal(answer: str) -> str:
    """Answers are compared without case, outer punctuation, thousands separators and a leading currency sign."""
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer.strip().strip(".!;:\"'").casefold())
    return re.sub(r"\s+", " ", text).lstrip("$").strip()


def parse(text: str, answers: tuple[str, ...] = ()) -> Parsed:
    """Split a completion at its last "Answer:" and match the answer strictly against the choices.

    Without choices any non-empty answer counts as parsed. A text with no marker is a parse failure, as is an
    answer that is none of the choices.
    """
    head, marker, tail = text.rpartition(ANSWER)
    if not marker:
        return Parsed(text.strip(), None)
    given = tail.strip().splitlines()[0].strip() if tail.strip() else ""
    if not given:
        return Parsed(head.strip(), None)
    if not answers:
        return Parsed(head.strip(), given)
    for choice in answers:
        if normal(choice) == normal(given):
            return Parsed(head.strip(), choice)
    return Parsed(head.strip(), None)
