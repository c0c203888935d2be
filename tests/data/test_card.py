"""The card and the strict reading of completions."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge_edge.data.card import Card, completion, normal, parse
from bridge_edge.data.samples import Sample, read_jsonl, write_jsonl
from bridge_edge.errors import UserError

YES_NO = ("Yes", "No")


@pytest.mark.parametrize(
    ("text", "answer", "rationale"),
    [
        ("Because.\nAnswer: Yes", "Yes", "Because."),
        ("Answer: no.", "No", ""),
        ("Answer:\n\nYES", "Yes", ""),
        ("It says Answer: No at first.\nAnswer: Yes", "Yes", "It says Answer: No at first."),
        ('Answer: "Yes"!', "Yes", ""),
        ("Answer: Yes\nand more", "Yes", ""),
        ("Answer: Yes, it is", None, ""),
        ("Answer: Yes or No", None, ""),
        ("Answer: Maybe", None, ""),
        ("Answer:", None, ""),
        ("Answer:   \n ", None, ""),
        ("Yes", None, "Yes"),
        ("answer: Yes", None, "answer: Yes"),
        ("The answer is Yes.", None, "The answer is Yes."),
        ("", None, ""),
    ],
)
def test_only_a_choice_after_the_marker_is_an_answer(text: str, answer: str | None, rationale: str) -> None:
    parsed = parse(text, YES_NO)
    assert (parsed.answer, parsed.rationale) == (answer, rationale)


def test_free_answers_are_taken_as_they_stand() -> None:
    assert parse("x\nAnswer: 1,250 dollars\nmore").answer == "1,250 dollars"
    assert parse("no marker").answer is None


@pytest.mark.parametrize("rationale", ["Two plus two.", "  padded \n", "", None, "with Answer: inside"])
@pytest.mark.parametrize("answer", YES_NO)
def test_what_is_written_is_read_back(rationale: str | None, answer: str) -> None:
    parsed = parse(completion(rationale, answer), YES_NO)
    assert (parsed.answer, parsed.rationale) == (answer, (rationale or "").strip())


def test_answers_are_compared_without_dress() -> None:
    assert normal(" $1,250,000. ") == normal("1250000")
    assert normal("'Not  Entailed'") == "not entailed"
    assert normal("1,25") == "1,25"
    assert normal("1.5") != normal("15")


def test_a_card_travels_whole_and_newer_ones_still_open(tmp_path: Path) -> None:
    card = Card("toy", "Ünïcode {text}: {hint}?", YES_NO, 99, ("a", "b"), {"format": "multitask"})
    card.save(tmp_path)
    assert Card.load(tmp_path) == card
    assert Card.loads(card.dumps().replace('"recipe"', '"later": 1, "recipe"')) == card
    assert Card.load(tmp_path / "nowhere") is None
    assert card.columns() == ["text", "hint"]


def test_rendering_names_a_missing_column() -> None:
    card = Card("toy", "{text} {{kept}} {hint}")
    assert card.render({"text": " a ", "hint": 3, "more": 1}) == "a {kept} 3"
    assert card.render({"text": "{hint}", "hint": "b"}) == "{hint} {kept} b"
    with pytest.raises(UserError, match="no column 'hint'"):
        card.render({"text": "a"})


def test_samples_survive_a_file(tmp_path: Path) -> None:
    odd = "line\u2028separator \u0085 next\nand 'quotes' \"too\" \ud83d\ude00".encode("utf-16", "surrogatepass").decode(
        "utf-16"
    )
    samples = [Sample(odd, "Yes", "why\r\nnot", "ta", "kind", {"n": [1, {"a": None}]}), Sample("b")]
    write_jsonl(tmp_path / "s.jsonl", samples)
    assert list(read_jsonl(tmp_path / "s.jsonl")) == samples
    assert samples[0].id == Sample(odd).id != samples[1].id
