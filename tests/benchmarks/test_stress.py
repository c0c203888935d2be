"""The stress command at a small size: it runs, it kills, and it would notice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from bridge_edge.benchmarks.stress_kills import ITEMS, PRICE, Campaign, Tally
from bridge_edge.budget import Ledger
from bridge_edge.prices import Caps, Usage
from bridge_edge.teacher.base import Request


def stress(*words: str) -> dict:
    command = [sys.executable, "-m", "bridge_edge.benchmarks.stress", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ok"]
    return found


def test_nothing_is_lost_or_paid_twice_when_the_asking_process_is_killed() -> None:
    found = stress("--kills", "10", "--seed", "3")["kills"]
    assert (found["kills"], found["wrong"]) == (10, [])
    assert found["killed_in_flight"] > 0  # some kills hit queries on their way
    assert found["acknowledged"] > 0
    assert len(found["faults"]) > 1
    assert found["billed_usd"] <= found["counted_usd"]


@pytest.mark.parametrize(("threads", "processes"), [(16, 1), (4, 3)])
def test_no_thread_and_no_process_gets_more_than_the_cap_leaves(threads: int, processes: int) -> None:
    words = ("--rounds", "8", "--threads", str(threads), "--processes", str(processes))
    found = stress(*words)["rounds"]
    assert (found["overspent_nano"], found["wrong_rounds"]) == (0, 0)
    assert found["granted"] == found["rows"] > 0


def test_the_rate_is_measured_with_and_without_the_ledger() -> None:
    found = stress("--requests", "40", "--concurrency", "4", "--latency-ms", "5")["rate"]
    assert found["answered"] == 40
    assert found["ideal"] == 800
    for name in ("bare", "asking"):
        assert 0 < found[name]["of_ideal"] <= 1.0


def test_without_a_part_to_do_it_says_which_there_are() -> None:
    command = [sys.executable, "-m", "bridge_edge.benchmarks.stress"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert "--kills" in done.stderr


def test_the_kill_test_notices_what_it_looks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that lost an answer, and a bill above what was counted, are both named."""
    import random

    bill = {"prompt": 0, "completion": 0, "requests": 0, "working": 0, "faults": {}}
    monkeypatch.setattr("bridge_edge.benchmarks.stress_kills.ask_bill", lambda address, model: bill)
    tally = Tally()
    campaign = Campaign(0, "http://127.0.0.1:1", tmp_path, random.Random(0), tally)
    with closing(Ledger(campaign.folder / "ledger.sqlite", Caps(), PRICE)) as ledger:
        ledger.settle(ledger.reserve("h1", "a", 10, 5), Usage(10, 5), "kept")
    campaign.told = {"h1"}
    campaign.look()
    assert tally.wrong == []
    campaign.told = {"h1", "h2"}
    bill["prompt"] = 21  # the ledger counts 10 prompt and 5 completion tokens: 20,000 nano-dollars
    campaign.look()
    assert [text.split(": ")[1].split(" ")[0] for text in tally.wrong] == ["1", "billed"]
    assert len(campaign.requests) == ITEMS == len(Counter(r.item_id for r in campaign.requests))
    assert isinstance(campaign.requests[0], Request)
