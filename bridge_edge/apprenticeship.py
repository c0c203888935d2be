"""The paid part of the apprenticeship: asking the teacher, training the assistant on its answers, and the gate.

Answers that another run in the same folder has already paid for are taken over, and those in the shared cache are used;
nothing of either is sent again (see `teacher/reuse.py` for how they are counted).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bridge_edge.answer_cache import MARK, AnswerCache
from bridge_edge.budget import Ledger
from bridge_edge.data.pool import make_card
from bridge_edge.data.samples import TEACHER, Sample, write_jsonl
from bridge_edge.data.thinking import asked, names
from bridge_edge.errors import UserError
from bridge_edge.evaluate import to_json
from bridge_edge.phases import Context, Metrics, contradicts, course_of, fit, measure
from bridge_edge.prices import Caps, to_usd
from bridge_edge.progress import say, track
from bridge_edge.recipe import Recipe
from bridge_edge.selection import items_to_ask
from bridge_edge.teacher.ask import Outcome, ask_all, build_prompt
from bridge_edge.teacher.base import Request, Teacher
from bridge_edge.teacher.batch_api import BatchTeacher
from bridge_edge.teacher.batch_run import ask_in_batches
from bridge_edge.teacher.lengths import Shorter, at_budgets, split
from bridge_edge.teacher.make import API, is_structured, open_teacher
from bridge_edge.teacher.meter import EVERY_S, Meter
from bridge_edge.teacher.reuse import keep, recall, shared_cache, take_over
from bridge_edge.teacher.structured import read_reply
from bridge_edge.train.models import load_tokenizer

LEDGER = "ledger.sqlite"
BRIEFS = "briefs"


def requests_for(recipe: Recipe, samples: Sequence[Sample]) -> list[Request]:
    """The requests for `samples`, in the order in which they are worth asking; all answers to an item together."""
    card, spec, shorter = make_card(recipe), recipe.teacher, at_budgets(recipe)
    found = []
    for sample in samples:
        words = shorter.words(sample.prompt) if shorter else None
        messages = build_prompt(card, sample, spec.style, spec.system, spec.prompt, words)
        of_item = partial(Request.of, sample.id, messages, recipe.reply_tokens, spec.temperature)
        found += [of_item(sample=k) for k in range(spec.samples)]
    return found


def caps_of(recipe: Recipe, queries: int) -> Caps:
    queries = min(queries, recipe.budget.queries or queries)  # one item with more samples than that is asked in part
    return Caps(queries=queries, usd=recipe.budget.usd, tokens=recipe.budget.tokens)


def teach(ctx: Context, out: Path) -> Metrics:
    """Ask the teacher for exactly the selected items, within all caps."""
    recipe = ctx.recipe
    pool = {s.id: s for s in ctx.samples("data", "pool")}
    rows = json.loads((ctx.folder("select") / "selected.json").read_text())
    rows = rows[: items_to_ask(recipe, len(rows))]
    chosen, new = [pool[row["id"]] for row in rows], sum(row.get("round") == ctx.part[0] for row in rows)
    requests = requests_for(recipe, chosen)
    with (
        open_teacher(recipe, chosen) as teacher,
        closing(Ledger(ctx.path / LEDGER, caps_of(recipe, len(requests)), teacher.price)) as ledger,
        shared_cache(ctx.cache, recipe.teacher.kind in API, ctx.path.name) as cache,
    ):
        reused = take_over(ledger, teacher, requests, ctx.borrow())
        outcome = _ask(ctx, teacher, requests, ledger, cache)
        totals, cached = ledger.totals(), ledger.entered(MARK)
    taught, briefs, metrics = _read_replies(recipe, chosen, outcome)
    _check(outcome, taught)
    write_jsonl(out / "taught.jsonl", taught)
    if recipe.reasoning.asked:
        write_jsonl(out / f"{BRIEFS}.jsonl", briefs)
        metrics["briefs"] = _at_each(recipe, briefs, len(taught))
    return metrics | {
        "asked": len(requests),
        **({"new": new} if ctx.part[0] > 1 else {}),
        "queries": totals.queries,
        "tokens": totals.tokens,
        "usd": float(totals.usd),
        "reused": reused,
        **({"cached": cached[0], "cached_usd": float(to_usd(cached[1]))} if cached[0] else {}),
        "failed": len(outcome.failures),
        "stopped_by": outcome.stopped_by,
        "teacher": teacher.name,
        **structured_metrics(recipe, teacher),
    }


def _ask(
    ctx: Context, teacher: Teacher, requests: Sequence[Request], ledger: Ledger, cache: AnswerCache | None
) -> Outcome:
    with track("teacher", len(requests), EVERY_S) as advance:
        meter = Meter(advance, ctx.recipe.budget.usd)
        if not isinstance(teacher, BatchTeacher):
            return ask_all(teacher, ledger, requests, ctx.concurrency, meter, cache=cache)
        if cache is not None:
            recall(cache, ledger, teacher, requests)
        outcome = ask_in_batches(teacher, ledger, requests, meter, say)
        if cache is not None:
            keep(cache, ledger, teacher, requests)
        return outcome


def _check(outcome: Outcome, taught: Sequence[Sample]) -> None:
    """Say what ended the asking early; without one usable answer the stage fails."""
    if outcome.stopped_by == "teacher":
        raise UserError(
            f"the teacher stopped answering: {outcome.message}", "all answers are saved; run the same command again"
        )
    if outcome.stopped_by:
        say(f"  stopped by a cap: {outcome.message}")
    if not taught:
        first = outcome.failures[0].message if outcome.failures else outcome.message or "no reply could be read"
        raise UserError(
            f"the teacher gave no usable answer: {first}",
            "check teacher.* and the budget; what was paid is in the ledger",
        )


def structured_metrics(recipe: Recipe, teacher: Teacher) -> dict[str, str]:
    """Whether JSON was asked for, and why it no longer was where the endpoint refused."""
    if not is_structured(recipe.teacher):
        return {}
    refused = getattr(teacher, "fell_back", "")
    return {"structured": f"plain text, the endpoint refused: {refused}" if refused else "json_schema"}


def _at_each(recipe: Recipe, briefs: Sequence[Sample], taught: int) -> dict[str, int]:
    """How many rationales the teacher wrote that keep to each budget. Where there are none the assistant's are cut, so
    that what was paid still serves."""
    counts = {str(b): sum(names(s.prompt, b) for s in briefs) for b in recipe.reasoning.asked}
    say("  of the teacher " + "; ".join(f"at most {b} tokens: {n} of {taught}" for b, n in counts.items()))
    if not briefs:
        say("  warning: none of them keeps to a budget, so the assistant's rationales will be cut")
    return counts


def _read_replies(
    recipe: Recipe, chosen: Sequence[Sample], outcome: Outcome
) -> tuple[list[Sample], list[Sample], dict[str, Any]]:
    """Strictly parsed answers; one that contradicts the gold label is charged, counted and left out. Also the same
    answers with prompts that name a budget and the teacher's rationales that keep to it."""
    taught: list[Sample] = []
    briefs: list[Sample] = []
    unparsed = contradicted = 0
    at = at_budgets(recipe)
    budgets = at.budgets if at else ()
    for sample in chosen:
        for reply in outcome.replies.get(sample.id, []):
            parsed = read_reply(reply.text, recipe.task.answers, is_structured(recipe.teacher), budgets)
            if parsed.answer is None:
                unparsed += 1
            elif recipe.data.labels == "gold" and contradicts(parsed.answer, sample.answer):
                contradicted += 1
            else:
                whole, shorter = split(parsed.rationale, budgets)
                taught.append(replace(sample, rationale=whole, answer=parsed.answer, provenance=TEACHER))
                briefs += _briefs(at, taught[-1], shorter) if at else []
    return taught, briefs, {"usable": len(taught), "unparsed": unparsed, "contradicted_gold": contradicted}


