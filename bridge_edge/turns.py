"""Tutoring in turns: the tutored student writes on the pool itself, and learns on from what of that is right.

`expand` turns the stages of a run into those of `turns.count` turns. Each turn but the last one brings stages of its
own, named after it; draft, annotate and tutor of the last turn keep the plain names, so whatever reads a finished run
finds there what it would find in a run of one turn. In turn k

    draft       the pool is explained: by the assistant in turn 1, later by the student of turn k - 1
    annotate    the filters of the recipe decide what is kept; later at least `turns.surest` of what is right
    tutor       the student learns that, and the teacher's own rationales: from the aligned base in turn 1, later on
                from turn k - 1, for `turns.epochs` at `turns.share` of the learning rate

Why: of the items that the assistant gets wrong the student is shown nothing, yet gets many of them right, and the
labels (or a vote) tell which. So it sees more of the pool the second time, in rationales that are more often true
(expert iteration; Singh et al., arXiv 2312.06585, who begin anew from the base each time). The teacher is not asked,
and the assistant, the larger model, is not trained again (that is `refine.items`).

The turns before the last one see a recipe without the methods that shape the final student (budgets of reasoning, RL,
mixed labels), so they are the same stages with and without those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bridge_edge.recipe import Recipe
from bridge_edge.recipe_methods import KdSpec, ReasoningSpec
from bridge_edge.run import numbered

if TYPE_CHECKING:
    from bridge_edge.stages import Stage

OFTEN = ("draft", "annotate", "tutor")
FOLLOWED = ("sft", "tutor")  # the supervised student of the last turn; the first that is there, if RL stands behind it


def expand(stages: Sequence[Stage], turns: int, student: Stage) -> list[Stage]:
    """The stages of a run with so many turns, in their order; `student` is the tutoring of a turn before the last."""
    there = {stage.name for stage in stages}
    if turns == 1 or not {"draft", "annotate"} <= there:
        return list(stages)
    plain = replace(student, needs=tuple(name for name in student.needs if name != "shorten"))
    last = next(name for name in FOLLOWED if name in there)
    draft = next(stage for stage in stages if stage.name == "draft")
    found: list[Stage] = []
    for stage in stages:
        if stage.name == "draft":
            found.append(_in_turn(stage, 1, turns))
        elif stage.name == "annotate":
            found += [_in_turn(stage, 1, turns), _in_turn(plain, 1, turns)]
            for k in range(2, turns + 1):
                found += [_in_turn(draft, k, turns), _in_turn(stage, k, turns)]
                found += [_in_turn(plain, k, turns)] if k < turns else []
        else:
            found.append(_in_turn(stage, turns, turns) if stage.name == last else stage)
    return found


def name_in(name: str, k: int, turns: int) -> str:
    """The name of a stage in turn k; the last turn has the plain names."""
    return numbered(name, k, turns) if name in OFTEN else name


def _in_turn(stage: Stage, k: int, turns: int) -> Stage:
    """A stage as it is in turn k: its name, what it reads in the places of the usual ones, the recipe that it sees."""
    places = dict(stage.places) or {name: name for name in stage.needs}
    places |= {name: name_in(name, k, turns) for name in ("draft", "annotate") if name in places}
    title = f"{stage.title} (turn {k} of {turns})"
    kind = stage.kind or stage.name
    if k > 1 and kind in ("draft", "tutor"):
        places["apprentice" if kind == "draft" else "align"] = name_in("tutor", k - 1, turns)
        title = title.replace("by the assistant", "by the student")

    def sees(recipe: Recipe) -> Recipe:
        return recipe_of(stage.sees(recipe), kind, k, turns)

    needs = tuple(places.values())
    name = name_in(stage.name, k, turns)
    return replace(stage, name=name, title=title, kind=kind, needs=needs, places=tuple(places.items()), sees=sees)


def recipe_of(recipe: Recipe, kind: str, k: int, turns: int) -> Recipe:
    """The recipe as a stage of this kind sees it in turn k: who writes, how much is kept, how long is learnt."""
    spec = recipe.turns
    changes: dict[str, Any] = {"turns": spec.model_copy(update={"count": k})}
    if kind == "tutor" and k < turns:
        changes |= {"kd": KdSpec(), "reasoning": ReasoningSpec()}
    if k > 1:
        annotate, student = recipe.annotate, recipe.student
        if kind == "draft":
            changes["ta"] = student
        elif kind == "annotate":
            changes["annotate"] = annotate.model_copy(update={"surest": max(annotate.surest, spec.surest)})
        elif kind == "tutor":
            update = {"epochs": spec.epochs, "lr": spec.share * student.lr}
            changes["student"] = student.model_copy(update=update)
    return recipe.model_copy(update=changes)
