"""What the page knows of its student: how to ask it, how to read its answer, what it was measured to be worth.

The words and numbers come from the same places as in Python (`data/card.py`, `data/thinking.py`, the chat template by
way of the runtime), so that the page frames a question exactly as `bridge-edge run` does; the template is rendered once
around a mark. Not covered: templates that do more to a message than to frame it, which are refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bridge_edge.data.card import ANSWER, Card
from bridge_edge.data.thinking import ROOM, SIGNAL, budgets_of
from bridge_edge.deliver import run_of
from bridge_edge.errors import UserError
from bridge_edge.evaluate import wilson
from bridge_edge.pack import Artifact
from bridge_edge.provenance import facts
from bridge_edge.recipe_io import read_yaml
from bridge_edge.run import STUDENT

MARK = "@@question@@"
MOST_CONTEXT = 4096  # tokens; a phone pays for the cache of a longer one


def student_facts(artifact: Artifact) -> dict[str, Any]:
    """`student.json`, without the list of its files."""
    card = artifact.card or Card("")
    return {
        "kind": artifact.kind,
        "title": artifact.name.replace("_", " ").replace("-", " ").capitalize(),
        "about": about(artifact.parcel.folder),
        "measured": measured(artifact.parcel.folder),
        "examples": artifact.examples(),
        **student_words(card),
        **framing(artifact),
    }


def student_words(card: Card) -> dict[str, Any]:
    """How a question is put and an answer read."""
    return {
        "question": list(_around(card.render({"text": MARK}))) if card.columns() == ["text"] else None,
        "answers": list(card.answers),
        "marker": ANSWER,
        "budgets": sorted(budgets_of(card)),
        "signal": SIGNAL,
        "room": ROOM,
        "new": card.max_new_tokens,
    }


def framing(artifact: Artifact) -> dict[str, Any]:
    """The text around a user's message, the tokens that end an answer, the context, the Unicode form of the input."""
    runtime: Any
    if artifact.kind == "gguf":
        from bridge_edge.runtimes.gguf_header import NORMALIZER_KEY
        from bridge_edge.runtimes.gguf_runtime import GGUFRuntime

        runtime = GGUFRuntime(artifact.path, 1)
        form, adds = (
            runtime.header.metadata.get(NORMALIZER_KEY),
            runtime.header.metadata.get("tokenizer.ggml.add_bos_token"),
        )
        bos = runtime.special().get("bos_token") if adds else None
    else:
        from bridge_edge.runtimes.onnx_runtime import ONNXRuntime

        runtime, form, bos = ONNXRuntime(artifact.path, 1), None, None
    try:
        text = runtime.framed(MARK)
        found = {"ends": sorted(runtime.eos_ids), "context": min(runtime.context_length, MOST_CONTEXT), "form": form}
    finally:
        runtime.close()
    before, after = _around(text)
    return {**found, "frame": [before.removeprefix(bos or ""), after]}


def _around(text: str) -> tuple[str, str]:
    before, mark, after = text.partition(MARK)
    if not mark or MARK in after:
        raise UserError(
            "the template of this student does more than to frame a question", "give the card a plainer prompt"
        )
    return before, after


def about(folder: Path) -> str:
    """What the student was made for, in the words of its recipe."""
    run = run_of(folder)
    told = read_yaml(run / "recipe.yaml").get("description") if run else None
    return str(told or "").strip()


def measured(folder: Path) -> list[str]:
    """Accuracy with its interval: of the checkpoint on the test items, and of this very file where it was measured."""
    run = run_of(folder)
    lines = [f"Accuracy: {line}" for line in facts(run / STUDENT).get("Accuracy of the checkpoint", ())] if run else []
    try:
        checked = json.loads((folder / "parity.json").read_text(encoding="utf-8"))["parity"]["accuracy"]
        share, n = float(checked["accuracy_b"]), int(checked["n"])
    except (OSError, ValueError, KeyError, TypeError):
        return lines
    low, high = wilson(round(share * n), n)
    return [*lines, f"Of this file: {share:.1%} on {n} dev items, 95 % interval {low:.1%} to {high:.1%}"]
