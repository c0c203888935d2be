"""The teacher's prompt, and the cleaning of what comes back.

A student learns the form of the rationales as much as their content, so the form is asked for: short steps, then a last
line with the answer among the choices. What a teacher writes is untrusted text: it may hold control characters, or the
special tokens of some chat template, which a tokenizer would read as the end of a turn or a new role.

Not covered: wrong or poisoned content; see the filters of the annotation stage.
"""

from __future__ import annotations

import re
import unicodedata

from bridge_edge.data.card import ANSWER, Card
from bridge_edge.data.samples import Sample
from bridge_edge.errors import unknown
from bridge_edge.teacher.base import Message
from bridge_edge.teacher.keys import redact
from bridge_edge.teacher.lengths import Words, wish

STYLES = {
    "steps": "Reason step by step before you answer: at most five short sentences, one step each, and only facts"
    " from the question or rules that you name.",
    "brief": "Give the reason in one or two short sentences before you answer.",
    "detailed": "Reason step by step before you answer: name the rule, apply it to each relevant fact, do every"
    " calculation in full, and stay under 150 words.",
    "answer": "Do not explain.",
}

_INVISIBLE = {"Cc", "Cf", "Cs", "Co"}  # controls, formatting (bidirectional overrides), surrogates, private use
_KEPT = "\n\t\u200c\u200d"  # the joiners are part of Persian and Indic spelling
_CONTROLS = re.compile("[\\x00-\\x08\\x0e-\\x1f\\x7f]")
_BREAKS = re.compile("\r\n|[\r\u2028\u2029\x0b\x0c\x85]")
_SPECIAL = re.compile(
    r"<[|\uff5c][^<>\n]{0,64}?[|\uff5c]>"  # <|im_start|> and its full-width cousins
    r"|<(?:start|end)_of_turn>|<unused\d{1,4}>|<extra_id_\d{1,4}>|</s>|<</?SYS>>|</?tool_(?:call|response)>|</?think>"
    r"|<(?:bos|eos|pad|unk|mask|s|cls|sep)>"
    r"|\[/?(?:INST|SYS|CLS|SEP|PAD|UNK|MASK|EOS|BOS|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"^[ \t]*(?:#{1,4}[ \t]*)?(?:system|user|assistant|human)[ \t]*:[ \t]*", re.IGNORECASE | re.MULTILINE
)
_PASSES = 8


def build_prompt(
    card: Card,
    sample: Sample,
    style: str = "steps",
    system: str | None = None,
    prompt: str | None = None,
    words: Words | None = None,
) -> list[Message]:
    """The messages that ask a teacher for a rationale in `style` and a last line with the answer.

    `system` takes the place of the style's words and `prompt`, a template over {question} and {answers}, that of the
    bare question. The form of the last line is asked for unless one of the two names it. With `words` the
    teacher is asked for the same reasoning at these budgets too.
    """
    if style not in STYLES:
        raise unknown("prompt style", style, STYLES)
    choices = ", ".join(card.answers)
    last = f"End with one last line of the form '{ANSWER} X'"
    if card.answers:
        last += f", where X is exactly one of: {choices}"
    head = STYLES[style] if system is None else system.format(answers=choices).strip()
    head = f"{head} {wish(words or {})}".strip()
    question = sample.prompt if prompt is None else prompt.format(question=sample.prompt, answers=choices)
    if ANSWER in (system or "") + (prompt or ""):
        text = head
    else:
        text = f"{head} {last}. Write plain text without headings, lists or markup.".strip()
    user = {"role": "user", "content": question}
    return [{"role": "system", "content": text}, user] if text else [user]


def sanitize(text: str, max_chars: int = 20_000) -> str:
    """`text` without hidden thoughts, control characters, special tokens, role labels and keys, cut at `max_chars`.

    Removing one token may join the halves of another, so it is done again until nothing changes; a text nested deeper
    than a few layers is an attack and loses its brackets.
    """
    text = _BREAKS.sub("\n", text[: 4 * max_chars])
    if text.isascii():  # nearly all texts, and ten times as fast
        text = _CONTROLS.sub("", text)
    else:
        text = "".join(c for c in text if c in _KEPT or unicodedata.category(c) not in _INVISIBLE)
    thought, _, said = text.rpartition("</think>")
    text = said if thought and said.strip() else text
    for _ in range(_PASSES):
        before, text = text, _ROLE.sub("", _SPECIAL.sub("", text))
        if before == text:
            break
    else:
        text = re.sub(r"[<>\[\]|\uff5c]", "", text)
    # Last, since what was removed may have stood between the halves of a key.
    return redact(re.sub(r"\n{3,}", "\n\n", text))[:max_chars].strip()
