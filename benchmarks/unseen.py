"""Does a student read names that no model here has ever been shown?

    python -m bridge_edge.benchmarks.unseen runs/legal-...

The test items of a finished legal run are asked as they are and told with other names of people and firms (`UNSEEN`),
which are in no list of the recipe. A rationale is told back before the domain's checker reads it, so a misread name is
a wrong step. For the student, the assistant and the student of direct distillation: the share of right answers, of
these the share with a wrong step, and the share that cannot be read. Greedy, in torch, float32. Last line: JSON.

Not covered: recipes whose items have no names.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from bridge_edge.benchmarks.rows import answer
from bridge_edge.cli import quiet_environment
from bridge_edge.errors import UserError
from bridge_edge.run import ASSISTANTS

NOBODY = "Nobody"
MODELS = {"student": ("tutor",), "assistant": ASSISTANTS, "direct distillation": ("baseline",)}
UNSEEN: Mapping[str, Sequence[str]] = {
    "people": """
Alexander Alexis Amber Andrea Anthony Arthur Austin Betty Beverly Bobby Bradley Brandon Brittany Bruce Bryan Carl
Carolyn Catherine Cheryl Christina Christine Danielle Denise Dennis Diana Diane Donald Dorothy Eugene Frank Gerald
Gloria Grace Gregory Hannah Harold Heather Helen Jack Jacqueline Janet Janice Jerry Joan Johnny Jose Joyce Judith
Julia Julie Justin Katherine Kayla Keith Kelly Kenneth Kimberly Kyle Larry Lauren Lawrence Lori Margaret Maria Marilyn
Martha Megan Natalie Nathan Patrick Philip Rachel Ralph Randy Raymond Roger Roy Russell Samantha Samuel Sara Scott
Tammy Teresa Terry Theresa Tyler Victoria Vincent Walter Wayne Willie Zachary
""".split(),
    "firms": """
Allwood Bayliner Camberline Dunmore Easterly Fairbanks Gladstone Hartwell Inverness Kingsley Longacre Maxwell Newhall
Oldcastle Pemberton Queensway Rockwell Stanhope Thornton Wexford
""".split(),
}


def told(prompts: Sequence[str], lists: Mapping[str, Sequence[str]], seed: int = 0) -> list[tuple[str, dict[str, str]]]:
    """Each prompt with unseen names in the place of those in `lists`, and how to tell an answer to it back."""
    from bridge_edge.data.swaps import Swaps

    swaps, rng, found = Swaps({name: lists[name] for name in UNSEEN}), random.Random(seed), []
    for prompt in prompts:
        new: dict[str, str] = {}
        for name, words in swaps.found(prompt).items():
            new |= zip(words, rng.sample(UNSEEN[name], len(words)), strict=True)
        misread = dict.fromkeys(new, NOBODY)  # the name as it was can be said by a mistake alone
        found.append((swaps.told(prompt, new), misread | {now: before for before, now in new.items()}))
    return found


def measured(run: Path, items: int) -> list[dict[str, Any]]:
    """A row for each model of the run and each way of telling."""
    from bridge_edge.data.pool import load_task
    from bridge_edge.data.samples import read_jsonl
    from bridge_edge.data.swaps import Swaps
    from bridge_edge.evaluate import score
    from bridge_edge.phases import Context, completions, wrong_steps
    from bridge_edge.recipe_io import load_recipe

    if not (run / "data" / "test.jsonl").is_file() or not (run / "recipe.yaml").is_file():
        raise UserError(f"{run} has no test items", "give the folder of a finished run of recipe=legal")
    recipe = load_recipe([f"recipe={run / 'recipe.yaml'}"])
    lists = load_task(recipe.task.module).alike if recipe.task.module else {}
    if not set(UNSEEN) <= set(lists):
        raise UserError(f"the items of {run} have no names of people and firms", "give a run of recipe=legal")
    samples = list(read_jsonl(run / "data" / "test.jsonl"))[:items]
    other, back = told([s.prompt for s in samples], lists), Swaps({k: (*UNSEEN[k], *lists[k]) for k in UNSEEN})
    context, found = Context(recipe, run), []
    for name, stages in MODELS.items():
        stage = next((s for s in reversed(stages) if (run / s / "config.json").is_file()), None)
        if stage is None:
            continue
        for label, prompts in (("as they are", [s.prompt for s in samples]), ("unseen names", [p for p, _ in other])):
            asked = [type(s)(prompt, s.answer) for s, prompt in zip(samples, prompts, strict=True)]
            texts, _ = completions(context, run / stage, asked, f"{name}, {label}")
            if label != "as they are":
                texts = [back.told(text, before) for text, (_, before) in zip(texts, other, strict=True)]
            scores = score(samples, texts, recipe.task.answers)
            found.append({
                "run": run.name, "model": name, "items": label, "n": scores.n, "right": round(scores.accuracy, 4),
                "of these with a wrong step": wrong_steps(recipe, samples, texts),
                "unreadable": round(scores.parse_failure_rate, 4),
            })  # fmt: skip
    return found


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--items", type=click.IntRange(1), default=600, show_default=True, help="Test items at most.")
def main(runs: tuple[Path, ...], items: int) -> None:
    """Print a table, then one JSON line."""
    answer(lambda: [row for run in runs for row in measured(run, items)])


if __name__ == "__main__":
    quiet_environment()
    main()
