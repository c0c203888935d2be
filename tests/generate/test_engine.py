"""The batched engine against transformers' own greedy generation, one prompt at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from bridge_edge.errors import UserError
from bridge_edge.generate import engine
from bridge_edge.generate.dense import Dense, fits
from bridge_edge.generate.draw import Draw
from bridge_edge.generate.engine import Generated, generate, grouped
from bridge_edge.generate.fixed_cache import FixedCache, new_cache
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
    assert (
        len({g.index for g in found}) == len(found) == len(rows) * (changes["draw"].samples if "draw" in changes else 1)
    )
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
    forward, step = engine._forward, Dense.step

    def watched(model: Any, bf16: bool, **inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        return forward(model, bf16, **inputs)

    def stepped(self: Dense, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        sizes.append(len(tokens))
        return step(self, tokens, *rest)

    monkeypatch.setattr(engine, "_forward", watched)
    monkeypatch.setattr(Dense, "step", stepped)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    run(ours, prompts(), ends)
    assert len(prompts()) / 2 < sizes[0] <= len(prompts())  # some may end with their first token
    assert sizes[-1] < sizes[0]
    assert sizes == sorted(sizes, reverse=True)


def test_a_free_slot_goes_to_the_next_prompt(models: tuple[Any, Plain], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, plain = models
    if not fits(ours):
        pytest.skip("this family is decoded in batches by the library's modules")
    admitted: list[int] = []
    prefill = Dense.prefill

    def watched(self: Dense, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        admitted.append(len(ids))
        return prefill(self, ids, *rest)

    monkeypatch.setattr(Dense, "prefill", watched)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    ends = common_ends(plain)
    found = run(ours, prompts(), ends, batch_rows=4)
    assert admitted[0] == 4
    assert len(admitted) > len(prompts()) / 4  # refilled before all four had ended
    assert all(found[i].ids == plain.cut(i, ends)[0] for i in found)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_dense_states_equal_the_library_s(kind: str, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / kind, kind)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert fits(model)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms start at 0 and 1, where a mistake would not show
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    ids = torch.tensor([[5, 9, 30, 7, 2, 11], [8, 8, 3, 0, 0, 0]])
    dense = Dense(model, bf16=False)
    states = dense.prefill(ids)
    with torch.no_grad():
        assert torch.allclose(dense.logits(states[0]), model(ids[:1]).logits[0], atol=1e-4)
        assert torch.allclose(dense.logits(states[1, :3]), model(ids[1:, :3]).logits[0], atol=1e-4)


def test_dense_leaves_other_models_to_the_library(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny.checkpoint(tmp_path / "g", "gemma3"), dtype=torch.float32)
    assert not fits(model)


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

    shell: Any = Shell()  # a config is all that is read
    with pytest.raises(UserError, match="qwen3_next"):
        new_cache(shell, 8)


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


@torch.no_grad()
def sampled_alone(model: Any, prompt: Sequence[int], chances: Sequence[float], temperature: float) -> list[int]:
    """One sampled completion without a cache: the token on whose stretch each random number falls."""
    ids: list[int] = []
    for chance in chances:
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, -1].double()
        stretch = (logits / temperature).softmax(-1).cumsum(-1)
        ids.append(int((stretch < chance).sum()))
    return ids


@pytest.mark.parametrize("batch_rows", [64, 5])
@pytest.mark.parametrize("kind", ["qwen2", "gemma3"])  # small dense decoders, and the library's modules
def test_samples_are_those_that_the_random_numbers_name(kind: str, batch_rows: int, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / kind, kind)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = prompts()[:4]
    draw = Draw(0.8, 3, [[7, i] for i in range(len(rows))])
    model = load_model(str(folder))
    found = {g.index: g for g in generate(model, rows, 6, frozenset(), batch_rows, "fp32", draw)}
    assert sorted(found) == list(range(12))
    for row in range(12):
        assert found[row].ids == sampled_alone(plain, rows[row // 3], draw.chances(row, 6).tolist(), 0.8)
    assert len({tuple(found[row].ids) for row in range(12)}) > 8  # the samples of a prompt differ


def test_samples_do_not_depend_on_what_is_drawn_beside_them(tmp_path: Path) -> None:
    model = load_model(str(tiny.checkpoint(tmp_path / "m")))
    rows = prompts()[:3]
    all_rows = run(model, rows, (), draw=Draw(1.0, 2, [[1, i] for i in range(3)]))
    alone = run(model, rows[1:2], (), draw=Draw(1.0, 2, [[1, 1]]))
    assert [alone[k].ids for k in (0, 1)] == [all_rows[k].ids for k in (2, 3)]
