"""The parts of a recipe about the two models: how each is trained, and what happens between the two trainings."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from bridge_edge.recipe_task import Spec

OWN_EMBEDDINGS = "ta"


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
    round_size: int | None = Field(
        None, ge=1, description="queries of each round but the last, while that leaves it some; null: equal rounds"
    )
    probe: int = Field(
        1500,
        ge=0,
        description="items that the TA explains between rounds, to find what it misses; 0: it answers directly",
    )
    alpha: float = Field(0.5, ge=0, le=1, description="weight of difficulty against diversity")
    trim: float = Field(0.03, ge=0, lt=0.5, description="share of the hardest items dropped as probable label noise")


class GateSpec(Spec):
    """Quality of the assistant on the dev split, asked before it may annotate the pool."""

    accuracy: float = Field(0.9, ge=0, le=1)
    on_fail: Literal["stop", "continue"] = "continue"


class RefineSpec(Spec):
    """The assistant's training on what it explains rightly itself, before it annotates (see refining.py)."""

    items: int = Field(0, ge=0, description="items of the pool that it explains; 0: off")
    rounds: int = Field(1, ge=1, le=8, description="so often, each time the next items, by the assistant of before")
    epochs: float = Field(1, gt=0, description="passes over what was right, and over the teacher's answers")
    share: float = Field(0.5, gt=0, le=1, description="its learning rate, as a share of ta.lr")

    @property
    def on(self) -> bool:
        return self.items > 0

    def meant(self) -> dict[str, Any]:
        """The values that shape the assistant; none where it is off."""
        return self.model_dump(mode="json", exclude={"rounds"} if self.rounds == 1 else None) if self.on else {}


class SwapSpec(Spec):
    """Words that stand for one another in the rationales that a model is trained on (see data/swaps.py), and numbers of
    which the sums are worked out anew (see data/numbers.py)."""

    enabled: bool = Field(False, description="every pass but the first over rationales has other words of the lists")
    words: dict[str, tuple[str, ...]] = Field(
        {}, description="lists of words by name, or files of one word a line; none: the lists of a shipped domain"
    )

    numbers: bool = Field(
        False, description="every pass but the first over rationales has other numbers, and sums that follow from them"
    )

    @field_validator("words")
    @classmethod
    def _several(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name, words in value.items():
            if len(set(words)) < 2:
                raise ValueError(f"the list {name!r} needs two words at least, one to stand for another")
            if not all(word.strip() for word in words):
                raise ValueError(f"the list {name!r} has an empty word")
        return value

    def meant(self) -> dict[str, Any]:
        """The values that shape the models; none where it is off."""
        found = self.model_dump(mode="json", include={"enabled", "words"}) if self.enabled else {}
        return found | ({"numbers": True} if self.numbers else {})

    @property
    def on(self) -> bool:
        """Whether no pass repeats what the first one told."""
        return self.enabled or self.numbers


class TurnsSpec(Spec):
    """Tutoring in turns: from the second on the student learns from what it writes itself (see turns.py)."""

    count: int = Field(1, ge=1, le=8, description="turns of drafting, filtering and tutoring; 1: the assistant's alone")
    epochs: float = Field(2, gt=0, description="passes of each later turn")
    share: float = Field(0.5, gt=0, le=1, description="its learning rate, as a share of student.lr")
    surest: float = Field(0.8, gt=0, le=1, description="least of annotate.surest in later turns")

    @property
    def on(self) -> bool:
        return self.count > 1

    def meant(self) -> dict[str, Any]:
        """The values that shape the student; none where there is one turn."""
        return self.model_dump(mode="json") if self.on else {}


class AnnotateSpec(Spec):
    """Annotation of the pool by the assistant."""

    engine: Literal["native", "transformers", "llama-cpp", "vllm", "openai"] = Field(
        "native", description="what the assistant runs in; openai: served elsewhere, at base_url as model"
    )
    base_url: str | None = Field(None, description="engine openai: the address, e.g. http://host:8000/v1")
    model: str | None = Field(None, description="engine openai: the assistant's name there")
    api_key_env: str = Field("", description="engine openai: the variable with the key; empty where none is needed")
    samples: int = Field(1, ge=1, le=64, description="drafts an item; their answers are put to a vote")
    tellings: int = Field(
        1, ge=1, le=16, description="drafts an item: of the item as it is, then told with other words (swap.enabled)"
    )
    temperature: float | None = Field(None, ge=0, le=2, description="null: 0 (greedy) for one draft, 0.7 for several")
    seed: int = Field(0, ge=0, description="of the drawn drafts")
    keep: Literal["answer", "all"] = Field("answer", description="answer: drop annotations that miss the gold answer")
    agreement: float = Field(0.0, ge=0, le=1, description="share of an item's drafts that must agree on its answer")
    arithmetic: bool = Field(True, description="drop rationales that state a false sum or comparison of numbers")
    steps: bool = Field(
        False, description="drop what the domain's checker, which knows the facts, finds a wrong step in"
    )
    surest: float = Field(1.0, gt=0, le=1, description="share kept within each answer, by mean log-probability")
    reader: bool = Field(
        False, description="a second reader (the student of direct distillation) has a say in what is surest"
    )
    near_duplicate: float | None = Field(None, gt=0, le=1, description="Jaccard from which a rationale repeats another")
    longest: int | None = Field(None, ge=1, description="tokens from which a draft is long; null: no length control")
    long_share: float = Field(0.2, ge=0, le=1, description="share of long drafts that may be kept")
    batch_rows: int = Field(64, ge=1, description="prompts decoded at once on each core")

    @property
    def read_again(self) -> bool:
        """Whether there is a second reader: none where all are kept, however sure."""
        return self.reader and self.surest < 1

    @property
    def drafts(self) -> int:
        """How many drafts an item has."""
        return self.samples * self.tellings

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
    rehearsal: float = Field(0.0, ge=0, description="as ta.rehearsal")
