"""The stages of the two phases of BRIDGE (arXiv 2512.20403), each a function from files to files.

Apprenticeship: data, warmup, score and select (selection.py), teach and apprentice (apprenticeship.py). Tutoring:
annotate (annotation.py), align, tutor (tutoring.py). Then baseline and evaluate. `stages.py` decides which of them run;
nothing here knows of manifests, keys or resuming, except that a stage finds its own half-done files in `out` and goes
on from them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from bridge_edge import mixing, thinking
from bridge_edge.curriculum import spread
from bridge_edge.data.card import normal, parse
from bridge_edge.data.encode import ANSWER_TASK, encode_pairs, encode_samples, prompt_ids
from bridge_edge.data.numbers import Numbers
from bridge_edge.data.pool import build_splits, load_task, make_card
from bridge_edge.data.samples import Sample, read_jsonl, write_jsonl
from bridge_edge.data.swaps import swaps_of
from bridge_edge.data.thinking import names
from bridge_edge.embedded.skills import documents
from bridge_edge.errors import UserError
from bridge_edge.evaluate import Scores, records_json, score, to_json
from bridge_edge.generate.engine import generate
from bridge_edge.progress import say, track
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_models import ModelSpec
from bridge_edge.run import sha256_file
from bridge_edge.train.batches import ANSWER, RATIONALE, Encoded
from bridge_edge.train.loop import Plan, train
from bridge_edge.train.models import load_model, load_tokenizer, prepare, same_tokenizer, save_model

Metrics = dict[str, Any]
ALIGN_SEED, REHEARSAL_SEED = 77, 7_777
LONGEST_GENERAL = 150  # tokens of the base models' tokenizer


@dataclass(frozen=True)
class Context:
    """What every stage is handed: the recipe, where finished stages lie, and the run's own folder for the ledger.

    Where selection goes in rounds, `part` says which round of how many this is, and `places` which stage's output is
    meant by a name."""

    recipe: Recipe
    path: Path
    device: str = "cpu"
    concurrency: int = 4
    cache: str | None = None  # --cache: a folder, "none", or the default
    borrow: Callable[[], list[Path]] = list
    convert: Callable[[Path, Path], None] | None = None  # a checkpoint to GGUF F16, for annotate.engine=llama-cpp
    places: Mapping[str, str] = field(default_factory=dict)
    part: tuple[int, int] = (1, 1)

    def folder(self, stage: str) -> Path:
        return self.path / self.places.get(stage, stage)

    def samples(self, stage: str, name: str) -> list[Sample]:
        return list(read_jsonl(self.folder(stage) / f"{name}.jsonl"))


@dataclass(frozen=True)
class Course:
    """What a model is trained on: the examples of the first pass and, where they differ, of every pass k > 0."""

    first: list[Encoded]
    again: Callable[[int], list[Encoded]] | None = None

    def examples(self, k: int) -> list[Encoded]:
        """What pass k is over."""
        return self.again(k) if self.again and k else self.first


def plan_of(recipe: Recipe, spec: ModelSpec, **changes: Any) -> Plan:
    """The training plan of a model, with what the stage changes (lr, epochs, weights)."""
    weights = ((RATIONALE, recipe.tutor.lambda_rationale), (ANSWER, recipe.tutor.lambda_answer))
    plan = Plan(
        spec.lr,
        spec.epochs,
        spec.batch_tokens,
        spec.micro_tokens,
        spec.optimizer,
        spec.weight_decay,
        spec.precision,
        recipe.seed,
        weights,
    )
    return replace(plan, **changes)


def fit(
    ctx: Context,
    out: Path,
    source: str,
    spec: ModelSpec,
    course: Course,
    label: str,
    suffix: str = "",
    taught_by: mixing.MakeLosses | None = None,
    **changes: Any,
) -> Metrics:
    """Train the model at `source` on a course and save it, with tokenizer and card, to `out`."""
    tokenizer = load_tokenizer(source)
    torch.manual_seed(ctx.recipe.seed)  # fresh adapters start at random
    model = prepare(source, spec, ctx.device)
    plan = plan_of(ctx.recipe, spec, **changes)
    rows, passes = all_passes(course, tokenizer, spec.rehearsal, plan)
    if passes:
        plan = replace(plan, epochs=1, ordered=passes[0] if plan.ordered else 0, passes=passes)
    if course.again and len(passes) > 1:
        swap = ctx.recipe.swap
        what = [name for name, on in (("words", swap.enabled), ("numbers", swap.numbers)) if on]
        say(f"  from the second pass on with other {' and '.join(what)}")
    if taught_by:
        plan = replace(plan, losses=taught_by(rows, plan))
    with track(label, 1.0) as advance:
        done = train(model, rows, plan, tokenizer.pad_token_id, advance, out / "checkpoint.pt")
    save_model(model, tokenizer, out, make_card(ctx.recipe, suffix))
    return {**done.record(), "examples": len(course.first)}


def all_passes(
    course: Course, tokenizer: PreTrainedTokenizerBase, share: float, plan: Plan
) -> tuple[list[Encoded], tuple[int, ...]]:
    """All passes of a course, one behind the other, each with general documents that are seen only once; and the sizes
    of the passes.

    Many passes over few rationales would otherwise cost a small model the reading and reckoning that it came with
    (experience replay; Rolnick et al., arXiv 1811.11682). Where all passes are alike the examples are returned as they
    are; else there are as many whole passes as come next to the epochs.
    """
    count, rows, sizes = max(1, round(plan.epochs)), [], []
    if not course.first or not (share or (course.again and count > 1)):
        return course.first, ()
    wanted = round(share * len(course.first) * count)
    general = general_documents(tokenizer, REHEARSAL_SEED + plan.seed, wanted, 0.0) if wanted else []
    for k in range(count):
        own = course.examples(k)
        some = general[k * len(general) // count : (k + 1) * len(general) // count]
        # The first pass may keep its order, with its share of the documents in between.
        rows += spread(own, some) if plan.ordered and k == 0 else [*own, *some]
        sizes.append(len(own) + len(some))
    return rows, tuple(sizes)


def course_of(
    ctx: Context, tokenizer: PreTrainedTokenizerBase, samples: Sequence[Sample], form: str = "rationale_answer"
) -> Course:
    """The samples as they are; where the recipe swaps words or numbers, from the second pass on told with others, drawn
    anew for every pass."""
    recipe, swaps = ctx.recipe, swaps_of(ctx.recipe)
    course = Course(encode_samples(tokenizer, samples, form))
    if not recipe.swap.on:
        return course
    free = not recipe.task.answers
    budgets = [b for b in recipe.reasoning.budgets if any(names(sample.prompt, b) for sample in samples)]
    numbers = Numbers(samples, free, budgets) if recipe.swap.numbers else None

    def told(sample: Sample, rng: random.Random) -> Sample:
        other = numbers.retold(sample, rng) if numbers else sample
        return swaps.swapped(other, rng, free) if swaps else other

    def again(k: int) -> list[Encoded]:
        drawn = ((sample, random.Random(f"{recipe.seed} {k} {sample.id}")) for sample in samples)
        return encode_samples(tokenizer, [told(sample, rng) for sample, rng in drawn], form)

    return replace(course, again=again)


def general_documents(tokenizer: PreTrainedTokenizerBase, seed: int, count: int, direct_share: float) -> list[Encoded]:
    """The first `count` general documents of a seed that are not long (for a tokenizer that makes most of them long,
    the shortest of those drawn): most skills are in them, at two thirds of the tokens and half the memory that
    attention takes."""
    stream = documents(seed, chat_share=1.0, direct_share=direct_share)
    drawn = encode_pairs(tokenizer, [(d.prompt, d.steps, d.answer) for d in islice(stream, 2 * count)])
    short = [row for row in drawn if len(row) <= LONGEST_GENERAL]
    return (short if len(short) >= count else sorted(drawn, key=len))[:count]


def contradicts(given: str, gold: str | None) -> bool:
    """Whether an answer misses the gold one, compared as the evaluation compares them."""
    return gold is not None and normal(given) != normal(gold)


def student_suffix(recipe: Recipe) -> str:
    """What ends a student's prompt where it was trained in the multi-task format."""
    return ANSWER_TASK if recipe.tutor.format == "multitask" else ""


