"""Calls of one event loop in a thread beside the program."""

from __future__ import annotations

import asyncio
import threading
from queue import SimpleQueue

import pytest

from bridge_edge.teacher.background import Background


async def last(said: list[str]) -> None:
    said.append("last")


async def echo(value: int, seconds: float = 0.0) -> int:
    await asyncio.sleep(seconds)
    return value


def test_many_coroutines_are_under_way_at_once_and_may_begin_others() -> None:
    one, landed = Background(), SimpleQueue[int]()

    def follow(value: int) -> None:
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


def test_closing_gives_up_what_is_under_way_and_ends_the_thread() -> None:
    before, one, landed, said = threading.active_count(), Background(), SimpleQueue[int](), list[str]()
    one.begin(echo(1, 3600.0), landed.put)
    assert threading.active_count() == before + 1
    one.close(last(said))
    assert (threading.active_count(), landed.qsize(), said) == (before, 0, ["last"])
    one.close(last(said))  # twice is once
    assert said == ["last"]
    assert one.run(echo(2)) == 2  # and it can be used again
    one.close(last(said))
