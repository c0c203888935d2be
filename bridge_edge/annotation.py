"""Annotation: the assistant writes on the whole pool, a vote chooses, and filters decide what the student is shown.

What: the stage `draft` writes one draft of every pool item, k sampled ones (`annotate.samples`) or one of each of k
tellings (`annotate.tellings`, `generate/tellings.py`), by the engine that the recipe names, to raw.jsonl as they come.
The stage `annotate` is the vote and the filters (`generate/drafts.py`, `generate/filters.py`), where a second reader
may have a say (`generate/reader.py`). It leaves decisions.jsonl with what became of each item and why, and
annotations.jsonl for the student.
Why: the assistant is free and often right for wrong reasons, so many drafts and hard filters cost time alone. Two
stages, since writing takes minutes to hours and filtering none: another filter asks for no new drafts.
Not covered: judging what a rationale means.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from bridge_edge.apprenticeship import briefs_of
from bridge_edge.curriculum import DECISIONS
from bridge_edge.data.samples import ASSISTANT, STUDENT, Sample, write_jsonl
from bridge_edge.data.thinking import asked, counter, names
from bridge_edge.errors import UserError
from bridge_edge.generate.drafts import Draft, Wish, vote
from bridge_edge.generate.filters import Entry, Reader, Row, sift, table
from bridge_edge.generate.reader import read
from bridge_edge.generate.tellings import borne_out, telling_of, told_again
from bridge_edge.generate.writers import Setting, make_writer
from bridge_edge.phases import Context, Metrics, checker
from bridge_edge.progress import say, track
from bridge_edge.recipe import Recipe
from bridge_edge.thinking import FILE, budgeted, cut, written
from bridge_edge.train.models import load_tokenizer

CHUNK = 16  # times `batch_rows`: written, or lost with a kill, at once; long enough to keep all slots busy
RAW, ANNOTATIONS = "raw.jsonl", "annotations.jsonl"
LEDGER = "assistant.sqlite"  # calls to an assistant that is served elsewhere


def draft(ctx: Context, out: Path) -> Metrics:
    """Let the assistant write on the whole pool; or the student, in the later turns of its tutoring (turns.py)."""
    drafts = write_drafts(ctx, ctx.samples("data", "pool"), out, "annotation")
    written = [one for some in drafts.values() for one in some]
    return {"drafts": len(written), "tokens": sum(one.tokens for one in written)}


def annotate(ctx: Context, out: Path) -> Metrics:
    """Keep of the drafts what the vote and the filters leave."""
    recipe, spec = ctx.recipe, ctx.recipe.student
    reader = None
    if recipe.annotate.read_again:
        folder, form, tokens = str(ctx.folder("reader")), recipe.tutor.format, spec.micro_tokens
        reader = partial(read, folder, form=form, tokens=tokens, device=ctx.device, precision=spec.precision)
    by = STUDENT if recipe.turns.on else ASSISTANT  # the first of several turns sees a recipe of one
    return keep_best(recipe, ctx.samples("data", "pool"), _by_item(ctx.folder("draft") / RAW), out, reader, by)


def write_drafts(ctx: Context, samples: Sequence[Sample], out: Path, label: str) -> dict[str, list[Draft]]:
    """The assistant's drafts of each item, written to `out` batch by batch; finished batches survive a kill.

    The batches are the same however often the stage is interrupted, and so are the figures in them.
    """
    recipe, spec, raw = ctx.recipe, ctx.recipe.annotate, out / RAW
    telling = telling_of(recipe)
    step = max(1, CHUNK * spec.batch_rows // spec.drafts)
    order = sorted(samples, key=lambda s: len(s.prompt))
    batches = [order[start : start + step] for start in range(0, len(order), step)]
    done = _finished_batches(raw, batches, spec.drafts)
    wish = Wish(recipe.task.max_new_tokens, spec.samples, spec.heat, spec.seed)
    setting = Setting(
        ctx.folder("apprentice"), out, ctx.path / LEDGER, ctx.device, recipe.ta.precision, ctx.concurrency, ctx.convert
    )
    if batches[done:]:
        writer = make_writer(spec, wish, setting)
        with track(label, len(samples) * spec.tellings, 10.0) as advance, raw.open("a", encoding="utf-8") as file:
            advance(min(len(samples), done * step) * spec.tellings, "resumed" if done else "")
            for part in batches[done:]:
                found = told_again(writer, part, telling, advance) if telling else writer.write(part, advance)
                drafts = sorted(found, key=lambda d: (d[0], d[1].sample))  # they end by chance
                lines = (json.dumps(draft.record(part[place].id), ensure_ascii=False) for place, draft in drafts)
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
        writer.close()
    (out / "assistant.gguf").unlink(missing_ok=True)  # what one engine needed on the way
    return _by_item(raw)


def shorten(ctx: Context, out: Path) -> Metrics:
    """Make rationales of set lengths from what was annotated (see `thinking.py`); budgeted.jsonl holds them."""
    kept, drafts = ctx.samples("annotate", "annotations"), _by_item(ctx.folder("draft") / RAW)
    if briefs := briefs_of(ctx):
        made, counts = rewritten(ctx, kept, drafts, briefs, out)
    else:
        made, counts = budgeted(kept, drafts, ctx.recipe, str(ctx.folder("apprentice")), ctx.device)
    if not made:
        longest = max(draft.tokens for some in drafts.values() for draft in some)
        raise UserError(
            f"no rationale fits any of reasoning.budgets={list(ctx.recipe.reasoning.budgets)}",
            f"choose budgets near the length that the assistant writes (its longest draft has {longest} tokens)",
        )
    write_jsonl(out / FILE, made)
    of = len({s.prompt for s in kept} | {s.prompt.rpartition("\n")[0] for s in made})  # the teacher's are not all kept
    say("  " + "; ".join(f"at most {b} tokens: {counts[str(b)]} of {of}" for b in ctx.recipe.reasoning.budgets))
    by_budget = {str(b): counts.pop(str(b)) for b in ctx.recipe.reasoning.budgets}
    return {"made": len(made), **counts, "budgets": by_budget}


def rewritten(
    ctx: Context, kept: Sequence[Sample], drafts: dict[str, list[Draft]], briefs: Sequence[Sample], out: Path
) -> tuple[list[Sample], dict[str, Any]]:
    """As `budgeted`, by an assistant that has learnt from its teacher to write at each budget: the teacher's own
    rationale (`briefs`) where it has answered the item, a draft that fits, or what the assistant writes when it is told
    the budget, if its answer is the same, its sums are true and it keeps to it; else its rationale cut, so that the
    student sees every kind of question at every budget."""
    recipe, folder = ctx.recipe, str(ctx.folder("apprentice"))
    count = counter(load_tokenizer(folder))
    known = {s.prompt: s for s in briefs}
    open_: list[tuple[Sample, Sample, int]] = []
    for sample in kept:
        for budget in recipe.reasoning.budgets:
            named = replace(sample, prompt=asked(sample.prompt, budget), provenance=ASSISTANT)
            if named.prompt in known:
                continue
            if (own := written(sample, drafts.get(sample.id, ()), budget, recipe, count)) is not None:
                known[named.prompt] = replace(named, rationale=own)
            elif 2 * count(sample.rationale or "") >= budget:  # else it has nothing to shorten
                open_.append((replace(named, rationale=None), sample, budget))
    short = write_drafts(ctx, [named for named, _, _ in open_], out, "rationales within budgets")
    left: list[tuple[Sample, Sample, int]] = []
    for named, sample, budget in open_:
        if (text := written(named, short[named.id], budget, recipe, count)) is not None:
            known[named.prompt] = replace(named, rationale=text)
        else:
            left.append((named, sample, budget))
    texts = cut([(sample, budget) for _, sample, budget in left], recipe, folder, ctx.device)
    known |= {n.prompt: replace(n, rationale=t) for (n, _, _), t in zip(left, texts, strict=True) if t is not None}
    made = list(known.values())
    counts = {str(b): sum(names(s.prompt, b) for s in made) for b in recipe.reasoning.budgets}
    by_cut = sum(text is not None for text in texts)
    return made, {**counts, "told": len(open_) - len(left), "asked": len(open_), "cut": by_cut}


def _by_item(path: Path) -> dict[str, list[Draft]]:
    """The drafts in a file, by the item that they belong to."""
    drafts: dict[str, list[Draft]] = {}
    for record in map(json.loads, _whole_lines(path)):
        drafts.setdefault(record["id"], []).append(Draft.of(record))
    return drafts


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file that end in a newline (a text may hold other characters that break lines)."""
    return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.exists() else []