def data(ctx: Context, out: Path) -> Metrics:
    """Make or read the splits, gate them, check that both models read text alike."""
    recipe = ctx.recipe
    problem = same_tokenizer(load_tokenizer(recipe.ta.model), load_tokenizer(recipe.student.model))
    if problem and recipe.shared_tokenizer:
        raise UserError(
            f"the tokenizers of {recipe.ta.model} and {recipe.student.model} differ: {problem}",
            "choose models of one family, or share texts only with shared_tokenizer=false",
        )
    splits, counts = build_splits(recipe)
    for name, items in splits.items():
        write_jsonl(out / f"{name}.jsonl", items)
    counts["sha256"] = {name: sha256_file(out / f"{name}.jsonl") for name in splits}  # the lock of the splits
    return counts


def warmup(ctx: Context, out: Path) -> Metrics:
    """Label-only warm-up of the TA on a share of the pool; no teacher call."""
    recipe = ctx.recipe
    pool = ctx.samples("data", "pool")
    chosen = warmup_items(recipe, pool)
    if recipe.data.labels == "none":
        tokenizer, model = load_tokenizer(recipe.ta.model), load_model(recipe.ta.model)
        save_model(model, tokenizer, out, make_card(recipe))
        return {"examples": 0, "note": "no labels to warm up on"}
    examples = encode_samples(load_tokenizer(recipe.ta.model), chosen, "answer")
    return fit(
        ctx,
        out,
        recipe.ta.model,
        recipe.ta,
        Course(examples),
        "warm-up",
        lr=recipe.warmup.lr,
        epochs=recipe.warmup.epochs,
    )


