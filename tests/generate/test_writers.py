"""The engines of the annotation say the same of the same assistant, and what cannot run says why in one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.data.samples import Sample
from bridge_edge.distill import distill
from bridge_edge.errors import UserError
from bridge_edge.generate.drafts import Draft, Wish
from bridge_edge.generate.writers import Setting, make_writer
from bridge_edge.recipe_models import AnnotateSpec
from bridge_edge.shipping import assistant_gguf
from tests import tiny
from tests.teacher.loopback import chat, serve

ITEMS = [Sample(f"Is {i} above {i * i % 7}, {'or ' * (i % 4)}not?") for i in range(9)]
KINDS = ("qwen2", "llama")


@pytest.fixture(scope="module", params=KINDS)
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    path = tmp_path_factory.mktemp("writers")
    folder = tiny.checkpoint(path / "apprentice", request.param)
    return Setting(folder, path, path / "calls.sqlite", "cpu", "fp32", 4, assistant_gguf)


def drafts(spec: AnnotateSpec, wish: Wish, setting: Setting) -> list[list[Draft]]:
    """What an engine wrote, by item and sample."""
    writer, counted = make_writer(spec, wish, setting), 0.0

    def advance(share: float, note: str) -> None:
        nonlocal counted
        counted += share

    found: dict[tuple[int, int], Draft] = {(place, d.sample): d for place, d in writer.write(ITEMS, advance)}
    writer.close()
    assert counted == pytest.approx(len(ITEMS))
    assert sorted(found) == [(i, k) for i in range(len(ITEMS)) for k in range(wish.samples)]
    return [[found[i, k] for k in range(wish.samples)] for i in range(len(ITEMS))]


@pytest.mark.parametrize("engine", ["transformers", "llama-cpp"])
def test_greedy_drafts_are_those_of_the_native_engine(engine: str, setting: Setting) -> None:
    wish = Wish(12)
    native = drafts(AnnotateSpec(batch_rows=3), wish, setting)
    other = drafts(AnnotateSpec.model_validate({"engine": engine, "batch_rows": 3}), wish, setting)
    same = [(a.text, a.tokens, a.ended) == (b.text, b.tokens, b.ended) for [a], [b] in zip(native, other, strict=True)]
    assert sum(same) >= len(same) - (engine == "llama-cpp")  # half precision may turn one near-tie
    for equal, [a], [b] in zip(same, native, other, strict=True):
        if equal:
            assert b.logprob == pytest.approx(a.logprob, abs=5e-3)


def test_llama_draws_the_drafts_that_the_native_engine_draws(setting: Setting) -> None:
    wish = Wish(8, 3, 0.8, seed=5)
    native = drafts(AnnotateSpec(batch_rows=4), wish, setting)
    llama = drafts(AnnotateSpec(engine="llama-cpp", batch_rows=4), wish, setting)
    same = [a.text == b.text for x, y in zip(native, llama, strict=True) for a, b in zip(x, y, strict=True)]
    # The same random numbers on weights in half precision, among hundreds of tokens that are almost equally likely:
    # most drafts are the same to the last word, where other numbers would give the same draft never.
    assert sum(same) > 0.5 * len(same)
    assert len({d.text for row in native for d in row}) > len(ITEMS) * 2


def test_transformers_draws_again_what_it_drew(setting: Setting) -> None:
    spec = AnnotateSpec(engine="transformers", batch_rows=4)
    first = drafts(spec, Wish(6, 3, 0.9, seed=1), setting)
    assert drafts(spec, Wish(6, 3, 0.9, seed=1), setting) == first
    assert len({d.text for row in first for d in row}) > len(ITEMS) * 2


def test_a_prompt_beyond_the_context_is_said_by_llama(setting: Setting) -> None:
    with pytest.raises(UserError, match="exceed the context of 256"):
        drafts(AnnotateSpec(engine="llama-cpp"), Wish(250), setting)


def test_a_device_that_llama_lacks_and_a_missing_exporter_are_said(setting: Setting) -> None:
    spec = AnnotateSpec(engine="llama-cpp")
    with pytest.raises(UserError, match="runs on the CPU"):
        make_writer(spec, Wish(8), Setting(setting.assistant, setting.scratch, setting.ledger, "cuda"))
    with pytest.raises(UserError, match="needs the exporter"):
        make_writer(spec, Wish(8), Setting(setting.assistant, setting.scratch / "none", setting.ledger))


def test_without_vllm_the_way_to_serve_it_is_named(monkeypatch: pytest.MonkeyPatch, setting: Setting) -> None:
    monkeypatch.setattr("bridge_edge.generate.writers.find_spec", lambda _: None)
    with pytest.raises(UserError, match="not installed") as caught:
        make_writer(AnnotateSpec(engine="vllm"), Wish(8), setting)
    assert "annotate.engine=openai" in caught.value.hint


@pytest.mark.parametrize(
    ("words", "device", "problem"),
    [
        (("annotate.engine=vllm",), "cpu", "vLLM, which is not installed"),
        (("annotate.engine=llama-cpp",), "meta", "runs on the CPU"),
        (
            (
                "annotate.engine=openai",
                "annotate.base_url=http://h/v1",
                "annotate.model=ta",
                "annotate.api_key_env=NO_K",
            ),
            "cpu",
            "'NO_K' is not set",
        ),
    ],
)
def test_an_engine_that_cannot_run_is_refused_before_any_work(
    words: tuple[str, ...], device: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge_edge.generate.writers.find_spec", lambda _: None)
    monkeypatch.delenv("NO_K", raising=False)
    with pytest.raises(UserError, match=problem):
        distill(["recipe=legal", *words], tmp_path / "runs", device)
    assert not (tmp_path / "runs").exists()


class Outputs:
    """What vLLM returns, by the names of its documentation."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def test_what_vllm_returns_becomes_drafts(monkeypatch: pytest.MonkeyPatch, setting: Setting) -> None:
    tokenizer, asked = tiny.tokenizer(), list[Any]()
    ids = tokenizer("Answer: yes")["input_ids"]

    class LLM:
        def __init__(self, model: str, seed: int) -> None:
            assert Path(model) == setting.assistant

        def generate(self, prompts: list[Any], parameters: list[Any], use_tqdm: bool) -> list[Outputs]:
            asked.extend(zip(prompts, parameters, strict=True))
            whole = Outputs(token_ids=[*ids, tokenizer.eos_token_id], cumulative_logprob=-3.0, finish_reason="stop")
            cut = Outputs(token_ids=ids, cumulative_logprob=-2.0, finish_reason="length")
            return [Outputs(outputs=[whole, cut]) for _ in prompts]

    monkeypatch.setattr("bridge_edge.generate.writers.find_spec", lambda _: "there")
    monkeypatch.setitem(sys.modules, "vllm", Outputs(LLM=LLM, SamplingParams=Outputs))
    found = drafts(AnnotateSpec(engine="vllm"), Wish(9, 2, 0.7, seed=3), setting)
    whole, cut = found[0]
    assert (whole.text, whole.tokens, whole.ended) == ("Answer: yes", len(ids), True)
    assert whole.logprob == pytest.approx(-3.0 / (len(ids) + 1), abs=1e-4)
    assert (cut.text, cut.ended, cut.sample) == ("Answer: yes", False, 1)
    sent = asked[0][1]
    assert (sent.n, sent.temperature, sent.max_tokens) == (2, 0.7, 9)
    assert len({parameters.seed for _, parameters in asked}) == len(ITEMS)


