"""Selection in rounds: the budget is spent in parts, and the assistant that is trained in between scores the pool anew.

`expand` turns the stages of a run into those of `select.rounds` rounds. Each round but the last one brings stages of
its own, named after it: score, select, teach, apprentice of the last round keep the plain names, so whatever reads a
finished run finds there what it would find in a run of one round. In round k

    score       the pool is scored by the warmed-up assistant (round 1); later the assistant of round k - 1 explains
                `select.probe` items of it, which shows what it misses (select/explained.py)
    select      items are chosen beside those that the rounds before have asked, up to k/r of the budget, from round 2
                on among what was missed
    teach       only the new ones are sent; the former answers come from the run's own ledger
    apprentice  the assistant is trained from its warm-up on all answers so far, never on from the round before, so
                that its weights depend on what was asked and not on the way there

A round sees the recipe as if k/r of the budget were all of it and there were no rounds (`recipe_of`). Its stages are
then those of a run with that budget, and equal work is shared: a budget of 800 in 4 rounds goes on from one of 400 in
2, and asks for what is new. Every cap is shared out alike, so that the first round cannot spend what is meant for the
last. With `select.round_size` every round but the last asks so many, whatever the budget is: raising it then moves no
round, so that the last one goes on where it stopped and asks what is new, in as many rounds as before (with labels;
without them a larger shortlist may leave out a few of what was asked).

Not covered: rounds that grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bridge_edge.recipe import Recipe
from bridge_edge.run import numbered

if TYPE_CHECKING:
    from bridge_edge.stages import Stage

OFTEN = ("score", "select", "teach", "apprentice")
SCORER, ASKED = "scorer", "asked"
"""What the stages of a later round read beside the usual: the assistant that scores, and the selection so far."""


def expand(stages: Sequence[Stage], rounds: int) -> list[Stage]:
    """The stages of a run with so many rounds, in their order."""
    if rounds == 1 or not any(stage.name in OFTEN for stage in stages):
        return list(stages)
    loop = {stage.name: stage for stage in stages if stage.name in OFTEN}
    found: list[Stage] = []
    for stage in stages:
        if stage.name not in loop:
            found.append(stage)
        elif stage.name == OFTEN[0]:
            found += [_in_round(loop[name], k, rounds) for k in range(1, rounds + 1) for name in OFTEN]
    return found


def name_in(name: str, k: int, rounds: int) -> str:
    """The name of a stage in round k; the last round has the plain names."""
    return numbered(name, k, rounds) if name in OFTEN else name


def _in_round(stage: Stage, k: int, rounds: int) -> Stage:
    """A stage as it is in round k: its name, and which stages it reads in the places of the usual ones."""
    places = {name: name_in(name, k, rounds) for name in stage.needs}
    if k > 1 and stage.name == "score":
        places = {"data": "data", SCORER: name_in("apprentice", k - 1, rounds)}
        stage = replace(stage, reads=(*stage.reads, "select.probe"), version=stage.version + 1)
    elif k > 1 and stage.name == "select":
        places[ASKED] = name_in("select", k - 1, rounds)

    def sees(recipe: Recipe) -> Recipe:
        return recipe_of(stage.sees(recipe), (k, rounds))

    return replace(
        stage,
        name=name_in(stage.name, k, rounds),
        title=f"{stage.title} (round {k} of {rounds})",
        needs=tuple(places.values()),
        kind=stage.name,
        places=tuple(places.items()),
        part=(k, rounds),
        sees=sees,
    )


def size_of_rounds(recipe: Recipe) -> int | None:
    """How many queries each round but the last has; None where the rounds are equal parts of the budget, as they are
    too where the budget is so small that the last one would have none."""
    size, most = recipe.select.round_size, recipe.budget.queries
    if most is None and recipe.data.pool is not None:
        most = max(1, round(recipe.budget.fraction * recipe.data.pool))
    return size if size and (most is None or size * (recipe.select.rounds - 1) < most) else None


def recipe_of(recipe: Recipe, part: tuple[int, int]) -> Recipe:
    """The recipe as round k of r sees it: k/r of every cap, no rounds, and no gate before the last round."""
    k, rounds = part
    spec = recipe.select
    size = size_of_rounds(recipe)
    probe = spec.probe if k > 1 else type(spec).model_fields["probe"].default  # nothing is explained before
    plain = {"rounds": 1, "round_size": None, "probe": probe}
    changes: dict[str, Any] = {"select": spec.model_copy(update=plain)}
    if k < rounds:
        budget, share = recipe.budget, k / rounds
        caps: dict[str, float | None] = {"usd": None if budget.usd is None else budget.usd * share}
        if budget.queries is None:
            caps["fraction"] = budget.fraction * share
        for name in ("queries", "tokens"):
            whole = getattr(budget, name)
            caps[name] = None if whole is None else max(1, round(whole * share))
        if size:
            caps["queries"] = k * size
        changes["budget"] = budget.model_copy(update=caps)
        changes["gate"] = recipe.gate.model_copy(update={"on_fail": "continue"})
    return recipe.model_copy(update=changes)
