"""A local model as the teacher: real tiny checkpoints, batches, the ledger, and errors that concern one item."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from bridge_edge.budget import Caps, Ledger
from bridge_edge.errors import UserError
from bridge_edge.prices import Price
from bridge_edge.runtimes.load import load_runtime
from bridge_edge.teacher.ask import ask_all
from bridge_edge.teacher.base import Request, TeacherError
from bridge_edge.teacher.local import LocalTeacher, one_message
from tests import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("model"))


def requests(n: int, max_tokens: int = 6) -> list[Request]:
    system = {"role": "system", "content": "Be brief."}
    return [
        Request.of(f"item-{i}", [system, {"role": "user", "content": f"Is {i} even?"}], max_tokens, 0.7)
        for i in range(n)
    ]


class Watched(LocalTeacher):
    """Counts the batches that reach the model."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.sizes: list[int] = []

    def _answer(self, taken: list) -> None:
        if taken:
            self.sizes.append(len(taken))
        super()._answer(taken)


def test_answers_are_those_of_the_runtime_and_counted_at_no_price(folder: Path, tmp_path: Path) -> None:
    teacher, asked = Watched(str(folder)), requests(6)
    with Ledger(tmp_path / "l.sqlite", Caps(queries=6), teacher.price) as ledger:
        outcome = ask_all(teacher, ledger, asked, 6)
        totals = ledger.totals()
    runtime = load_runtime(folder)
    expected = runtime.generate([one_message(r) for r in asked], 6)
    given = {f.item_id: "" for f in outcome.failures}  # a random model may say nothing
    with Ledger(tmp_path / "l.sqlite", Caps(), Price()) as ledger:
        stored = {row["item_id"]: row["response"] for row in ledger.attempts()}
    assert [stored[r.item_id] for r in asked] == expected
    assert len(outcome.replies) + len(given) == 6
    assert (totals.queries, totals.nano) == (6, 0)
    prompt = sum(len(runtime.chat(one_message(r))) for r in asked)
    assert prompt < totals.tokens <= prompt + 36
    assert max(teacher.sizes) > 1  # batched


def test_the_hash_follows_the_files_not_the_place(folder: Path, tmp_path: Path) -> None:
    one, same = requests(1)[0], tiny.checkpoint(tmp_path / "same")
    other = tiny.checkpoint(tmp_path / "other", hidden=32)
    base = LocalTeacher(str(folder)).request_hash(one)
    assert LocalTeacher(str(same)).request_hash(one) == base
    assert LocalTeacher(str(other)).request_hash(one) != base
    assert LocalTeacher(str(folder)).request_hash(requests(1, 7)[0]) != base


def test_a_prompt_that_is_too_long_fails_alone(folder: Path) -> None:
    teacher = LocalTeacher(str(folder))
    asked = [Request.of("long", "word " * 400, 6), *requests(3)]
    found: dict[str, object] = {}

    def ask(request: Request) -> None:
        try:
            found[request.item_id] = teacher.ask(request)
        except TeacherError as error:
            found[request.item_id] = error

    threads = [threading.Thread(target=ask, args=(r,)) for r in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert isinstance(found["long"], TeacherError)
    assert (found["long"].status, found["long"].billed, found["long"].scope) == ("local error", "no", "item")
    assert "context is 256" in str(found["long"])
    others = [v for k, v in found.items() if k != "long"]
    assert not any(isinstance(v, TeacherError) and v.status == "local error" for v in others)


def test_what_is_no_model_is_said_before_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model at"):
        LocalTeacher(str(tmp_path / "none.gguf"))
    with pytest.raises(UserError, match="holds no model"):
        LocalTeacher(str(tmp_path))
