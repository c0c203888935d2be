"""What the teacher's part of a run will cost, before anything is sent: tokens of a prompt and of an answer, and money.

Prompts are the real ones, of every item of the pool (the selection is not known before scoring), counted by the
teacher's tokenizer where there is one. Lengths of answers come from the best source at hand, which the estimate names:
answers of the same teacher in earlier runs, the recording that is replayed, the embedded expert's words for these very
items, rationales in the data, or a guess by the style. The upper bound needs no source: it is what the ledger reserves.

Not covered: hidden reasoning tokens that some models bill; they count towards teacher.max_tokens and so to the bound.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from bridge_edge.budget import Ledger
from bridge_edge.data.card import completion
from bridge_edge.data.pool import load_task
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from bridge_edge.prices import Price, to_usd
from bridge_edge.recipe import Recipe
from bridge_edge.teacher.base import Request, count_messages, quarter
from bridge_edge.teacher.expert import explain
from bridge_edge.teacher.lengths import at_budgets
from bridge_edge.teacher.make import API, endpoint_of, price_of, token_counter
from bridge_edge.teacher.openai_api import prompt_bound, utf8_bytes
from bridge_edge.teacher.replay import ReplayTeacher

GUESS = {"brief": 60, "steps": 140, "detailed": 260}  # tokens of a rationale and answer in each style
MOST_ITEMS, MOST_ROWS, ENOUGH = 400, 2000, 20


@dataclass(frozen=True)
class Tokens:
    """Tokens of one call over the pool: what is expected to be billed, and the most that is reserved."""

    prompts: list[int]
    bounds: list[int]
    answers: list[int]
    counted_by: str
    answers_from: str
    latency_s: float | None = None
    costs: tuple[int, ...] = ()  # nano-dollars of each recorded answer, where a recording says what they cost


def percentile(values: Sequence[int], share: float) -> int:
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, round(share * (len(ranked) - 1)))] if ranked else 0


def tokens_of(recipe: Recipe, pool: Sequence[Sample], requests: Sequence[Request], ledgers: Sequence[Path]) -> Tokens:
    """The distribution of tokens for one call, `requests` being the pool's prompts."""
    count, counted_by = _counter(recipe)
    prompts = [count_messages(r, count) for r in requests]
    bounds = prompts
    if recipe.teacher.kind in API:
        exact = count if recipe.teacher.tokenizer else utf8_bytes
        beside = exact(endpoint_of(recipe).beside)
        bounds = [prompt_bound(r, exact, beside) for r in requests]
    recording = ReplayTeacher(recipe.teacher.path or "") if recipe.teacher.kind == "replay" else None
    latency: float | None = None
    costs: tuple[int, ...] = ()
    if recording is None:
        answers, source, latency = _answers(recipe, pool, ledgers, count)
    else:
        answers, source = _recorded(recording, pool)
        costs = _recorded_costs(recording, price_of(recipe.teacher), pool, round(mean(prompts)) if prompts else 0)
    most = recipe.reply_tokens
    return Tokens(prompts, bounds, [min(a, most) for a in answers], counted_by, source, latency, costs)


def _counter(recipe: Recipe) -> tuple[Callable[[str], int], str]:
    spec = recipe.teacher
    if spec.kind in API and (named := token_counter(spec)) is not None:
        return named, f"the tokenizer {spec.tokenizer}"
    if spec.kind == "local":
        path = Path(spec.model).expanduser()
        if path.is_dir() and (path / "tokenizer.json").exists():
            local = token_counter(spec.model_copy(update={"tokenizer": str(path)}))
            if local is not None:
                return local, "the model's own tokenizer"
        if path.suffix == ".gguf" and path.is_file():
            from bridge_edge.runtimes.llama_native import load_model, tokenize, vocabulary

            vocab = vocabulary(load_model(path, vocab_only=True))
            return lambda text: len(tokenize(vocab, text)), "the model's own tokenizer"
    note = "as it bills" if spec.kind in ("expert", "replay") else "an estimate; teacher.tokenizer makes it exact"
    return quarter, f"four characters a token ({note})"


