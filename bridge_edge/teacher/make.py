"""From the recipe to the teacher that it names.

A teacher is made before hours of work begin, so that a missing key, file or model is said first; what is heavy (the
weights of a local teacher) is loaded with its first question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from bridge_edge.data.pool import load_task
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError, first_line
from bridge_edge.prices import Price
from bridge_edge.recipe import Recipe
from bridge_edge.recipe_task import API_KINDS, TeacherSpec
from bridge_edge.run import source_digest
from bridge_edge.teacher.base import Teacher
from bridge_edge.teacher.batch_api import BatchTeacher
from bridge_edge.teacher.keys import check_key
from bridge_edge.teacher.lengths import at_budgets
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher, utf8_bytes

API = API_KINDS


def price_of(spec: TeacherSpec) -> Price:
    """What the ledger counts a token at: nothing for a local model, less the discount for a batch."""
    if spec.kind == "local":
        return Price()
    if spec.kind != "openai-batch":
        return Price(spec.price.prompt, spec.price.completion)
    share = 1 - Decimal(str(spec.batch_discount))
    return Price(Decimal(str(spec.price.prompt)) * share, Decimal(str(spec.price.completion)) * share)


def is_structured(spec: TeacherSpec) -> bool:
    return spec.kind in API and spec.structured != "off"


def make_teacher(recipe: Recipe, samples: Sequence[Sample]) -> Teacher:
    """The teacher that the recipe names; an embedded expert knows the facts of `samples` only."""
    spec, price = recipe.teacher, price_of(recipe.teacher)
    if spec.kind == "replay":
        from bridge_edge.teacher.replay import ReplayTeacher

        return ReplayTeacher(spec.path or "", price)
    if spec.kind == "local":
        from bridge_edge.teacher.local import LocalTeacher

        return LocalTeacher(spec.model)
    if spec.kind in API:
        return _api(recipe, price)
    from bridge_edge.teacher.expert import ExpertTeacher

    task, known = load_task(recipe.task.module or ""), {s.id: s for s in samples}
    return ExpertTeacher(task, known, price, recipe.seed, edition=source_digest(recipe), shorter=at_budgets(recipe))


def check_teacher(spec: TeacherSpec) -> None:
    """Raise the UserError of a teacher that is not there, as far as that is known without a call or a download."""
    if spec.kind in API:
        check_key(spec.api_key_env)
    if spec.kind == "local":
        from bridge_edge.teacher.local import find_model, is_path

        if is_path(spec.model):
            find_model(spec.model)


@contextmanager
def open_teacher(recipe: Recipe, samples: Sequence[Sample]) -> Iterator[Teacher]:
    """A teacher that is closed at the end, unless Ctrl-C gave it up: what is under way must not hold up the end."""
    teacher, given_up = make_teacher(recipe, samples), False
    try:
        yield teacher
    except KeyboardInterrupt:
        given_up = True
        raise
    finally:
        if hasattr(teacher, "close") and not given_up:
            teacher.close()


def _api(recipe: Recipe, price: Price) -> Teacher:
    spec = recipe.teacher
    made = BatchTeacher if spec.kind == "openai-batch" else OpenAITeacher
    return made(endpoint_of(recipe), price, token_counter(spec) or utf8_bytes)


def endpoint_of(recipe: Recipe) -> Endpoint:
    """Where and what an API teacher is asked."""
    spec = recipe.teacher
    endpoint = Endpoint(
        spec.model,
        key_env=spec.api_key_env,
        timeout_s=spec.timeout,
        extra=spec.extra,
        structured=spec.structured,
        answers=recipe.task.answers,
        budgets=recipe.reasoning.asked,
    )
    return replace(endpoint, base_url=spec.base_url) if spec.base_url else endpoint


def token_counter(spec: TeacherSpec) -> Callable[[str], int] | None:
    """Counts by the tokenizer that the recipe names for an API teacher; None where it names none."""
    if not spec.tokenizer:
        return None
    from transformers import AutoTokenizer

    where = Path(spec.tokenizer).expanduser()
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(where) if where.exists() else spec.tokenizer)
    except Exception as error:  # the library raises many kinds, of which none is for users
        raise UserError(
            f"cannot load teacher.tokenizer={spec.tokenizer!r}: {first_line(error)}",
            "give a folder or a hub id, or leave it out: bytes are then the bound",
        ) from None
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
