"""The accounts of a run: what is in doubt is listed, and closed by the provider's bill."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bridge_edge import cli
from bridge_edge.budget import Ledger, Price, Usage
from bridge_edge.recipe_io import load_recipe
from bridge_edge.run import Run

PRICE = Price(2.5, 10)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one answer, two calls in doubt and one that cost nothing."""
    words = ["recipe=legal", "teacher=openai", "teacher.model=m", "budget.usd=1"]
    words += ["teacher.price.prompt=2.5", "teacher.price.completion=10"]
    made = Run.create(tmp_path, load_recipe(words))
    with Ledger(made.path / "ledger.sqlite", price=PRICE) as ledger:
        ledger.settle(ledger.reserve("h1", "a", 100, 50), Usage(90, 10), "text")
        ledger.fail(ledger.reserve("h2", "b", 100, 50), "timeout")
        ledger.fail(ledger.reserve("h3", "c", 100, 50), "connection")
        ledger.fail(ledger.reserve("h4", "d", 100, 50), "http 429", billed=False)
    return made.path


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["bridge-edge", "ledger", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0), *capsys.readouterr()


def test_what_is_in_doubt_is_listed_and_closed(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = call(capsys, monkeypatch, str(run))
    assert "3 queries, 400 tokens, $0.0018 of $1.00" in out
    assert "$0.0015 in 2 calls" in out
    assert "connection" in out
    _, out, _ = call(capsys, monkeypatch, str(run), "--resolve", "2=none", "--resolve", "3=80+20", "--json")
    told = json.loads(out.splitlines()[-1])
    assert (told["queries"], told["tokens"], told["unresolved"]) == (2, 200, [])
    assert told["usd"] == pytest.approx((PRICE.nano(90, 10) + PRICE.nano(80, 20)) / 1e9)


def test_all_at_once(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = call(capsys, monkeypatch, str(run), "--resolve", "all=none", "--json")
    assert json.loads(out.splitlines()[-1])["queries"] == 1


@pytest.mark.parametrize(
    ("words", "problem"),
    [(["--resolve", "2=free"], "ID=none"), (["--resolve", "1=none"], "not an unresolved one"), ([], "")],
)
def test_bad_words_are_said(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], problem: str
) -> None:
    code, _, err = call(capsys, monkeypatch, str(run if problem else run.parent), *words)
    assert code == 2
    assert (problem or "there is no ledger") in err