def _answers(
    recipe: Recipe, pool: Sequence[Sample], ledgers: Sequence[Path], count: Callable[[str], int]
) -> tuple[list[int], str, float | None]:
    """Lengths of answers, where they come from, and the usual seconds a call where that is known."""
    spec, shorter = recipe.teacher, at_budgets(recipe)
    if spec.kind in (*API, "local"):
        lengths, latencies = _earlier(recipe, ledgers)
        if len(lengths) >= ENOUGH:
            return (
                lengths,
                f"{len(lengths)} answers of this teacher in earlier runs",
                sorted(latencies)[len(lengths) // 2],
            )
    chosen = random.Random(0).sample(list(pool), min(MOST_ITEMS, len(pool)))
    if recipe.task.module and any(s.facts for s in chosen):
        task, rng = load_task(recipe.task.module), random.Random(0)
        texts = [explain(task, s, rng, shorter) for s in chosen if s.facts]
        source = "the embedded expert's words for these items"
        return [count(text) for text in texts], source, 0.0 if spec.kind == "expert" else None
    more = 0  # of the shorter lines: a word may be a token and a half, and few lines are full
    if shorter and chosen:
        more = round(mean(sum(shorter.words(s.prompt).values()) for s in chosen))
    written = [completion(s.rationale, s.answer) for s in chosen if s.rationale and s.answer]
    if len(written) >= ENOUGH:
        return [count(text) + more for text in written], "the rationales in the data", None
    return [GUESS[spec.style] + more], f"a guess for the style {spec.style}; no answers are known yet", None


def _recorded(teacher: ReplayTeacher, pool: Sequence[Sample]) -> tuple[list[int], str]:
    """Lengths of the recorded answers to the items of the pool, and where they come from."""
    found = [records for s in pool if (records := teacher.records.get(s.id))]
    if pool and not found:
        problem = f"teacher.path={teacher.path.name} answers none of the {len(pool)} items that may be asked"
        raise UserError(problem, 'a record needs the "id" or the whole "prompt" of an item')
    source = f"the recording, of {len(found)} of {len(pool)} items"
    return [r.completion_tokens or 0 for records in found for r in records], source


def _recorded_costs(teacher: ReplayTeacher, price: Price, pool: Sequence[Sample], prompt: int) -> tuple[int, ...]:
    """By the recording, at the teacher's prices where it is silent; nothing where all of it is."""
    asked = [
        (reply, teacher.cost(Request.of(s.id, "", sample=number)))
        for s in pool
        for number, reply in enumerate(teacher.records.get(s.id, ()))
    ]
    if all(cost is None for _, cost in asked):
        return ()
    return tuple(price.nano(prompt, r.completion_tokens or 0) if cost is None else cost for r, cost in asked)


def _earlier(recipe: Recipe, ledgers: Sequence[Path]) -> tuple[list[int], list[float]]:
    """Lengths and seconds of the answers that this model gave in other runs of the same recipe."""
    name = Path(recipe.teacher.model).name if recipe.teacher.kind == "local" else recipe.teacher.model
    lengths: list[int] = []
    latencies: list[float] = []
    for path in ledgers:
        if not path.parent.name.startswith(f"{recipe.name}-"):
            continue
        try:
            with closing(Ledger(path)) as ledger:
                rows = [row for row in ledger.attempts() if row["status"] == "ok" and name in (row["model"] or "")]
                if recipe.reasoning.asked:  # other answers are shorter
                    rows = [row for row in rows if row["reserved_completion"] == recipe.reply_tokens]
        except UserError:  # a damaged neighbour says nothing
            continue
        lengths += [row["used_completion"] or 0 for row in rows]
        latencies += [row["latency_s"] or 0.0 for row in rows]
    return lengths[:MOST_ROWS], latencies[:MOST_ROWS]


def money(recipe: Recipe, tokens: Tokens, calls: int) -> dict[str, Any]:
    """Dollars for `calls` calls: with short answers, as expected, and the worst case that the ledger reserves."""
    price: Price = price_of(recipe.teacher)
    prompt, answer = mean(tokens.prompts), mean(tokens.answers)
    low = price.nano(round(calls * prompt), calls * percentile(tokens.answers, 0.05))
    expected = price.nano(round(calls * prompt), round(calls * answer))
    high = price.nano(round(calls * mean(tokens.bounds)), calls * recipe.reply_tokens)
    if tokens.costs:
        low, high = (calls * percentile(tokens.costs, share) for share in (0.05, 1.0))
        expected = round(calls * mean(tokens.costs))
    found = {"low": float(to_usd(low)), "expected": float(to_usd(expected)), "high": float(to_usd(high))}
    return {**found, "cap": recipe.budget.usd}


def stopping_cap(recipe: Recipe, tokens: Tokens, calls: int, queries_cap: int) -> dict[str, Any] | None:
    """The cap that is expected to end the asking before all calls are made, and after how many; None where none does.

    Each call needs room for its worst case while those before it cost what they cost.
    """
    price, most = price_of(recipe.teacher), recipe.reply_tokens
    prompt, answer, bound = mean(tokens.prompts), mean(tokens.answers), percentile(tokens.bounds, 0.5)
    reach = {"queries": queries_cap}
    if recipe.budget.tokens is not None:
        reach["tokens"] = _reach(recipe.budget.tokens, prompt + answer, bound + most)
    each = price.nano(round(1000 * prompt), round(1000 * answer)) / 1000
    worst = price.nano(bound, most)
    if tokens.costs:  # known beforehand, so that is what is reserved
        each, worst = mean(tokens.costs), percentile(tokens.costs, 0.5)
    if recipe.budget.usd is not None:
        reach["usd"] = _reach(recipe.budget.usd * 1e9, each, worst)
    cap = min(reach, key=lambda name: reach[name])
    return {"cap": f"budget.{cap}", "after_calls": reach[cap]} if reach[cap] < calls else None


def _reach(cap: float, each: float, worst: float) -> int:
    """How many calls of cost `each` begin while `worst` still fits under `cap`."""
    if worst > cap:
        return 0
    return int((cap - worst) / each) + 1 if each > 0 else 10**9
