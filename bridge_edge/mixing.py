"""The TA's distribution in the student's tutoring (`kd.*`): checks before the run, the losses, the figures after it.

What: `check_shared` refuses a TA and a student that do not mean the same tokens, before any money is spent;
`losses_for` makes the losses, with the TA in memory (train/hybrid.py), on the student's own texts (rollouts.py) or from
disk (train/signals.py); `figures` says what they came to.
Why figures after the training and not from within: they are measured on a fixed sample, so a training that was
resumed says the same as one that was not.

Figures: lambda over the tokens of a sample of the training texts (its last value, where it rises); the mean
KL(TA || student) a token on the TA's own greedy answers to dev items (teacher-forced) and on the student's (rollout);
the second less the first is the exposure bias, as the authors' code has it.
Not covered: TAs behind an API, which show no distribution.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from bridge_edge.data.encode import prompt_ids
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError, first_line
from bridge_edge.generate.engine import generate
from bridge_edge.memory import release
from bridge_edge.recipe import Recipe
from bridge_edge.rollouts import OnPolicy, Rollouts
from bridge_edge.train.batches import ANSWER, PROMPT, Encoded, bucket, collate
from bridge_edge.train.hybrid import Mix, Taught, hybrid_losses
from bridge_edge.train.loop import Plan
from bridge_edge.train.losses import TokenLosses, supervised_states
from bridge_edge.train.models import load_model, load_tokenizer, locate, same_tokenizer
from bridge_edge.train.signals import Keeper, Kept

KEPT = "signals"  # the folder of what is kept of the TA, until the student is trained
MakeLosses = Callable[[Sequence[Encoded], Plan], TokenLosses]
PROBE = 100  # texts that the figures are measured on, and dev items
BINS = 10  # of lambda's histogram
FRAMED = ("A question?", "Two\nlines, 1 + 1 = 2.")


def check_shared(recipe: Recipe) -> None:
    """Raise UserError where `kd.mix` is on and the two models do not share their tokens."""
    if not recipe.kd.on:
        return
    ta, student = load_tokenizer(recipe.ta.model), load_tokenizer(recipe.student.model)
    problem = same_tokenizer(ta, student)
    if not problem and prompt_ids(ta, FRAMED) != prompt_ids(student, FRAMED):
        problem = "their chat templates frame a prompt differently"
    if not problem:
        rows = {model: vocabulary(model) for model in (recipe.ta.model, recipe.student.model)}
        few = [f"{model} has {n} rows for {len(student)} tokens" for model, n in rows.items() if n < len(student)]
        problem = few[0] if few else ""
    if problem:
        raise UserError(
            f"kd.mix={recipe.kd.mix} needs models that share their tokens; {recipe.ta.model} and "
            f"{recipe.student.model} do not: {problem}",
            "choose models of one family, or kd.mix=none",
        )


def vocabulary(model: str) -> int:
    """Rows of a model's vocabulary, padding included."""
    try:
        return int(AutoConfig.from_pretrained(locate(model)).get_text_config().vocab_size)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read the config of {model!r}: {first_line(error)}", "check the name, or set kd.mix=none"
        ) from error


def mix_of(recipe: Recipe) -> Mix:
    return Mix(kind=recipe.kd.mix, **recipe.kd.model_dump(exclude={"mix", "top_k", "on_policy", "on_policy_from"}))


def teaching(recipe: Recipe, folder: str, device: str) -> Taught:
    """The losses that `kd.*` asks for, with the TA of `folder` in memory."""
    return Taught(load_model(folder, device), mix_of(recipe), recipe.seed)


