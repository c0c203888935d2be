"""The shared cache: what one run has bought no other run buys again, and it never stands in a run's way."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.answer_cache import FILE, KIND, AnswerCache, open_cache
from bridge_edge.apprenticeship import teach
from bridge_edge.budget import Caps, Ledger
from bridge_edge.data.pool import load_task
from bridge_edge.data.samples import write_jsonl
from bridge_edge.errors import UserError
from bridge_edge.phases import Context
from bridge_edge.prices import Price
from bridge_edge.recipe_io import load_recipe
from bridge_edge.sqlite_file import SqliteFile
from bridge_edge.teacher.ask import Outcome, ask_all
from bridge_edge.teacher.base import Reply, Request
from tests.teacher.toys import Toy

PRICE, NO_CAPS = Price(1, 2), Caps()


class Asked(Toy):
    """It answers, and counts its calls."""

    def __init__(self) -> None:
        super().__init__(PRICE)
        self.asked: list[str] = []

    def ask(self, request: Request) -> Reply:
        self.asked.append(request.item_id)
        return Reply(f"So.\nAnswer: {request.messages[0]['content']}, {request.sample}", 10, 5)


def requests(*numbers: int, sample: int = 0) -> list[Request]:
    return [Request.of(f"item-{i}", f"Is {i} even?", 20, sample=sample) for i in numbers]


def run(folder: Path, toy: Asked, wanted: list[Request], cache: AnswerCache | None, caps: Caps = NO_CAPS) -> Outcome:
    folder.mkdir(exist_ok=True)
    with Ledger(folder / "ledger.sqlite", caps, PRICE) as ledger:
        outcome = ask_all(toy, ledger, wanted, 2, cache=cache)
        ledger.verify()
    return outcome


def rows(folder: Path) -> list[dict]:
    with Ledger(folder / "ledger.sqlite") as ledger:
        return list(ledger.attempts())


def test_another_run_gets_the_answers_for_nothing_and_says_where_from(tmp_path: Path) -> None:
    toy, folder = Asked(), tmp_path / "home"
    first = run(tmp_path / "a", toy, requests(0, 1, 2), AnswerCache(folder, "legal-a"))
    second = run(tmp_path / "b", toy, requests(1, 2, 3), AnswerCache(folder, "legal-b"))
    assert sorted(toy.asked) == ["item-0", "item-1", "item-2", "item-3"]
    assert (first.from_cache, second.from_cache, second.asked) == (0, 2, 1)
    assert second.replies["item-1"] == first.replies["item-1"]
    found = {row["item_id"]: row for row in rows(tmp_path / "b")}
    assert found["item-1"]["origin"].startswith("cache: bought by legal-a, stored 20")
    assert (found["item-1"]["queries"], found["item-1"]["tokens"], found["item-1"]["nano"]) == (1, 0, 0)
    assert (found["item-1"]["used_prompt"], found["item-1"]["used_nano"]) == (10, PRICE.nano(10, 5))
    assert (found["item-3"]["origin"], found["item-3"]["nano"]) == ("", PRICE.nano(10, 5))
    again = run(tmp_path / "b", toy, requests(1, 2, 3), AnswerCache(folder))  # from its own ledger now
    assert (again.from_ledger, again.from_cache, again.asked) == (3, 0, 0)


def test_another_sample_is_another_request(tmp_path: Path) -> None:
    toy, cache = Asked(), AnswerCache(tmp_path / "home")
    run(tmp_path / "a", toy, requests(0), cache)
    outcome = run(tmp_path / "b", toy, requests(0, sample=1), cache)
    assert (outcome.from_cache, outcome.asked) == (0, 1)


def test_the_cap_on_queries_holds_and_the_first_items_get_it(tmp_path: Path) -> None:
    toy, cache = Asked(), AnswerCache(tmp_path / "home")
    run(tmp_path / "a", toy, requests(2, 3, 4), cache)
    outcome = run(tmp_path / "b", toy, requests(0, 1, 2, 3, 4), cache, Caps(queries=3))
    assert list(outcome.replies) == ["item-0", "item-1", "item-2"]
    assert (outcome.asked, outcome.from_cache, outcome.left, outcome.stopped_by) == (2, 1, 2, "queries")
    free = run(tmp_path / "c", toy, requests(0, 1, 2), cache, Caps(usd=0))  # no money is needed
    assert (free.from_cache, free.stopped_by, len(free.replies)) == (3, None, 3)


def test_what_a_killed_run_kept_in_its_ledger_alone_reaches_the_cache(tmp_path: Path) -> None:
    toy, cache = Asked(), AnswerCache(tmp_path / "home")
    run(tmp_path / "a", toy, requests(0, 1), None)
    run(tmp_path / "a", toy, requests(0, 1), cache)
    outcome = run(tmp_path / "b", toy, requests(0, 1), cache)
    assert (outcome.from_cache, len(toy.asked)) == (2, 2)


def test_a_cache_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    old = SqliteFile(tmp_path / FILE, replace(KIND, versions=KIND.versions[:1]))
    with old.write() as db:
        db.execute("INSERT INTO answers VALUES ('h', 'yes', 1, 2, 'stop', 'm', 'legal-a', 0)")
    old.close()
    cache = AnswerCache(tmp_path)
    count, found = cache.claim(["new", "h"], tmp_path / "l.sqlite")
    assert (count, cache.trouble) == (1, None)
    assert isinstance(found, tuple)
    assert found[0].text == "yes"


def test_useless_replies_are_not_kept(tmp_path: Path) -> None:
    cache, ledger = AnswerCache(tmp_path / "home"), Ledger(tmp_path / "l.sqlite", Caps(), PRICE)
    cache.put([ledger.settle(ledger.reserve("h1", "a", 10, 5), None, "no", "filtered")])
    assert cache.get("h1") is None


def test_a_cache_that_breaks_during_a_run_is_done_without(tmp_path: Path) -> None:
    toy, cache = Asked(), AnswerCache(tmp_path / "home")
    run(tmp_path / "a", toy, requests(0), cache)
    with sqlite3.connect(cache.path) as other:
        other.execute("DROP TABLE answers")
    outcome = run(tmp_path / "b", toy, requests(0, 1), cache)
    assert len(outcome.replies) == 2
    assert cache.trouble is not None
    assert "cache of answers" in cache.trouble.message


def test_which_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_EDGE_HOME", str(tmp_path / "own"))
    mine = open_cache(None, paid=True, run="r")
    assert isinstance(mine, AnswerCache)
    assert mine.path == tmp_path / "own" / FILE
    assert open_cache(None, paid=False, run="r") is None  # a free teacher's report stays as it is without a cache
    assert open_cache("none", paid=True, run="r") is None
    named = open_cache(str(tmp_path / "x"), paid=False, run="r")
    assert isinstance(named, AnswerCache)
    monkeypatch.delenv("BRIDGE_EDGE_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    other = open_cache(None, paid=True, run="r")
    assert isinstance(other, AnswerCache)
    assert other.path == tmp_path / "xdg" / "bridge-edge" / FILE


def test_a_place_that_is_no_cache_is_an_error_where_it_was_named_and_a_note_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="--cache none"):
        open_cache(str(file / "below"), paid=True, run="r")
    Ledger(tmp_path / FILE).close()  # some other database of ours under the name of the cache
    with pytest.raises(UserError, match="not a cache of answers"):
        open_cache(str(tmp_path), paid=True, run="r")
    monkeypatch.setenv("BRIDGE_EDGE_HOME", str(tmp_path))
    assert isinstance(open_cache(None, paid=True, run="r"), UserError)


def taught(folder: Path, cache: str, *words: str) -> dict[str, Any]:
    """The teach stage of the legal recipe over four items of its pool; returns what it reports."""
    recipe = load_recipe(["recipe=legal", "budget.queries=4", *words])
    samples = load_task("legal").generate(4, 1)
    (folder / "data").mkdir(parents=True)
    (folder / "select").mkdir()
    (folder / "out").mkdir()
    write_jsonl(folder / "data" / "pool.jsonl", samples)
    (folder / "select" / "selected.json").write_text(json.dumps([{"id": sample.id} for sample in samples]))
    return teach(Context(recipe, folder, cache=cache), folder / "out")


def test_a_run_with_a_cache_reports_what_it_spent_itself(tmp_path: Path) -> None:
    """An embedded expert uses a cache only where one is named."""
    cache = str(tmp_path / "home")
    first = taught(tmp_path / "a", cache)
    assert first["usd"] > 0
    assert "cached" not in first
    second = taught(tmp_path / "b", cache, "budget.usd=0.0001")  # less than one call may cost
    assert (second["queries"], second["usd"], second["tokens"], second["usable"]) == (4, 0, 0, 4)
    assert (second["cached"], second["cached_usd"]) == (4, first["usd"])
    alone = taught(tmp_path / "c", "none")
    assert alone["usd"] == first["usd"]
