"""Scoring of the pool and selection of what the teacher is asked, from files to files; no teacher call.

In rounds (`select.rounds`) the assistant that the round before has trained explains a sample of the pool, and what it
misses is chosen beside what is asked already; see `rounds.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bridge_edge.data.samples import Sample, read_jsonl
from bridge_edge.errors import UserError
from bridge_edge.phases import Context, Metrics
from bridge_edge.progress import say, track
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_models import OWN_EMBEDDINGS
from bridge_edge.rounds import ASKED, SCORER
from bridge_edge.select.consistency import Check, doubtful_items, to_check, told
from bridge_edge.select.embed import sentence_vectors, stored
from bridge_edge.select.explained import MISSED, Sampled, choose_missed, draw_rows, explain
from bridge_edge.select.score import Scored, Scoring, score_pool, truth
from bridge_edge.select.strategies import Candidates, choose
from bridge_edge.train.models import load_model, load_tokenizer

EXPLAINED = "rows.npy"


def score_stage(ctx: Context, out: Path) -> Metrics:
    """Difficulty and embeddings of the whole pool under the warmed-up TA; between rounds, those of a sample that the TA
    so far explains (`rows.npy` says which), or of the whole pool by its direct answers."""
    recipe, later = ctx.recipe, SCORER in ctx.places
    spec, pool = recipe.select, ctx.samples("data", "pool")
    explained = later and spec.probe > 0
    if explained:
        rows = draw_rows(len(pool), spec.probe, recipe.seed, ctx.part[0])
        np.save(out / EXPLAINED, rows)
        pool = [pool[i] for i in rows]
    source = str(ctx.folder(SCORER if later else "warmup"))
    tokenizer, model = load_tokenizer(source), load_model(source, ctx.device)
    with track("scoring", len(pool)) as advance:
        how = Scoring("loss" if explained else spec.difficulty, spec.samples, recipe.seed, given=later)
        scored = score_pool(model, tokenizer, pool, recipe.task.answers, how, advance)
    metrics: Metrics = {}
    if explained:
        with track("explaining", len(pool)) as advance:
            found = explain(model, tokenizer, pool, recipe.task.answers, recipe.task.max_new_tokens, advance)
        scored = replace(scored, difficulty=found.difficulty, direct=found.answers)
        metrics |= {"explained": len(pool), "missed": found.missed}
    doubtful: list[int] = []
    if recipe.data.labels == "none":
        doubtful, metrics["self_consistency"] = _doubtful(recipe, model, tokenizer, pool, scored)
    elif not explained:
        metrics |= truth(pool, scored)
    hard, vectors = scored.difficulty, scored.vectors
    if explained:
        hard[[i for i in doubtful if hard[i] < MISSED]] += MISSED
    metrics["difficulty_mean"] = round(float(hard.mean()), 4)
    metrics["difficulty_p95"] = round(float(np.percentile(hard, 95)), 4)
    if spec.embeddings != OWN_EMBEDDINGS:
        with track("embeddings", len(pool)) as advance:
            vectors = sentence_vectors(spec.embeddings, [s.prompt for s in pool], ctx.device, advance)
    np.save(out / "difficulty.npy", hard)
    np.save(out / "embeddings.npy", vectors.astype(np.float16))
    np.save(out / "doubtful.npy", np.array(doubtful, dtype=np.int64))
    return metrics


def _doubtful(
    recipe: Recipe, model: Any, tokenizer: Any, pool: Sequence[Sample], scored: Scored
) -> tuple[list[int], dict[str, Any]]:
    """Without labels: the easy items that sampled rationales contradict, and what was and was not checked."""
    spec = recipe.select
    check = Check(spec.check, spec.samples, recipe.task.max_new_tokens, recipe.seed)
    with track("self-consistency", max(1, len(to_check(scored.difficulty, check)))) as advance:
        doubtful, report = doubtful_items(model, tokenizer, pool, recipe.task.answers, scored, check, advance)
    say("  " + told(report, len(pool)))
    return doubtful, report


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
    groups = [answer for _, answer in known] if recipe.data.labels == "gold" else None
    queries = budget_queries(recipe, len(known))
    asked = asked_before(ctx)
    place = {name: i for i, (name, _) in enumerate(known)}
    new, hard = _chosen(ctx, groups, len(known), queries, [place[row["id"]] for row in asked])
    if not new:
        raise UserError(
            f"round {ctx.part[0]} of {ctx.part[1]} has nothing left to ask: the budget is {queries} queries",
            "lower select.rounds or select.round_size, or raise the budget",
        )
    mark = {"round": ctx.part[0]} if asked else {}
    rows = [{"id": known[i][0], "rank": len(asked) + k, **mark} for k, i in enumerate(new)]
    measured = [i for i in new if i in hard]
    for row, i in zip(rows, new, strict=True):
        row |= {"difficulty": round(hard[i], 5)} if i in hard else {}
    (out / "selected.json").write_text(json.dumps([*asked, *rows], indent=0))
    metrics: Metrics = {"selected": len(asked) + len(new)}
    metrics["difficulty_mean"] = round(sum(hard[i] for i in measured) / len(measured), 4) if measured else None
    return metrics | ({"new": len(new)} if asked else {})


def _chosen(
    ctx: Context, groups: Sequence[str | None] | None, pool: int, queries: int, already: list[int]
) -> tuple[list[int], dict[int, float]]:
    """The places of the new items, in the order in which they are worth asking, and what difficulties are known."""
    score, spec = ctx.folder("score"), ctx.recipe.select
    hard, vectors = np.load(score / "difficulty.npy"), stored(score / "embeddings.npy")
    how = (spec.strategy, spec.alpha, spec.trim, ctx.recipe.seed)
    if (score / EXPLAINED).exists():
        rows = np.load(score / EXPLAINED)
        new = choose_missed(Sampled(rows, hard, vectors, groups, pool), queries - len(already), *how, already)
        return new, dict(zip(rows.tolist(), hard.tolist(), strict=True))
    candidates = Candidates(hard, vectors, groups, np.load(score / "doubtful.npy").tolist())
    return choose(candidates, queries, *how, already)[len(already) :], dict(enumerate(hard.tolist()))


def items_to_ask(recipe: Recipe, selected: int) -> int:
    """How many of the selected items are asked: `budget.queries` is a cap on calls, so samples share it."""
    return max(1, selected // recipe.teacher.samples) if recipe.budget.queries else selected


def asked_before(ctx: Context) -> list[dict[str, Any]]:
    """The rows of the selection that the rounds before have asked; none in the first round."""
    if ASKED not in ctx.places:
        return []
    rows: list[dict[str, Any]] = json.loads((ctx.folder(ASKED) / "selected.json").read_text(encoding="utf-8"))
    return rows[: items_to_ask(ctx.recipe, len(rows))]
