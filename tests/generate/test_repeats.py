"""Sentences said again are left out, and nothing else is."""

from __future__ import annotations

import pytest

from bridge_edge.generate.repeats import said_once, sentences

AGAIN = [
    ("Utah and Iowa differ. Utah and Iowa differ. So it is diverse.", "Utah and Iowa differ. So it is diverse.", 1),
    ("Up is up. Left is left. Up is up. Left is left.", "Up is up. Left is left.", 2),
    ("$5 is less than $9. $5 is less than $9.", "$5 is less than $9.", 1),
    ("Is it so? Is it so? It is!\nIt is!", "Is it so? It is!", 2),
    ("Go on.  Go on. \n", "Go on.", 1),
]
ONCE = [
    "",
    "No full stop",
    "3.5 + 3.5 = 7. 7 is less than 7.5.",
    "Mr. Lee has 3 points. Dr. Lee has 3 points.",
    "Falcon Inc. (Utah) against Summit Inc. (Utah) and Pioneer Inc. (Utah).",
    "the sum is 4. the sum is 4.",
]


@pytest.mark.parametrize(("text", "left", "again"), AGAIN)
def test_a_sentence_is_said_once(text: str, left: str, again: int) -> None:
    assert said_once(text) == (left, again)
    assert said_once(left) == (left, 0)


@pytest.mark.parametrize("text", ONCE)
def test_what_repeats_no_sentence_stays_as_it_is(text: str) -> None:
    assert said_once(text) == (text, 0)


@pytest.mark.parametrize("text", [*ONCE, *(text for text, _, _ in AGAIN)])
def test_the_sentences_together_are_the_text(text: str) -> None:
    assert "".join(sentences(text)) == text
