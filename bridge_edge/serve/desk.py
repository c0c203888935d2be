"""The queue before a student: one at a time is served, so many may wait, the next one is told when to come again.

A runtime has one cache, so one thread works for all; its pieces go to whoever asked through that one's own queue. Who
leaves frees the place at once while waiting, and before the next token while being served.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from bridge_edge.serve.wire import until
from bridge_edge.student import Reply, Writing


class Full(Exception):
    """Nobody else may wait; `seconds` from now it is worth another try."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the queue is full, come again in {seconds} s")
        self.seconds = seconds


class Job:
    """One completion: worked on in the desk's thread, read where it was asked for."""

    def __init__(self, write: Callable[[], Writing], stops: list[str]) -> None:
        self.write, self.stops = write, stops
        self.gone = threading.Event()
        self.future: Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[str | Reply | Exception] = asyncio.Queue()

    def work(self) -> None:
        try:
            writing = self.write()
            for piece in until(writing, self.stops):
                if self.gone.is_set():
                    return
                self._tell(piece)
            self._tell(writing.reply())
        except Exception as error:  # it belongs to whoever asked; the desk goes on
            self._tell(error)

    def _tell(self, event: str | Reply | Exception) -> None:
        with suppress(RuntimeError):  # the loop has ended, so nobody listens any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def events(self) -> AsyncGenerator[str | Reply, None]:
        """Pieces of text, then the reply; leaving before that gives the place up."""
        try:
            while True:
                event = await self._events.get()
                if isinstance(event, Exception):
                    raise event
                if event:
                    yield event
                if isinstance(event, Reply):
                    return
        finally:
            self.leave()

    def leave(self) -> None:
        self.gone.set()
        if self.future:
            self.future.cancel()


class Desk:
    """`waiting` jobs may wait beside the one that is served."""

    def __init__(self, waiting: int) -> None:
        self.places, self.held = waiting + 1, 0
        self._mean = 1.0  # seconds a job, of late
        self._pool = ThreadPoolExecutor(1, "student")
        self._jobs: set[Job] = set()

    def admit(self, write: Callable[[], Writing], stops: list[str]) -> Job:
        """Take a job in, or raise Full."""
        if self.held >= self.places:
            raise Full(max(1, math.ceil(self.held * self._mean)))
        job = Job(write, stops)
        loop = asyncio.get_running_loop()
        self.held += 1
        self._jobs.add(job)

        def freed(_: Future[None]) -> None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._free, job)

        job.future = self._pool.submit(self._timed, job)
        job.future.add_done_callback(freed)
        return job

    def _timed(self, job: Job) -> None:
        start = time.perf_counter()
        job.work()
        self._mean += 0.1 * (time.perf_counter() - start - self._mean)

    def _free(self, job: Job) -> None:
        self.held -= 1
        self._jobs.discard(job)

    async def close(self) -> None:
        """Send everybody away and wait for the thread."""
        for job in list(self._jobs):
            job.leave()
        await asyncio.to_thread(self._pool.shutdown, True)
