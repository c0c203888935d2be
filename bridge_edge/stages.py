"""The ordered stages: what each reads of the recipe and of the stages before it.

From that comes its key (`stage_key.py`). Equal keys mean equal work, so a finished stage of any run in the same folder
is copied instead of done again (`stage_runner.py`), and a changed value reruns just what depends on it. A method that
is switched on later adds stages of its own (`when`) behind those that are done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bridge_edge import annotation, apprenticeship, phases, refining, selection, turns, tutoring
from bridge_edge.phases import Context, Metrics
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_methods import ReasoningSpec
from bridge_edge.rounds import expand

DRAFTED = tuple(
    f"annotate.{name}"
    for name in (
        "engine",
        "base_url",
        "model",
        "api_key_env",
        "samples",
        "tellings",
        "temperature",
        "seed",
        "batch_rows",
    )
)
FILTERED = ("annotate", "-annotate.reader")
SCORED = ("select.difficulty", "select.samples", "select.embeddings", "select.check")


@dataclass(frozen=True)
class Stage:
    """`reads` names the parts of the recipe that shape the output (less what follows a minus sign), `needs` the stages
    whose output it reads. A higher `version` makes former outputs of this stage stale.

    `also` names a stage that is read too where a part of the recipe is switched on, as (part, what the work calls it,
    stage). A stage is there `when` its recipe says so, and is needed only then. It may see a recipe that differs from
    the run's (`sees`).

    Where selection goes in rounds or tutoring in turns there are several of a `kind` (see `rounds.py`, `turns.py`):
    `places` maps what the work calls a stage to the one that it reads, and `part` says which round of how many this
    is."""

    name: str
    title: str
    work: Callable[[Context, Path], Metrics]
    reads: tuple[str, ...]
    needs: tuple[str, ...] = ()
    version: int = 1
    also: tuple[tuple[str, str, str], ...] = ()
    kind: str = ""
    places: tuple[tuple[str, str], ...] = ()
    part: tuple[int, int] = (1, 1)
    when: Callable[[Recipe], bool] = lambda recipe: True
    sees: Callable[[Recipe], Recipe] = lambda recipe: recipe

    @property
    def found(self) -> dict[str, str]:
        """Which stage's output is meant by each name that the work says, where they differ."""
        pairs = [*self.places, *((place, name) for _, place, name in self.also)]
        return {place: name for place, name in pairs if place != name}


def unreinforced(recipe: Recipe) -> Recipe:
    """The recipe as it would be without `reasoning.rl`."""
    return recipe.model_copy(update={"reasoning": recipe.reasoning.model_copy(update={"rl": False})})


def asking(recipe: Recipe) -> Recipe:
    """The recipe as the teacher is asked by it: of the reasoning, the budgets at which it writes."""
    known = recipe.reasoning
    mine = ReasoningSpec(budgets=known.budgets, compress=known.compress) if known.asked else ReasoningSpec()
    return recipe.model_copy(update={"reasoning": mine})


def compared(recipe: Recipe) -> Recipe:
    """The recipe with direct distillation, whether or not its student is measured too."""
    return recipe.model_copy(update={"baseline": recipe.baseline.model_copy(update={"enabled": True})})


def followed(recipe: Recipe) -> Recipe:
    """The recipe as the apprenticeship sees it: the gate stands behind the last training of the assistant."""
    return refining.ungated(recipe) if recipe.refine.on else recipe


SHORTEN = Stage(
    "shorten",
    "Rationales within budgets",
    annotation.shorten,
    ("reasoning", "-reasoning.rl", "-reasoning.grpo", "task.answers", "ta.precision"),
    ("apprentice", "draft", "annotate"),
    version=3,
)

TUTOR = Stage(
    "tutor",
    "Tutoring of the student",
    tutoring.tutor,
    ("name", "student", "tutor", "kd", "reasoning", "seed", "task", "swap"),
    ("teach", "annotate", "shorten", "align"),
    version=2,
    also=(("kd", "apprentice", "apprentice"),),
)

BASELINE = Stage(
    "baseline",
    "Baseline: direct distillation, same budget",
    phases.baseline,
    ("name", "student", "baseline", "tutor", "-tutor.order", "seed", "task", "swap"),
    ("teach", "align"),
    version=2,
)