def answer(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
    """A server that repeats the question with the seed, and refuses one item for good."""
    question = body["messages"][-1]["content"]
    if question == ITEMS[3].prompt:
        return 400, {}, json.dumps({"error": {"message": "no", "code": "content_filter"}})
    data = json.loads(chat(f"{question} {body['seed']}\nAnswer: Yes", 20, 7))
    data["choices"][0]["finish_reason"] = "length" if question == ITEMS[4].prompt else "stop"
    if question != ITEMS[5].prompt:
        data["choices"][0]["logprobs"] = {"content": [{"logprob": -0.25}, {"logprob": -0.75}]}
    return 200, {}, json.dumps(data)


def test_a_served_assistant_is_asked_once_and_recorded_at_no_cost(tmp_path: Path) -> None:
    with serve(answer) as server:
        spec = AnnotateSpec(engine="openai", base_url=server.url, model="ta", samples=2, temperature=0.6)
        setting = Setting(tmp_path, tmp_path, tmp_path / "calls.sqlite", concurrency=3)
        first = drafts(spec, Wish(9, 2, 0.6, seed=4), setting)
        asked = len(server.bodies)
        assert asked == 2 * len(ITEMS)
        assert drafts(spec, Wish(9, 2, 0.6, seed=4), setting) == first
        assert len(server.bodies) - asked == 2  # only what has no answer yet
        sent = server.bodies[0]
        assert (sent["model"], sent["max_tokens"], sent["temperature"], sent["logprobs"]) == ("ta", 9, 0.6, True)
        assert [m["role"] for m in sent["messages"]] == ["user"]
        assert len({body["seed"] for body in server.bodies}) == 2 * len(ITEMS)
        assert "Authorization" not in server.headers[0] or "none" in server.headers[0]["Authorization"]
        drafts(spec, Wish(9, 2, 0.6, seed=5), setting)
        assert len(server.bodies) > asked + 2 + len(ITEMS)  # another seed is another question
    assert first[0][0].text.startswith(ITEMS[0].prompt)
    assert first[0][0].text.endswith("\nAnswer: Yes")
    assert (first[0][0].logprob, first[0][0].tokens, first[0][0].ended) == (-0.5, 7, True)
    assert [d.text for d in first[3]] == ["", ""]
    assert [d.ended for d in first[4]] == [False, False]
    assert first[5][0].logprob is None
    from bridge_edge.budget import Ledger

    with Ledger(tmp_path / "calls.sqlite") as ledger:
        totals = ledger.totals()
    assert (totals.usd, totals.queries >= 4 * len(ITEMS) - 4) == (0, True)


def test_a_server_that_is_not_there_is_said_and_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge_edge.teacher.outcome.Policy.wait", lambda *_: 0.0)
    spec = AnnotateSpec(engine="openai", base_url="http://127.0.0.1:9/v1", model="ta")
    setting = Setting(tmp_path, tmp_path, tmp_path / "calls.sqlite")
    with pytest.raises(UserError, match="the served assistant stopped answering") as caught:
        drafts(spec, Wish(8), setting)
    assert "annotate.base_url" in caught.value.hint


@pytest.mark.parametrize("address", ["ftp://host/v1", "http://me:secret@host/v1"])
def test_an_address_that_cannot_be_is_refused_by_its_own_name(address: str, tmp_path: Path) -> None:
    spec = AnnotateSpec(engine="openai", base_url=address, model="ta")
    with pytest.raises(UserError, match=r"annotate\.base_url") as caught:
        make_writer(spec, Wish(8), Setting(tmp_path, tmp_path, tmp_path / "calls.sqlite"))
    assert "secret" not in f"{caught.value}{caught.value.hint}"
    assert "teacher." not in f"{caught.value}{caught.value.hint}"
