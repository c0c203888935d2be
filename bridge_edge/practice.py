"""Practice of the assistant: it explains part of the pool itself and learns from what it gets right.

What: after the lesson on the teacher's rationales the assistant answers `practice.items` items of the labelled pool;
drafts that miss the gold answer or state false arithmetic are dropped, the others join the teacher's rationales for
another training that goes on from the lesson's weights (STaR, Zelikman et al., arXiv 2203.14465; one iteration).
Why: a few hundred rationales teach an assistant the form of the steps, but not to carry them out reliably; its own
right ones cost no query.
Not covered: unlabelled pools, where nobody says which drafts are right, and further iterations.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

from bridge_edge.data.arithmetic import first_error
from bridge_edge.data.card import parse
from bridge_edge.data.encode import encode_samples, prompt_ids
from bridge_edge.data.samples import ASSISTANT, Sample, read_jsonl, write_jsonl
from bridge_edge.generate.engine import generate
from bridge_edge.phases import Context, Metrics, contradicts, fit
from bridge_edge.progress import say, track
from bridge_edge.train.batches import Encoded
from bridge_edge.train.models import load_model, load_tokenizer

LESSON, DRAFTS = "lesson", "practised.jsonl"


def wanted(ctx: Context) -> bool:
    """Whether the recipe asks for practice, its pool has labels, and this is the last round of selection."""
    recipe = ctx.recipe
    return recipe.practice.items > 0 and recipe.data.labels != "none" and ctx.part[0] == ctx.part[1]


def practise(ctx: Context, out: Path, source: str, taught: list[Sample], examples: list[Encoded]) -> Metrics:
    """Lesson, drafts, and the training on both; the assistant lies in `out` as after a lesson alone.

    Each of the three is finished or begun again from its own half-done files, however often it is interrupted.
    """
    recipe, lesson, done = ctx.recipe, out / LESSON, out / DRAFTS
    if not done.exists():
        lesson.mkdir(exist_ok=True)
        metrics: Metrics = fit(ctx, lesson, source, recipe.ta, examples, "assistant")
        kept = _drafts(ctx, lesson, taught)
        write_jsonl(out / f"{DRAFTS}.tmp", kept)
        (out / f"{DRAFTS}.tmp").replace(done)
        say(f"  practice: {len(kept)} of {recipe.practice.items} rationales of its own have the right answer")
    else:
        kept, metrics = list(read_jsonl(done)), {}
    rows = examples + encode_samples(load_tokenizer(source), kept, "rationale_answer")
    changes = {"lr": recipe.practice.lr or recipe.ta.lr, "epochs": recipe.practice.epochs, "seed": recipe.seed + 1}
    further = fit(ctx, out, str(lesson), recipe.ta, rows, "practice", **changes)
    shutil.rmtree(lesson, ignore_errors=True)
    return {**further, "practised": len(kept), "lesson": metrics}


def _drafts(ctx: Context, lesson: Path, taught: list[Sample]) -> list[Sample]:
    """The assistant's usable rationales on items of the pool that the teacher was not asked about."""
    recipe, asked = ctx.recipe, {s.id for s in taught}
    pool = [s for s in ctx.samples("data", "pool") if s.id not in asked and s.answer is not None]
    items = random.Random(recipe.seed).sample(pool, min(recipe.practice.items, len(pool)))
    tokenizer, model = load_tokenizer(str(lesson)), load_model(str(lesson), ctx.device)
    ids, found = prompt_ids(tokenizer, [s.prompt for s in items]), []
    ends, rows = frozenset([tokenizer.eos_token_id]), recipe.annotate.batch_rows
    with track("practice", len(items)) as advance:
        for row in generate(model, ids, recipe.task.max_new_tokens, ends, rows, recipe.ta.precision):
            text = str(tokenizer.decode(row.ids, skip_special_tokens=True))
            read, item = parse(text, recipe.task.answers), items[row.index]
            usable = read.answer is not None and not contradicts(read.answer, item.answer)
            if usable and read.rationale and not first_error(read.rationale):
                own = replace(item, rationale=read.rationale, answer=read.answer, provenance=ASSISTANT)
                found.append((row.index, own))
            advance(1, "")
    return [sample for _, sample in sorted(found, key=lambda pair: pair[0])]
