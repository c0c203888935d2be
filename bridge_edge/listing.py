"""`bridge-edge recipes` and `bridge-edge init`: what is shipped, and a start for a task of one's own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bridge_edge.errors import UserError
from bridge_edge.plain import grid
from bridge_edge.prices import Price
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_io import load_recipe, recipe_names, scale_names


def expected_cost(recipe: Recipe, queries: int) -> float:
    """Dollars for `queries` calls at the recipe's prices: twenty items as the expert answers them, four characters a
    token."""
    from bridge_edge.data.pool import load_task, make_card
    from bridge_edge.teacher.base import Request
    from bridge_edge.teacher.expert import ExpertTeacher
    from bridge_edge.teacher.prompt import build_prompt

    task, spec = load_task(recipe.task.module or ""), recipe.teacher
    samples = task.generate(20, 0)
    teacher = ExpertTeacher(task, {s.id: s for s in samples}, Price(spec.price.prompt, spec.price.completion))
    prompts = [(s.id, build_prompt(make_card(recipe), s, spec.style)) for s in samples]
    replies = [teacher.ask(Request.of(item, messages, spec.max_tokens)) for item, messages in prompts]
    nano = sum(teacher.price.nano(r.prompt_tokens or 0, r.completion_tokens or 0) for r in replies) / len(replies)
    return round(queries * nano / 1e9, 2)


def recipe_rows() -> list[dict[str, Any]]:
    """One row a recipe and scale: sizes, expected time and the most that its budget can cost."""
    rows = []
    for name in recipe_names():
        for scale in scale_names():
            recipe = load_recipe([f"recipe={name}", f"scale={scale}"])
            queries = recipe.budget.queries or round(recipe.budget.fraction * (recipe.data.pool or 0))
            rows.append(
                {
                    "recipe": name,
                    "scale": scale,
                    "ta": recipe.ta.model,
                    "student": recipe.student.model,
                    "pool": recipe.data.pool,
                    "queries": queries,
                    "usd_cap": recipe.budget.usd,
                    "usd_expected": expected_cost(recipe, queries),
                    "expected": recipe.expected or "not measured",
                    "description": recipe.description,
                }
            )
    return rows


def recipe_table(rows: list[dict[str, Any]]) -> str:
    header = ("recipe", "scale", "assistant", "student", "pool", "queries", "cost $", "cap $", "time")
    cells = [
        [
            r["recipe"],
            r["scale"],
            r["ta"],
            r["student"],
            str(r["pool"]),
            str(r["queries"]),
            f"{r['usd_expected']:.2f}",
            str(r["usd_cap"]),
            r["expected"],
        ]
        for r in rows
    ]
    notes = [
        f"{name}: {next(r['description'] for r in rows if r['recipe'] == name)}"
        for name in dict.fromkeys(r["recipe"] for r in rows)
    ]
    return grid(header, cells) + "\n\n" + "\n".join(notes)


TEMPLATE = """\
# A task of your own. Run it with:  bridge-edge distill recipe={name}.yaml
# Every key and its default: bridge-edge recipes show legal
name: {name}
description: Is a support message a complaint?

task:
  # The user message, a template over the names of data.columns.
  prompt: "Message: {{text}} Is this a complaint?"
  # The choices; leave out for free-form answers.
  answers: ["Yes", "No"]
  max_new_tokens: 96

data:
  path: {name}.jsonl            # JSONL, CSV or TSV, relative to this file; or a hub dataset:
  # hub: owner/name             # read with the datasets library (split: train)
  columns: {{text: message, answer: label}}   # name in the prompt -> column in the file
  labels: gold                  # none: the pool has no answers (then select.difficulty: entropy)
  pool: null                    # all that is left after dev and test
  dev: 20
  test: 30

# Who writes the rationales. `replay` reads recorded or human-written ones; for an API:
#   teacher: {{kind: openai, model: NAME, api_key_env: OPENAI_API_KEY, price: {{prompt: 2.5, completion: 10}}}}
teacher:
  kind: replay
  path: {name}.answers.jsonl
  price: {{prompt: 0, completion: 0}}

budget:
  fraction: 0.2                 # share of the pool; or queries: 40
  usd: 1.00                     # a hard cap: the worst case of each call is reserved first

# Words of which any may stand in the place of any other without a change to the answer: the models see them swapped.
#   swap: {{enabled: true, words: {{items: [lamp, chair, kettle, desk, radio]}}}}
# Where rationales reckon with the numbers of the question, other numbers too, each sum worked out anew:
#   swap: {{numbers: true}}

# Sizes and models come from the scale: embedded (default), edge or server.
scale: embedded
"""

GOOD = (
    "arrived early and works well",
    "was easy to set up",
    "looks just like the picture",
    "made my week",
    "is the best I had",
    "runs without a sound",
    "came with a kind note",
    "does what it says",
)
BAD = (
    "arrived broken",
    "stopped after two days",
    "was never delivered",
    "has the wrong color",
    "makes a loud noise",
    "cannot be opened",
    "was charged twice",
    "came without a plug",
)
ITEMS = (
    "lamp",
    "chair",
    "kettle",
    "phone case",
    "desk",
    "radio",
    "clock",
    "heater",
    "printer",
    "bag",
    "table",
    "camera",
    "fan",
    "watch",
    "keyboard",
)


def write_template(name: str) -> list[Path]:
    """Write `<name>.yaml`, a data file of 240 messages and recorded answers for them; never overwrites."""
    stem = name.removesuffix(".yaml")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", stem):
        raise UserError(f"{name!r} is no name for a task", "use letters, digits, '-' and '_', e.g. my-task")
    files = [Path(f"{stem}.yaml"), Path(f"{stem}.jsonl"), Path(f"{stem}.answers.jsonl")]
    for file in files:
        if file.exists():
            raise UserError(f"{file} exists already", "choose another name, or remove it")
    files[0].write_text(TEMPLATE.format(name=stem), encoding="utf-8")
    rows, answers = [], []
    for item in ITEMS:
        for kind, phrases in (("No", GOOD), ("Yes", BAD)):
            for phrase in phrases:
                message = f"The {item} {phrase}."
                rows.append({"message": message, "label": kind})
                why = f"The {item} {phrase}: that is {'a problem' if kind == 'Yes' else 'praise'}."
                answers.append({"prompt": f"Message: {message} Is this a complaint?", "rationale": why, "answer": kind})
    for file, content in ((files[1], rows), (files[2], answers)):
        file.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return files