def _briefs(at: Shorter, sample: Sample, shorter: Mapping[int, str]) -> list[Sample]:
    """An answer once more at each budget that its shorter rationale keeps to, or the whole one."""
    found = []
    for budget in at.budgets:
        text = next((t for t in (shorter.get(budget), sample.rationale) if t and at.fits(t, budget)), None)
        if text is not None:
            found.append(replace(sample, prompt=asked(sample.prompt, budget), rationale=text))
    return found


def briefs_of(ctx: Context) -> list[Sample]:
    """What the teacher wrote at budgets of reasoning; nothing where it was not asked to."""
    return ctx.samples("teach", BRIEFS) if ctx.recipe.reasoning.asked else []


def apprentice(ctx: Context, out: Path) -> Metrics:
    """Train the TA on the teacher's rationales, then ask the gate on the dev split."""
    recipe, source = ctx.recipe, str(ctx.folder("warmup"))
    taught = ctx.samples("teach", "taught")
    course = course_of(ctx, load_tokenizer(source), [*taught, *briefs_of(ctx)])
    metrics = fit(ctx, out, source, recipe.ta, course, "assistant")
    more = recipe.refine.on or ctx.part[0] != ctx.part[1]  # rounds, or its own explanations
    return {**metrics, **gate(ctx, out, len(taught), more)}


def gate(ctx: Context, folder: Path, asked: int, more: bool = False) -> Metrics:
    """Measure the TA on dev against the gate: a note or an error where it fails, unless there is `more` to come."""
    recipe, scores = ctx.recipe, measure(ctx, folder, ctx.samples("data", "dev"), "gate")
    dev = {k: v for k, v in to_json(scores).items() if k != "per_task"}
    passed = scores.accuracy >= recipe.gate.accuracy
    if not passed and not more:
        problem = f"TA accuracy on dev is {scores.accuracy:.1%}, below the gate of {recipe.gate.accuracy:.0%}"
        hint = f"grow the budget, e.g. budget.queries={2 * asked} (the {asked} answers so far are kept)"
        if recipe.data.labels == "gold" and not recipe.refine.on and recipe.annotate.engine != "openai":
            hint += ", or let it learn from its own right explanations, e.g. refine.items=2000"
        if recipe.gate.on_fail == "stop":
            raise UserError(problem, f"{hint}, or set gate.on_fail=continue")
        say(f"  note: {problem}; going on. To mend it: {hint}, or stop here with gate.on_fail=stop")
    return {"dev": dev, "gate_passed": passed}
