"""The fast CPU attention against transformers' eager one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, DynamicCache

from bridge_edge.benchmarks.attention import main as benchmark
from bridge_edge.train import attention, losses
from bridge_edge.train.attention import NAME, causal_attention, use_fast_attention
from tests import tiny


def pair(folder: Path, kind: str, **changes: Any) -> tuple[Any, Any]:
    """The same model with eager attention and with ours."""
    path = tiny.checkpoint(folder / kind, kind, **changes)
    models = [
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
        for _ in range(2)
    ]
    assert use_fast_attention(models[1]) == "eager"
    return models[0], models[1]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    mask = torch.ones(3, 21, dtype=torch.long)
    mask[1, :6] = 0
    mask[2, :20] = 0
    return torch.randint(3, 300, (3, 21)), mask


@pytest.fixture(params=[512, 8], ids=["short", "long"])
def branch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both branches: our own products, and torch's kernel for rows above LONGEST."""
    monkeypatch.setattr(attention, "LONGEST", request.param)
    monkeypatch.setattr(attention, "PLAIN", (torch.float32,))


@pytest.mark.usefixtures("branch")
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_logits_and_gradients_are_those_of_eager_attention(kind: str, padded: bool, tmp_path: Path) -> None:
    eager, fast = pair(tmp_path, kind)
    assert fast.config._attn_implementation == NAME
    ids, mask = batch()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    inputs = {"attention_mask": mask, "position_ids": positions} if padded else {}
    real = mask.bool() if padded else torch.ones_like(ids, dtype=torch.bool)
    results = []
    for model in (eager, fast):
        logits = model(input_ids=ids, use_cache=False, **inputs).logits
        logits[real].logsumexp(-1).sum().backward()
        results.append((logits.detach()[real], [p.grad for p in model.parameters()]))
    assert torch.isfinite(results[1][0]).all()
    torch.testing.assert_close(results[1][0], results[0][0], atol=1e-4, rtol=1e-4)
    for one, two in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(two, one, atol=2e-3, rtol=1e-3)


@pytest.mark.usefixtures("branch")
@pytest.mark.parametrize("padded", [False, True])
def test_a_prompt_in_two_parts_gives_the_same_logits(padded: bool, tmp_path: Path) -> None:
    """With a cache the second part has fewer queries than keys."""
    eager, fast = pair(tmp_path, "qwen2")
    ids, mask = batch()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        inputs = {"attention_mask": mask, "position_ids": positions} if padded else {}
        wanted = eager(input_ids=ids, **inputs).logits
        cache = DynamicCache(config=fast.config)
        for start, end in ((0, 9), (9, 20), (20, 21)):
            part = {"attention_mask": mask[:, :end], "position_ids": positions[:, start:end]} if padded else {}
            found = fast(input_ids=ids[:, start:end], past_key_values=cache, **part).logits
            real = mask[:, start:end].bool() if padded else torch.ones(3, end - start, dtype=torch.bool)
            torch.testing.assert_close(found[real], wanted[:, start:end][real], atol=1e-4, rtol=1e-4)


def test_models_with_windows_are_left_alone(tmp_path: Path) -> None:
    path = tiny.checkpoint(tmp_path / "gemma", "gemma3")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    before = model.config._attn_implementation
    assert use_fast_attention(model) == before
    assert model.config._attn_implementation == before != NAME


@pytest.mark.parametrize("plain", [(), (torch.float32,)], ids=["torch", "ours"])
def test_a_scale_of_its_own_is_honoured(plain: tuple[torch.dtype, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "PLAIN", plain)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, 7, 8) for heads in (4, 2, 2))
    found, _ = causal_attention(torch.nn.Identity(), q, k, v, None, scaling=0.5)
    for row in range(2):
        for head in range(4):
            for t in range(7):
                scores = (k[row, head // 2, : t + 1] @ q[row, head, t]) * 0.5
                wanted = scores.softmax(0) @ v[row, head // 2, : t + 1]
                torch.testing.assert_close(found[row, t, head], wanted, atol=1e-5, rtol=1e-5)


def test_the_types_choose_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.dtype] = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def noted(query: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        taken.append(query.dtype)
        return kernel(query, *args, **more)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", noted)
    for dtype in (torch.float32, torch.bfloat16):
        q, k, v = (torch.randn(1, heads, 5, 8, dtype=dtype) for heads in (4, 2, 2))
        causal_attention(torch.nn.Identity(), q, k, v, None)
    assert taken == [torch.float32]


def test_the_benchmark_times_both_ways_and_leaves_the_choice_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = attention.PLAIN, []
    plain = losses.label_losses

    def noted(*args: Any) -> Any:
        seen.append(attention.PLAIN)
        return plain(*args)

    monkeypatch.setattr(losses, "label_losses", noted)
    done = CliRunner().invoke(benchmark, ["--items", "4", "--pairs", "1", "--model", "embedded:student"])
    assert done.exit_code == 0, done.output
    assert set(seen) == {(), (torch.float32, torch.bfloat16)}
    assert attention.PLAIN is before
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["tokens"]["pairs"] == 1
    assert 100 < found["length"] < 300
