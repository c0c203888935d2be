"""Many threads, and several processes, that reserve at the same instant near a cap: does one of them get too much?

In each round the cap leaves room for just k more queries, k at random; all threads pass a barrier and reserve, and
exactly k must get it. Then each settles for less than it reserved or releases, and the next round's cap is set from
what counts now. Threads of one process share a connection, processes meet inside SQLite.
"""

from __future__ import annotations

import multiprocessing
import random
import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge_edge.budget import BudgetExhausted, Ledger, Reservation
from bridge_edge.prices import Caps, Price, Usage

PRICE = Price(1, 2)
PROMPT, COMPLETION = 100, 50
WORST = PRICE.nano(PROMPT, COMPLETION)


@dataclass
class Shared:
    """What the threads of all processes have in common."""

    path: Path
    rounds: int
    threads: int  # in all
    seed: int
    barrier: Any
    cap: Any  # nano-dollars, of this round
    room: Any  # how many queries fit into it
    got: Any  # who got leave, by number
    over: Any  # the most that was ever counted above a cap
    unfair: Any  # rounds in which another number than `room` got leave
    granted: Any


def _reserve(ledger: Ledger, shared: Shared, number: int, index: int) -> Reservation | None:
    try:
        return ledger.reserve(f"{number}-{index}", f"item-{index}", PROMPT, COMPLETION)
    except BudgetExhausted:
        return None


def _judge(ledger: Ledger, shared: Shared) -> None:
    granted = sum(shared.got)
    shared.granted.value += granted
    shared.over.value = max(shared.over.value, ledger.totals().nano - shared.cap.value)
    shared.unfair.value += granted != shared.room.value


def _next_cap(ledger: Ledger, shared: Shared, rng: random.Random) -> None:
    room = rng.randrange(shared.threads)
    shared.room.value = room
    shared.cap.value = ledger.totals().nano + room * WORST + rng.randrange(WORST)


def _thread(ledger: Ledger, shared: Shared, index: int) -> None:
    """The thread numbered 0 also sets the caps and judges."""
    rng = random.Random(f"{shared.seed}:{index}")
    for number in range(shared.rounds):
        if index == 0:
            _next_cap(ledger, shared, rng)
        shared.barrier.wait()
        ledger.caps = Caps(usd=str(shared.cap.value / 10**9))
        assert ledger.caps.nano == shared.cap.value
        shared.barrier.wait()
        held = _reserve(ledger, shared, number, index)
        shared.got[index] = held is not None
        shared.barrier.wait()
        if index == 0:
            _judge(ledger, shared)
        shared.barrier.wait()
        if held is not None and rng.random() < 0.7:
            ledger.settle(held, Usage(rng.randint(1, PROMPT), rng.randint(1, COMPLETION)), "text")
        elif held is not None:
            ledger.fail(held, "released", billed=False)
        shared.barrier.wait()


def _process(shared: Shared, first: int, count: int) -> None:
    with closing(Ledger(shared.path, Caps(), PRICE)) as ledger:
        threads = [threading.Thread(target=_guarded, args=(ledger, shared, first + i)) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _guarded(ledger: Ledger, shared: Shared, index: int) -> None:
    try:
        _thread(ledger, shared, index)
    except BaseException:
        shared.barrier.abort()  # or the others would wait for this one for ever
        raise


def rounds(count: int, threads: int, processes: int, seed: int, folder: Path) -> dict[str, Any]:
    """`count` rounds of `threads` threads in each of `processes` processes."""
    context = multiprocessing.get_context("fork")
    number = threads * processes
    path = folder / "rounds.sqlite"
    Ledger(path, Caps(), PRICE).close()
    values = [context.Value("q", 0, lock=False) for _ in range(5)]
    cap, room, over, unfair, granted = values
    barrier = threading.Barrier(number) if processes == 1 else context.Barrier(number)
    got = context.Array("b", number, lock=False)
    shared = Shared(path, count, number, seed, barrier, cap, room, got, over, unfair, granted)
    if processes == 1:
        _process(shared, 0, threads)
    else:
        workers = [context.Process(target=_process, args=(shared, i * threads, threads)) for i in range(processes)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    with closing(Ledger(path, Caps(), PRICE)) as ledger:
        ledger.verify()
        rows = sum(1 for _ in ledger.attempts())
    return {
        "rounds": count, "threads": threads, "processes": processes, "granted": granted.value, "rows": rows,
        "overspent_nano": max(0, over.value), "wrong_rounds": unfair.value,
    }  # fmt: skip
