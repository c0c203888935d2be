"""The assistant learns from itself: the stage `refine`, between the apprenticeship and the annotation.

What: the assistant explains `refine.items` items of the pool that the teacher was not asked about. What the filters of
the annotation leave of it (the answer is right, the sums are true, it was sure) it is trained on, together with the
teacher's answers, from where the apprenticeship left it (as STaR, arXiv 2203.14465, which begins anew each time).
With `refine.rounds` it does so several times, each time with the next items of the pool and from where the round before
left it. `expand` turns the stage into those of the rounds: the last one keeps the plain name, so whatever reads a
finished run finds there what it would find in a run of one round, and round k is the stage of a run of k rounds.
Why: the teacher's few answers show it the form; that its own way led to the known answer shows it which of its ways
are good, and costs nothing. The recipe is refused where nothing tells right from wrong.
Not covered: explaining an item with its answer in view.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bridge_edge.annotation import ANNOTATIONS, keep_best, write_drafts
from bridge_edge.apprenticeship import briefs_of, gate
from bridge_edge.data.samples import Sample, read_jsonl
from bridge_edge.phases import Context, Metrics, course_of, fit
from bridge_edge.recipe import Recipe
from bridge_edge.run import numbered
from bridge_edge.train.models import load_tokenizer

if TYPE_CHECKING:
    from bridge_edge.stages import Stage

DRAFTS = "drafts"


def expand(stage: Stage, rounds: int) -> list[Stage]:
    """The stages of so many rounds in the place of the one."""
    return [stage] if rounds == 1 else [_in_round(stage, k, rounds) for k in range(1, rounds + 1)]


def _in_round(stage: Stage, k: int, rounds: int) -> Stage:
    """The stage as it is in round k: its name, and which assistant it goes on from."""
    before = "apprentice" if k == 1 else numbered(stage.name, k - 1, rounds)
    places = {name: before if name == "apprentice" else name for name in stage.needs}
    return replace(
        stage,
        name=numbered(stage.name, k, rounds),
        title=f"{stage.title} (round {k} of {rounds})",
        needs=tuple(places.values()),
        kind=stage.name,
        places=tuple(places.items()),
        part=(k, rounds),
        sees=partial(recipe_of, k=k, rounds=rounds),
    )


def recipe_of(recipe: Recipe, k: int, rounds: int) -> Recipe:
    """The recipe as round k sees it: as if it were the last one, but that no gate stands before the last one."""
    changes = {"refine": recipe.refine.model_copy(update={"rounds": k})}
    return (recipe if k == rounds else ungated(recipe)).model_copy(update=changes)


def ungated(recipe: Recipe) -> Recipe:
    """The recipe as a training of the assistant sees it behind which more follows, and the gate after that."""
    return recipe.model_copy(update={"gate": recipe.gate.model_copy(update={"on_fail": "continue"})})


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
    return {**metrics, **counts, **gate(ctx, out, len(taught), ctx.part[0] != ctx.part[1])}


def explained(ctx: Context, asked: set[str]) -> list[Sample]:
    """The items that are explained: drawn from the pool, less those that the teacher has answered and those of the
    rounds before; from all of them again once none is left."""
    spec, rng = ctx.recipe.refine, random.Random(ctx.recipe.seed)
    rest = [sample for sample in ctx.samples("data", "pool") if sample.id not in asked]
    left, chosen = list(rest), list[Sample]()
    for _ in range(spec.rounds):
        left = left or list(rest)
        chosen = rng.sample(left, min(spec.items, len(left)))
        taken = {sample.id for sample in chosen}
        left = [sample for sample in left if sample.id not in taken]
    return chosen
