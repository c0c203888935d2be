"""Difficulty and embeddings against one plain forward pass an item."""

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
from bridge_edge.select import score as scoring
from bridge_edge.select.score import score_pool
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
    monkeypatch.setattr(scoring, "use_bf16", lambda *_: False)


def alone(folder: str, tokenizer: Any, sample: Sample, tail: str) -> tuple[np.ndarray, np.ndarray, float]:
    """NLL of each token of the tail, the normalised mean prompt state, and the entropy after the tail."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    prompt = prompt_ids(tokenizer, [sample.prompt])[0]
    ids = prompt + tokenizer(tail, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    logs = out.logits[0].double().log_softmax(-1)
    nll = np.array([-float(logs[i - 1, ids[i]]) for i in range(len(prompt), len(ids))])
    mean = out.hidden_states[-1][0, : len(prompt)].double().mean(0)
    entropy = -sum(p * math.log(p) for p in logs[-1].exp().tolist() if p > 0)
    return nll, (mean / mean.norm()).numpy(), entropy


@pytest.mark.parametrize("max_tokens", [64, 8192])
def test_loss_is_the_mean_nll_of_the_gold_answer(folder: str, max_tokens: int) -> None:
    tokenizer = load_tokenizer(folder)
    seen: list[float] = []
    hard, vectors = score_pool(
        load_model(folder), tokenizer, POOL, ("yes", "no"), "loss", lambda n, _: seen.append(n), max_tokens
    )
    for i, sample in enumerate(POOL):
        nll, vector, _ = alone(folder, tokenizer, sample, f"Answer: {sample.answer}")
        assert hard[i] == pytest.approx(nll.mean(), rel=1e-4)
        assert vectors[i] == pytest.approx(vector, abs=1e-4)
    assert sum(seen) == len(POOL)
    assert hard.dtype == vectors.dtype == np.float32


def test_entropy_over_the_options(folder: str) -> None:
    tokenizer, options = load_tokenizer(folder), ("yes", "no", "not at all")
    hard, _ = score_pool(load_model(folder), tokenizer, POOL, options, "entropy", lambda *_: None)
    for i, sample in enumerate(POOL):
        logs = [-alone(folder, tokenizer, sample, f"Answer: {o}")[0].sum() for o in options]
        weights = np.exp(np.array(logs) - max(logs))
        p = weights / weights.sum()
        assert hard[i] == pytest.approx(-(p * np.log(p)).sum(), rel=1e-3, abs=1e-5)


def test_entropy_of_the_first_answer_token_without_options(folder: str) -> None:
    tokenizer = load_tokenizer(folder)
    bare = [Sample(s.prompt) for s in POOL]
    hard, _ = score_pool(load_model(folder), tokenizer, bare, (), "entropy", lambda *_: None)
    for i, sample in enumerate(bare):
        assert hard[i] == pytest.approx(alone(folder, tokenizer, sample, "Answer:")[2], rel=1e-4)