def warmup_items(recipe: Recipe, pool: list[Sample]) -> list[Sample]:
    """The share of the pool that the TA is warmed up on, of all kinds or of those that are named."""
    named, wanted = set(recipe.warmup.kinds), max(1, round(recipe.warmup.fraction * len(pool)))
    if unknown_kinds := sorted(named - {s.kind for s in pool}):
        known = ", ".join(sorted({s.kind for s in pool if s.kind})) or "none"
        raise UserError(
            f"warmup.kinds names {unknown_kinds[0]!r}, which no item of the pool is of",
            f"the kinds are: {known}; leave warmup.kinds out for all",
        )
    fitting = [s for s in pool if s.kind in named] if named else pool
    return random.Random(recipe.seed).sample(fitting, min(wanted, len(fitting)))


def align(ctx: Context, out: Path) -> Metrics:
    """Instruction alignment of the student on generated general instructions in the chat format."""
    recipe = ctx.recipe
    tokenizer = load_tokenizer(recipe.student.model)
    if recipe.align.skipped:
        save_model(load_model(recipe.student.model), tokenizer, out, make_card(recipe))
        return {"examples": 0, "note": "switched off"}
    examples = general_documents(tokenizer, ALIGN_SEED + recipe.seed, recipe.align.items, 0.05)
    return fit(
        ctx,
        out,
        recipe.student.model,
        recipe.student,
        Course(examples),
        "alignment",
        lr=recipe.align.lr,
        epochs=recipe.align.epochs,
    )


