"""A teacher that says its reasoning at several lengths: what it is asked, and how its reply is taken apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bridge_edge.apprenticeship import requests_for
from bridge_edge.budget import Caps, Ledger
from bridge_edge.data.card import Card, Parsed
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from bridge_edge.prices import Price
from bridge_edge.recipe_io import load_recipe
from bridge_edge.teacher.ask import ask_all
from bridge_edge.teacher.lengths import Shorter, at_budgets, fields, join, split, wish
from bridge_edge.teacher.make import endpoint_of
from bridge_edge.teacher.openai_api import OpenAITeacher
from bridge_edge.teacher.prompt import build_prompt
from bridge_edge.teacher.structured import read_reply, response_format
from tests.teacher.loopback import chat, serve

CARD = Card("toy", answers=("yes", "no"))
ASKED = ("recipe=legal", "reasoning.budgets=[16,64]", "reasoning.compress=teacher")


def test_the_words_are_those_that_fill_a_budget_by_the_students_count() -> None:
    def letters(text: str) -> int:
        return len(text)

    assert Shorter((8, 80), letters).words("four four") == {8: 1, 80: 15}, "4.5 letters a word; 15 % are left free"
    assert Shorter((2,), letters).words("four four") == {2: 1}, "one word at least"
    assert Shorter((10,), lambda text: 1).words("a b c d") == {10: 8}, "a word is a token at least"
    assert Shorter((10,), letters).words("") == {10: 8}


def test_a_prompt_asks_for_each_length_and_for_nothing_where_there_is_none() -> None:
    sample = Sample("Is 2 more than 1?", "yes")
    plain, asked = build_prompt(CARD, sample), build_prompt(CARD, sample, words={16: 6, 64: 25})
    assert build_prompt(CARD, sample, words={}) == plain
    assert asked[1] == plain[1]
    said = asked[0]["content"]
    assert "'Within 64 tokens: ...' of at most 25 words; 'Within 16 tokens: ...' of at most 6 words" in said
    assert said.index("Within 16") < said.index("Answer: X"), "the answer stays last"
    own = build_prompt(CARD, sample, system="End with 'Answer: X'.", words={16: 6})
    assert "Within 16 tokens" in own[0]["content"]
    assert wish({}) == ""


@pytest.mark.parametrize(
    ("text", "whole", "shorter"),
    [
        ("So it is.\nWithin 16 tokens: So.", "So it is.", {16: "So."}),
        ("So.\nOr.\n\n- **Within 16 tokens:** It is. \nWithin 64 tokens: A.", "So.\nOr.", {16: "It is.", 64: "A."}),
        ("So.\nWithin 16 tokens: One.\nWithin 16 tokens: Two.", "So.", {16: "One."}),
        ("So.\nWithin 16 tokens:\nWithin 64 tokens: A.", "So.", {64: "A."}),
        ("So.\nAnswer: yes\nWithin 16 tokens: It is. Answer: yes", "So.", {16: "It is."}),
        ("So.\nWithin 17 tokens: That was not asked.", "So.\nWithin 17 tokens: That was not asked.", {}),
        ("So it is within 16 tokens: yes.", "So it is within 16 tokens: yes.", {}),
        ("Within 16 tokens: It is.", "", {16: "It is."}),
        ("", "", {}),
    ],
)  # fmt: skip
def test_a_reply_is_taken_apart(text: str, whole: str, shorter: dict[int, str]) -> None:
    assert split(text, (16, 64)) == (whole, shorter)
    assert split(text, ()) == (text.strip(), {})


def test_what_is_joined_comes_apart_again() -> None:
    shorter = {64: "First this.\nThen that.", 16: "That."}
    assert split(join("All of it.\nIn lines.", shorter), (16, 64)) == (
        "All of it.\nIn lines.",
        {64: "First this. Then that.", 16: "That."},
    )
    assert join("So.", {}) == "So."


def test_json_has_a_field_for_each_length_and_is_read_like_a_plain_reply() -> None:
    schema = response_format(("yes", "no"), (16, 64))["json_schema"]["schema"]
    assert schema["required"] == ["rationale", "within_64_tokens", "within_16_tokens", "answer"]
    assert list(fields((16, 64))) == ["within_64_tokens", "within_16_tokens"]
    reply = {"rationale": "So it is.", "within_64_tokens": "So.\u202e", "within_16_tokens": "", "answer": "yes"}
    found = read_reply(json.dumps(reply), CARD.answers, True, (16, 64))
    assert found.answer == "yes"
    assert split(found.rationale, (16, 64)) == ("So it is.", {64: "So."})
    assert read_reply(json.dumps(reply), CARD.answers, True).answer is None, "fields that were not asked for"
    lacking = {k: v for k, v in reply.items() if k != "within_16_tokens"}
    assert read_reply(json.dumps(lacking), CARD.answers, True, (16, 64)).answer is None
    plain = "So it is.\nWithin 64 tokens: So.\nAnswer: yes"
    assert read_reply(plain, CARD.answers, True, (16, 64)) == Parsed("So it is.\nWithin 64 tokens: So.", "yes")


def test_a_real_request_names_the_lengths_and_leaves_room_for_them(tmp_path: Path) -> None:
    words = ("teacher.kind=openai", "teacher.model=toy", "teacher.price.prompt=1", "teacher.price.completion=2")
    key = "teacher.api_key_env="
    said = {"rationale": "So it is.", "within_64_tokens": "So.", "within_16_tokens": "It is.", "answer": "Yes"}
    with serve(lambda n, b: (200, {}, chat(json.dumps(said)))) as server:
        recipe = load_recipe([*ASKED, *words, key, f"teacher.base_url={server.url}"])
        sample = Sample("Maria is from Ohio. John is from Texas. Is there diversity?", "Yes")
        teacher = OpenAITeacher(endpoint_of(recipe), Price(1, 2))
        with Ledger(tmp_path / "l.sqlite", Caps(), teacher.price) as ledger:
            outcome = ask_all(teacher, ledger, requests_for(recipe, [sample]), 1)
    [body] = server.bodies
    shorter = at_budgets(recipe)
    assert shorter is not None
    limit = shorter.words(sample.prompt)
    assert sorted(limit) == [16, 64]
    assert f"of at most {limit[64]} words" in body["messages"][0]["content"]
    assert body["max_tokens"] == recipe.reply_tokens == recipe.teacher.max_tokens + 16 + 64 + 2 * 16
    assert "within_16_tokens" in body["response_format"]["json_schema"]["schema"]["properties"]
    [reply] = outcome.replies[sample.id]
    found = read_reply(reply.text, recipe.task.answers, True, (16, 64))
    assert split(found.rationale, (16, 64)) == ("So it is.", {64: "So.", 16: "It is."})


def test_lengths_that_mean_nothing_are_refused_and_off_is_as_if_they_were_not() -> None:
    with pytest.raises(UserError, match=r"reasoning.compress=teacher needs reasoning.budgets"):
        load_recipe(["recipe=legal", "reasoning.compress=teacher"])
    cut = load_recipe(["recipe=legal", "reasoning.budgets=[16]"])
    assert at_budgets(cut) is None
    assert cut.reply_tokens == cut.teacher.max_tokens
    assert "compress" not in cut.reasoning.meant()
