"""Losses against a slow loop and finite differences, and the projection of supervised positions alone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from bridge_edge.recipe_models import LoraSpec
from bridge_edge.train.batches import ANSWER, PROMPT, RATIONALE, Encoded, collate
from bridge_edge.train.losses import segment_nll, supervised_logits
from bridge_edge.train.models import attach_lora, load_model
from tests import tiny

WEIGHTS = {RATIONALE: 0.7, ANSWER: 2.0}


def toy(n: int = 9, vocabulary: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    logits = torch.randn(n, vocabulary, dtype=torch.float64)
    return logits, torch.randint(vocabulary, (n,)), torch.tensor([RATIONALE] * (n - 3) + [ANSWER] * 3)


def slow(logits: torch.Tensor, labels: torch.Tensor, segments: torch.Tensor, weights: dict[int, float]) -> float:
    total = 0.0
    for code, weight in weights.items():
        losses = []
        for row, label, segment in zip(logits.tolist(), labels.tolist(), segments.tolist(), strict=True):
            if segment == code:
                losses.append(math.log(sum(math.exp(x) for x in row)) - row[label])
        if losses:
            total += weight * sum(losses) / len(losses)
    return total


@pytest.mark.parametrize("weights", [WEIGHTS, {RATIONALE: 0.0, ANSWER: 1.0}, {RATIONALE: 1.0}, {}])
def test_the_loss_is_that_of_a_slow_loop(weights: dict[int, float]) -> None:
    logits, labels, segments = toy()
    assert float(segment_nll(logits, labels, segments, weights)) == pytest.approx(
        slow(logits, labels, segments, weights)
    )


def test_a_missing_segment_adds_nothing_and_no_nan() -> None:
    logits, labels, _ = toy()
    segments = torch.full((9,), ANSWER)
    assert float(segment_nll(logits, labels, segments, WEIGHTS)) == pytest.approx(
        slow(logits, labels, segments, WEIGHTS)
    )


def test_gradients_are_the_finite_differences() -> None:
    logits, labels, segments = toy()
    logits.requires_grad_(True)
    segment_nll(logits, labels, segments, WEIGHTS).backward()
    assert logits.grad is not None
    step = 1e-6
    for i in range(logits.shape[0]):
        for j in range(logits.shape[1]):
            shifted = logits.detach().clone()
            shifted[i, j] += step
            upper = float(segment_nll(shifted, labels, segments, WEIGHTS))
            shifted[i, j] -= 2 * step
            lower = float(segment_nll(shifted, labels, segments, WEIGHTS))
            assert float(logits.grad[i, j]) == pytest.approx((upper - lower) / (2 * step), abs=1e-6)


def rows() -> list[Encoded]:
    rng = np.random.default_rng(2)
    made = []
    for prompt, why, answer in ((5, 4, 2), (9, 0, 3), (3, 7, 0)):
        codes = [PROMPT] * prompt + [RATIONALE] * why + [ANSWER] * answer
        made.append(Encoded(rng.integers(3, 300, len(codes)).astype(np.int32), np.array(codes, dtype=np.int8)))
    return made


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama", "gemma3"])
def test_supervised_logits_are_those_of_the_whole_forward_pass(kind: str, lora: bool, tmp_path: Path) -> None:
    folder = str(tiny.checkpoint(tmp_path / kind, kind))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    model = load_model(folder).eval()
    model = attach_lora(model, LoraSpec(r=4, alpha=8)).eval() if lora else model  # fresh adapters change nothing
    logits, labels, segments = supervised_logits(model, collate(rows(), 0))
    wanted, ids, codes = [], [], []
    for row in rows():
        with torch.no_grad():
            out = plain(input_ids=torch.tensor([row.ids.tolist()])).logits[0]
        for position in range(1, len(row)):
            if row.segments[position] != PROMPT:
                wanted.append(out[position - 1])
                ids.append(int(row.ids[position]))
                codes.append(int(row.segments[position]))
    assert labels.tolist() == ids
    assert segments.tolist() == codes
    torch.testing.assert_close(logits.detach(), torch.stack(wanted), atol=2e-4, rtol=1e-4)
