"""The tutoring of the student: the stage `tutor`, from annotations to the student that is delivered.

What: the student learns the TA's rationales and answers, by hard labels or those of `kd.*`, within budgets where
`reasoning.budgets` names some. With `reasoning.rl` that is the stage `sft`, equal to `tutor` of a run without, and
`tutor` reinforces what was learnt there (reinforce.py): on the whole pool where it has labels, so on what the TA got
wrong too, else on what was annotated. Both are the one training loop.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from bridge_edge import mixing
from bridge_edge.curriculum import EASY, SHORT, SHUFFLED, alignment_note, easy_first, short_first
from bridge_edge.data.pool import make_card
from bridge_edge.data.samples import Sample
from bridge_edge.data.thinking import names
from bridge_edge.phases import Context, Course, Metrics, course_of, fit, measure, student_suffix
from bridge_edge.progress import say, track
from bridge_edge.recipe import Recipe
from bridge_edge.reinforce import Grpo, Reward, questions
from bridge_edge.train.batches import RATIONALE, Encoded
from bridge_edge.train.models import load_model, load_tokenizer, save_model

SFT = "sft"  # the stage whose student is reinforced
LR_SHARE = 0.25  # of the tutoring's learning rate, for the reinforcement


def tutor(ctx: Context, out: Path) -> Metrics:
    """Train the student on the TA's rationales and answers, the teacher's own where there are any; or reinforce it."""
    recipe, reasoning = ctx.recipe, ctx.recipe.reasoning
    samples, from_teacher = lessons(ctx)
    budgeted = ctx.samples("shorten", "budgeted") if reasoning.budgets else []
    learnt = [b for b in reasoning.budgets if any(names(s.prompt, b) for s in budgeted)]
    if not reasoning.rl:
        metrics = supervised(ctx, out, samples, budgeted)
    elif reasoning.grpo.sft:
        metrics = reinforced(ctx, out, str(ctx.folder(SFT)), graded(ctx, samples), learnt)
    else:
        learnt = list(reasoning.budgets)
        metrics = reinforced(ctx, out, str(ctx.folder("align")), graded(ctx, samples), learnt)
    suffix = student_suffix(recipe)
    if learnt:
        make_card(recipe, suffix, learnt).save(out)
        metrics["budgeted"] = len(budgeted)
    if recipe.align.skipped:
        scores = measure(ctx, out, ctx.samples("data", "dev"), "whether answers can be read", suffix)
        metrics["dev_parse_failures"] = round(scores.parse_failure_rate, 4)
        if note := alignment_note(scores.parse_failure_rate):
            say(f"  warning: {note}")
    writer = "student" if recipe.turns.on else "ta"
    return metrics | {"from_teacher": from_teacher, f"from_{writer}": len(samples) - from_teacher}


def lessons(ctx: Context) -> tuple[list[Sample], int]:
    """What the student is shown in the order of the recipe, and how many of it are the teacher's own words."""
    taught = {s.id: s for s in ctx.samples("teach", "taught")}
    samples = [taught.get(s.id, s) for s in ctx.samples("annotate", "annotations")]
    present = {s.id for s in samples}
    samples += [s for s in taught.values() if s.id not in present]
    if ctx.recipe.tutor.order == EASY:
        samples = easy_first(samples, ctx.folder("annotate"))
    return samples, len(taught)


def graded(ctx: Context, annotated: list[Sample]) -> list[Sample]:
    """What the student's own answers can be held against: the labelled pool, else what was annotated."""
    return ctx.samples("data", "pool") if ctx.recipe.data.labels == "gold" else annotated


def supervised(ctx: Context, out: Path, samples: list[Sample], budgeted: list[Sample]) -> Metrics:
    """The student of these samples, by the losses that the recipe names."""
    source, recipe, spec = str(ctx.folder("align")), ctx.recipe, ctx.recipe.tutor
    course = course_of(ctx, load_tokenizer(source), samples + budgeted, spec.format)
    if spec.order == SHORT:
        course = replace(course, first=short_first(course.first))
    ordered, suffix = 0 if spec.order == SHUFFLED else len(course.first), student_suffix(recipe)
    ta = str(ctx.folder("apprentice"))
    taught_by = mixing.losses_for(recipe, ta, source, out, ctx.device)
    metrics = fit(ctx, out, source, recipe.student, course, "tutoring", suffix, taught_by, ordered=ordered)
    shutil.rmtree(out / mixing.KEPT, ignore_errors=True)
    if recipe.kd.on:
        metrics["kd"] = mixing.figures(recipe, ta, str(out), course.first, ctx.samples("data", "dev"), ctx.device)
    return metrics


