"""An event loop in a thread of its own, so that many calls are under way at once and the rest stays plain code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Background:
    """Runs coroutines. The thread begins with the first of them and is a daemon: what the user gave up on must not hold
    up the end of the program."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What `work` returns or raises; gives it up where the wait is interrupted."""
        future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def begin(self, work: Coroutine[Any, Any, Result], landed: Callable[[Result], None]) -> None:
        """Start `work`, which never raises, and return; `landed` gets what it returns, in the loop's thread."""
        loop = self._running()
        if threading.current_thread() is self._thread:
            self._start(work, landed)  # waking the thread costs as much as the rest
        else:
            loop.call_soon_threadsafe(self._start, work, landed)

    def _start(self, work: Coroutine[Any, Any, Result], landed: Callable[[Result], None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # the loop itself holds no strong reference

        def ended(task: asyncio.Task[Result]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():
                landed(task.result())

        task.add_done_callback(ended)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # What a server or a library does wrong here is an error of some call and not a text on the terminal.
                self._loop.set_exception_handler(lambda loop, context: None)
                self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
                self._thread.start()
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
