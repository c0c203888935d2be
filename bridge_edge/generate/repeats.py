"""Sentences that a model says again, left out of what it teaches.

What: `said_once` leaves out of a text every sentence that stands in it before, word for word.
Why: a small assistant that loses its place says a sentence twice and finds its way back often enough, so the answer is
right and no filter drops the draft. A student of such texts says it for ever: what has just been said is the likeliest
to come next (Holtzman et al., arXiv 1904.09751; Xu et al., arXiv 2206.02369). A sentence repeated adds nothing to a
reason, so it is the sentence that goes and not the item.
Not covered: what is said again in other words; lines that end without a full stop.
"""

from __future__ import annotations

import re

END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\d$\"'])")
SHORT = re.compile(r"\b[A-Z][a-z]{0,3}\.$")  # Dr. and Inc. end no sentence; that Ohio. may, costs a repeat at most


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with the white space behind it, so that joined they are the text."""
    found, start = [], 0
    for gap in END.finditer(text):
        if not SHORT.search(text, start, gap.start()):
            found.append(text[start : gap.end()])
            start = gap.end()
    return [*found, text[start:]]


def said_once(text: str) -> tuple[str, int]:
    """The text without the sentences that stand in it before, and how many those are; the text itself if none."""
    parts = sentences(text)
    first = {part.strip(): place for place, part in reversed(list(enumerate(parts)))}
    kept = [part for place, part in enumerate(parts) if first[part.strip()] == place]
    return ("".join(kept).rstrip() if len(kept) < len(parts) else text), len(parts) - len(kept)
