"""Files to score on: tables of other people, and the items of a run as they are."""

from __future__ import annotations

from pathlib import Path

from bridge_edge.data.card import ANSWER_TASK, Card
from bridge_edge.data.samples import Sample, write_jsonl
from bridge_edge.deliver import file_samples

CARD = Card("toy", "Q: {text} Yes or no?", ("yes", "no"))
ITEMS = [Sample("Q: Is 1 odd? Yes or no?", "yes", kind="odd"), Sample("Q: Is 2 odd? Yes or no?", "no", kind="even")]


def test_the_items_of_a_run_keep_their_prompts_and_kinds(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", ITEMS)
    found = file_samples([tmp_path / "test.jsonl"], "", CARD, None)
    assert [(s.prompt, s.answer, s.kind) for s in found] == [(s.prompt, s.answer, s.kind) for s in ITEMS]
    short = file_samples([tmp_path / "test.jsonl"], "", Card("toy", "{text}" + ANSWER_TASK, ("yes", "no")), 1)
    assert [s.prompt for s in short] == [ITEMS[0].prompt + ANSWER_TASK]


def test_a_table_with_the_columns_of_the_card_is_read_by_the_card(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(
        '{"text": "Is 3 odd?", "prompt": "?", "answer": "yes", "kind": "a", "provenance": "b"}'
    )
    found = file_samples([tmp_path / "x.jsonl"], "", CARD, None)
    assert [(s.prompt, s.kind) for s in found] == [("Q: Is 3 odd? Yes or no?", "x")]
    mapped = file_samples([tmp_path / "x.jsonl"], "text=prompt,kind=kind", CARD, None)
    assert [(s.prompt, s.kind) for s in mapped] == [("Q: ? Yes or no?", "a")]
