"""Requests in batches to a server on loopback, and the books of them."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

from bridge_edge.budget import Caps, Ledger
from bridge_edge.prices import Price
from bridge_edge.teacher.batch_api import BatchTeacher
from bridge_edge.teacher.batch_run import ask_in_batches
from bridge_edge.teacher.batch_steps import Patience
from bridge_edge.teacher.openai_api import Endpoint
from bridge_edge.teacher.outcome import Outcome
from tests.teacher.asking import requests
from tests.teacher.batch_server import BatchServer

PRICE = Price(Decimal("0.5"), 1)
QUICK = Patience(first_s=0.01, most_s=0.02, tries=4, grace_s=0.05)


def api(server: BatchServer, **more: Any) -> BatchTeacher:
    return BatchTeacher(Endpoint("toy", server.url, "TOY_KEY", 5.0, **more), PRICE)


def go(server: BatchServer, folder: Path, n: int = 5, caps: Caps | None = None, **more: Any) -> Outcome:
    with Ledger(folder / "l.sqlite", caps or Caps(), PRICE) as ledger:
        return ask_in_batches(api(server, **more), ledger, requests(n), patience=QUICK)


def books(folder: Path) -> tuple[int, int, Counter[str]]:
    """Money counted, money that may turn out smaller, and the states of the rows."""
    with Ledger(folder / "l.sqlite", Caps(), PRICE) as ledger:
        ledger.verify()
        totals = ledger.totals()
        return totals.nano, totals.unsettled_nano, Counter(row["state"] for row in ledger.attempts())


def bill(server: BatchServer) -> int:
    return sum(PRICE.nano(prompt, completion) for _, prompt, completion in server.billed)
