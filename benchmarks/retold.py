"""What becomes of rationales that are told of other numbers (`swap.numbers`): how many are, and how they read.

    python -m bridge_edge.benchmarks.retold RUN --show 20             the teacher's answers in a run
    python -m bridge_edge.benchmarks.retold gsm8k/train.jsonl --items 2000 --show 28

For each kind of item: how many there are, how many rationales could be read as sums, how many have numbers that may
change, how many were told anew in one pass. `--show` prints some of these beside what they were, to be read by a person
before the option is switched on. A file has the form of GSM8K: `question`, and `answer` with the worked solution, whose
last line is `#### ` and the answer. Last line: JSON.

Not covered: whether what is told anew is right, beyond its arithmetic; that is what the examples are for.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bridge_edge.benchmarks.rows import answer
from bridge_edge.cli import quiet_environment
from bridge_edge.data.numbers import Numbers
from bridge_edge.data.samples import Sample, read_jsonl
from bridge_edge.errors import UserError


def solved(path: Path) -> list[Sample]:
    """The items of a file in the form of GSM8K; its calculator notes (`<<48/2=24>>`) are left out."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            said, _, given = row["answer"].partition("\n#### ")
            found.append(Sample(row["question"], given, re.sub(r"<<.*?>>", "", said)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}:{number} is no item in the form of GSM8K", 'a line is {"question": ..., "answer": ...}'
            ) from error
    return found


def items_of(path: Path) -> tuple[list[Sample], bool]:
    """The items at a path, and whether their answers are free."""
    if path.is_file():
        return solved(path), True
    from bridge_edge.recipe_io import load_recipe

    if not (path / "teach" / "taught.jsonl").is_file():
        raise UserError(f"{path} has no answers of a teacher", "give a run that has asked one, or a file")
    recipe = load_recipe([f"recipe={path / 'recipe.yaml'}"])
    return list(read_jsonl(path / "teach" / "taught.jsonl")), not recipe.task.answers


def told_anew(
    samples: Sequence[Sample], free: bool, seed: int
) -> tuple[list[dict[str, Any]], list[tuple[Sample, ...]]]:
    """The table by kind, and what was told anew beside what it was."""
    teller = Numbers(samples, free)
    pairs = [(s, teller.retold(s, random.Random(f"{seed} {s.id}"))) for s in samples]
    told = {s.id for s, other in pairs if other is not s}
    rows = []
    for kind in (*sorted({s.kind for s in samples if s.kind}), "all"):
        mine = [s for s in samples if kind in (s.kind, "all")]
        sheets = [sheet for s in mine if (sheet := teller.sheet(s)) is not None]
        may = sum(bool(sheet.free) for sheet in sheets)
        rows.append({"kind": kind, "items": len(mine), "read": len(sheets), "may change": may,
                     "told anew": sum(s.id in told for s in mine)})  # fmt: skip
    return rows, [pair for pair in pairs if pair[0].id in told]


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--items", type=click.IntRange(1), default=None, help="the first so many; all by default")
@click.option("--show", type=click.IntRange(0), default=0, help="print so many of what was told anew, drawn at random")
@click.option("--seed", type=int, default=0, show_default=True)
def main(path: Path, items: int | None, show: int, seed: int) -> None:
    """Print a table, then one JSON line."""

    def measured() -> list[dict[str, Any]]:
        samples, free = items_of(path)
        rows, told = told_anew(samples[:items], free, seed)
        for pair in random.Random(seed).sample(told, min(show, len(told))):
            click.echo(
                "\n\n  now:\n".join(f"{s.prompt}\n{s.rationale}\nAnswer: {s.answer}" for s in pair) + "\n" + "-" * 80
            )
        return rows

    answer(measured)


if __name__ == "__main__":
    quiet_environment()
    main()
