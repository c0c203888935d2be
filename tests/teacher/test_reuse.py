"""What other runs in the same folder have paid: the same money is neither spent twice nor forgotten."""

from __future__ import annotations

from pathlib import Path

from bridge_edge.answer_cache import MARK
from bridge_edge.budget import Caps, Ledger, Price, Reservation, Usage
from bridge_edge.teacher.base import Request
from bridge_edge.teacher.reuse import take_over
from tests.teacher.toys import Toy

OLD, NEW = Toy(Price(1, 2)), Toy(Price(10, 20))
REQUESTS = [Request.of(f"item-{i}", f"Is {i} even?", 20) for i in range(6)]


def former(folder: Path) -> Path:
    """A run that has two answers, an empty reply, a call that was lost, one that cost nothing and a free answer."""
    folder.mkdir()
    with Ledger(folder / "ledger.sqlite", Caps(), OLD.price) as ledger:

        def reserve(i: int) -> Reservation:
            return ledger.reserve(OLD.request_hash(REQUESTS[i]), f"theirs-{i}", 10, 20)

        ledger.fail(reserve(0), "timeout")
        first = ledger.settle(reserve(0), Usage(10, 5), "first")
        ledger.settle(reserve(1), Usage(10, 5), "second")
        ledger.settle(reserve(2), Usage(10, 5), "", "empty")
        ledger.fail(reserve(3), "http 429", billed=False)
        ledger.adopt(
            type(first)(OLD.request_hash(REQUESTS[4]), "x", "ok", "free", 10, 5, "stop", "m"), "x", f"{MARK}: of old"
        )
    return folder / "ledger.sqlite"


def test_what_was_paid_counts_as_it_was_paid_with_what_was_lost(tmp_path: Path) -> None:
    path = former(tmp_path / "a")
    spent = 3 * OLD.price.nano(10, 5) + OLD.price.nano(10, 20)
    with Ledger(tmp_path / "l.sqlite", Caps(), NEW.price) as ledger:
        for _ in range(2):  # the same again, as after a restart
            taken = take_over(ledger, NEW, REQUESTS, [path])
        assert ledger.totals().nano == spent
        assert ledger.totals().queries == 5
        assert ledger.entered(MARK)[0] == 1  # what came from the cache says so still
        answer = ledger.answer_for(NEW.request_hash(REQUESTS[1]))
        assert answer is not None
        assert (answer.text, answer.item_id) == ("second", "item-1")
        ledger.verify()
    assert taken == 3
    with Ledger(tmp_path / "next.sqlite", Caps(), NEW.price) as ledger:  # a third run finds both, and counts once
        assert take_over(ledger, NEW, REQUESTS, [path, tmp_path / "l.sqlite"]) == 3
        assert ledger.totals().nano == spent


def test_under_a_smaller_cap_the_first_answers_come_and_losses_count(tmp_path: Path) -> None:
    path = former(tmp_path / "a")
    with Ledger(tmp_path / "l.sqlite", Caps(queries=3), NEW.price) as ledger:
        assert take_over(ledger, NEW, REQUESTS, [path]) == 1
        states = [(row["item_id"], row["status"]) for row in ledger.attempts()]
    assert states == [("item-0", "timeout"), ("item-2", "empty"), ("item-0", "ok")]


def test_other_questions_are_no_part_of_it(tmp_path: Path) -> None:
    path = former(tmp_path / "a")
    with Ledger(tmp_path / "l.sqlite", Caps(), NEW.price) as ledger:
        assert take_over(ledger, NEW, REQUESTS[5:], [path, tmp_path / "none" / "l.sqlite"]) == 0
        assert ledger.totals().queries == 0