def baseline(ctx: Context, out: Path) -> Metrics:
    """Direct distillation at the same budget: the student sees the teacher's answers alone."""
    source, recipe = str(ctx.folder("align")), ctx.recipe
    if not recipe.baseline.enabled:
        (out / "skipped").write_text("baseline.enabled is false\n")
        return {"note": "switched off"}
    course = course_of(ctx, load_tokenizer(source), ctx.samples("teach", "taught"), recipe.tutor.format)
    suffix, epochs = student_suffix(recipe), recipe.baseline.epochs
    spec = recipe.student.model_copy(update={"rehearsal": recipe.baseline.rehearsal})
    return fit(ctx, out, source, spec, course, "baseline", suffix, epochs=epochs)


def measure(ctx: Context, folder: Path, samples: list[Sample], label: str, suffix: str = "") -> Scores:
    """Accuracy of a model on samples, by greedy decoding in torch; `suffix` ends every prompt."""
    texts, counts = completions(ctx, folder, samples, label, suffix)
    return score(samples, texts, ctx.recipe.task.answers, counts)


def completions(
    ctx: Context, folder: Path, samples: list[Sample], label: str, suffix: str = ""
) -> tuple[list[str], list[int]]:
    """What a model says to samples, and in how many tokens."""
    tokenizer, model = load_tokenizer(str(folder)), load_model(str(folder), ctx.device)
    ids = prompt_ids(tokenizer, [s.prompt + suffix for s in samples])
    texts, counts = [""] * len(samples), [0] * len(samples)
    ends = frozenset([tokenizer.eos_token_id])
    with track(label, len(samples)) as advance:
        for row in generate(model, ids, ctx.recipe.task.max_new_tokens, ends, ctx.recipe.annotate.batch_rows, "fp32"):
            texts[row.index] = str(tokenizer.decode(row.ids, skip_special_tokens=True))
            counts[row.index] = len(row.ids)
            advance(1, "")
    return texts, counts


def checker(recipe: Recipe) -> Callable[[Sample, str, str], bool] | None:
    """Tells whether all steps of a rationale to an answer are true; None where no domain knows the items' facts."""
    if not recipe.generated or recipe.task.module is None:
        return None
    task = load_task(recipe.task.module)
    return lambda sample, rationale, answer: task.check(sample, rationale, answer).steps


def wrong_steps(recipe: Recipe, samples: Sequence[Sample], texts: Sequence[str]) -> float | None:
    """The share of right answers whose rationale has a wrong step, as the domain's checker finds; None where no domain
    knows the items, or no answer is right."""
    true, found = checker(recipe), []
    if true is None:
        return None
    for sample, text in zip(samples, texts, strict=True):
        said = parse(text, recipe.task.answers)
        if said.answer is not None and not contradicts(said.answer, sample.answer):
            found.append(not true(sample, said.rationale, said.answer))
    return round(sum(found) / len(found), 4) if found else None


def evaluate(ctx: Context, out: Path) -> Metrics:
    """Accuracy of TA, student and baseline on the test split, with intervals and per-item records."""
    test = ctx.samples("data", "test")
    metrics: Metrics = {}
    for name, stage in (("ta", "apprentice"), ("student", "tutor"), ("baseline", "baseline")):
        folder = ctx.folder(stage)
        if not (folder / "config.json").exists():
            continue
        suffix = "" if name == "ta" else student_suffix(ctx.recipe)
        texts, counts = completions(ctx, folder, test, f"test of the {name}", suffix)
        scores = score(test, texts, ctx.recipe.task.answers, counts)
        (out / f"{name}.json").write_text(json.dumps({**to_json(scores), "records": records_json(scores)}, indent=0))
        metrics[name] = {k: v for k, v in to_json(scores).items() if k != "per_task"}
        if not suffix and (wrong := wrong_steps(ctx.recipe, test, texts)) is not None:  # else it says no steps
            metrics[name]["right_answer_wrong_steps"] = wrong
    if ctx.recipe.reasoning.budgets:
        metrics["budgets"] = thinking.figures(ctx.folder("tutor"), test, ctx.recipe, ctx.device)
    return metrics
