"""Progress on stderr: a bar with an estimate on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[float, str], None]
"""Called with the work done since the last call and a short note (may be empty)."""

EVERY = 10.0
console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """One line for people, on stderr."""
    console.print(text, markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@contextmanager
def track(label: str, total: float, every: float | None = None) -> Iterator[Advance]:
    """Show the progress of `total` units of work. Without a terminal lines come as work is done; with `every` also
    every so many seconds while nothing ends, as where answers of a server are waited for."""
    if console.is_terminal:
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(label, total=total, note="")

            def advance(step: float, note: str = "") -> None:
                if note:
                    bar.update(task, advance=step, note=note)
                else:
                    bar.update(task, advance=step)

            yield advance
        return
    lines, over = _Lines(label, total), threading.Event()
    if every is not None:
        threading.Thread(target=lines.beat, args=(every, over), daemon=True).start()
    try:
        yield lines.advance
    finally:
        over.set()


class _Lines:
    """Progress as plain lines on stderr."""

    def __init__(self, label: str, total: float) -> None:
        self.label, self.total = label, total
        self.start = self.last = time.monotonic()
        self.done, self.note = 0.0, ""

    def advance(self, step: float, note: str = "") -> None:
        self.done += step
        self.note = note or self.note
        if self.done and time.monotonic() - self.last >= EVERY:
            self.show()

    def beat(self, every: float, over: threading.Event) -> None:
        while not over.wait(every):
            if time.monotonic() - self.last >= every:
                self.show()

    def show(self) -> None:
        self.last = now = time.monotonic()
        spent = now - self.start
        left = f", {_clock(spent / self.done * max(0.0, self.total - self.done))} left" if self.done else ""
        share = self.done / self.total if self.total else 1.0
        print(f"  {self.label}: {share:.0%}  {self.note}  {_clock(spent)} elapsed{left}", file=sys.stderr, flush=True)
