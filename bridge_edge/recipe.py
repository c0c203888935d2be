"""The typed recipe: everything that decides what a run produces, and nothing else.

Frozen pydantic models (recipe_task.py, recipe_models.py, recipe_methods.py); unknown keys are errors, all errors are
reported at once. Device, threads, workers and concurrency are command-line options, so they never enter a stage's key.
Secrets appear in recipes only as the names of environment variables.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from bridge_edge.recipe_methods import KdSpec, ReasoningSpec
from bridge_edge.recipe_models import (
    AlignSpec,
    AnnotateSpec,
    BaselineSpec,
    GateSpec,
    ModelSpec,
    RefineSpec,
    SelectSpec,
    SwapSpec,
    TurnsSpec,
    TutorSpec,
    WarmupSpec,
)
from bridge_edge.recipe_task import BudgetSpec, DataSpec, Spec, TaskSpec, TeacherSpec

LINE_TOKENS = 16  # of what names a budget in a reply, as plain text or in JSON


class Recipe(Spec):
    """A whole run. `scale` is the name of the overlay that gave it models and sizes."""

    name: str
    description: str = ""
    scale: str = "embedded"
    seed: int = 0
    expected: str = Field("", description="time as measured, for the listing")
    shared_tokenizer: bool = Field(True, description="TA and student must read text alike; false shares texts only")
    task: TaskSpec
    data: DataSpec = DataSpec()
    teacher: TeacherSpec = TeacherSpec()
    budget: BudgetSpec = BudgetSpec()
    ta: ModelSpec
    student: ModelSpec
    warmup: WarmupSpec = WarmupSpec()
    select: SelectSpec = SelectSpec()
    gate: GateSpec = GateSpec()
    swap: SwapSpec = SwapSpec()
    refine: RefineSpec = RefineSpec()
    annotate: AnnotateSpec = AnnotateSpec()
    align: AlignSpec = AlignSpec()
    tutor: TutorSpec = TutorSpec()
    turns: TurnsSpec = TurnsSpec()
    kd: KdSpec = KdSpec()
    reasoning: ReasoningSpec = ReasoningSpec()
    baseline: BaselineSpec = BaselineSpec()

    @property
    def generated(self) -> bool:
        """Whether the items come from a shipped domain's generator, which knows their facts."""
        return bool(self.task.module) and not self.data.path and not self.data.hub

    @property
    def reply_tokens(self) -> int:
        """The most tokens of a teacher's reply: `teacher.max_tokens`, and a line for each budget it is asked for."""
        return self.teacher.max_tokens + sum(b + LINE_TOKENS for b in self.reasoning.asked)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.task.module is None and self.data.path is None and self.data.hub is None:
            raise ValueError("a recipe without task.module needs data.path or data.hub")
        if self.teacher.kind == "expert" and (self.task.module is None or self.data.path or self.data.hub):
            raise ValueError(
                "teacher=expert answers generated items of a shipped domain only; for your own data set "
                "teacher=openai (with teacher.base_url, teacher.model, teacher.price) or teacher=replay (teacher.path)"
            )
        if self.data.skew and not self.generated:
            raise ValueError(
                f"data.skew={self.data.skew:g} draws the kinds of a shipped domain's items, and your own pool is as it "
                "is; leave it out"
            )
        if self.teacher.kind == "replay" and not self.teacher.path:
            raise ValueError("teacher=replay needs teacher.path, a JSONL of recorded rationales")
        if self.teacher.kind == "local" and self.teacher.model == "expert":
            raise ValueError("teacher=local needs teacher.model, a folder, a hub id or a .gguf file")
        if self.teacher.kind == "local" and self.teacher.samples > 1:
            raise ValueError("teacher=local decodes greedily, so its samples would all be equal; set teacher.samples=1")
        if self.annotate.samples > 1 and self.annotate.heat == 0:
            raise ValueError(
                f"annotate.samples={self.annotate.samples} at temperature 0 would all be equal; "
                "set annotate.temperature=0.7 or annotate.samples=1"
            )
        if self.annotate.steps and not self.generated:
            raise ValueError(
                "annotate.steps=true needs a domain whose checker knows each item's facts, which only the generated "
                "items of a shipped recipe have; leave it out"
            )
        if self.annotate.engine == "openai" and not (self.annotate.base_url and self.annotate.model):
            raise ValueError(
                "annotate.engine=openai needs annotate.base_url and annotate.model, where the assistant is served"
            )
        if self.data.pool is not None and self.budget.queries is not None and self.budget.queries > self.data.pool:
            raise ValueError(f"budget.queries={self.budget.queries} is above the pool of {self.data.pool}")
        if self.budget.queries is not None and self.select.rounds > self.budget.queries:
            raise ValueError(
                f"select.rounds={self.select.rounds} is above budget.queries={self.budget.queries}: "
                "each round asks at least one item"
            )
        if self.data.labels == "none" and self.select.difficulty in ("loss", "pass-rate"):
            raise ValueError(
                f"select.difficulty={self.select.difficulty} needs labels; with data.labels=none set "
                "select.difficulty=entropy (or token-entropy, margin, disagreement)"
            )
        return self

    @model_validator(mode="after")
    def _methods_fit(self) -> Recipe:
        if self.kd.on and not self.shared_tokenizer:
            raise ValueError(f"kd.mix={self.kd.mix} compares distributions over tokens; set shared_tokenizer=true")
        if self.kd.on and self.tutor.format == "multitask":
            raise ValueError(
                f"kd.mix={self.kd.mix} needs tutor.format=rationale_answer: the assistant has not learnt multitask's "
                "two tasks, so its distribution there teaches nothing"
            )
        own = {
            f"refine.items={self.refine.items} trains the assistant": self.refine.on,
            f"turns.count={self.turns.count} lets the student write": self.turns.on,
        }
        for what in (words for words, on in own.items() if on):
            value = what.partition(" ")[0]
            if self.data.labels == "none" and self.annotate.samples == 1:
                raise ValueError(
                    f"{value} needs labels, or drafts that can be put to a vote: with "
                    "data.labels=none set annotate.samples=5 or leave it out"
                )
            if self.annotate.engine == "openai":
                raise ValueError(
                    f"{what} here, and annotate.engine=openai asks an assistant that is served elsewhere; choose "
                    "another engine or leave it out"
                )
        if self.annotate.tellings > 1:
            told = f"annotate.tellings={self.annotate.tellings}"
            if not self.swap.enabled:
                raise ValueError(
                    f"{told} tells items with other words of the lists of swap.words; set swap.enabled=true"
                )
            if self.annotate.samples > 1:
                raise ValueError(f"{told} and annotate.samples={self.annotate.samples}: set one of them to 1")
        if self.turns.on and self.tutor.format == "multitask":
            raise ValueError(
                f"turns.count={self.turns.count} needs tutor.format=rationale_answer: a student of multitask writes no "
                "rationale before its answer, from which it could learn"
            )
        if self.turns.on and self.reasoning.rl and not self.reasoning.grpo.sft:
            raise ValueError(
                f"turns.count={self.turns.count} is of the tutoring, which reasoning.grpo.sft=false leaves out; leave "
                "one of them out"
            )
        if self.reasoning.budgets and (self.kd.on or self.tutor.format == "multitask"):
            raise ValueError(
                "reasoning.budgets needs kd.mix=none and tutor.format=rationale_answer: the assistant has not learnt "
                "prompts that name a budget, and a student of multitask does not think before it answers"
            )
        if self.reasoning.compress == "teacher" and not self.reasoning.budgets:
            raise ValueError("reasoning.compress=teacher needs reasoning.budgets, e.g. [32,64], to compress to")
        if self.reasoning.rl and self.tutor.format == "multitask":
            raise ValueError(
                "reasoning.rl needs tutor.format=rationale_answer: a student of multitask answers without "
                "reasoning, of which nothing could be reinforced"
            )
        return self


