"""The training loop: it learns, it resumes to the same weights, and it says when it cannot go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bridge_edge.errors import UserError
from bridge_edge.recipe_models import LoraSpec, ModelSpec
from bridge_edge.train import loop
from bridge_edge.train.batches import ANSWER, PROMPT, RATIONALE, Encoded
from bridge_edge.train.loop import Plan, step_plan, train
from bridge_edge.train.models import prepare
from bridge_edge.train.optim import OPTIMIZERS, build_optimizer, schedule
from tests import tiny

PLAN = Plan(5e-3, 3, 128, 64, "adamw", precision="fp32", save_every=-1.0)
PAD = 0


def silent(step: float, note: str = "") -> None:
    """Progress that nobody looks at."""


def examples(n: int = 24) -> list[Encoded]:
    """Rows whose completion is a fixed function of the prompt, so that there is something to learn."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        prompt = rng.integers(10, 20, 4 + i % 5)
        ids = [*prompt, *(prompt[:3] + 30), 40 + int(prompt[0]) % 2, 2]
        codes = [PROMPT] * len(prompt) + [RATIONALE] * 3 + [ANSWER] * 2
        made.append(Encoded(np.array(ids, dtype=np.int32), np.array(codes, dtype=np.int8)))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.checkpoint(tmp_path_factory.mktemp("base") / "qwen2", "qwen2", hidden=32))


