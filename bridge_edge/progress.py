"""Progress on stderr: a bar with an estimate on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
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
def track(label: str, total: float) -> Iterator[Advance]:
    """Show the progress of `total` units of work."""
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
    start = last = time.monotonic()
    done = 0.0

    def plain(step: float, note: str = "") -> None:
        nonlocal done, last
        done += step
        now = time.monotonic()
        if now - last >= EVERY and done:
            last = now
            left = (now - start) / done * max(0.0, total - done)
            print(
                f"  {label}: {done / total:.0%}  {note}  {_clock(now - start)} elapsed, {_clock(left)} left",
                file=sys.stderr,
                flush=True,
            )

    yield plain
