"""Arms, claims and experiments: the words in which a comparison is said.

An arm is a set of overrides of the recipe and the model of that run that counts: the student, the assistant (`ta`), or
the student of direct distillation (`baseline`). Arms that need the same stages share them, since stages are found by
their content.

Direct distillation with more answers gets no fewer passes over them than the tutored student has over the pool:
`baseline.epochs` falls with the share of the pool, down to `student.epochs`, and from half the pool on it rehearses as
the student does. It takes its items at random there, as plain distillation would. It starts from the aligned student,
as the tutored one does; `unaided` starts from the base model.

Not covered: tuning each arm on its own; all arms share the recipe's other values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bridge_edge.errors import unknown
from bridge_edge.recipe import Recipe

TARGETS = {"student": "tutor", "ta": "apprentice", "baseline": "baseline"}
CHANCE = ("select.strategy=random", "select.rounds=1")


@dataclass(frozen=True)
class Arm:
    """One row of a table. `share` is the part of the pool that is asked, for figures; `think` are budgets of reasoning
    that it is measured at besides."""

    name: str
    words: tuple[str, ...] = ()
    who: str = "student"
    share: float | None = None
    think: tuple[int, ...] = ()


@dataclass(frozen=True)
class Claim:
    """`a` is better than `b`: by more than 0 points, by at least 0 points (`equal`), or by a `gain` relative to b.

    `of` is what is compared: right answers ("correct") or answers that can be read ("parsed").
    """

    text: str
    a: str
    b: str
    equal: bool = False
    gain: float | None = None
    of: str = "correct"


@dataclass(frozen=True)
class Experiment:
    """A question, its arms and claims."""

    name: str
    question: str
    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...]


def percent(share: float) -> str:
    return f"{100 * share:g} %"


def share_of(recipe: Recipe) -> float:
    """The part of the pool that the recipe itself asks."""
    if recipe.budget.queries and recipe.data.pool:
        return recipe.budget.queries / recipe.data.pool
    return recipe.budget.fraction


def asking(recipe: Recipe, share: float) -> tuple[str, ...]:
    """Overrides that ask a share of the pool; caps in dollars and tokens grow with it, and never go."""
    own = share_of(recipe)
    if recipe.budget.queries is None and share == recipe.budget.fraction:
        return ()
    words = [f"budget.fraction={share}", "budget.queries=null"]
    if share > own:
        for name in ("usd", "tokens"):
            cap = getattr(recipe.budget, name)
            words += [] if cap is None else [f"budget.{name}={round(cap * share / own, 2 if name == 'usd' else None)}"]
    return tuple(words)


def direct(recipe: Recipe, share: float) -> Arm:
    """Direct distillation on a share of the pool."""
    words = list(asking(recipe, share))
    epochs = max(recipe.student.epochs, min(recipe.baseline.epochs, recipe.student.epochs / share))
    if epochs != recipe.baseline.epochs:
        words.append(f"baseline.epochs={epochs:g}")
    if share >= 0.5:
        words += [*CHANCE, f"baseline.rehearsal={recipe.student.rehearsal:g}"]
    if not recipe.baseline.enabled:
        words.append("baseline.enabled=true")
    return Arm(f"direct, {percent(share)}", tuple(words), "baseline", share)


def unaided(recipe: Recipe, share: float) -> Arm:
    """Direct distillation of the base model, without the instruction alignment that BRIDGE gives its student."""
    words = (*direct(recipe, share).words, "align.enabled=false")
    return Arm(f"direct, {percent(share)}, base model", words, "baseline", share)


def bridge(recipe: Recipe, share: float) -> Arm:
    return Arm(f"BRIDGE, {percent(share)}", asking(recipe, share), "student", share)


def narrowed(experiments: Sequence[Experiment], names: Sequence[str]) -> list[Experiment]:
    """The experiments with these arms alone and the claims that are about them; all of them where none is named."""
    if not names:
        return list(experiments)
    known = list(dict.fromkeys(arm.name for experiment in experiments for arm in experiment.arms))
    for name in names:
        if name not in known:
            raise unknown("arm", name, known)
    found = []
    for experiment in experiments:
        arms = tuple(arm for arm in experiment.arms if arm.name in names)
        claims = tuple(claim for claim in experiment.claims if {claim.a, claim.b} <= set(names))
        found += [replace(experiment, arms=arms, claims=claims)] if arms else []
    return found
