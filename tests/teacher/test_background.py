"""Calls of one event loop in a thread beside the program."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from queue import SimpleQueue
from typing import Any

import pytest

from bridge_edge.teacher.background import Background


async def last(said: list[str]) -> None:
    said.append("last")


async def echo(value: int, seconds: float = 0.0) -> int:
    await asyncio.sleep(seconds)
    return value


def test_many_coroutines_are_under_way_at_once_and_may_begin_others() -> None:
    one, landed = Background(), SimpleQueue[Any]()

    def follow(value: int | BaseException) -> None:
        assert isinstance(value, int)
        one.begin(echo(value + 100), landed.put)  # from the loop's own thread

    for value in range(5):
        one.begin(echo(value, 0.2), follow)
    assert sorted(landed.get(timeout=30) for _ in range(5)) == [100, 101, 102, 103, 104]
    one.close(last([]))


def test_what_a_coroutine_raises_comes_back() -> None:
    async def fail() -> None:
        raise ZeroDivisionError("a bug")

    one = Background()
    with pytest.raises(ZeroDivisionError):
        one.run(fail())
    assert one.run(echo(3)) == 3
    one.close(last([]))


def loops() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if "run_forever" in thread.name}


def test_closing_gives_up_what_is_under_way_and_ends_the_thread() -> None:
    before, one, landed, said = loops(), Background(), SimpleQueue[object](), list[str]()
    one.begin(echo(1, 3600.0), landed.put)
    assert len(loops() - before) == 1
    one.close(last(said))
    assert (loops() - before, landed.qsize(), said) == (set(), 1, ["last"])
    assert isinstance(landed.get(), asyncio.CancelledError)  # whoever waits for it hears that it was given up
    one.close(last(said))  # twice is once
    assert said == ["last"]
    assert one.run(echo(2)) == 2  # and it can be used again
    one.close(last(said))


def test_what_begins_while_another_thread_closes_has_an_end_too() -> None:
    one, landed = Background(), SimpleQueue[object]()
    over = threading.Event()

    def close() -> None:
        while not over.is_set():
            one.close(last([]))

    closing = threading.Thread(target=close)
    closing.start()
    try:
        for value in range(300):
            one.begin(echo(value), landed.put)
        ends = [landed.get(timeout=30) for _ in range(300)]
    finally:
        over.set()
        closing.join()
    one.close(last([]))
    values = [end for end in ends if not isinstance(end, asyncio.CancelledError)]
    assert len(set(values)) == len(values)  # each its own end, and once
    assert set(values) <= set(range(300))
    assert landed.empty()


def test_a_forked_child_has_a_loop_of_its_own_and_leaves_the_parents_alone() -> None:
    one = Background()
    assert one.run(echo(1)) == 1
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # waiting for a thread that only the parent has would last
        os._exit(one.run(echo(7)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert one.run(echo(2)) == 2
    one.close(last([]))
