"""The typed recipe: everything that decides what a run produces, and nothing else.

Frozen pydantic models; unknown keys are errors, all errors are reported at once. Device, threads, workers and
concurrency are command-line options, so they never enter a stage's key. Secrets appear only as the names of environment
variables.
"""

from __future__ import annotations

import re
import string
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator


class Spec(BaseModel):
    """Base of all parts: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TaskSpec(Spec):
    """What is asked and how an answer is read."""

    module: str | None = Field(None, description="shipped domain with a generator, checker and embedded expert")
    prompt: str = Field("{text}", description="the user message, a template over column names")
    answers: tuple[str, ...] = Field((), description="the choices; empty for free-form answers")
    max_new_tokens: int = Field(192, ge=8, le=8192, description="bound on rationale and answer together")

    @field_validator("prompt")
    @classmethod
    def _template(cls, value: str) -> str:
        try:
            names = [name for _, name, _, _ in string.Formatter().parse(value) if name is not None]
        except ValueError as error:
            raise ValueError(f"no template ({error}); write {{{{ and }}}} for braces of your own") from error
        if not names:
            raise ValueError("the template names no column, so all items would be the same; write e.g. {text}")
        for name in names:
            if not re.fullmatch(r"\w[\w -]*", name) or name.isdigit():
                raise ValueError(f"{{{name}}} is no plain column name; map one with data.columns, e.g. text: {name!r}")
        return value

    @field_validator("answers", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return tuple(v if isinstance(v, str) else str(v) for v in value)
        return value


class DataSpec(Spec):
    """Where the pool and the held-out items come from, and how large they are."""

    path: str | None = Field(None, description="JSONL, CSV or TSV file with the labelled or unlabelled pool")
    hub: str | None = Field(None, description="dataset on the hub, read with the datasets library")
    hub_config: str | None = None
    split: str = "train"
    test_path: str | None = Field(None, description="file with test items; else they are split off the pool")
    columns: dict[str, str] = Field({}, description="column map: text, answer, rationale -> name in the file")
    labels: Literal["gold", "none"] = "gold"
    pool: int | None = Field(6000, ge=1, description="items in the pool; null takes all of a file")
    dev: int = Field(300, ge=1, description="items for the gate and for parity")
    test: int = Field(600, ge=1, description="items for the final accuracy")
    near_duplicate: float = Field(0.95, gt=0, le=1, description="token Jaccard from which a pool item is too close")


class PriceSpec(Spec):
    """Dollars per million tokens."""

    prompt: float = Field(2.5, ge=0)
    completion: float = Field(10.0, ge=0)


class TeacherSpec(Spec):
    """Who is asked, and how."""

    kind: Literal["expert", "openai", "openai-batch", "replay", "local"] = "expert"
    base_url: str | None = None
    model: str = Field("expert", description="name at the endpoint; kind local: a folder, a hub id or a .gguf file")
    api_key_env: str = Field("OPENAI_API_KEY", description="name of the environment variable with the key")
    price: PriceSpec = PriceSpec()
    batch_discount: float = Field(0.5, ge=0, le=1, description="share of the price that openai-batch takes off")
    temperature: float = Field(0.2, ge=0, le=2)
    max_tokens: int = Field(400, ge=16)
    samples: int = Field(1, ge=1, le=64, description="answers asked for each item; each is a query")
    timeout: float = Field(60.0, gt=0)
    path: str | None = Field(None, description="JSONL of recorded rationales (kind: replay)")
    style: Literal["steps", "brief", "detailed"] = Field("steps", description="form of the rationales asked for")
    system: str | None = Field(None, description="system prompt instead of the style's, may name {answers}")
    prompt: str | None = Field(None, description="user message, a template over {question} and {answers}")
    structured: Literal["auto", "json_schema", "off"] = Field(
        "auto", description="JSON answers from an API: where it can (auto), always, or never"
    )
    tokenizer: str | None = Field(None, description="folder or hub id of the API teacher's tokenizer: tighter bounds")
    extra: dict[str, Any] = Field({}, description="more fields of the API request, e.g. reasoning_effort: low")

    @field_validator("system", "prompt")
    @classmethod
    def _names(cls, value: str | None, info: ValidationInfo) -> str | None:
        known = {"question", "answers"} if info.field_name == "prompt" else {"answers"}
        try:
            used = {name for _, name, _, _ in string.Formatter().parse(value or "") if name is not None}
        except ValueError as error:
            raise ValueError(f"no template ({error}); write {{{{ and }}}} for braces of your own") from error
        if wrong := sorted(used - known):
            raise ValueError(f"{{{wrong[0]}}} is unknown here; it may name {{{'} and {'.join(sorted(known))}}}")
        if value is not None and info.field_name == "prompt" and "question" not in used:
            raise ValueError("the template lacks {question}, so all items would be the same")
        return value


class BudgetSpec(Spec):
    """Hard caps; each alone is enough to stop. `queries` overrides `fraction` (of the pool)."""

    fraction: float = Field(0.05, description="share of the pool that is put to the teacher")
    queries: int | None = None
    usd: float | None = Field(5.0, description="dollars")
    tokens: int | None = None

    @field_validator("fraction", "queries", "usd", "tokens")
    @classmethod
    def _positive(cls, value: float | None) -> float | None:
        if value is not None and value <= 0:
            raise ValueError(f"a budget of {value} buys nothing; give a number above 0")
        return value

    @field_validator("fraction")
    @classmethod
    def _share(cls, value: float) -> float:
        if value > 1:
            raise ValueError(f"{value} is above the pool; give a share between 0 and 1")
        return value


class LoraSpec(Spec):
    """Low-rank adapters through peft."""

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | tuple[str, ...] = "all-linear"


class ModelSpec(Spec):
    """A model and how it is trained."""

    model: str = Field(description="embedded:ta, embedded:student, a hub id or a folder")
    lr: float = Field(1e-3, gt=0)
    epochs: float = Field(3, gt=0)
    batch_tokens: int = Field(4096, ge=64, description="padded tokens an optimiser step")
    micro_tokens: int = Field(4096, ge=64, description="padded tokens a forward pass")
    optimizer: Literal["muon", "adamw"] = "muon"
    weight_decay: float = Field(0.01, ge=0)
    rehearsal: float = Field(0.0, ge=0, description="generated general documents an example, against forgetting")
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    lora: LoraSpec | None = None


class WarmupSpec(Spec):
    """Label-only warm-up of the assistant; no teacher call."""

    fraction: float = Field(0.1, gt=0, le=1)
    kinds: tuple[str, ...] = Field((), description="only items of these kinds, to study a shift; empty: of all")
    epochs: float = Field(1, gt=0)
    lr: float = Field(5e-4, gt=0)


OWN_EMBEDDINGS = "ta"


class SelectSpec(Spec):
    """Which items are put to the teacher."""

    strategy: Literal[
        "bridge", "greedy", "random", "difficulty", "diversity", "facility-location", "kmeans", "typiclust"
    ] = "bridge"
    difficulty: Literal["loss", "entropy", "token-entropy", "margin", "pass-rate", "disagreement"] = "loss"
    samples: int = Field(8, ge=2, le=64, description="answers drawn an item: pass-rate, disagreement and the check")
    embeddings: str = Field(
        OWN_EMBEDDINGS, min_length=1, description="ta: its hidden states; else a sentence-transformers model"
    )
    check: int = Field(200, ge=0, description="easy items without labels that are put to the self-consistency check")
    rounds: int = Field(1, ge=1, le=100, description="parts the budget is spent in, the TA being trained in between")
    alpha: float = Field(0.5, ge=0, le=1, description="weight of difficulty against diversity")
    trim: float = Field(0.03, ge=0, lt=0.5, description="share of the hardest items dropped as probable label noise")


class GateSpec(Spec):
    """Quality of the assistant on the dev split, asked before it may annotate the pool."""

    accuracy: float = Field(0.9, ge=0, le=1)
    on_fail: Literal["stop", "continue"] = "continue"


class AnnotateSpec(Spec):
    """Annotation of the pool by the assistant."""

    engine: Literal["native", "transformers", "llama-cpp", "vllm", "openai"] = Field(
        "native", description="what the assistant runs in; openai: served elsewhere, at base_url as model"
    )
    base_url: str | None = Field(None, description="engine openai: the address, e.g. http://host:8000/v1")
    model: str | None = Field(None, description="engine openai: the assistant's name there")
    api_key_env: str = Field("", description="engine openai: the variable with the key; empty where none is needed")
    samples: int = Field(1, ge=1, le=64, description="drafts an item; their answers are put to a vote")
    temperature: float | None = Field(None, ge=0, le=2, description="null: 0 (greedy) for one draft, 0.7 for several")
    seed: int = Field(0, ge=0, description="of the drawn drafts")
    keep: Literal["answer", "all"] = Field("answer", description="answer: drop annotations that miss the gold answer")
    agreement: float = Field(0.0, ge=0, le=1, description="share of an item's drafts that must agree on its answer")
    arithmetic: bool = Field(True, description="drop rationales that state a false sum or comparison of numbers")
    surest: float = Field(1.0, gt=0, le=1, description="share kept within each answer, by mean log-probability")
    near_duplicate: float | None = Field(None, gt=0, le=1, description="Jaccard from which a rationale repeats another")
    longest: int | None = Field(None, ge=1, description="tokens from which a draft is long; null: no length control")
    long_share: float = Field(0.2, ge=0, le=1, description="share of long drafts that may be kept")
    batch_rows: int = Field(64, ge=1, description="prompts decoded at once on each core")

    @property
    def heat(self) -> float:
        """The temperature that is meant."""
        return (0.7 if self.samples > 1 else 0.0) if self.temperature is None else self.temperature


class AlignSpec(Spec):
    """Instruction alignment of the student on generated general instructions."""

    enabled: bool = True
    items: int = Field(1500, ge=1)
    epochs: float = Field(1, ge=0, description="0: skipped, as with enabled: false")
    lr: float = Field(1e-3, gt=0)

    @property
    def skipped(self) -> bool:
        return not self.enabled or self.epochs == 0


class TutorSpec(Spec):
    """Form, weights and order of the student's supervision."""

    format: Literal["rationale_answer", "multitask"] = "rationale_answer"
    lambda_rationale: float = Field(1.0, ge=0, description="weight of the mean loss over a rationale's tokens")
    lambda_answer: float = Field(1.0, ge=0, description="weight of the mean loss over an answer's tokens")
    order: Literal["shuffled", "easy-to-hard", "short-to-long"] = Field(
        "shuffled", description="of the first epoch: easy is what the assistant was sure of, short is counted in tokens"
    )


