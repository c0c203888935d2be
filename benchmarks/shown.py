"""Which kinds of items does the student of a finished run get to see, and how true is what it sees of each?

    python -m bridge_edge.benchmarks.shown RUN

For each kind of a shipped domain: items of the pool; the share that the assistant explained rightly (what the filters
before `annotate.surest` leave); of these the share with a wrong step, by the domain's checker; the same of the surest
`annotate.surest` of that kind and answer alone, by the assistant's mean log-probability; the share of the kind that the
student was shown, and of it the share with a wrong step. Last line: JSON.

Not covered: users' own pools, which no checker knows; engines that report no log-probability.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bridge_edge.benchmarks.rows import answer
from bridge_edge.cli import quiet_environment
from bridge_edge.errors import UserError


@dataclass(frozen=True)
class Right:
    """An item that was explained rightly: its kind, the answer, how sure the assistant was, whether all steps are true,
    and whether the student is shown it."""

    kind: str
    answer: str
    logprob: float
    true: bool
    shown: bool


def surest(items: Sequence[Right], share: float) -> list[Right]:
    """The surest share of the items of each kind and answer."""
    groups: dict[tuple[str, str], list[Right]] = defaultdict(list)
    for item in items:
        groups[item.kind, item.answer].append(item)
    ranked = (sorted(group, key=lambda r: -r.logprob) for group in groups.values())
    return [item for group in ranked for item in group[: max(1, round(share * len(group)))]]


def wrong(items: Sequence[Right]) -> float | None:
    return round(sum(not r.true for r in items) / len(items), 4) if items else None


def table(items: Sequence[Right], pool: dict[str, int], share: float) -> list[dict[str, Any]]:
    """A row for each kind of the pool (items by kind), and one for all."""
    found = []
    for kind in (*sorted(pool), "all"):
        mine = [r for r in items if kind in (r.kind, "all")]
        seen, count = [r for r in mine if r.shown], sum(pool.values()) if kind == "all" else pool[kind]
        found.append({
            "kind": kind, "pool": count, "right": round(len(mine) / count, 4), "wrong step": wrong(mine),
            "surest of the kind, wrong step": wrong(surest(mine, share)),
            "shown": round(len(seen) / count, 4), "shown, wrong step": wrong(seen),
        })  # fmt: skip
    return found


def measured(run: Path) -> list[dict[str, Any]]:
    """The table of a run; UserError where it has no annotations, or where no checker knows its items."""
    from collections import Counter

    from bridge_edge.annotation import RAW
    from bridge_edge.curriculum import DECISIONS
    from bridge_edge.data.card import parse
    from bridge_edge.data.samples import read_jsonl
    from bridge_edge.generate.drafts import Draft
    from bridge_edge.generate.filters import FILTERS
    from bridge_edge.phases import checker
    from bridge_edge.recipe_io import load_recipe

    if not (run / "annotate" / DECISIONS).is_file() or not (run / "recipe.yaml").is_file():
        raise UserError(f"{run} has no annotations", "give the folder of a run that `bridge-edge distill` made")
    recipe = load_recipe([f"recipe={run / 'recipe.yaml'}"])
    true = checker(recipe)
    if true is None:
        raise UserError(f"no checker knows the items of {run}", "give a run of a shipped domain")
    pool = {s.id: s for s in read_jsonl(run / "data" / "pool.jsonl")}
    records = [json.loads(line) for line in (run / "draft" / RAW).open(encoding="utf-8")]
    drafts = {(record["id"], draft.sample): draft for record in records if (draft := Draft.of(record))}
    names = [name for name, _ in FILTERS]
    later, found = {"", *names[names.index("unsure") :]}, []
    for line in (run / "annotate" / DECISIONS).open(encoding="utf-8"):
        row = json.loads(line)
        if row.get("dropped_by", "") not in later:
            continue
        if row["logprob"] is None:
            raise UserError(f"the drafts of {run} have no log-probabilities", "give a run of another annotate.engine")
        sample, said = pool[row["id"]], parse(drafts[row["id"], row["sample"]].text, recipe.task.answers)
        steps = true(sample, said.rationale, said.answer or "")
        found.append(Right(sample.kind, said.answer or "", row["logprob"], steps, row["kept"]))
    return table(found, dict(Counter(s.kind for s in pool.values())), recipe.annotate.surest)


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(run: Path) -> None:
    """Print a table, then one JSON line."""
    answer(lambda: measured(run))


if __name__ == "__main__":
    quiet_environment()
    main()
