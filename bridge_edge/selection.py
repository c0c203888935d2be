"""Scoring of the pool and selection of what the teacher is asked, from files to files; no teacher call.

In rounds (`select.rounds`) the pool is scored again by the assistant that the round before has trained, and items are
chosen beside those that are asked already; see `rounds.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bridge_edge.data.samples import read_jsonl
from bridge_edge.errors import UserError
from bridge_edge.phases import Context, Metrics
from bridge_edge.progress import say, track
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_models import OWN_EMBEDDINGS
from bridge_edge.rounds import ASKED, SCORER
from bridge_edge.select.consistency import Check, doubtful_items, to_check, told
from bridge_edge.select.embed import sentence_vectors, stored
from bridge_edge.select.score import Scoring, score_pool, truth
from bridge_edge.select.strategies import Candidates, choose
from bridge_edge.train.models import load_model, load_tokenizer


def score_stage(ctx: Context, out: Path) -> Metrics:
    """Difficulty and embeddings of the whole pool under the warmed-up TA, or between rounds under the TA so far."""
    recipe, later = ctx.recipe, SCORER in ctx.places
    source = str(ctx.folder(SCORER if later else "warmup"))
    pool = ctx.samples("data", "pool")
    spec, tokenizer, model = recipe.select, load_tokenizer(source), load_model(source, ctx.device)
    with track("scoring", len(pool)) as advance:
        how = Scoring(spec.difficulty, spec.samples, recipe.seed, given=later)
        scored = score_pool(model, tokenizer, pool, recipe.task.answers, how, advance)
    hard, vectors = scored.difficulty, scored.vectors
    metrics: Metrics = {"difficulty_mean": round(float(hard.mean()), 4)}
    metrics["difficulty_p95"] = round(float(np.percentile(hard, 95)), 4)
    doubtful: list[int] = []
    if recipe.data.labels == "gold":
        metrics |= truth(pool, scored)
    else:
        check = Check(spec.check, spec.samples, recipe.task.max_new_tokens, recipe.seed)
        with track("self-consistency", max(1, len(to_check(hard, check)))) as advance:
            doubtful, report = doubtful_items(model, tokenizer, pool, recipe.task.answers, scored, check, advance)
        metrics["self_consistency"] = report
        say("  " + told(report, len(pool)))
    if spec.embeddings != OWN_EMBEDDINGS:
        with track("embeddings", len(pool)) as advance:
            vectors = sentence_vectors(spec.embeddings, [s.prompt for s in pool], ctx.device, advance)
    np.save(out / "difficulty.npy", hard)
    np.save(out / "embeddings.npy", vectors.astype(np.float16))
    np.save(out / "doubtful.npy", np.array(doubtful, dtype=np.int64))
    return metrics


def budget_queries(recipe: Recipe, pool: int) -> int:
    """How many items the budget lets be asked."""
    if recipe.budget.queries and recipe.budget.queries > pool:
        raise UserError(
            f"budget.queries={recipe.budget.queries} is above the pool of {pool} items", "lower it, or give more data"
        )
    return recipe.budget.queries or max(1, round(recipe.budget.fraction * pool))


def select(ctx: Context, out: Path) -> Metrics:
    """Choose the items that are put to the teacher, beside those that earlier rounds have asked."""
    recipe = ctx.recipe
    known = [(s.id, s.answer) for s in read_jsonl(ctx.folder("data") / "pool.jsonl")]  # texts are not needed here
    score, spec = ctx.folder("score"), recipe.select
    hard = np.load(score / "difficulty.npy")
    groups = [answer for _, answer in known] if recipe.data.labels == "gold" else None
    candidates = Candidates(hard, stored(score / "embeddings.npy"), groups, np.load(score / "doubtful.npy").tolist())
    queries = budget_queries(recipe, len(known))
    asked = asked_before(ctx)
    place = {name: i for i, (name, _) in enumerate(known)}
    already = [place[row["id"]] for row in asked]
    chosen = choose(candidates, queries, spec.strategy, spec.alpha, spec.trim, recipe.seed, already)
    new = chosen[len(already) :]
    if not new:
        raise UserError(
            f"round {ctx.part[0]} of {ctx.part[1]} has nothing left to ask: the budget is {queries} queries",
            "lower select.rounds, or raise the budget",
        )
    mark = {"round": ctx.part[0]} if asked else {}
    rows = [{"id": known[i][0], "rank": len(already) + k, "difficulty": round(float(hard[i]), 5), **mark}
            for k, i in enumerate(new)]  # fmt: skip
    (out / "selected.json").write_text(json.dumps([*asked, *rows], indent=0))
    metrics: Metrics = {"selected": len(chosen), "difficulty_mean": round(float(hard[new].mean()), 4)}
    return metrics | ({"new": len(new)} if asked else {})


def items_to_ask(recipe: Recipe, selected: int) -> int:
    """How many of the selected items are asked: `budget.queries` is a cap on calls, so samples share it."""
    return max(1, selected // recipe.teacher.samples) if recipe.budget.queries else selected


def asked_before(ctx: Context) -> list[dict[str, Any]]:
    """The rows of the selection that the rounds before have asked; none in the first round."""
    if ASKED not in ctx.places:
        return []
    rows: list[dict[str, Any]] = json.loads((ctx.folder(ASKED) / "selected.json").read_text(encoding="utf-8"))
    return rows[: items_to_ask(ctx.recipe, len(rows))]
