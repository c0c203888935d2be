"""Annotation: the TA answers the whole pool, and what it wrote is filtered before the student learns from it.

What: greedy completions of every pool item, written as they come; then the filters, each counted in the stage's
figures: they must parse and end, hit the gold answer where there is one, state no false sum or comparison, and belong
to the surest share. None of them needs the teacher or knows the domain.
Why: a small TA is often right for wrong reasons. Its own mean log-probability tells such rationales apart, and false
arithmetic can simply be recomputed.
Not covered: several samples an item with a vote, near-duplicates among rationales.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bridge_edge.data.arithmetic import first_error
from bridge_edge.data.card import parse
from bridge_edge.data.encode import prompt_ids
from bridge_edge.data.pool import load_task
from bridge_edge.data.samples import ASSISTANT, Sample, write_jsonl
from bridge_edge.errors import UserError
from bridge_edge.generate.engine import generate
from bridge_edge.phases import Context, Metrics, contradicts
from bridge_edge.progress import track
from bridge_edge.recipe import Recipe
from bridge_edge.train.models import load_model, load_tokenizer

CHUNK = 16  # times `batch_rows`: written, or lost with a kill, at once; long enough to keep all slots busy


def annotate(ctx: Context, out: Path) -> Metrics:
    """Let the TA answer the whole pool, batch by batch; finished batches survive a kill.

    The batches are the same however often the stage is interrupted, and so are the figures in them.
    """
    recipe, source = ctx.recipe, str(ctx.folder("apprentice"))
    pool, lines = ctx.samples("data", "pool"), out / "raw.jsonl"
    rows = recipe.annotate.batch_rows
    step = CHUNK * rows
    order = sorted(pool, key=lambda s: len(s.prompt))
    batches = [order[start : start + step] for start in range(0, len(order), step)]
    done = _finished_batches(lines, batches)
    tokenizer, model = load_tokenizer(source), load_model(source, ctx.device)
    ends = frozenset([tokenizer.eos_token_id])
    with track("annotation", len(pool)) as advance, lines.open("a", encoding="utf-8") as file:
        advance(min(len(pool), done * step), "resumed" if done else "")
        for part in batches[done:]:
            ids = prompt_ids(tokenizer, [s.prompt for s in part])
            records = []
            for row in generate(model, ids, recipe.task.max_new_tokens, ends, rows, recipe.ta.precision):
                text = str(tokenizer.decode(row.ids, skip_special_tokens=True))
                known = {"logprob": round(row.logprob, 5), "ended": row.ended, "tokens": len(row.ids)}
                records.append({"id": part[row.index].id, "text": text, **known})
            file.write("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
            file.flush()
            advance(len(part), "")
    return _keep(recipe, pool, {r["id"]: r for r in map(json.loads, _whole_lines(lines))}, out)


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file that end in a newline (a text may hold other characters that break lines)."""
    return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.exists() else []


def _finished_batches(path: Path, batches: list[list[Sample]]) -> int:
    """How many leading batches the file holds in full; what a kill cut off behind them is dropped from it."""
    lines, position, finished = _whole_lines(path), 0, 0
    for batch in batches:
        part = lines[position : position + len(batch)]
        try:
            found = {json.loads(line)["id"] for line in part}
        except ValueError:
            break
        if found != {s.id for s in batch}:
            break
        position, finished = position + len(batch), finished + 1
    if path.exists():
        path.write_text("".join(line + "\n" for line in lines[:position]), encoding="utf-8")
    return finished


@dataclass(frozen=True)
class Annotation:
    """A usable annotation: the sample with the TA's rationale and answer, and how sure the TA was (mean log-prob)."""

    sample: Sample
    logprob: float


def _keep(recipe: Recipe, pool: list[Sample], raw: dict[str, dict[str, Any]], out: Path) -> Metrics:
    """Filter the annotations as the recipe asks, and count what each filter took."""
    spec, usable, dropped = recipe.annotate, [], Counter[str]()
    for sample in pool:
        record = raw[sample.id]
        parsed = parse(record["text"], recipe.task.answers)
        if parsed.answer is None or not record["ended"]:
            dropped["unparsed"] += 1
        elif spec.keep == "answer" and contradicts(parsed.answer, sample.answer):
            dropped["answer_missed"] += 1
        elif spec.arithmetic and first_error(parsed.rationale):
            dropped["false_arithmetic"] += 1
        else:
            told = replace(sample, rationale=parsed.rationale, answer=parsed.answer, provenance=ASSISTANT)
            usable.append(Annotation(told, record["logprob"]))
    if not usable:
        raise UserError(
            "no annotation of the assistant was usable", "raise the budget, or train it longer with ta.epochs"
        )
    kept = surest(usable, spec.surest)
    dropped["unsure"] = len(usable) - len(kept)
    write_jsonl(out / "annotations.jsonl", kept)
    metrics: Metrics = {"kept": len(kept), "pool": len(pool), "tokens": sum(r["tokens"] for r in raw.values())}
    metrics |= {name: dropped[name] for name in ("unparsed", "answer_missed", "false_arithmetic", "unsure")}
    if recipe.task.module and not recipe.data.path and not recipe.data.hub:
        task = load_task(recipe.task.module)
        wrong = sum(not task.check(s, s.rationale or "", s.answer or "").steps for s in kept)
        metrics["right_answer_wrong_steps"] = round(wrong / len(kept), 4)
    return metrics


def surest(annotations: Sequence[Annotation], share: float) -> list[Sample]:
    """The `share` of the annotations with the highest mean log-probability, in their own order.

    Taken within each answer, since a TA may be surer of one answer than of the other, and the student must not learn
    that balance.
    """
    groups: dict[str | None, list[int]] = {}
    for place, one in enumerate(annotations):
        groups.setdefault(one.sample.answer, []).append(place)
    kept: set[int] = set()
    for places in groups.values():
        ranked = sorted(places, key=lambda i: -annotations[i].logprob)
        kept.update(ranked[: max(1, round(share * len(ranked)))])
    return [annotations[i].sample for i in sorted(kept)]