class BaselineSpec(Spec):
    """Direct distillation: the student trained on the teacher's answers alone, at the same budget."""

    enabled: bool = True
    epochs: float = Field(12, gt=0)
    rehearsal: float = Field(0.0, ge=0, description="as ta.rehearsal; few examples ask for it, a whole pool does not")


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
    annotate: AnnotateSpec = AnnotateSpec()
    align: AlignSpec = AlignSpec()
    tutor: TutorSpec = TutorSpec()
    baseline: BaselineSpec = BaselineSpec()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.task.module is None and self.data.path is None and self.data.hub is None:
            raise ValueError("a recipe without task.module needs data.path or data.hub")
        if self.teacher.kind == "expert" and (self.task.module is None or self.data.path or self.data.hub):
            raise ValueError(
                "teacher=expert answers generated items of a shipped domain only; for your own data set "
                "teacher=openai (with teacher.base_url, teacher.model) or teacher=replay (with teacher.path)"
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


NEUTRAL: dict[str, Any] = {
    "select.rounds": 1,
    "warmup.kinds": [],
    "annotate.engine": "native",
    "annotate.base_url": None,
    "annotate.model": None,
    "annotate.api_key_env": "",
    "annotate.samples": 1,
    "annotate.temperature": None,
    "annotate.seed": 0,
    "annotate.agreement": 0.0,
    "annotate.near_duplicate": None,
    "annotate.longest": None,
    "annotate.long_share": 0.2,
    "tutor.order": "shuffled",
}
"""Keys that came after version 0.1.0, each with the value at which it changes nothing."""


def settings(recipe: Recipe) -> dict[str, Any]:
    """The values that fingerprints are made of: all, but the `NEUTRAL` ones where they change nothing.

    So a key that is new in the recipe gives no new name to the run folders and stages that came before it.
    """
    whole = recipe.model_dump(mode="json")
    for dotted, value in NEUTRAL.items():
        *parts, last = dotted.split(".")
        place = whole
        for part in parts:
            place = place[part]
        if place[last] == value:
            del place[last]
    return whole
