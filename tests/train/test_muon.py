"""Muon in float32: torch's own update, to the rounding of bf16, and a checkpoint of either continues in the other."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from bridge_edge.benchmarks.optimiser import main as benchmark
from bridge_edge.train import muon, optim
from bridge_edge.train.muon import Float32Muon, orthogonal
from tests import tiny

SHAPES = [(48, 48), (48, 48), (16, 64), (64, 16), (48, 48)]


def steps(
    kind: type[torch.optim.Muon], weights: list[torch.nn.Parameter], count: int, seed: int, state: dict | None = None
) -> torch.optim.Muon:
    optimizer = kind(weights, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    if state:
        optimizer.load_state_dict(state)
    noise = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=noise)
        optimizer.step()
    return optimizer


def weights() -> list[torch.nn.Parameter]:
    noise = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=noise)) for shape in SHAPES]


def moved(ours: list[torch.nn.Parameter], theirs: list[torch.nn.Parameter]) -> float:
    """How far the two ended from each other, as a share of how far they went."""
    far = sum(float((a - b).detach().norm()) for a, b in zip(ours, theirs, strict=True))
    went = sum(float((a - b).detach().norm()) for a, b in zip(theirs, weights(), strict=True))
    return far / went


@pytest.mark.parametrize("together", [1, 1 << 21])
def test_the_update_is_that_of_torch(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "TOGETHER", together)
    ours, theirs = weights(), weights()
    steps(Float32Muon, ours, 5, 2)
    steps(torch.optim.Muon, theirs, 5, 2)
    assert moved(ours, theirs) < 0.02


def test_a_checkpoint_of_either_continues_in_the_other() -> None:
    whole, halves = weights(), weights()
    first = steps(torch.optim.Muon, halves, 3, 2)
    steps(Float32Muon, halves, 3, 3, copy.deepcopy(first.state_dict()))
    first = steps(torch.optim.Muon, whole, 3, 2)
    steps(torch.optim.Muon, whole, 3, 3, copy.deepcopy(first.state_dict()))
    assert moved(halves, whole) < 0.02


@pytest.mark.parametrize("native", [True, False])
def test_torchs_own_is_taken_where_bf16_is_native(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim, "use_bf16", lambda precision, device: native)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 4))
    kinds = [type(part) for part in optim.build_optimizer(model, "muon", 1e-3).parts]
    assert kinds == [*[torch.optim.Muon if native else Float32Muon] * 2, torch.optim.AdamW]


def test_a_matrix_without_a_gradient_stays() -> None:
    ours = weights()
    optimizer = Float32Muon(ours, lr=0.02, adjust_lr_fn="match_rms_adamw")
    ours[0].grad = torch.ones_like(ours[0])
    optimizer.step()
    changed = [not torch.equal(a, b) for a, b in zip(ours, weights(), strict=True)]
    assert changed == [True, False, False, False, False]


def test_singular_values_come_near_one_and_their_vectors_stay() -> None:
    matrices = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(3))
    (a, b, c), eps = torch.optim.Muon([torch.nn.Parameter(matrices[0])]).defaults["ns_coefficients"], 1e-7
    for turned in (matrices, matrices.mT):
        found = orthogonal(turned, (a, b, c), 5, eps)
        assert found.shape == turned.shape
        values = torch.linalg.svdvals(found)
        assert float(values.min()) > 0.5
        assert float(values.max()) < 1.3
        left, _, right = torch.linalg.svd(turned, full_matrices=False)
        exact = left @ right  # what the iteration approaches, up to the spread of the singular values
        assert torch.nn.functional.cosine_similarity(found.flatten(1), exact.flatten(1)).min() > 0.95


def test_the_benchmark_takes_turns_on_the_matrices_of_a_model(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, "qwen2")
    result = CliRunner().invoke(benchmark, ["--model", str(tmp_path), "--steps", "1", "--pairs", "1"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output.splitlines()[-1])
    assert found["steps"]["ratio_median"] > 0
    assert isinstance(found["bf16_native"], bool)
