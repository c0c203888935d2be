"""Encoding: the same ids as the template gives at inference, and every token in its segment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bridge_edge.data.card import completion
from bridge_edge.data.encode import ANSWER_TASK, RATIONALE_TASK, chat_texts, encode_pairs, encode_samples, prompt_ids
from bridge_edge.data.samples import Sample
from bridge_edge.train.batches import ANSWER, PROMPT, RATIONALE
from bridge_edge.train.models import load_tokenizer
from tests.tiny import tokenizer as tiny_tokenizer

SAMPLES = [
    Sample("Is the deposit kept?", "yes", "The landlord keeps it.\nSo it is kept."),
    Sample("Pay $75,000 + 1.5 %: naïve 中文?", "no", "  spaced out  "),
    Sample("Bare", "yes"),
    Sample("Empty", "no", "   "),
]


@pytest.fixture(scope="module", params=["tiny", "embedded"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return tiny_tokenizer() if request.param == "tiny" else load_tokenizer("embedded:student")


def test_prompts_are_framed_by_the_template_itself(tokenizer: Any) -> None:
    for sample, ids in zip(SAMPLES, prompt_ids(tokenizer, [s.prompt for s in SAMPLES]), strict=True):
        chat = [{"role": "user", "content": sample.prompt}]
        assert ids == tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert prompt_ids(tokenizer, []) == []
    assert chat_texts(tokenizer, []) == []


def test_ids_are_prompt_completion_and_end(tokenizer: Any) -> None:
    for sample, row in zip(SAMPLES, encode_samples(tokenizer, SAMPLES), strict=True):
        text = chat_texts(tokenizer, [sample.prompt])[0] + completion(sample.rationale, sample.answer or "")
        assert row.ids.tolist() == [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        assert len(row.ids) == len(row.segments) == len(row)
        assert row.ids.dtype == np.int32


def test_segments_cut_where_the_texts_do(tokenizer: Any) -> None:
    for sample, row in zip(SAMPLES, encode_samples(tokenizer, SAMPLES), strict=True):
        assert (np.diff(row.segments) >= 0).all()
        parts = {code: tokenizer.decode(row.ids[row.segments == code].tolist()) for code in (PROMPT, RATIONALE, ANSWER)}
        why = (sample.rationale or "").strip()
        assert parts[PROMPT] == chat_texts(tokenizer, [sample.prompt])[0]
        assert parts[RATIONALE] == (f"{why}\n" if why else "")
        assert parts[ANSWER] == f"Answer: {sample.answer}{tokenizer.eos_token}"


def test_answers_alone_have_no_rationale(tokenizer: Any) -> None:
    for row in encode_samples(tokenizer, SAMPLES, "answer"):
        assert not (row.segments == RATIONALE).any()
        assert row.ids[-1] == tokenizer.eos_token_id


def test_multitask_makes_two_rows_with_their_suffixes(tokenizer: Any) -> None:
    rows = encode_samples(tokenizer, SAMPLES[:1], "multitask")
    texts = [tokenizer.decode(r.ids.tolist()) for r in rows]
    short, long = (chat_texts(tokenizer, [SAMPLES[0].prompt + task])[0] for task in (ANSWER_TASK, RATIONALE_TASK))
    assert texts[0] == f"{short}Answer: yes{tokenizer.eos_token}"
    assert texts[1] == f"{long}{SAMPLES[0].rationale}{tokenizer.eos_token}"
    assert set(rows[0].segments.tolist()) == {PROMPT, ANSWER}
    assert set(rows[1].segments.tolist()) == {PROMPT, RATIONALE}


def test_a_rationale_alone_ends_itself(tokenizer: Any) -> None:
    (row,) = encode_pairs(tokenizer, [("Why?", "Since so.", "")])
    assert row.ids[-1] == tokenizer.eos_token_id
    assert row.segments[-1] == RATIONALE
    assert encode_pairs(tokenizer, []) == []
