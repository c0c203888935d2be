"""The embedded expert as a metered teacher, with a task written by hand."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pytest

from bridge_edge.data.card import parse
from bridge_edge.data.samples import Check, Sample
from bridge_edge.prices import Price
from bridge_edge.teacher.base import Request, TeacherError, quarter
from bridge_edge.teacher.expert import ExpertTeacher
from bridge_edge.teacher.lengths import Shorter, split


class Parity:
    """Is a number even?"""

    name = "parity"
    alike: Mapping[str, Sequence[str]] = MappingProxyType({})

    def generate(self, n: int, seed: int) -> list[Sample]:
        return [Sample(f"Is {i} even?", "no" if i % 2 else "yes", facts={"n": i}) for i in range(seed, seed + n)]

    def expert(self, sample: Sample, rng: random.Random) -> tuple[str, str]:
        number = sample.facts["n"]
        opening = rng.choice(["Divide by two:", "Look at the last digit:", "By halving,", "We check parity:"])
        return f"{opening} {number} leaves {number % 2}.", "no" if number % 2 else "yes"

    def briefs(self, sample: Sample, rng: random.Random) -> list[str]:
        number = sample.facts["n"]
        return [f"{number} halved leaves {number % 2}.", f"Leaves {number % 2}."]

    def check(self, sample: Sample, rationale: str, answer: str) -> Check:
        return Check(answer == sample.answer, str(sample.facts["n"]) in rationale)


TASK = Parity()
SAMPLES = {sample.id: sample for sample in TASK.generate(20, 0)}


def test_the_same_item_gets_the_same_text_in_any_order() -> None:
    requests = [Request.of(key, sample.prompt) for key, sample in SAMPLES.items()]
    first, second = ExpertTeacher(TASK, SAMPLES, seed=3), ExpertTeacher(TASK, SAMPLES, seed=3)
    texts = {r.item_id: first.ask(r).text for r in requests}
    assert texts == {r.item_id: second.ask(r).text for r in reversed(requests)}
    assert texts != {r.item_id: ExpertTeacher(TASK, SAMPLES, seed=4).ask(r).text for r in requests}
    for key, text in texts.items():
        parsed = parse(text, ("yes", "no"))
        assert parsed.answer == SAMPLES[key].answer
        assert parsed.rationale


def test_it_is_metered_within_its_bounds() -> None:
    teacher = ExpertTeacher(TASK, SAMPLES, Price(1, 2))
    key = next(iter(SAMPLES))
    request = Request.of(key, SAMPLES[key].prompt, max_tokens=500)
    reply = teacher.ask(request)
    assert reply.prompt_tokens == teacher.prompt_tokens(request) == quarter(SAMPLES[key].prompt)
    assert reply.completion_tokens == quarter(reply.text)
    assert reply.finish_reason == "stop"
    short = teacher.ask(Request.of(key, SAMPLES[key].prompt, max_tokens=3))
    assert (len(short.text), short.completion_tokens, short.finish_reason) == (12, 3, "length")
    assert reply.text.startswith(short.text)


def test_a_given_tokenizer_counts() -> None:
    teacher = ExpertTeacher(TASK, SAMPLES, count=lambda text: len(text.split()))
    key = next(iter(SAMPLES))
    reply = teacher.ask(Request.of(key, SAMPLES[key].prompt))
    assert (reply.prompt_tokens, reply.completion_tokens) == (3, len(reply.text.split()))


def test_asked_for_shorter_ones_it_says_the_longest_that_keeps_to_each_budget() -> None:
    teacher = ExpertTeacher(TASK, SAMPLES, shorter=Shorter((1, 2, 5, 9), lambda text: len(text.split())))
    key, sample = next((k, s) for k, s in SAMPLES.items() if s.facts["n"] == 7)
    text = teacher.ask(Request.of(key, sample.prompt)).text
    parsed = parse(text, ("yes", "no"))
    whole, shorter = split(parsed.rationale, (1, 2, 5, 9))
    assert parsed.answer == "no"
    assert f"{whole}\nAnswer: no" == ExpertTeacher(TASK, SAMPLES).ask(Request.of(key, sample.prompt)).text
    assert shorter == {9: "7 halved leaves 1.", 5: "7 halved leaves 1.", 2: "Leaves 1."}, "of 1 word there is none"


def test_samples_and_seeds_are_different_requests() -> None:
    key = next(iter(SAMPLES))
    teacher = ExpertTeacher(TASK, SAMPLES)
    base = Request.of(key, "p")
    hashes = {
        teacher.request_hash(base),
        teacher.request_hash(Request.of(key, "p", sample=1)),
        teacher.request_hash(Request.of("other", "p")),
        teacher.request_hash(Request.of(key, "p", max_tokens=9)),
        ExpertTeacher(TASK, SAMPLES, seed=1).request_hash(base),
        ExpertTeacher(TASK, SAMPLES, edition="2").request_hash(base),
    }
    assert len(hashes) == 6
    assert teacher.request_hash(Request.of(key, "p")) == teacher.request_hash(base)


def test_an_unknown_item_is_not_billed() -> None:
    with pytest.raises(TeacherError, match="no facts about item 'nobody'") as error:
        ExpertTeacher(TASK, SAMPLES).ask(Request.of("nobody", "?"))
    assert error.value.billed == "no"
    assert not error.value.retryable
