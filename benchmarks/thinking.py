"""Accuracy and latency of a student against its budget of reasoning (`bridge-edge bench --think 16,32,64`).

Every item is answered one by one, as a user would ask it, with the bound enforced (`runtimes/think.py`); `closed` is
the share of answers that would have gone beyond it. A student that has learnt no budgets is asked without the control
signal, so that its figures are those of plain truncation. Not covered: batches; repetitions, so that the times of a
short run say little.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge_edge.benchmarks.latency import summary
from bridge_edge.data.card import Card
from bridge_edge.data.samples import Sample
from bridge_edge.data.thinking import asked, budgets_of
from bridge_edge.evaluate import score, spearman
from bridge_edge.plain import grid
from bridge_edge.progress import track
from bridge_edge.runtimes.base import Runtime
from bridge_edge.runtimes.load import load_runtime
from bridge_edge.runtimes.think import Thinking


def sweep(path: Path, samples: Sequence[Sample], budgets: Sequence[int], threads: int | None) -> dict[str, Any]:
    """The figures of one artifact at each budget."""
    runtime = load_runtime(path, threads)
    try:
        learnt = bool(budgets_of(runtime.card))
        rows, pairs = [], []
        with track(f"budgets of {path.name}", len(budgets) * len(samples)) as advance:
            for budget in budgets:
                told = [asked(s.prompt, budget) if learnt else s.prompt for s in samples]
                texts, thinking, seconds = [], [], []
                for prompt in told:
                    text, one, took = answer(runtime, prompt, budget)
                    texts.append(text)
                    thinking.append(one)
                    seconds.append(took)
                    advance(1, f"{budget} tokens")
                rows.append(row(samples, texts, thinking, seconds, runtime.card or Card(recipe="")))
                pairs += [(budget, one.tokens) for one in thinking]
    finally:
        runtime.close()
    rank = spearman([b for b, _ in pairs], [n for _, n in pairs])
    return {"artifact": str(path), "signal": learnt, "spearman": rank, "budgets": rows}


def answer(runtime: Runtime, prompt: str, budget: int) -> tuple[str, Thinking, float]:
    """One answer, how it was thought, and the seconds that it took."""
    start, thinking = time.perf_counter(), Thinking(runtime, budget)
    ids = list(thinking.stream(runtime.chat(prompt)))
    return runtime.decode(ids), thinking, time.perf_counter() - start


def row(
    samples: Sequence[Sample], texts: Sequence[str], thinking: Sequence[Thinking], seconds: list[float], card: Card
) -> dict[str, Any]:
    """The figures of one budget."""
    scores, n = score(samples, texts, card.answers), len(samples)
    return {
        "budget": thinking[0].budget,
        "n": n,
        "accuracy": scores.accuracy,
        "ci95": list(scores.ci95),
        "unreadable": scores.parse_failure_rate,
        "thought": sum(t.tokens for t in thinking) / n,
        "closed": sum(t.closed for t in thinking) / n,
        "answer_s": summary(seconds),
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """The figures for people."""
    header, lines = parts(found)
    return grid(header, lines, right=range(1, len(header)))


def parts(found: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and rows: one row an artifact and budget."""
    lines = []
    for one in found:
        name = Path(one["artifact"]).name + ("" if one["signal"] else " (no signal)")
        for r in one["budgets"]:
            low, high = r["ci95"]
            shares = f"{r['accuracy']:.1%}", f"{low:.1%} to {high:.1%}", f"{r['thought']:.1f}", f"{r['closed']:.1%}"
            lines.append([name, str(r["budget"]), *shares, f"{1000 * r['answer_s']['p50']:.0f}"])
    header = ("artifact", "budget", "accuracy", "95 % interval", "thought", "closed", "answer ms")
    return header, lines