def losses_for(recipe: Recipe, ta: str, student: str, out: Path, device: str) -> MakeLosses | None:
    """What makes the token losses of `kd.*` once the examples are known; None where the method is off. With `kd.top_k`
    the TA writes what is needed of it to `out` and is let go."""
    if not recipe.kd.on:
        return None
    if recipe.kd.on_policy:
        rollouts, share, start = rollouts_of(recipe, student), recipe.kd.on_policy, recipe.kd.on_policy_from
        return lambda examples, plan: OnPolicy(teaching(recipe, ta, device), rollouts, share, start)
    if not recipe.kd.kept:
        return lambda examples, plan: teaching(recipe, ta, device)

    def kept(examples: Sequence[Encoded], plan: Plan) -> TokenLosses:
        mix, vocab = mix_of(recipe), shared_rows(ta, student)
        Keeper(load_model(ta, device).eval(), mix, recipe.kd.top_k or 1, vocab, plan).keep(examples, out / KEPT)
        release()  # what the TA took is the student's now
        return Kept(out / KEPT, mix, vocab)

    return kept


def rollouts_of(recipe: Recipe, student: str) -> Rollouts:
    spec, bound = recipe.student, recipe.task.max_new_tokens
    return Rollouts.of(load_tokenizer(student), bound, recipe.annotate.batch_rows, spec.precision, recipe.seed)


def shared_rows(ta: str, student: str) -> int:
    """Rows that both vocabularies have."""
    return min(vocabulary(ta), vocabulary(student))


def figures(
    recipe: Recipe, ta: str, student: str, examples: Sequence[Encoded], dev: Sequence[Sample], device: str
) -> dict[str, Any]:
    """What the mixture came to for the TA and the student of these folders."""
    taught = teaching(recipe, ta, device)
    model, tokenizer = load_model(student, device).eval(), load_tokenizer(student)
    chosen = random.Random(recipe.seed).sample(list(examples), min(PROBE, len(examples)))
    prompts = prompt_ids(tokenizer, [s.prompt for s in dev[:PROBE]])
    kl = {}
    for name, writer in (("teacher_forced_kl", taught.ta), ("rollout_kl", model)):
        rows = answers(writer, prompts, tokenizer, recipe)
        kl[name] = round(float(np.mean(readings(taught, model, rows, Mix("soft"), recipe)[0])), 5)
    found = {**recipe.kd.meant(), "texts": len(chosen), "dev_items": len(prompts), **kl}
    found["exposure_bias"] = round(kl["rollout_kl"] - kl["teacher_forced_kl"], 5)
    if taught.mix.kind != "risk":
        shares = readings(taught, model, chosen, taught.mix, recipe)[1]
        counts, _ = np.histogram(shares, bins=BINS, range=(0, 1))
        found |= {"lambda_mean": round(float(shares.mean()), 5), "lambda_histogram": counts.tolist()}
    return found


def answers(
    model: PreTrainedModel, prompts: list[list[int]], tokenizer: PreTrainedTokenizerBase, recipe: Recipe
) -> list[Encoded]:
    """The prompts with what the model says to them, greedily; all that it said counts."""
    end, bound = tokenizer.eos_token_id, recipe.task.max_new_tokens
    found = []
    for row in generate(model, prompts, bound, frozenset([end]), recipe.annotate.batch_rows, "fp32"):
        prompt, said = prompts[row.index], row.ids + ([end] if row.ended else [])
        codes = [PROMPT] * len(prompt) + [ANSWER] * len(said)
        found.append((row.index, Encoded(np.array(prompt + said, np.int32), np.array(codes, np.int8))))
    return [row for _, row in sorted(found, key=lambda pair: pair[0])]


@torch.no_grad()
def readings(
    taught: Taught, model: PreTrainedModel, rows: Sequence[Encoded], mix: Mix, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray]:
    """Losses and lambdas of all supervised tokens under `mix`, at the end of the steps; hard labels are the data's."""
    lengths, found = [len(r) for r in rows], []
    mix = replace(mix, label="dataset")
    for places in bucket(lengths, recipe.student.micro_tokens, range(len(rows))):
        batch = collate([rows[i] for i in places], 0).to(model.device)
        found.append(hybrid_losses(supervised_states(model, batch), taught.states(batch), mix))
    losses, shares = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    return losses, shares
