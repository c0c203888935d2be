"""Calls under way whose teacher, threads or ledger fail: each of them has an end, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from bridge_edge.answer_cache import NoCache
from bridge_edge.budget import Answer, Ledger, Reservation
from bridge_edge.errors import UserError
from bridge_edge.recipe_io import load_recipe
from bridge_edge.teacher.ask import ask_all
from bridge_edge.teacher.attempt import Landed, worst_case
from bridge_edge.teacher.base import Reply, Request, TeacherError
from bridge_edge.teacher.crew import Crew, Threads
from bridge_edge.teacher.make import open_teacher
from bridge_edge.teacher.openai_api import OpenAITeacher
from bridge_edge.teacher.outcome import Event, Job
from tests.teacher.asking import PRICE, QUICK, Toy, api, good, requests
from tests.teacher.loopback import chat, serve


def ended(work: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What `work` returns or raises, in a thread of its own; fails where that takes too long."""
    got: list[Any] = []

    def run() -> None:
        try:
            got.append(work())
        except Exception as error:
            got.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert got, "it hangs"
    return got[0]


def test_a_teacher_that_is_closed_ends_the_run_with_every_call_entered(tmp_path: Path) -> None:
    under_way = threading.Event()

    def close() -> None:
        under_way.wait(30)
        teacher.close()

    def script(n: int, body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
        if n >= 3:
            under_way.set()
        time.sleep(2.0)
        return 200, {}, chat("Answer: yes")

    with (
        serve(script) as server,
        Ledger(tmp_path / "l.sqlite", price=PRICE) as ledger,
    ):
        teacher = api(server)
        threading.Thread(target=close, daemon=True).start()
        outcome = ended(lambda: ask_all(teacher, ledger, requests(12), 4, policy=QUICK))
        assert outcome.stopped_by == "teacher"
        assert "closed" in outcome.message
        states = [(row["state"], row["status"]) for row in ledger.attempts()]
        assert states.count(("unknown", "given up")) == 4  # under way: perhaps billed
        assert {state for state, _ in states} == {"unknown", "released"}
        teacher.close()


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_run_closes_its_teacher_unless_it_was_given_up(interrupted: bool) -> None:
    words = ["recipe=legal", "teacher=openai", "teacher.api_key_env=TOY_KEY", "teacher.model=toy"]
    before = set(threading.enumerate())
    with serve(lambda n, body: (200, {}, chat("Answer: yes"))) as server:
        words += [f"teacher.base_url={server.url}", "teacher.price.prompt=1", "teacher.price.completion=2"]
        with suppress(KeyboardInterrupt), open_teacher(load_recipe(words), []) as teacher:
            teacher.ask(requests(1)[0])
            if interrupted:
                raise KeyboardInterrupt
        found = [t for t in set(threading.enumerate()) - before if "run_forever" in t.name]
        assert bool(found) == interrupted
        if interrupted:
            assert isinstance(teacher, OpenAITeacher)
            teacher.close()


def test_a_forked_child_asks_over_connections_of_its_own() -> None:
    with serve(lambda n, body: (200, {}, chat("Answer: yes"))) as server:
        teacher = api(server)
        teacher.ask(requests(1)[0])
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if "yes" in teacher.ask(requests(2)[1]).text else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert "yes" in teacher.ask(requests(3)[2]).text
        teacher.close()


def test_a_machine_without_threads_to_spare_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, begun = threading.Thread.start, list[threading.Thread]()

    def few(self: threading.Thread) -> None:
        if "_ask" in repr(getattr(self, "_target", None)):
            begun.append(self)
            if len(begun) > 2:
                raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", few)

    def slow(request: Request, call: int) -> Reply:
        time.sleep(0.2)
        return good(request, call)

    teacher = Toy(slow)
    with Ledger(tmp_path / "l.sqlite", price=PRICE) as ledger:
        error = ended(lambda: ask_all(teacher, ledger, requests(12), 6, policy=QUICK))
        assert isinstance(error, UserError)
        assert "--concurrency" in str(error)
        assert teacher.calls == sum(row["status"] == "ok" for row in ledger.attempts()) == 2


BUSY = TeacherError("busy", "http 429", retryable=True, billed="no", retry_after=30)


class Apart(Toy):
    """The first of four calls fails, the others answer later."""

    def __init__(self) -> None:
        super().__init__(self.later)
        self.four = threading.Barrier(4)

    def later(self, request: Request, call: int) -> Reply:
        self.four.wait(30)
        if call == 0:
            raise BUSY
        time.sleep(0.8)
        return good(request, call)


class Together(Toy):
    """The first of four calls fails, and the others answer in the same moment."""

    def __init__(self) -> None:
        super().__init__(good)
        self.begun: list[tuple[Request, Landed]] = []

    def begin(self, request: Request, landed: Landed) -> None:
        self.begun.append((request, landed))
        if len(self.begun) == 4:
            self.begun[0][1]((BUSY, 0.1))
            for asked, tell in self.begun[1:]:
                tell((good(asked, 1), 0.1))


@pytest.mark.parametrize("teacher", [Apart, Together])
def test_a_ledger_that_cannot_take_back_what_was_not_sent_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: Callable[[], Toy]
) -> None:
    def full(*args: Any, **more: Any) -> None:
        raise UserError("the disk is full", "free some space")

    with Ledger(tmp_path / "l.sqlite", price=PRICE) as ledger:
        monkeypatch.setattr(ledger, "fail", full)
        error = ended(lambda: ask_all(teacher(), ledger, requests(20), 4, policy=QUICK))
        assert isinstance(error, UserError)
        assert "disk is full" in str(error)
        assert sum(row["status"] == "ok" for row in ledger.attempts()) == 3