def fresh(folder: str, lora: LoraSpec | None = None) -> Any:
    torch.manual_seed(0)
    return prepare(folder, ModelSpec(model=folder, lora=lora))


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_loss_falls(folder: str, optimizer: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CURVE", 10)
    plan = replace(PLAN, optimizer=optimizer, precision=precision)
    model = fresh(folder)
    first = train(fresh(folder), examples(), replace(plan, epochs=0.2), PAD, silent)
    done = train(model, examples(), replace(plan, epochs=12), PAD, silent)
    assert done.loss < 0.5 * first.loss
    assert done.steps == len(step_plan(examples(), replace(plan, epochs=12)))
    assert done.record()["tokens"] == done.tokens == 12 * sum(map(len, examples()))
    assert 5 < len(done.curve) <= 11 < done.steps
    assert (done.curve[0][0], done.curve[-1]) == (1, [done.steps, pytest.approx(done.loss, abs=1e-4)])
    assert done.curve[0][1] > 2 * done.curve[-1][1]


def interrupted(model: Any, plan: Plan, path: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train and stop the hard way in the step after `after`."""
    real, count = loop._step, 0

    def step(*args: Any) -> float:
        nonlocal count
        if count == after:
            raise KeyboardInterrupt
        count += 1
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            train(model, examples(), plan, PAD, silent, path)


@pytest.mark.parametrize("lora", [None, LoraSpec(r=4, alpha=8, dropout=0.3)], ids=["full", "lora with dropout"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_training_ends_with_the_same_weights(
    folder: str, optimizer: str, lora: LoraSpec | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, path = replace(PLAN, optimizer=optimizer), tmp_path / "checkpoint.pt"
    whole = fresh(folder, lora)
    done = train(whole, examples(), plan, PAD, silent)
    assert done.steps > 5
    interrupted(fresh(folder, lora), plan, path, 3, monkeypatch)
    interrupted(fresh(folder, lora), plan, path, 1, monkeypatch)  # a second time, from the first checkpoint
    torch.manual_seed(99)  # another process has another random state
    resumed = prepare(folder, ModelSpec(model=folder, lora=lora))
    seen: list[float] = []
    again = train(resumed, examples(), plan, PAD, lambda step, note: seen.append(step), path)
    assert sum(seen) == pytest.approx(1)
    assert seen[0] == pytest.approx(4 / done.steps)
    assert replace(again, seconds=0.0) == replace(done, seconds=0.0)
    for name, value in weights(whole).items():
        assert torch.equal(dict(resumed.named_parameters())[name], value), name


def test_training_is_repeatable_and_its_seed_matters(folder: str) -> None:
    results = []
    for seed in (0, 0, 1):
        model = fresh(folder)
        train(model, examples(), replace(PLAN, seed=seed), PAD, silent)
        results.append(weights(model)["model.norm.weight"])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_micro_batches_add_up_to_the_whole_batch(folder: str) -> None:
    """Rows of one length in one segment: the split of a step into forward passes must not show."""
    rows = [Encoded(np.arange(i, i + 8, dtype=np.int32), np.array([0] * 4 + [2] * 4, dtype=np.int8)) for i in range(8)]
    results = []
    for micro in (64, 16):
        model = fresh(folder)
        train(model, rows, replace(PLAN, epochs=1, batch_tokens=64, micro_tokens=micro), PAD, silent)
        results.append(weights(model))
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, atol=1e-5, rtol=1e-4)


def test_the_plan_of_steps_covers_each_epoch_and_its_share() -> None:
    rows = examples()
    steps = step_plan(rows, replace(PLAN, epochs=2))
    found = sorted(i for step in steps for micro in step for i in micro)
    assert found == sorted([*range(len(rows))] * 2)
    assert all(len(step) <= 2 for step in steps)
    half = sum(len(m) for s in step_plan(rows, replace(PLAN, epochs=0.5)) for m in s)
    assert 0.3 * len(rows) < half < 0.7 * len(rows)


def test_what_cannot_be_trained_is_said(folder: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to train on"):
        train(fresh(folder), [], PLAN, PAD, silent)
    broken = fresh(folder)
    with torch.no_grad():
        broken.get_input_embeddings().weight[15] = float("nan")
    with pytest.raises(UserError, match=r"loss became nan at step 1.*learning rate"):
        train(broken, examples(), PLAN, PAD, silent)
    damaged = tmp_path / "checkpoint.pt"
    damaged.write_bytes(b"cut off")
    with pytest.raises(UserError, match="damaged"):
        train(fresh(folder), examples(), PLAN, PAD, silent, damaged)
    with pytest.raises(UserError, match="cannot write the checkpoint"):
        train(fresh(folder), examples(), PLAN, PAD, silent, tmp_path / "nowhere" / "checkpoint.pt")


def test_optimisers_share_out_all_trainable_parameters_once(folder: str) -> None:
    model = fresh(folder)
    for name in OPTIMIZERS:
        parts = build_optimizer(model, name, 1e-3).parts
        found = [id(p) for part in parts for group in part.param_groups for p in group["params"]]
        assert sorted(found) == sorted(id(p) for p in model.parameters())
    with pytest.raises(UserError, match="unknown optimizer"):
        build_optimizer(model, "sgd", 1e-3)


def test_the_schedule_rises_and_falls() -> None:
    rates = [schedule(i, 200) for i in range(200)]
    top = rates.index(max(rates))
    assert rates[top] == pytest.approx(1)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[-1] < 0.05
    assert 0 < schedule(0, 1) <= 1


def test_several_passes_are_batched_one_by_one() -> None:
    """Copies of an example have one length: bucketed together they would lie side by side."""
    rows = examples()
    plan = replace(PLAN, epochs=1, passes=(len(rows),) * 4)
    [micro] = zip(*step_plan(rows * 4, replace(plan, batch_tokens=plan.micro_tokens)), strict=True)
    assert sorted(i for batch in micro for i in batch) == list(range(4 * len(rows)))
    assert all(len({i // len(rows) for i in batch}) == 1 for batch in micro)
    turns = [batch[0] // len(rows) for batch in micro]
    assert turns == sorted(turns)
    own = [[i % len(rows) for batch in micro for i in batch if i // len(rows) == turn] for turn in range(4)]
    assert own[0] != own[1], "each pass has an order of its own"
    first = step_plan(rows * 4, replace(plan, ordered=len(rows)))
    assert sorted(i for step in first for batch in step for i in batch) == list(range(4 * len(rows)))
