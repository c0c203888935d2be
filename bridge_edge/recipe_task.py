"""The parts of a recipe about the task: its items, the teacher that is asked and what may be spent on it.

Like the whole recipe frozen, and unknown keys are refused. Secrets appear only as the names of environment variables.
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
    skew: float = Field(
        0.0, ge=0, le=3, description="generated pools: the k-th most frequent kind of items is 1 / k^skew as frequent"
    )
    dev: int = Field(300, ge=1, description="items for the gate and for parity")
    test: int = Field(600, ge=1, description="items for the final accuracy")
    near_duplicate: float = Field(0.95, gt=0, le=1, description="token Jaccard from which a pool item is too close")


class PriceSpec(Spec):
    """Dollars per million tokens."""

    prompt: float = Field(2.5, ge=0)
    completion: float = Field(10.0, ge=0)


API_KINDS = ("openai", "openai-batch")


class TeacherSpec(Spec):
    """Who is asked, and how."""

    kind: Literal["expert", "openai", "openai-batch", "replay", "local"] = "expert"
    base_url: str | None = None
    model: str = Field("expert", description="name at the endpoint; kind local: a folder, a hub id or a .gguf file")
    api_key_env: str = Field("OPENAI_API_KEY", description="name of the environment variable with the key; empty: none")
    price: PriceSpec = PriceSpec()
    batch_discount: float = Field(0.5, ge=0, le=1, description="share of the price that openai-batch takes off")
    temperature: float | None = Field(0.2, ge=0, le=2, description="null: the model's own, the only one of some")
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

    @field_validator("api_key_env", mode="before")
    @classmethod
    def _no_key(cls, value: Any) -> Any:
        return "" if value is None else value  # what YAML reads in `api_key_env=`

    @model_validator(mode="after")
    def _named_and_priced(self) -> TeacherSpec:
        """A paid teacher has no defaults: with a guessed price, no cap in dollars would hold."""
        if self.kind in API_KINDS and self.model == "expert":
            raise ValueError(f"teacher={self.kind} needs teacher.model, the model's name at the endpoint")
        if self.kind in API_KINDS and self.price.model_fields_set < {"prompt", "completion"}:
            raise ValueError(
                f"teacher={self.kind} needs teacher.price.prompt and teacher.price.completion, in dollars per million "
                "tokens: without them no cap in dollars holds; a server that sends no bill costs 0 and 0"
            )
        if self.kind == "expert":
            for name, kinds in (("model", "openai or teacher=local"), ("base_url", "openai"), ("path", "replay")):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"teacher.{name} is given, but teacher.kind is 'expert', which needs none; "
                        f"to ask that teacher add teacher={kinds}"
                    )
        return self

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
