"""Kill -9 at random moments of an asking process, and look whether a paid answer or a cent was lost.

Each campaign is one ledger with its own cap. A child process asks a server that bills in a third process and misbehaves
in one of five replies; the child tells through a pipe of every answer that its ledger has acknowledged, and is killed
with SIGKILL at a random moment: while it starts and opens the ledger, or some answers later. Then the ledger is opened
and four things are looked at, and the next child goes on. At the end one child is left to finish.

Not covered: power cuts (a killed process does not lose what it handed to the kernel), several machines.
"""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from bridge_edge.answer_cache import AnswerCache
from bridge_edge.benchmarks.billing_server import ask_bill, running
from bridge_edge.budget import Ledger
from bridge_edge.ledger_entries import Entry
from bridge_edge.prices import Caps, Price
from bridge_edge.teacher.ask import Policy, ask_all
from bridge_edge.teacher.base import Request
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher

PRICE = Price(1, 2)  # whole nano-dollars a token, so that sums and single costs round alike
ITEMS, CONCURRENCY, MOST_TOKENS = 60, 4, 20
KILLS_EACH = 25  # of one campaign at most
FAULTS = 0.2
PATIENCE = Policy(retries=8, first_wait_s=0.01, most_wait_s=0.05, failures_in_a_row=10**6)
TIMEOUT_S = 0.6


@dataclass
class Tally:
    """What was done and what was wrong in all campaigns."""

    kills: int = 0
    campaigns: int = 0
    incomplete: int = 0  # campaigns that a cap or failures left without some answers
    acknowledged: int = 0
    rows: int = 0
    billed_usd: float = 0.0
    counted_usd: float = 0.0
    killed_in_flight: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Telling(Ledger):
    """A ledger that tells of each answer right after it has acknowledged it."""

    told = -1

    def enter_all(self, entries: Sequence[Entry]) -> list[Exception | None]:
        troubles = super().enter_all(entries)
        for entry, trouble in zip(entries, troubles, strict=True):
            if trouble is None and entry.values["status"] == "ok":
                os.write(self.told, f"{entry.reservation.request_hash}\n".encode())
        return troubles


class Campaign:
    """One ledger, one cap, many lives."""

    def __init__(self, number: int, address: str, folder: Path, rng: random.Random, tally: Tally) -> None:
        self.name, self.address, self.rng, self.tally = f"model-{number}", address, rng, tally
        self.folder = folder / self.name
        self.folder.mkdir()
        worst = PRICE.nano(200, MOST_TOKENS) * ITEMS
        self.caps = Caps(usd=str(worst * rng.uniform(0.3, 1.5) / 1e9))
        self.requests = [Request.of(f"item-{i}", f"Is {i} even?", MOST_TOKENS) for i in range(ITEMS)]
        self.told: set[str] = set()

    def run(self, kills: int) -> None:
        """Up to `kills` killed children, and one that may finish."""
        for _ in range(kills):
            if not self.live(killed=True):
                break
            self.tally.kills += 1
            self.look()
        else:
            self.live(killed=False)
        while ask_bill(self.address, self.name)["working"]:
            time.sleep(0.05)
        self.look(last=True)

    def live(self, killed: bool) -> bool:
        """One child; False where it ended by itself."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            os._exit(self.child(write))
        os.close(write)
        with os.fdopen(read) as pipe:
            if killed:
                moment = self.rng.random()
                if moment < 0.3:  # while it starts and opens the ledger
                    time.sleep(self.rng.uniform(0.0, 0.15))
                else:
                    for _ in range(self.rng.randrange(12)):
                        self.hear(pipe.readline())
                    time.sleep(self.rng.uniform(0.0, 0.02))
                os.kill(pid, signal.SIGKILL)
            for line in pipe:
                self.hear(line)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code not in (0, -signal.SIGKILL):
            self.tally.wrong.append(f"{self.name}: a child ended with code {code}")
        return code == -signal.SIGKILL

    def hear(self, line: str) -> None:
        if line.endswith("\n"):  # what the kill cut off was not said
            self.told.add(line.strip())

    def child(self, write: int) -> int:
        try:
            ledger = Telling(self.folder / "ledger.sqlite", self.caps, PRICE)
            ledger.told = write
            teacher = OpenAITeacher(Endpoint(self.name, f"{self.address}/v1", "", TIMEOUT_S), PRICE)
            ask_all(teacher, ledger, self.requests, CONCURRENCY, policy=PATIENCE, cache=AnswerCache(self.folder))
            return 0
        except BaseException:
            traceback.print_exc()
            return 3

    def look(self, last: bool = False) -> None:
        """Every acknowledged answer is there, none twice, and bill <= counted <= cap."""
        wrong = self.tally.wrong
        bill = ask_bill(self.address, self.name)  # before the ledger: it only grows
        billed = PRICE.nano(bill["prompt"], bill["completion"])
        with closing(Ledger(self.folder / "ledger.sqlite", self.caps, PRICE)) as ledger:
            ledger.verify()
            in_flight = {row["id"] for row in ledger.attempts() if row["state"] == "reserved"}
            lost = {row["id"] for row in ledger.unresolved()}
            rows, counted = list(ledger.attempts()), ledger.totals().nano
        answered = Counter(row["request_hash"] for row in rows if row["status"] == "ok")
        cap = self.caps.nano or 0
        if missing := self.told - set(answered):
            wrong.append(f"{self.name}: {len(missing)} acknowledged answers are gone")
        if twice := [key for key, count in answered.items() if count > 1]:
            wrong.append(f"{self.name}: {len(twice)} requests were answered twice")
        if not billed <= counted <= cap:
            wrong.append(f"{self.name}: billed {billed}, counted {counted}, cap {cap} nano-dollars")
        if in_flight - lost:
            wrong.append(f"{self.name}: {len(in_flight - lost)} reservations of a dead process are still open")
        self.tally.killed_in_flight += len(in_flight)
        if last:
            self.add_up(bill, rows, billed, counted)

    def add_up(self, bill: dict[str, Any], rows: list[dict[str, Any]], billed: int, counted: int) -> None:
        tally = self.tally
        answers = {row["request_hash"] for row in rows if row["status"] == "ok"}
        with closing(AnswerCache(self.folder)) as cache:
            if lacking := [key for key in answers if cache.get(key) is None]:
                tally.wrong.append(f"{self.name}: the cache lacks {len(lacking)} answers of a finished run")
        if bill["requests"] > len(rows):
            tally.wrong.append(f"{self.name}: {bill['requests']} requests were sent, {len(rows)} are in the ledger")
        tally.campaigns += 1
        tally.incomplete += len(answers) < ITEMS
        tally.acknowledged += len(self.told)
        tally.rows += len(rows)
        tally.billed_usd += billed / 1e9
        tally.counted_usd += counted / 1e9
        tally.faults.update(bill["faults"])


def kills(count: int, seed: int, folder: Path) -> Tally:
    """Kill `count` children, over as many campaigns as it takes."""
    import_module("openai")  # here, so that the children need not load it each

    rng, tally = random.Random(seed), Tally()
    with running(4.0, FAULTS, seed) as address:
        while tally.kills < count:
            campaign = Campaign(tally.campaigns, address, folder, rng, tally)
            campaign.run(min(KILLS_EACH, count - tally.kills))
    if not tally.acknowledged:
        tally.wrong.append("no child told of an answer, so nothing was checked")
    return tally