STAGES = (
    Stage(
        "data",
        "Pool and held-out splits",
        phases.data,
        ("name", "task", "data", "seed", "ta.model", "student.model", "tutor.format", "shared_tokenizer"),
    ),
    Stage(
        "warmup",
        "Label-only warm-up of the assistant",
        phases.warmup,
        ("ta", "warmup", "seed", "data.labels"),
        ("data",),
    ),
    Stage(
        "score",
        "Difficulty and embeddings of the pool",
        selection.score_stage,
        (*SCORED, "task.answers", "task.max_new_tokens", "data.labels", "seed"),
        ("data", "warmup"),
        version=3,
    ),
    Stage(
        "select",
        "Selection of what to ask",
        selection.select,
        ("select", "budget", "data.labels", "seed"),
        ("data", "score"),
        version=4,
    ),
    Stage(
        "teach",
        "Teacher queries",
        apprenticeship.teach,
        ("teacher", "budget", "task.answers", "data.labels", "seed", "reasoning"),
        ("data", "select"),
        sees=asking,
    ),
    Stage(
        "apprentice",
        "Training of the assistant, and its gate",
        apprenticeship.apprentice,
        ("name", "ta", "gate", "seed", "tutor", "-tutor.order", "task", "swap"),
        ("data", "warmup", "teach"),
        version=2,
        sees=followed,
    ),
    Stage(
        "refine",
        "The assistant learns from what it explains rightly",
        refining.refine,
        ("name", "refine", "ta", "gate", "seed", "tutor", "-tutor.order", "task", "swap", *FILTERED, "data.labels"),
        ("data", "teach", "apprentice"),
        when=lambda recipe: recipe.refine.on,
    ),
    Stage(
        "draft",
        "Drafts of the pool by the assistant",
        annotation.draft,
        (*DRAFTED, "task.max_new_tokens", "ta.precision", "swap"),
        ("data", "apprentice"),
    ),
    Stage(
        "align",
        "Instruction alignment of the student",
        phases.align,
        ("name", "student", "align", "seed", "tutor", "-tutor.order", "task"),
    ),
    replace(
        BASELINE,
        name="reader",
        kind="baseline",
        title="The second reader: the student on the teacher's answers alone",
        when=lambda recipe: recipe.annotate.read_again,
        sees=compared,
    ),
    Stage(
        "annotate",
        "What of them the student is shown",
        annotation.annotate,
        ("annotate", "task", "data.labels"),
        ("data", "draft", "reader"),
        version=2,
    ),
    replace(SHORTEN, when=lambda recipe: bool(recipe.reasoning.budgets) and not recipe.reasoning.asked),
    replace(
        SHORTEN,
        reads=(*SHORTEN.reads, *DRAFTED, "task.max_new_tokens", "swap"),
        needs=("teach", *SHORTEN.needs),
        when=lambda recipe: bool(recipe.reasoning.asked),
    ),
    replace(TUTOR, when=lambda recipe: not recipe.reasoning.rl),
    replace(TUTOR, name="sft", kind="tutor", when=lambda r: r.reasoning.rl and r.reasoning.grpo.sft, sees=unreinforced),
    replace(
        TUTOR,
        title="Reinforcement of the student",
        reads=(*TUTOR.reads, "data.labels"),
        needs=("data", *TUTOR.needs, "sft"),
        when=lambda recipe: recipe.reasoning.rl,
        version=4,
    ),
    BASELINE,
    Stage(
        "evaluate",
        "Accuracy on the test split",
        phases.evaluate,
        ("task", "tutor.format", "reasoning"),
        ("data", "apprentice", "tutor", "baseline"),
        version=2,
    ),
)


def instead(stage: Stage, old: str, new: str) -> Stage:
    """The stage as one that reads `new` wherever its work says `old`."""

    def now(name: str) -> str:
        return new if name == old else name

    places = tuple((name, now(name)) for name in stage.needs) if old in stage.needs else stage.places
    also = tuple((part, place, now(name)) for part, place, name in stage.also)
    return replace(stage, needs=tuple(map(now, stage.needs)), places=places, also=also)


def needed_for(target: str | None, recipe: Recipe) -> list[Stage]:
    """All stages of a recipe, or the ones that `target` rests on (itself included), in their order."""
    there = [stage for stage in STAGES if stage.when(recipe)]
    names = {stage.name for stage in there}
    own = [replace(stage, needs=tuple(name for name in stage.needs if name in names)) for stage in there]
    if "refine" in names:
        behind = [stage.name for stage in own].index("refine") + 1
        own[behind:] = [instead(stage, "apprentice", "refine") for stage in own[behind:]]
        own[behind - 1 : behind] = refining.expand(own[behind - 1], recipe.refine.rounds)
    stages = turns.expand(expand(own, recipe.select.rounds), recipe.turns.count, TUTOR)
    if target is None:
        return stages
    wanted = {target}
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted.update(stage.needs)
    return [stage for stage in stages if stage.name in wanted]