NEUTRAL: dict[str, Any] = {
    "data.skew": 0.0,
    "select.rounds": 1,
    "select.round_size": None,
    "select.probe": 1500,
    "warmup.kinds": [],
    "annotate.engine": "native",
    "annotate.reader": False,
    "annotate.base_url": None,
    "annotate.model": None,
    "annotate.api_key_env": "",
    "annotate.samples": 1,
    "annotate.tellings": 1,
    "annotate.temperature": None,
    "annotate.seed": 0,
    "annotate.agreement": 0.0,
    "annotate.steps": False,
    "annotate.near_duplicate": None,
    "annotate.longest": None,
    "annotate.long_share": 0.2,
    "tutor.order": "shuffled",
}
"""Keys that came after version 0.1.0, each with the value at which it changes nothing."""
METHODS = ("kd", "reasoning", "refine", "swap", "turns")
"""Parts that say themselves which of their values are meant: none where the method is off."""


def settings(recipe: Recipe) -> dict[str, Any]:
    """The values that fingerprints are made of: all, but the `NEUTRAL` ones where they change nothing.

    So a key that is new in the recipe gives no new name to the run folders and stages that came before it.
    """
    whole = recipe.model_dump(mode="json")
    if recipe.select.rounds == 1:
        whole["select"]["round_size"] = None  # one round has the size of the budget
    for dotted, value in NEUTRAL.items():
        *parts, last = dotted.split(".")
        place = whole
        for part in parts:
            place = place[part]
        if place[last] == value:
            del place[last]
    for name in METHODS:
        whole[name] = getattr(recipe, name).meant()
        if not whole[name]:
            del whole[name]
    return whole
