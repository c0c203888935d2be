"""Our losses beside TRL's: GKD's divergences, and a whole step of its GRPO trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from bridge_edge.reinforce import advantages, chosen, grpo_losses
from bridge_edge.train.batches import ANSWER, PROMPT, Encoded, collate
from bridge_edge.train.hybrid import Mix, divergence
from bridge_edge.train.losses import supervised_states
from tests import tiny

pytest.importorskip("trl", reason="TRL is not installed (pip install -e '.[dev]')")

GROUP, KL = 4, 0.3


@pytest.mark.parametrize(("name", "beta"), [("forward", 0.0), ("reverse", 1.0), ("js", 0.5)])
def test_divergences_and_their_gradients_are_those_of_gkd(name: str, beta: float, monkeypatch: Any) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.gkd import GKDTrainer

    seeded = torch.Generator().manual_seed(3)
    student, teacher = (3 * torch.randn(6, 50, generator=seeded, dtype=torch.float64) for _ in range(2))
    ours, theirs = (student.clone().requires_grad_() for _ in range(2))
    found = divergence(ours.log_softmax(-1), teacher.log_softmax(-1), Mix("soft", divergence=name))
    wanted = GKDTrainer.generalized_jsd_loss(theirs[None], teacher[None], beta=beta, reduction="none")[0].sum(-1)
    assert found.detach().numpy() == pytest.approx(wanted.detach().numpy(), rel=1e-6)
    assert float(found.detach().min()) > 0.1
    found.sum().backward()
    wanted.sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert ours.grad.numpy() == pytest.approx(theirs.grad.numpy(), rel=1e-5, abs=1e-9)


def trainer_of(folder: Path) -> Any:
    """TRL's trainer of a tiny model, with a reward that differs within a group."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        return [sum(i % 3 for i in ids) / len(ids) for ids in completion_ids]

    args = GRPOConfig(
        output_dir=str(folder / "out"),
        loss_type="bnpo",  # the mean over the tokens of a batch, as here
        beta=KL,
        use_bias_correction_kl=False,  # the paper's divergence; TRL's own default weights it by the ratio
        num_generations=GROUP,
        per_device_train_batch_size=2 * GROUP,
        max_completion_length=12,
        temperature=1.0,
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        seed=7,
    )
    tokenizer = tiny.tokenizer()
    prompts = Dataset.from_list([{"prompt": text} for text in ("Is 3 more than 2?", "Say yes or no: 7 > 5")])
    model = AutoModelForCausalLM.from_pretrained(folder)
    return GRPOTrainer(model, reward, args=args, train_dataset=prompts, processing_class=tokenizer)


def test_a_step_of_reinforcement_is_that_of_grpo(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, "qwen2", tok=tiny.tokenizer())
    trainer = trainer_of(tmp_path)
    model, before = trainer.model, AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    trainer.current_gradient_accumulation_steps = 1  # set where its loop begins
    rows = [row for row in trainer.train_dataset for _ in range(GROUP)]
    model.train()
    inputs = trainer._generate_and_score_completions(rows)
    with torch.no_grad():  # the student has moved since: otherwise the divergence from before would be 0
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    theirs = trainer._compute_loss(model, inputs)
    wanted = torch.autograd.grad(theirs, list(model.parameters()), allow_unused=True)

    said, rewards = [], []
    parts = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    for prompt, real, completion, written in zip(*(inputs[name] for name in parts), strict=True):
        asked, answer = prompt[real.bool()].numpy(), completion[written.bool()].numpy()
        codes = np.array([PROMPT] * len(asked) + [ANSWER] * len(answer), np.int8)
        said.append(Encoded(np.concatenate([asked, answer]).astype(np.int32), codes))
        rewards.append(float((answer % 3).sum() / len(answer)))
    weight = advantages(torch.tensor(rewards).view(-1, GROUP)).flatten()
    assert weight.tolist() == pytest.approx(inputs["advantages"].tolist(), abs=1e-4)
    assert float(weight.abs().max()) > 0.5

    batch = collate(said, 0)
    with torch.no_grad():
        then = chosen(supervised_states(before, batch))
    states = supervised_states(model, batch)
    ours = grpo_losses(chosen(states), then, weight[states.rows], KL).mean()
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), abs=1e-5)
    found = torch.autograd.grad(ours, list(model.parameters()), allow_unused=True)
    for mine, other in zip(found, wanted, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)