def reinforced(ctx: Context, out: Path, source: str, samples: list[Sample], budgets: Sequence[int]) -> Metrics:
    """The student of `source` after the reinforcement, as far as that did good on dev items (see `best_of`)."""
    recipe, spec, tokenizer = ctx.recipe, ctx.recipe.reasoning.grpo, load_tokenizer(source)
    each = [*budgets, None]
    examples, aims = questions(tokenizer, samples, each, spec.items, recipe.seed)
    dev = [s for s in ctx.samples("data", "dev") if s.answer]
    held, more = questions(tokenizer, dev, each, len(dev) * len(each), recipe.seed)
    reward = Reward(tokenizer, aims | more, recipe.task.answers, spec.reward == "additive", spec.tolerance, spec.least)
    grpo = Grpo(mixing.rollouts_of(recipe, source), reward, load_frozen(source, ctx.device), spec.group, spec.kl)
    changes = grpo_plan(recipe, examples)
    lr = spec.lr or LR_SHARE * recipe.student.lr
    student = recipe.student.model_copy(update={"rehearsal": 0.0, "lr": lr, "epochs": 1})
    suffix = student_suffix(recipe)
    metrics = fit(
        ctx, out, source, student, Course(examples), "reinforcement", suffix, lambda rows, plan: grpo, **changes
    )
    return metrics | (best_of(grpo, held, out, ctx.device) if held else {})


def best_of(grpo: Grpo, held: Sequence[Encoded], out: Path, device: str) -> Metrics:
    """Keep in `out`, of the student before, the one after and the one halfway between their weights, the one whose
    answers to the dev questions are worth most, and say what each is worth.

    What lies between a model and the same trained further is often better than both (Wortsman et al., arXiv
    2109.01903). One that is not better than the student before by more than the standard error of the difference, over
    the same questions, is not kept: the best of three by a few hundred answers is often best by chance, and a
    reinforcement that did nothing or harm leaves the student as it was."""
    after, half = (load_frozen(str(out), device) for _ in range(2))
    for mean, old in zip(half.parameters(), grpo.before.parameters(), strict=True):
        mean.data.lerp_(old.data, 0.5)
    models = {"after": after, "half": half, "before": grpo.before}
    each: dict[str, np.ndarray] = {}
    with track("what the reinforcement is worth", len(models)) as advance:
        for name, model in models.items():
            each[name] = grpo.worth(model, held)
            advance(1, f"{each[name].mean():.3f} {name}")
    worth = {name: float(found.mean()) for name, found in each.items()}
    better = [name for name in each if surpasses(each[name], each["before"])]
    kept = max(better, key=worth.__getitem__, default="before")
    if kept != "after":
        save_model(models[kept], load_tokenizer(str(out)), out, None)
    return {"reward": {name: round(worth[name], 4) for name in reversed(worth)}, "kept": kept}


def surpasses(new: np.ndarray, old: np.ndarray) -> bool:
    """Whether what answers (N,) are worth is more in the mean than that of the same questions' `old` ones, by more than
    the standard error of the difference."""
    gain = new - old
    return bool(gain.mean() > gain.std() / len(gain) ** 0.5)


def load_frozen(folder: str, device: str) -> PreTrainedModel:
    return load_model(folder, device).eval().requires_grad_(False)


def grpo_plan(recipe: Recipe, examples: Sequence[Encoded]) -> dict[str, Any]:
    """What differs from the tutoring in how the loop goes through questions, whose answers are drawn on the way."""
    spec, longest = recipe.reasoning.grpo, max(len(row) for row in examples)
    room = recipe.student.micro_tokens * longest // (spec.group * (longest + recipe.task.max_new_tokens))
    return {
        "ordered": len(examples),
        "batch_tokens": sum(len(row) for row in examples) * spec.questions // len(examples),
        "micro_tokens": max(longest, room),  # of questions: with their answers they fill a micro-batch
        "weights": ((RATIONALE, 1.0),),
    }
