"""An event loop in a thread of its own, so that many calls are under way at once and the rest stays plain code."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")
_all: weakref.WeakSet[Background] = weakref.WeakSet()


class Background:
    """Runs coroutines. The thread begins with the first of them and is a daemon: what the user gave up on must not hold
    up the end of the program. A child just forked has no such thread and begins with one of its own."""

    def __init__(self) -> None:
        self._afresh()
        _all.add(self)

    def _afresh(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What `work` returns or raises; gives it up where the wait is interrupted."""
        with self._lock:
            future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def forked(self) -> None:
        """In the child: what the parent has under way is left alone, and never closed, since the two share it."""
        self._inherited = (self._loop, self._tasks)
        self._afresh()

    def begin(self, work: Coroutine[Any, Any, Result], landed: Callable[[Result | BaseException], None]) -> None:
        """Start `work` and return; `landed` gets what it returns or raises, in the loop's thread. It always hears: of
        what was given up by CancelledError."""
        with self._lock:  # or a loop that is being closed would never come to it
            loop = self._running()
            if threading.current_thread() is not self._thread:
                loop.call_soon_threadsafe(self._start, work, landed)
                return
        self._start(work, landed)  # waking the thread costs as much as the rest

    def _start(self, work: Coroutine[Any, Any, Result], landed: Callable[[Result | BaseException], None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # the loop itself holds no strong reference

        def ended(task: asyncio.Task[Result]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                landed(asyncio.CancelledError())
            else:
                landed(task.exception() or task.result())

        task.add_done_callback(ended)

    def _running(self) -> asyncio.AbstractEventLoop:
        """The loop, for a thread that holds the lock."""
        if self._loop is None:
            loop = asyncio.new_event_loop()
            # What a server or a library does wrong here is an error of some call and not a text on the terminal.
            loop.set_exception_handler(lambda loop, context: None)
            thread = threading.Thread(target=loop.run_forever, daemon=True)
            thread.start()
            self._loop, self._thread = loop, thread
        return self._loop

    def close(self, last: Coroutine[Any, Any, Any]) -> None:
        """End the loop after `last`; what is still under way is given up."""
        with self._lock:
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is None or thread is None:
            last.close()
            return
        asyncio.run_coroutine_threadsafe(_ending(last), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _ending(last: Coroutine[Any, Any, Any]) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await last
    await asyncio.sleep(0)  # connections that are being closed


def _after_fork() -> None:
    for one in list(_all):
        one.forked()


os.register_at_fork(after_in_child=_after_fork)
