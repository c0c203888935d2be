"""The paid part of the apprenticeship: asking the teacher, training the assistant on its answers, and the gate.

Answers that another run in the same folder has already paid for are taken over: they count against this run's caps
like its own, but nothing is sent again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from bridge_edge.budget import AlreadyAnswered, BudgetExhausted, InFlight, Ledger
from bridge_edge.data.card import parse
from bridge_edge.data.encode import encode_samples
from bridge_edge.data.pool import load_task, make_card
from bridge_edge.data.samples import TEACHER, Sample, write_jsonl
from bridge_edge.errors import UserError
from bridge_edge.evaluate import to_json
from bridge_edge.phases import Context, Metrics, contradicts, fit, measure
from bridge_edge.prices import Caps, Price
from bridge_edge.progress import say, track
from bridge_edge.recipe import Recipe
from bridge_edge.teacher.ask import Outcome, ask_all, build_prompt, sanitize
from bridge_edge.teacher.base import Request, Teacher
from bridge_edge.train.models import load_tokenizer

LEDGER = "ledger.sqlite"


def make_teacher(recipe: Recipe, samples: Sequence[Sample]) -> Teacher:
    """The teacher that the recipe names."""
    spec = recipe.teacher
    price = Price(spec.price.prompt, spec.price.completion)
    if spec.kind == "replay":
        from bridge_edge.teacher.replay import ReplayTeacher

        return ReplayTeacher(spec.path or "", price)
    if spec.kind == "openai":
        from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher

        endpoint = Endpoint(spec.model, key_env=spec.api_key_env, timeout_s=spec.timeout)
        return OpenAITeacher(replace(endpoint, base_url=spec.base_url) if spec.base_url else endpoint, price)
    from bridge_edge.teacher.expert import ExpertTeacher

    return ExpertTeacher(load_task(recipe.task.module or ""), {s.id: s for s in samples}, price, recipe.seed)


def requests_for(recipe: Recipe, samples: Sequence[Sample]) -> list[Request]:
    """One request a sample, in the order in which the samples are worth asking."""
    card, spec = make_card(recipe), recipe.teacher
    return [Request.of(s.id, build_prompt(card, s, spec.style), spec.max_tokens, spec.temperature) for s in samples]


def caps_of(recipe: Recipe, queries: int) -> Caps:
    return Caps(queries=queries, usd=recipe.budget.usd, tokens=recipe.budget.tokens)


def take_over(ledger: Ledger, teacher: Teacher, requests: Sequence[Request], others: Sequence[Path]) -> int:
    """Copy answers that other runs have paid for into this ledger; returns how many."""
    taken = 0
    for path in others:
        try:
            with closing(Ledger(path)) as other:
                known = [(r, other.answer_for(teacher.request_hash(r))) for r in requests]
        except UserError as error:  # a damaged neighbour is not this run's trouble
            say(f"  note: cannot look for answers in {path}: {error.message}")
            continue
        for request, answer in known:
            if answer is None or ledger.answer_for(answer.request_hash):
                continue
            try:
                ledger.adopt(answer, request.item_id, f"taken over from {path.parent.name}", paid=True)
            except BudgetExhausted:
                return taken
            except (AlreadyAnswered, InFlight):
                continue
            taken += 1
    return taken


def teach(ctx: Context, out: Path) -> Metrics:
    """Ask the teacher for exactly the selected items, within all caps."""
    recipe = ctx.recipe
    pool = {s.id: s for s in ctx.samples("data", "pool")}
    chosen = [pool[row["id"]] for row in json.loads((ctx.folder("select") / "selected.json").read_text())]
    teacher, requests = make_teacher(recipe, chosen), requests_for(recipe, chosen)
    with closing(Ledger(ctx.path / LEDGER, caps_of(recipe, len(chosen)), teacher.price)) as ledger:
        reused = take_over(ledger, teacher, requests, ctx.borrow())
        with track("teacher", len(requests)) as advance:
            shown = 0

            def tell(state: Any) -> None:
                nonlocal shown
                advance(state.done + state.failed - shown, f"${state.totals.usd:.4f} spent, {state.failed} failed")
                shown = state.done + state.failed

            outcome = ask_all(teacher, ledger, requests, ctx.concurrency, tell)
        totals = ledger.totals()
    taught, metrics = _read_replies(recipe, chosen, outcome)
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
    write_jsonl(out / "taught.jsonl", taught)
    return metrics | {
        "asked": len(requests),
        "queries": totals.queries,
        "tokens": totals.tokens,
        "usd": float(totals.usd),
        "reused": reused,
        "failed": len(outcome.failures),
        "stopped_by": outcome.stopped_by,
        "teacher": teacher.name,
    }


def _read_replies(recipe: Recipe, chosen: Sequence[Sample], outcome: Outcome) -> tuple[list[Sample], dict[str, Any]]:
    """Strictly parsed answers; one that contradicts the gold label is charged, counted and left out."""
    taught: list[Sample] = []
    unparsed = contradicted = 0
    for sample in chosen:
        for reply in outcome.replies.get(sample.id, []):
            parsed = parse(sanitize(reply.text), recipe.task.answers)
            if parsed.answer is None:
                unparsed += 1
            elif recipe.data.labels == "gold" and contradicts(parsed.answer, sample.answer):
                contradicted += 1
            else:
                taught.append(replace(sample, rationale=parsed.rationale, answer=parsed.answer, provenance=TEACHER))
    return taught, {"usable": len(taught), "unparsed": unparsed, "contradicted_gold": contradicted}


def apprentice(ctx: Context, out: Path) -> Metrics:
    """Train the TA on the teacher's rationales, then ask the gate on the dev split."""
    recipe, source = ctx.recipe, str(ctx.folder("warmup"))
    taught = ctx.samples("teach", "taught")
    examples = encode_samples(load_tokenizer(source), taught, "rationale_answer")
    metrics = fit(ctx, out, source, recipe.ta, examples, "assistant")
    scores = measure(ctx, out, ctx.samples("data", "dev"), "gate")
    metrics["dev"] = {k: v for k, v in to_json(scores).items() if k != "per_task"}
    metrics["gate_passed"] = scores.accuracy >= recipe.gate.accuracy
    if not metrics["gate_passed"]:
        asked = len(taught)
        problem = f"TA accuracy on dev is {scores.accuracy:.1%}, below the gate of {recipe.gate.accuracy:.0%}"
        hint = f"grow the budget, e.g. budget.queries={2 * asked} (the {asked} answers so far are kept)"
        if recipe.gate.on_fail == "stop":
            raise UserError(problem, f"{hint}, or set gate.on_fail=continue")
        say(f"  note: {problem}; going on. To mend it: {hint}, or stop here with gate.on_fail=stop")
    return metrics
