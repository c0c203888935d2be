"""The contention guard of a run: watch the machine before, during and after, and make disturbed work again.

A piece of work (a repetition of one artifact) that others, the hypervisor or a throttle disturbed is made again while
retries are left. What stays disturbed is kept and makes the report not publishable, with its reason. A machine that was
busy before the run began would disturb every repetition, so there nothing is repeated: `wait` can wait for quiet first.
Not covered: pausing between repetitions until a device has cooled down.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from bridge_edge.benchmarks import contention
from bridge_edge.benchmarks.contention import Snapshot, Watched

Result = TypeVar("Result")
POINTS = 200  # of the series that a report holds


class Guard:
    """`retries` is for the whole run. `look` and `idle` stand in for the machine in tests."""

    def __init__(
        self,
        retries: int,
        wait_s: float = 0.0,
        look: Callable[[], Snapshot] = contention.snapshot,
        watch: Callable[[], Watched] = contention.watch,
    ) -> None:
        self.look, self.retries = look, retries
        start = time.monotonic()
        self.idle = watch()
        while contention.disturbance(self.idle) and time.monotonic() - start < wait_s:
            self.idle = watch()
        self.waited_s = time.monotonic() - start
        self.busy_before = bool(contention.disturbance(self.idle))
        self.kept: list[Watched] = []
        self.repeated: list[dict[str, Any]] = []
        self.disturbed: list[str] = []

    def run(self, name: str, work: Callable[[], Result], record: bool = True) -> Result:
        """The result of `work`, of its last attempt if it was made again; `record` says whether it will be reported."""
        while True:
            before = self.look()
            result = work()
            piece = (before, self.look())
            if not record:
                return result
            reasons = contention.disturbance(piece)
            if not reasons or self.busy_before or len(self.repeated) >= self.retries:
                self.kept.append(piece)
                self.disturbed += [f"{name}: {reason}" for reason in reasons]
                return result
            self.repeated.append({"work": name, "reasons": reasons})

    def report(self) -> dict[str, Any]:
        """What was seen before and during the work that was kept; see `contention.contention`."""
        found = contention.contention(self.idle, contention.joined(self.idle[1], self.kept))
        drop = contention.clock_drop(self.kept)
        more = [drop] if drop else []
        if self.disturbed and not found["reasons"]:
            more.append(f"{len(self.disturbed)} of {len(self.kept)} pieces stayed disturbed ({self.disturbed[0]})")
        start = self.idle[0].at
        series = [
            {"at_s": b.at - start, "load1": b.load1, "mhz": b.mhz, "celsius": b.celsius} for _, b in self.kept[:POINTS]
        ]
        return {
            **found,
            "waited_s": self.waited_s,
            "repeated": self.repeated,
            "disturbed": self.disturbed,
            "during": series,
            "reasons": found["reasons"] + more,
        }
