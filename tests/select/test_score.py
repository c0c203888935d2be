"""Difficulty and embeddings against one plain forward pass an item, and against hand-made answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from bridge_edge.data.encode import prompt_ids
from bridge_edge.data.samples import Sample
from bridge_edge.select import measures
from bridge_edge.select import sampling as drawing
from bridge_edge.select import score as scoring
from bridge_edge.select.sampling import draw
from bridge_edge.select.score import LONGEST_ANSWER, Scored, Scoring, score_pool, truth
from bridge_edge.train.models import load_model, load_tokenizer
from tests import tiny

POOL = [
    Sample("Is the deposit kept?", "yes"),
    Sample("What is 3 times 250? Say yes if it is 750, and no if it is not.", "no"),
    Sample("Short", "yes"),
    Sample("Patient 42 takes 3 tablets of 250 mg, twice a day, for 10 days: too much?", "no"),
    Sample("The tenant pays 1200 dollars a month; the landlord keeps the deposit.", "perhaps so"),
]


@pytest.fixture(params=["qwen2", "llama", "gemma3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tiny.checkpoint(tmp_path / request.param, request.param))


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 on every machine, so that the comparison may be strict."""
    for module in (scoring, drawing):
        monkeypatch.setattr(module, "use_bf16", lambda *_: False)


def alone(folder: str, tokenizer: Any, sample: Sample, tail: str) -> tuple[np.ndarray, np.ndarray, float]:
    """NLL of each token of the tail, the normalised state of the last prompt token, the entropy after the tail."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    prompt = prompt_ids(tokenizer, [sample.prompt])[0]
    ids = prompt + tokenizer(tail, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    logs = out.logits[0].double().log_softmax(-1)
    nll = np.array([-float(logs[i - 1, ids[i]]) for i in range(len(prompt), len(ids))])
    last = out.hidden_states[-1][0, len(prompt) - 1].double()
    entropy = -sum(p * math.log(p) for p in logs[-1].exp().tolist() if p > 0)
    return nll, (last / last.norm()).numpy(), entropy


@pytest.mark.parametrize("max_tokens", [64, 8192])
def test_loss_is_the_mean_nll_of_the_gold_answer(folder: str, max_tokens: int) -> None:
    tokenizer = load_tokenizer(folder)
    seen: list[float] = []
    scored = score_pool(
        load_model(folder), tokenizer, POOL, ("yes", "no"), Scoring("loss"), lambda n, _: seen.append(n), max_tokens
    )
    hard, vectors = scored.difficulty, scored.vectors
    for i, sample in enumerate(POOL):
        nll, vector, _ = alone(folder, tokenizer, sample, f"Answer: {sample.answer}")
        assert hard[i] == pytest.approx(nll.mean(), rel=1e-4)
        assert vectors[i] == pytest.approx(vector, abs=1e-4)
    assert sum(seen) == len(POOL)
    assert hard.dtype == vectors.dtype == np.float32


def test_between_rounds_the_loss_is_that_of_the_answer_alone(tmp_path: Path) -> None:
    folder = str(tiny.checkpoint(tmp_path / "model"))
    tokenizer = load_tokenizer(folder)
    marker = len(tokenizer("Answer:", add_special_tokens=False)["input_ids"])
    how = Scoring("loss", given=True)
    hard = score_pool(load_model(folder), tokenizer, POOL, ("yes", "no"), how, lambda *_: None).difficulty
    for i, sample in enumerate(POOL):
        nll = alone(folder, tokenizer, sample, f"Answer: {sample.answer}")[0]
        assert hard[i] == pytest.approx(nll[marker:].mean(), rel=1e-4)
        assert hard[i] != pytest.approx(nll.mean(), rel=1e-2)


def slow_options(folder: str, tokenizer: Any, sample: Sample, options: tuple[str, ...]) -> np.ndarray:
    """The distribution over the options from one pass for each."""
    logs = [-alone(folder, tokenizer, sample, f"Answer: {o}")[0].sum() for o in options]
    weights = np.exp(np.array(logs) - max(logs))
    return weights / weights.sum()


def test_entropy_and_margin_over_the_options(folder: str) -> None:
    tokenizer, options, model = load_tokenizer(folder), ("yes", "no", "not at all"), load_model(folder)
    flat = score_pool(model, tokenizer, POOL, options, Scoring("entropy"), lambda *_: None)
    narrow = score_pool(model, tokenizer, POOL, options, Scoring("margin"), lambda *_: None)
    assert flat.direct is not None
    for i, sample in enumerate(POOL):
        p = slow_options(folder, tokenizer, sample, options)
        assert flat.difficulty[i] == pytest.approx(-(p * np.log(p)).sum(), rel=1e-3, abs=1e-5)
        assert narrow.difficulty[i] == pytest.approx(1 - (sorted(p)[-1] - sorted(p)[-2]), rel=1e-3, abs=1e-5)
        assert flat.direct[i] == options[int(p.argmax())]


def slow_token_entropy(folder: str, tokenizer: Any, sample: Sample, tail: list[int], skip: int) -> float:
    """Mean entropy of the distributions that the tokens of the tail after the first `skip` come from."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    prompt = prompt_ids(tokenizer, [sample.prompt])[0]
    with torch.no_grad():
        logs = model(input_ids=torch.tensor([prompt + tail])).logits[0].double().log_softmax(-1)
    places = range(len(prompt) + skip - 1, len(prompt) + len(tail) - 1)
    return float(np.mean([-float((logs[k].exp() * logs[k]).sum()) for k in places]))


