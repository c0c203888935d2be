"""The nouns of the asking loop: what it is told (patience), what it works on (jobs, events), and what it gives back."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from bridge_edge.budget import Answer, Totals
from bridge_edge.progress import say
from bridge_edge.teacher.base import Reply, Request, TeacherError


@dataclass(frozen=True)
class Policy:
    """How patient to be."""

    retries: int = 4
    first_wait_s: float = 0.5
    most_wait_s: float = 30.0
    quiet_pause_s: float = 120.0  # a server that asks for more has everybody wait, and it is said until when
    longest_pause_s: float = 3600.0  # one that asks for more than that stops the run
    failures_in_a_row: int = 5  # items in a row that the teacher failed on
    elsewhere_s: float = 600.0  # how long to wait for an answer that another process is fetching
    max_chars: int = 20_000

    def wait(self, tries: int) -> float:
        """Exponential backoff with jitter, so that many clients do not come back together."""
        return min(self.most_wait_s, self.first_wait_s * 2.0 ** (tries - 1)) * random.uniform(0.75, 1.0)


def until(pause_s: float) -> str:
    """A long pause in words, with the time of day at which it ends."""
    try:
        end = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() + pause_s))
    except (OverflowError, ValueError, OSError):  # further than a calendar goes
        return "without end" if pause_s == float("inf") else f"{pause_s:.0f} s"
    return f"{pause_s:.0f} s, until {end}"


def announce(pause_s: float) -> None:
    """Say that nothing is sent for a while."""
    say(f"  paused: the teacher asks to wait {until(pause_s)}; Ctrl-C stops, and the same command goes on from here")


@dataclass
class Job:
    """All requests with one hash: asked once."""

    hash: str
    requests: list[Request]
    tries: int = 0
    waiting_since: float | None = None
    result: Reply | TeacherError | None = None

    @property
    def request(self) -> Request:
        return self.requests[0]


@dataclass(frozen=True)
class Event:
    """What a worker reports: an answer, a teacher's error, or something nobody expected (a full disk, a bug)."""

    job: Job
    result: Answer | TeacherError | Exception


@dataclass(frozen=True)
class Failure:
    """A request that ended without an answer."""

    item_id: str
    sample: int
    status: str
    message: str


@dataclass(frozen=True)
class Progress:
    done: int
    failed: int
    total: int
    totals: Totals
    retries: int = 0  # attempts beyond the first of each request


@dataclass
class Outcome:
    """Replies by item id in the order of the requests. `stopped_by` is None, a cap ("queries", "tokens", "usd") or
    "teacher", and `message` says why; `left` requests were then not asked."""

    replies: dict[str, list[Reply]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    stopped_by: str | None = None
    message: str = ""
    asked: int = 0
    from_ledger: int = 0
    from_cache: int = 0
    left: int = 0

    def collect(self, jobs: Iterable[Job]) -> Outcome:
        """Take in what came of the jobs, request by request."""
        for job in jobs:
            for request in job.requests:
                if isinstance(job.result, Reply):
                    self.replies.setdefault(request.item_id, []).append(job.result)
                elif job.result is None:
                    self.left += 1
                else:
                    failure = Failure(request.item_id, request.sample, job.result.status, str(job.result))
                    self.failures.append(failure)
        return self
