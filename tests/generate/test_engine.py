"""The batched engine against transformers' own greedy generation, one prompt at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from bridge_edge.errors import UserError
from bridge_edge.generate import engine
from bridge_edge.generate.engine import FixedCache, Generated, generate, grouped, new_cache
from bridge_edge.train.models import load_model
from tests import tiny

KINDS = ("qwen2", "qwen3", "llama", "gemma3")
NEW = 24  # more than the window of the tiny Gemma, with its longer prompts


def prompts(n: int = 11) -> list[list[int]]:
    rng = random.Random(4)
    return [[rng.randint(3, 380) for _ in range(rng.choice((1, 2, 5, 9, 9, 14, 30)))] for _ in range(n)]


@pytest.fixture(scope="module", params=KINDS)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Plain]:
    """(ours with the fast attention where it fits, the library's plain one)."""
    folder = tiny.checkpoint(tmp_path_factory.mktemp("m") / request.param, request.param)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return load_model(str(folder)), Plain(plain)


@torch.no_grad()
def reference(model: Any, prompt: Sequence[int]) -> tuple[list[int], list[float]]:
    """NEW greedy tokens of one prompt by the library, with their log-probabilities; no token ends it."""
    out = model.generate(
        input_ids=torch.tensor([list(prompt)]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    ids = out.sequences[0, len(prompt) :].tolist()
    return ids, [float(step[0].float().log_softmax(-1)[t]) for step, t in zip(out.logits, ids, strict=True)]


class Plain:
    """What the library says of each prompt, asked once."""

    def __init__(self, model: Any) -> None:
        self.texts = [reference(model, p) for p in prompts()]

    def cut(self, row: int, ends: Sequence[int]) -> tuple[list[int], float, bool]:
        """Tokens up to the first end token, mean log-probability (end included), whether it ended."""
        ids, logs = self.texts[row]
        place = next((i for i, t in enumerate(ids) if t in ends), None)
        kept = logs if place is None else logs[: place + 1]
        return ids[:place], sum(kept) / len(kept), place is not None


def run(model: Any, rows: Sequence[Sequence[int]], ends: Sequence[int], **changes: Any) -> dict[int, Generated]:
    found = list(generate(model, rows, changes.pop("bound", NEW), frozenset(ends), precision="fp32", **changes))
    assert len({g.index for g in found}) == len(found) == len(rows)
    return {g.index: g for g in found}


def common_ends(plain: Plain) -> list[int]:
    """End tokens that some rows meet early and some late or never."""
    ends = [plain.texts[0][0][3], plain.texts[1][0][10], plain.texts[4][0][0]]
    assert len({len(plain.cut(i, ends)[0]) for i in range(len(prompts()))}) > 2
    return ends


@pytest.mark.parametrize("batch_rows", [256, 4, 1])
def test_rows_are_those_of_the_library_alone(models: tuple[Any, Plain], batch_rows: int) -> None:
    ours, plain = models
    ends = common_ends(plain)
    found = run(ours, prompts(), ends, batch_rows=batch_rows)
    for i in range(len(prompts())):
        ids, logprob, ended = plain.cut(i, ends)
        assert (found[i].ids, found[i].ended) == (ids, ended)
        assert found[i].logprob == pytest.approx(logprob, abs=1e-3)


def test_without_an_end_token_every_row_reaches_the_bound(models: tuple[Any, Plain]) -> None:
    ours, plain = models
    for i, row in run(ours, prompts(), ()).items():
        assert row.ids == plain.texts[i][0]
        assert len(row.ids) == NEW
        assert not row.ended


def test_ending_in_the_last_step_or_the_first(models: tuple[Any, Plain]) -> None:
    ours, plain = models
    newest = [max(ids.index(t) for t in ids) for ids, _ in plain.texts]  # the last place where a token is new
    row = newest.index(max(newest))
    prompt, text, place = prompts()[row], plain.texts[row][0], newest[row]
    assert place > 0
    last = run(ours, [prompt], [text[place]], bound=place + 1)[0]
    assert (last.ids, last.ended) == (text[:place], True)
    cut = run(ours, [prompt], [text[place]], bound=place)[0]
    assert (cut.ids, cut.ended) == (text[:place], False)
    first = run(ours, [prompt], [text[0]])[0]
    assert (first.ids, first.ended) == ([], True)


def test_rows_leave_the_batch_when_they_end(models: tuple[Any, Plain], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, plain = models
    ends, sizes = common_ends(plain), []
    real = engine._forward

    def watched(model: Any, bf16: bool, **inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        return real(model, bf16, **inputs)

    monkeypatch.setattr(engine, "_forward", watched)
    run(ours, prompts(), ends)
    assert sizes[0] == len(prompts())
    assert sizes[-1] < len(prompts())
    assert sizes == sorted(sizes, reverse=True)


def test_no_mode_leaks_to_the_reader(models: tuple[Any, Plain]) -> None:
    reader = generate(models[0], prompts(3), 4, frozenset(), precision="bf16")
    next(reader)
    assert not torch.is_inference_mode_enabled()
    assert not torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled()


def test_nothing_in_nothing_out(models: tuple[Any, Plain]) -> None:
    assert list(generate(models[0], [], 4, frozenset([2]))) == []


def test_plain_layers_get_fixed_buffers_and_windows_the_library_s_own(models: tuple[Any, Plain]) -> None:
    windowed = "gemma" in models[0].config.model_type
    assert isinstance(new_cache(models[0], 8), FixedCache) != windowed


def test_recurrent_models_are_refused() -> None:
    from transformers import Qwen3NextConfig

    class Shell:
        config = Qwen3NextConfig(num_hidden_layers=4)

    with pytest.raises(UserError, match="qwen3_next"):
        new_cache(Shell(), 8)  # type: ignore[arg-type]


def test_batches_hold_every_row_once_within_both_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LARGEST_PREFILL", 4_000)
    lengths = sorted([5] * 30 + [20] * 25 + [90, 100])
    groups = grouped(lengths, range(len(lengths)), 16)
    assert [i for group in groups for i in group] == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[i] for i in group)
        assert len(group) <= 16
        assert len(group) == 1 or len(group) * longest**2 <= 4_000
    assert groups[-1] == [56]  # a prompt above the bound goes alone
    assert grouped([], [], 16) == []
