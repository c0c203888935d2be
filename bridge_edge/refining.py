"""The assistant learns from itself: the stage `refine`, between the apprenticeship and the annotation.

What: the assistant explains `refine.items` items of the pool that the teacher was not asked about. What the filters of
the annotation leave of it (the answer is right, the sums are true, it was sure) it is trained on, together with the
teacher's answers, from where the apprenticeship left it (as STaR, arXiv 2203.14465, which begins anew each time).
Why: the teacher's few answers show it the form; that its own way led to the known answer shows it which of its ways
are good, and costs nothing. The recipe is refused where nothing tells right from wrong.
Not covered: explaining an item with its answer in view; several turns.
"""

from __future__ import annotations

import random
from pathlib import Path

from bridge_edge.annotation import ANNOTATIONS, keep_best, write_drafts
from bridge_edge.apprenticeship import briefs_of, gate
from bridge_edge.data.samples import Sample, read_jsonl
from bridge_edge.phases import Context, Metrics, course_of, fit
from bridge_edge.train.models import load_tokenizer

DRAFTS = "drafts"


def refine(ctx: Context, out: Path) -> Metrics:
    """Train the TA on what it explains rightly, then ask the gate on the dev split."""
    recipe, source = ctx.recipe, str(ctx.folder("apprentice"))
    taught = ctx.samples("teach", "taught")
    chosen = explained(ctx, {sample.id for sample in taught})
    drafts = out / DRAFTS
    drafts.mkdir(exist_ok=True)
    found = keep_best(recipe, chosen, write_drafts(ctx, chosen, drafts, "explaining"), drafts)
    own = list(read_jsonl(drafts / ANNOTATIONS))
    course = course_of(ctx, load_tokenizer(source), [*own, *taught, *briefs_of(ctx)])
    spec = recipe.ta.model_copy(update={"lr": recipe.refine.share * recipe.ta.lr, "epochs": recipe.refine.epochs})
    metrics = fit(ctx, out, source, spec, course, "assistant, once more")
    counts = {"explained": len(chosen), "own": len(own), "own_wrong_steps": found.get("right_answer_wrong_steps")}
    return {**metrics, **counts, **gate(ctx, out, len(taught))}


def explained(ctx: Context, asked: set[str]) -> list[Sample]:
    """The items that are explained: drawn from the pool, less those that the teacher has answered."""
    rest = [sample for sample in ctx.samples("data", "pool") if sample.id not in asked]
    return random.Random(ctx.recipe.seed).sample(rest, min(ctx.recipe.refine.items, len(rest)))