def test_token_entropy_is_that_of_the_likeliest_answer(folder: str) -> None:
    tokenizer, options, model = load_tokenizer(folder), ("yes", "no", "not at all"), load_model(folder)
    marker = tokenizer("Answer:", add_special_tokens=False)["input_ids"]
    found = score_pool(model, tokenizer, POOL, options, Scoring("token-entropy"), lambda *_: None)
    free = score_pool(model, tokenizer, POOL, (), Scoring("token-entropy"), lambda *_: None)
    for i, sample in enumerate(POOL):
        best = options[int(slow_options(folder, tokenizer, sample, options).argmax())]
        tail = tokenizer(f"Answer: {best}", add_special_tokens=False)["input_ids"]
        slow = slow_token_entropy(folder, tokenizer, sample, tail, len(marker))
        assert found.difficulty[i] == pytest.approx(slow, rel=1e-3)
        ids = prompt_ids(tokenizer, [sample.prompt])[0] + marker
        tail = marker + slow_greedy(folder, ids, LONGEST_ANSWER, tokenizer.eos_token_id)
        slow = slow_token_entropy(folder, tokenizer, sample, tail, min(len(marker), len(tail) - 1))
        assert free.difficulty[i] == pytest.approx(slow, rel=1e-3)


def slow_greedy(folder: str, ids: list[int], bound: int, end: int) -> list[int]:
    """The likeliest token, one after another, without a cache."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    reply: list[int] = []
    for _ in range(bound):
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([ids + reply])).logits[0, -1].argmax())
        if token == end:
            break
        reply.append(token)
    return reply


def test_entropy_of_the_first_answer_token_without_options(folder: str) -> None:
    tokenizer = load_tokenizer(folder)
    bare = [Sample(s.prompt) for s in POOL]
    hard = score_pool(load_model(folder), tokenizer, bare, (), Scoring("entropy"), lambda *_: None).difficulty
    for i, sample in enumerate(bare):
        assert hard[i] == pytest.approx(alone(folder, tokenizer, sample, "Answer:")[2], rel=1e-4)


def test_greedy_replies_are_those_without_cache_and_padding(folder: str) -> None:
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    prompts = prompt_ids(tokenizer, [s.prompt for s in POOL])
    found = draw(model, prompts, 2, 12, frozenset([tokenizer.eos_token_id]), temperature=0)
    for ids, replies in zip(prompts, found, strict=True):
        assert replies == [slow_greedy(folder, ids, 12, tokenizer.eos_token_id)] * 2


def test_sampled_replies_follow_the_distribution_and_the_seed(tmp_path: Path) -> None:
    folder = str(tiny.checkpoint(tmp_path / "m", "qwen2"))
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    prompts, ends = prompt_ids(tokenizer, [s.prompt for s in POOL]), frozenset([tokenizer.eos_token_id])
    first = draw(model, prompts, 4, 6, ends, seed=1)
    assert first == draw(model, prompts, 4, 6, ends, seed=1)
    assert first != draw(model, prompts, 4, 6, ends, seed=2)
    assert first[0] == draw(model, prompts[:1], 4, 6, ends, seed=1)[0]  # neighbours in a batch change nothing
    [many] = draw(model, prompts[:1], 3_000, 1, frozenset(), seed=3)
    with torch.no_grad():
        p = model(input_ids=torch.tensor(prompts[:1])).logits[0, -1].softmax(-1).numpy()
    counts = np.bincount([r[0] for r in many], minlength=len(p))
    assert np.abs(counts / 3_000 - p).max() < 0.04


@pytest.mark.parametrize("name", ["pass-rate", "disagreement"])
@pytest.mark.parametrize("answers", [("yes", "no"), ()])
def test_sampled_measures_run_on_both_kinds_of_answer(name: str, answers: tuple[str, ...], tmp_path: Path) -> None:
    folder = str(tiny.checkpoint(tmp_path / "m", "qwen2"))
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    hard = [
        score_pool(model, tokenizer, POOL, answers, Scoring(name, 6, s), lambda *_: None).difficulty for s in (3, 3)
    ]
    assert (hard[0] == hard[1]).all()
    assert ((hard[0] >= 0) & (hard[0] <= (0.25 if name == "pass-rate" else 1))).all()
    if name == "disagreement":
        assert hard[0].max() > 0


def test_measures_of_hand_made_answers() -> None:
    votes = [["Yes"] * 4, ["yes", "Yes.", "No", "no"], ["No"] * 4, ["a", "b", "c", "d"]]
    assert measures.pass_rate(votes, ["Yes", "Yes", "Yes", None]).tolist() == [0, 0.25, 0, 0]
    assert measures.disagreement(votes) == pytest.approx([0, 2 / 3, 0, 1])
    p = np.array([[0.5, 0.5], [1.0, 0.0], [0.7, 0.3]])
    assert measures.margin(p) == pytest.approx([1, 0, 0.6])
    assert measures.entropy(p)[:2] == pytest.approx([math.log(2), 0])
    assert measures.margin(np.ones((2, 1))).tolist() == [0, 0]
    drawn = measures.draw_options(p, ("Yes", "No"), 400, seed=1)
    assert [len(d) for d in drawn] == [400] * 3
    assert [d.count("Yes") / 400 for d in drawn] == pytest.approx([0.5, 1, 0.7], abs=0.08)


def test_truth_counts_what_is_easy_and_wrong() -> None:
    pool = [Sample(str(i), "Yes" if i % 2 else "No") for i in range(8)]
    scored = Scored(np.arange(8, dtype=np.float32), np.zeros((8, 2), dtype=np.float32), ["Yes"] * 8)
    assert truth(pool, scored) == {"direct_accuracy": 0.5, "easy_but_wrong": 0.5}
    assert truth([Sample("a")], Scored(np.zeros(1), np.zeros((1, 2)), ["Yes"])) == {}
    assert truth(pool, Scored(np.zeros(8), np.zeros((8, 2)))) == {}
