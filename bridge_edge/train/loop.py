"""The one training loop.

Warm-up, apprenticeship, alignment, tutoring and the baselines all call `train`; they differ in the examples, in the
losses of their tokens and in the weights of these, never in a copy of this loop. It is resumable: with a checkpoint
path it continues after `kill -9` from the last checkpoint, with the same data order.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from bridge_edge.errors import UserError
from bridge_edge.memory import trim
from bridge_edge.parallel import Map, side_by_side
from bridge_edge.progress import Advance
from bridge_edge.train.batches import ANSWER, RATIONALE, Batch, Encoded, bucket, collate, epoch
from bridge_edge.train.losses import Ahead, TokenLosses, label_losses, segment_mean
from bridge_edge.train.optim import Optimizer, build_optimizer, schedule
from bridge_edge.train.precision import use_bf16

TRIM_EVERY = 10  # steps between returns of freed memory
CURVE = 64  # points of the learning curve that are kept, however long the training


@dataclass(frozen=True)
class Plan:
    """How to train. `losses` makes the loss of each token, `weights` maps segment codes to loss weights; `micro_tokens`
    bounds one forward pass. The first `ordered` examples are seen first and in their order, once; all else is shuffled.
    Where the examples hold several passes over a set, one behind the other, `passes` are their sizes: each is shuffled
    and put into batches on its own. Together they would be bucketed by length, copies of an example side by side.
    """

    lr: float
    epochs: float
    batch_tokens: int
    micro_tokens: int
    optimizer: str = "muon"
    weight_decay: float = 0.01
    precision: str = "auto"
    seed: int = 0
    weights: tuple[tuple[int, float], ...] = ((RATIONALE, 1.0), (ANSWER, 1.0))
    save_every: float = 30.0
    ordered: int = 0
    passes: tuple[int, ...] = ()
    losses: TokenLosses = label_losses


@dataclass
class Trained:
    """What a training did: optimiser steps, real tokens seen, seconds, running mean of the loss, and that mean by
    step, thinned."""

    steps: int
    tokens: int
    seconds: float
    loss: float
    curve: list[list[float]]

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "tokens_per_second": round(self.tokens / self.seconds, 1) if self.seconds else None}


def step_plan(examples: Sequence[Encoded], plan: Plan) -> list[list[list[int]]]:
    """All optimiser steps: each a list of micro-batches, each a list of indices.

    A step joins micro-batches of different lengths, so that its gradient is not that of one length alone.
    """
    per_step = max(1, plan.batch_tokens // plan.micro_tokens)
    steps: list[list[list[int]]] = []
    for number in range(math.ceil(plan.epochs)):
        share = min(1.0, plan.epochs - number)
        if number == 0 and plan.ordered:
            steps.extend(_first_epoch(examples, plan, share))
            continue
        micro = _shuffled(examples, plan, number)
        micro = micro[: max(1, round(len(micro) * share))]
        steps.extend(micro[i : i + per_step] for i in range(0, len(micro), per_step))
    return steps


def _shuffled(examples: Sequence[Encoded], plan: Plan, number: int, start: int = 0) -> list[list[int]]:
    """The micro-batches of an epoch from the example `start` on, pass by pass."""
    most, micro = min(plan.micro_tokens, plan.batch_tokens), []
    sizes = plan.passes or (start, len(examples) - start)
    for place, size in enumerate(sizes):
        if sum(sizes[:place]) < start or not size:  # seen in order already
            continue
        seed = plan.seed * 1_000 + (number * len(sizes) + place if plan.passes else number)
        micro += [[start + i for i in rows] for rows in epoch(examples[start : start + size], most, seed)]
        start += size
    return micro


def _first_epoch(examples: Sequence[Encoded], plan: Plan, share: float) -> list[list[list[int]]]:
    """The steps of a first epoch that begins in order: each takes the next examples, bucketed among themselves."""
    lengths, most = [len(e) for e in examples], min(plan.micro_tokens, plan.batch_tokens)
    per_step = max(1, plan.batch_tokens // plan.micro_tokens)
    windows: list[list[int]] = [[]]
    for i in range(plan.ordered):
        if windows[-1] and sum(lengths[k] for k in windows[-1]) + lengths[i] > plan.batch_tokens:
            windows.append([])
        windows[-1].append(i)
    steps = [bucket(lengths, most, window) for window in windows]
    rest = _shuffled(examples, plan, 0, plan.ordered)
    steps += [rest[i : i + per_step] for i in range(0, len(rest), per_step)]
    return steps[: max(1, round(len(steps) * share))]


def train(
    model: PreTrainedModel,
    examples: Sequence[Encoded],
    plan: Plan,
    pad_id: int,
    advance: Advance,
    checkpoint: Path | None = None,
) -> Trained:
    """Train `model` in place; raises UserError where nothing can be learnt (no examples, a loss that is not finite)."""
    if not examples:
        raise UserError("there is nothing to train on", "enlarge the pool or the budget, or loosen the filters")
    steps = step_plan(examples, plan)
    optimizer = build_optimizer(model, plan.optimizer, plan.lr, plan.weight_decay)
    state: dict[str, Any] = {"step": 0, "tokens": 0, "seconds": 0.0, "loss": 0.0, "curve": []}
    if checkpoint and checkpoint.exists():
        state |= _restore(model, optimizer, checkpoint)
        advance(state["step"] / len(steps), "resumed")
    model.train()
    last = saved = time.monotonic()
    with side_by_side(model) as run:
        for number in range(int(state["step"]), len(steps)):
            torch.manual_seed(plan.seed * 1_000_003 + number)  # dropout is the same after a resume
            batches = [collate([examples[i] for i in rows], pad_id) for rows in steps[number]]
            loss = _step(model, batches, plan, number / len(steps), run)
            if not math.isfinite(loss):
                raise UserError(
                    f"the loss became {loss} at step {number + 1}", "lower the learning rate, e.g. student.lr=5e-4"
                )
            optimizer.step(schedule(number, len(steps)), run)
            now = time.monotonic()
            _count(state, number, loss, sum(b.tokens for b in batches), now - last)
            if number % math.ceil(len(steps) / CURVE) == 0 or number + 1 == len(steps):
                state["curve"].append([number + 1, round(state["loss"], 4)])
            last = now
            advance(1 / len(steps), f"loss {state['loss']:.3f}  {state['tokens'] / state['seconds']:,.0f} tokens/s")
            if number % TRIM_EVERY == TRIM_EVERY - 1:
                trim()
            if checkpoint and now - saved > plan.save_every and number + 1 < len(steps):
                _save(model, optimizer, state, checkpoint)
                saved = last = time.monotonic()
    model.eval()
    seconds, loss = round(state["seconds"], 3), round(state["loss"], 5)
    return Trained(len(steps), int(state["tokens"]), seconds, loss, state["curve"])


def _count(state: dict[str, Any], number: int, loss: float, tokens: int, seconds: float) -> None:
    """Add one step to the running totals; the loss is an average over about the last twenty steps."""
    decay = min(0.95, (number + 1) / (number + 10)) if number else 0.0
    state["loss"] = decay * state["loss"] + (1 - decay) * loss
    state["step"] = number + 1
    state["tokens"] += tokens
    state["seconds"] += seconds


def _step(model: PreTrainedModel, batches: list[Batch], plan: Plan, progress: float, run: Map) -> float:
    """Gradients of one optimiser step, each micro-batch weighted by its share of the rows; returns the loss.

    Every micro-batch makes gradients of its own (`autograd.grad`, not `backward`), so that several can run at once, and
    they are added in the order of the batches, so that the sum does not depend on which was first.
    """
    rows = sum(len(b.ids) for b in batches)
    bf16 = use_bf16(plan.precision, model.device)
    weights: Mapping[int, float] = dict(plan.weights)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def gradients(batch: Batch) -> tuple[float, tuple[torch.Tensor | None, ...]]:
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
            losses, segments = plan.losses(model, batch.to(model.device), progress)
        loss = segment_mean(losses, segments, weights) * (len(batch.ids) / rows)
        return float(loss.detach()), torch.autograd.grad(loss, parameters, allow_unused=True)

    if isinstance(plan.losses, Ahead):
        plan.losses.ahead(model, batches, progress, run)
    total = 0.0
    for loss, grads in run(gradients, batches):
        total += loss
        for parameter, grad in zip(parameters, grads, strict=True):
            if grad is not None:
                parameter.grad = grad if parameter.grad is None else parameter.grad.add_(grad)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    return total


def _save(model: PreTrainedModel, optimizer: Optimizer, state: dict[str, Any], path: Path) -> None:
    """Weights that train, optimiser and position, in one file that replaces the former one atomically."""
    trained = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    temporary = path.with_suffix(".tmp")
    try:
        torch.save({"model": trained, "optimizer": optimizer.state_dict(), "state": state}, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write the checkpoint {path}: {error}", "free some space and run the same command again"
        ) from error


def _restore(model: PreTrainedModel, optimizer: Optimizer, path: Path) -> dict[str, Any]:
    try:
        loaded = torch.load(path, weights_only=True)
    except Exception as error:  # the library raises many kinds, of which none is for users
        raise UserError(f"the checkpoint {path} is damaged", "remove it and run the same command again") from error
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in loaded["model"].items():
            own[name].copy_(value)
    optimizer.load_state_dict(loaded["optimizer"])
    return dict(loaded["state"])