def _finished_batches(path: Path, batches: list[list[Sample]], samples: int = 1) -> int:
    """How many leading batches the file holds in full; what a kill cut off behind them is dropped from it."""
    lines, position, finished = _whole_lines(path), 0, 0
    for batch in batches:
        part = lines[position : position + len(batch) * samples]
        try:
            found = sorted((record["id"], record.get("sample", 0)) for record in map(json.loads, part))
        except ValueError:
            break
        if found != sorted((s.id, k) for s in batch for k in range(samples)):
            break
        position, finished = position + len(part), finished + 1
    if path.exists():
        path.write_text("".join(line + "\n" for line in lines[:position]), encoding="utf-8")
    return finished


def keep_best(
    recipe: Recipe,
    pool: Sequence[Sample],
    drafts: dict[str, list[Draft]],
    out: Path,
    reader: Reader | None = None,
    by: str = ASSISTANT,
) -> Metrics:
    """Vote on each item's drafts, filter what came of it as the recipe asks, and count what each filter took."""
    entries = []
    for sample in pool:
        verdict = vote(drafts[sample.id], recipe.task.answers, sample.answer)
        if recipe.annotate.tellings > 1:
            verdict = borne_out(verdict, len(drafts[sample.id]))
        best = verdict.candidates[0] if verdict.candidates else None
        entries.append(Entry(sample, verdict, len(drafts[sample.id]), best))
    kept, rows = sift(entries, recipe.annotate, _checker(recipe), reader)
    with (out / DECISIONS).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(e.record(), ensure_ascii=False, sort_keys=True) + "\n" for e in entries)
    for line in table(rows).splitlines():
        say(f"  {line}")
    if not kept:
        most, who = max(rows, key=lambda row: row.removed), "student" if by == STUDENT else "assistant"
        raise UserError(
            f"no annotation of the {who} was usable ({most.removed} of {len(pool)} fell to {most.name!r})",
            "raise the budget, train it longer with ta.epochs, or loosen the filters (annotate.*)",
        )
    write_jsonl(out / ANNOTATIONS, [e.annotated(by) for e in kept])
    return _metrics(recipe, entries, kept, rows, sum(d.tokens for some in drafts.values() for d in some))