class Held:
    """A teacher whose calls end when the test says so."""

    def __init__(self) -> None:
        self.begun: list[Landed] = []

    def begin(self, request: Request, landed: Landed) -> None:
        self.begun.append(landed)


def crew_of(held: Held, ledger: Ledger, concurrency: int, count: int) -> tuple[Crew, SimpleQueue[Sequence[Event]]]:
    """`count` requests handed to a crew."""
    heard: SimpleQueue[Sequence[Event]] = SimpleQueue()
    crew, toy = Crew(held, ledger, NoCache(), concurrency, heard.put), Toy(good)
    for request in requests(count):
        job = Job(toy.request_hash(request), [request])
        reservation = ledger.reserve_all([worst_case(toy, job.hash, request)])[0]
        assert isinstance(reservation, Reservation)
        crew.send(job, reservation)
    return crew, heard


def test_after_failures_nothing_is_sent_before_all_of_them_were_heard_of(tmp_path: Path) -> None:
    held = Held()
    with Ledger(tmp_path / "l.sqlite", price=PRICE) as ledger:
        crew, heard = crew_of(held, ledger, 2, 4)
        for landed in held.begun:
            landed((TeacherError("no", "http 500"), 0.1))
        events: list[Event] = []
        while len(events) < 2:
            events += heard.get(timeout=30)
        assert len(events) == len(held.begun) == 2
        crew.go_on()
        assert len(held.begun) == 2  # the other failure may be one that concerns all
        crew.go_on()
        assert len(held.begun) == 4


def test_an_answer_that_lands_while_the_crew_is_dismissed_is_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    with Ledger(tmp_path / "l.sqlite", price=PRICE) as ledger:
        crew, heard = crew_of(held, ledger, 2, 2)
        crew.dismiss()
        put, slow = crew._landed.put, threading.Event()

        def late(landed: Any) -> None:
            """Like a thread that is not given the processor before it has put its result."""
            if not slow.is_set():
                slow.set()
                time.sleep(0.5)
            put(landed)

        queue = SimpleNamespace(get=crew._landed.get, get_nowait=crew._landed.get_nowait, put=late)
        monkeypatch.setattr(crew, "_landed", queue)
        first = threading.Thread(target=held.begun[0], args=((Reply("Answer: a", 10, 5), 0.1),))
        first.start()
        slow.wait(30)
        held.begun[1]((Reply("Answer: b", 10, 5), 0.1))
        first.join()
        events: list[Event] = []
        while len(events) < 2:
            events += heard.get(timeout=30)
        assert all(isinstance(event.result, Answer) for event in events)


def test_a_thread_that_answered_answers_again(tmp_path: Path) -> None:
    landed: SimpleQueue[Any] = SimpleQueue()
    threads, before = Threads(Toy(good)), threading.active_count()
    for request in requests(5):
        threads.begin(request, landed.put)
        assert isinstance(landed.get(timeout=30)[0], Reply)
    assert threading.active_count() == before + 1
