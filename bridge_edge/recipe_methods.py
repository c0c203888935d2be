"""Parts of the recipe that switch methods on top of BRIDGE on: labels mixed per token, reasoning of a set length. Off
by default.

A method that is off is no part of a fingerprint: `meant()` names the values that shape a result, and nothing else.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from bridge_edge.recipe_task import Spec

MIX_READS = {"static": ("share",), "curriculum": ("share", "rise"), "power": ("gamma",), "risk": ("alpha",)}
TOLERANCE = 0.25  # BARD's
FEWEST, MOST = 4, 8192  # tokens of reasoning that a budget may be
DIVERGENCE_READS = {"skew": ("skew",), "alpha-beta": ("ab",)}


class KdSpec(Spec):
    """Hard and soft labels mixed per token in the student's tutoring (Bridge-Garden, arXiv 2605.26246):
    l = lambda * D(TA, student) + (1 - lambda) * NLL(label). What each name means exactly stands in train/hybrid.py."""

    mix: Literal[
        "none", "hard", "soft", "static", "confidence", "confidence-label", "entropy", "power", "curriculum", "risk"
    ] = Field("none", description="what gives lambda; hard trains as none does, and measures what the others measure")
    divergence: Literal["forward", "reverse", "js", "skew", "alpha-beta"] = Field(
        "forward", description="D: forward KL(TA || student), reverse KL, Jensen-Shannon, skewed KL, alpha-beta"
    )
    label: Literal["dataset", "argmax", "sample"] = Field(
        "dataset", description="the hard label: the token in the data, the TA's most probable one, or one it draws"
    )
    share: float = Field(0.2, ge=0, le=1, description="lambda of static, and the end of curriculum")
    rise: float = Field(0.2, ge=0, le=1, description="curriculum: share of the steps in which lambda rises")
    gamma: float = Field(0.1, gt=0, lt=1, description="power: the exponent")
    alpha: float = Field(0.05, ge=0, description="risk: weight of the squared residual")
    skew: float = Field(0.1, ge=0, le=1, description="divergence skew: the TA's share of the mixture")
    ab: tuple[float, float] = Field((0.2, 0.7), description="divergence alpha-beta: alpha and beta")
    top_k: int | None = Field(
        None, ge=1, description="keep the TA's k most probable tokens on disk, not the TA in memory (train/signals.py)"
    )
    on_policy: float = Field(
        0.0, ge=0, le=1, description="soft: share of the batches that the student writes itself (GKD); 1: all of them"
    )
    on_policy_from: float = Field(
        0.5, ge=0, le=1, description="share of the steps before that, in which it learns the data's texts (hard labels)"
    )

    @field_validator("ab")
    @classmethod
    def _defined(cls, value: tuple[float, float]) -> tuple[float, float]:
        if min(abs(value[0]), abs(value[1]), abs(sum(value))) < 1e-6:
            raise ValueError(f"{list(value)} gives no divergence; alpha, beta and their sum must not be 0")
        return value

    @model_validator(mode="after")
    def _known_risk(self) -> KdSpec:
        if self.mix == "risk" and self.label != "dataset":
            raise ValueError(f"mix=risk knows no label={self.label}; its residual is of the data's tokens")
        return self

    @model_validator(mode="after")
    def _known_own(self) -> KdSpec:
        if self.on and self.on_policy and (self.mix != "soft" or self.top_k):
            raise ValueError(
                f"on_policy={self.on_policy:g} needs mix=soft and no top_k: a text that the student writes has no hard "
                "label, and the TA has to be there to read it"
            )
        return self

    @model_validator(mode="after")
    def _known_kept(self) -> KdSpec:
        if self.kept and self.divergence == "alpha-beta":
            raise ValueError("divergence=alpha-beta has no bound on what top_k leaves out; leave top_k out")
        return self

    @property
    def on(self) -> bool:
        return self.mix != "none"

    @property
    def kept(self) -> bool:
        """Whether the TA's distributions are kept on disk: never where the mixture asks for none."""
        return self.top_k is not None and self.on and (self.mix not in ("hard", "risk") or self.label != "dataset")

    def meant(self) -> dict[str, Any]:
        """The values that shape the student; none where the method is off."""
        if not self.on:
            return {}
        names = {"mix", *MIX_READS.get(self.mix, ())}
        if self.mix not in ("soft", "risk"):
            names.add("label")
        if self.mix not in ("hard", "risk"):
            names |= {"divergence", *DIVERGENCE_READS.get(self.divergence, ())}
        if self.kept:
            names.add("top_k")
        if not self.on_policy:
            return self.model_dump(mode="json", include=names)
        own = self.model_dump(mode="json", include=names | {"on_policy", "on_policy_from"})
        return {**own, "before": "hard"}  # labels of the first steps; they were soft once, which was another student


class GrpoSpec(Spec):
    """Reinforcement of answers that are right, within their budget where there are budgets (see reinforce.py)."""

    items: int = Field(512, ge=1, description="questions in all, each with one of the budgets or without")
    questions: int = Field(16, ge=1, description="questions a step, about")
    group: int = Field(8, ge=2, description="answers drawn to a question")
    lr: float | None = Field(None, gt=0, description="none: a quarter of student.lr")
    kl: float = Field(0.04, ge=0, description="weight of the divergence from the student before")
    reward: Literal["product", "additive"] = Field("product", description="of rightness and fidelity to the budget")
    tolerance: float = Field(
        TOLERANCE, ge=0, description="share of the budget beyond which an answer is worth nothing; 0: none is allowed"
    )
    least: float = Field(
        0.0, ge=0, le=1, description="share of the budget below which a shorter answer is worth less; 0: it never is"
    )
    sft: bool = Field(True, description="false: without the tutoring before, which is known to fail")


class ReasoningSpec(Spec):
    """Reasoning of a length that the reader sets (BARD, arXiv 2511.01470): the student learns rationales of several
    lengths to the same question, told apart by a control signal in the prompt."""

    budgets: tuple[int, ...] = Field((), description="most tokens of a rationale, at each of which there are some")
    compress: Literal["cut", "teacher"] = Field(
        "cut", description="cut the TA's rationales, or teach the TA to write short by what the teacher says at budgets"
    )
    rl: bool = Field(False, description="reinforce what was learnt (GRPO): right answers, within their budget if any")
    grpo: GrpoSpec = GrpoSpec()

    @field_validator("budgets")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(not FEWEST <= budget <= MOST for budget in value) or list(value) != sorted(set(value)):
            raise ValueError(f"{list(value)} is no rising list of numbers from {FEWEST} to {MOST}, e.g. [16,32,64]")
        return value

    @property
    def asked(self) -> tuple[int, ...]:
        """The budgets at which the teacher is asked for its reasoning."""
        return self.budgets if self.compress == "teacher" else ()

    def meant(self) -> dict[str, Any]:
        """The values that shape the student; none where the method is off."""
        names = {"budgets", *(("compress",) if self.asked else ()), *(("rl", "grpo") if self.rl else ())}
        found = self.model_dump(mode="json", include=names) if self.budgets or self.rl else {}
        if self.rl:  # it kept the last one once, which was another student
            found["grpo"]["keeps"] = "best"
            for name, former in (("tolerance", TOLERANCE), ("least", 0.0)):  # what each was before it could be chosen
                if getattr(self.grpo, name) == former:
                    del found["grpo"][name]
        return found
