"""A task that tiny random models learn in seconds: is it red? With recorded answers, so that a whole run is cheap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bridge_edge.distill import distill
from bridge_edge.run import Run
from tests import tiny

ANIMALS = [
    f"{colour} {animal} {verb}"
    for colour in ("red", "blue")
    for animal in ("cat", "dog", "hen", "cow", "pig")
    for verb in ("sits", "runs", "eats", "naps", "sings", "hops")
]
WORDS = (
    "ta.lr=1e-2 ta.epochs=6 ta.batch_tokens=512 ta.micro_tokens=512 annotate.keep=all student.lr=1e-2 student.epochs=2"
    " student.batch_tokens=512 student.micro_tokens=512 align.enabled=false baseline.epochs=1 baseline.rehearsal=0"
    " student.rehearsal=0 ta.rehearsal=0 warmup.epochs=1"
).split()

RIGHT = ("annotate.keep=answer", "budget.queries=8")  # for runs that learn from their own right answers


def go(recipe: Path, runs: Path, *words: str, target: str | None = None) -> tuple[dict[str, Any], Run]:
    """What `distill` says of a run of this recipe in `runs`, and the run."""
    done = distill([f"recipe={recipe}", *WORDS, *words], runs, target=target)
    return done, Run(Path(done["run"]))


def write(folder: Path) -> Path:
    """Models, data, recorded answers and a recipe in `folder`; returns the recipe."""
    tokenizer = tiny.tokenizer()
    tiny.checkpoint(folder / "ta", "qwen2", hidden=96, tok=tokenizer)
    tiny.checkpoint(folder / "student", "llama", tok=tokenizer)
    answers = {text: "yes" if text.startswith("red") else "no" for text in ANIMALS}
    recorded = [{"prompt": t, "rationale": f"It is {t.split()[0]}.", "answer": a} for t, a in answers.items()]
    pool = [{"text": t, "answer": a} for t, a in answers.items()]
    for name, rows in (("pool", pool), ("answers", recorded)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "colours.yaml"
    path.write_text(
        "task: {prompt: '{text}', answers: ['yes', 'no'], max_new_tokens: 20}\n"
        "data: {path: pool.jsonl, dev: 4, test: 8, pool: null}\n"
        "teacher: {kind: replay, path: answers.jsonl, price: {prompt: 1000, completion: 1000}}\n"
        "budget: {fraction: 0.5, usd: null}\nta: {model: ./ta}\nstudent: {model: ./student}\n"
    )
    return path