def _metrics(recipe: Recipe, entries: list[Entry], kept: list[Entry], rows: list[Row], tokens: int) -> Metrics:
    """Figures of the stage: what was kept, what each filter took, how far the drafts agreed."""
    metrics: Metrics = {"kept": len(kept), "pool": len(entries), "tokens": tokens}
    metrics |= {row.name: row.removed for row in rows}
    metrics["filters"] = [asdict(row) for row in rows]
    if recipe.annotate.drafts > 1:
        metrics["drafts"] = sum(e.drafts for e in entries)
        metrics["agreement"] = round(sum(e.verdict.agreement for e in entries) / len(entries), 4)
    if rows[-1].wrong_steps is not None:
        metrics["right_answer_wrong_steps"] = rows[-1].wrong_steps
    return metrics


def _checker(recipe: Recipe) -> Any:
    """Tells whether an entry's steps are wrong, where a domain can; None where nobody can."""
    true, known = checker(recipe), {}
    if true is None:
        return None

    def wrong(entry: Entry) -> bool:
        if entry.best is None:
            return False
        key = (entry.sample.id, entry.chosen.draft.sample)
        if key not in known:
            parsed = entry.chosen.parsed
            known[key] = not true(entry.sample, parsed.rationale, parsed.answer or "")
        return known[key]

    return wrong
