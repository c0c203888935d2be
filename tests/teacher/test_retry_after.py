"""What a server says about trying again, in every form that is seen, and what the asking loop makes of it."""

from __future__ import annotations

import email.utils
import json
import time
from pathlib import Path

import pytest

from bridge_edge.budget import Caps, Ledger
from bridge_edge.prices import Price
from bridge_edge.teacher.ask import Policy, ask_all
from bridge_edge.teacher.base import Request
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher
from bridge_edge.teacher.outcome import until
from bridge_edge.teacher.verdict import retry_after
from tests.teacher.loopback import Scripted, chat, serve

INF = float("inf")
PRICE = Price(1, 2)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "1e2"}, 100),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, INF),
        ({"retry-after": "-inf"}, None),
        ({"retry-after": "1e400"}, INF),
        ({"retry-after": "9" * 400}, INF),
        ({"retry-after": "120"}, 120),
        ({"retry-after": "121"}, 121),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "5 seconds"}, None),
        ({"retry-after": "7, 8"}, None),
        ({"retry-after": "0x10"}, None),
        ({"retry-after": "Fri, 31 Dec 100000 23:59:59 GMT"}, None),
        ({"retry-after": "Fri, 32 Dec 2027 23:59:59 GMT"}, None),
        ({"retry-after": "2027-01-01T00:00:00Z"}, None),
        ({"retry-after": "Sun Nov  6 08:49:37 1994"}, 0),  # the two older forms of HTTP dates, both long past
        ({"retry-after": "Sunday, 06-Nov-94 08:49:37 GMT"}, 0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),  # the finer header comes first
        ({"retry-after-ms": "0", "retry-after": "9"}, 0),
        ({"retry-after-ms": "-1", "retry-after": "9"}, 9),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after-ms": "120001"}, 120.001),
    ],
)
def test_seconds(headers: dict[str, str], wait: float | None) -> None:
    assert retry_after(headers) == (wait if wait is None else pytest.approx(wait))


@pytest.mark.parametrize(
    ("seconds", "change"),
    [
        (60, ("", "")),
        (120, ("", "")),
        (60, ("GMT", "+0000")),
        (60, ("GMT", "-0000")),
        (60, ("weekday", "Xyz")),  # a weekday that does not exist, or is not the date's, changes nothing
        (-60, ("", "")),
    ],
)
def test_dates(seconds: int, change: tuple[str, str]) -> None:
    date = email.utils.formatdate(time.time() + seconds, usegmt=True)
    date = "Xyz" + date[3:] if change[0] == "weekday" else date.replace(*change)
    wait = retry_after({"retry-after": date})
    assert wait is not None
    assert max(0, seconds) - 30 < wait <= max(0, seconds)  # the date is a whole second; a busy machine takes its time


def test_the_last_year_of_the_calendar() -> None:
    wait = retry_after({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"})
    assert wait is not None
    assert wait > 1e11
    assert until(120.4).startswith("120 s, until 20")
    assert until(1e18) == "1000000000000000000 s"
    assert until(INF) == "without end"


def ask(tmp_path: Path, first: Scripted, policy: Policy) -> tuple[str | None, int, float]:
    """The first reply is `first`, all others are good: what stopped it, how often it was asked, and the pause."""
    times: list[float] = []

    def script(number: int, body: dict) -> Scripted:
        times.append(time.monotonic())
        return (200, {}, chat("Answer: yes")) if number else first

    with serve(script) as server, Ledger(tmp_path / "l.sqlite", Caps(), PRICE) as ledger:
        teacher = OpenAITeacher(Endpoint("toy", server.url, ""), PRICE)
        outcome = ask_all(teacher, ledger, [Request.of("a", "Is 2 even?", 20)], 1, None, policy)
        rows = list(ledger.attempts())
    assert len(rows) == len(times)
    return outcome.stopped_by, len(times), times[-1] - times[0]


@pytest.mark.parametrize(
    ("header", "stopped"),
    [
        ("120", None),
        ("121", None),
        ("119.99", None),
        ("120.01", None),
        ("400", None),
        ("401", "teacher"),
        ("inf", "teacher"),
    ],
)
def test_the_boundary_of_two_minutes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    header: str,
    stopped: str | None,
) -> None:
    """Above two minutes it is said until when nothing is sent, above an hour (here less) the run stops; read a thousand
    times faster, so that the test need not wait."""
    assert (Policy().quiet_pause_s, Policy().longest_pause_s) == (120, 3600)
    read = retry_after
    monkeypatch.setattr(
        "bridge_edge.teacher.openai_api.retry_after", lambda headers: (read(headers) or 0.0) / 1000 if headers else None
    )
    policy = Policy(first_wait_s=0.001, most_wait_s=0.001, quiet_pause_s=0.12, longest_pause_s=0.4)
    found, asked, pause = ask(tmp_path, (429, {"Retry-After": header}, "{}"), policy)
    assert (found, asked) == (stopped, 1 if stopped else 2)
    assert stopped or pause >= float(header) / 1000
    said = "paused: the teacher asks to wait" in capfd.readouterr().err
    assert said == (stopped is None and float(header) > 120)


@pytest.mark.parametrize(
    ("status", "should", "asked"),
    [
        (500, "", 2),
        (500, "true", 2),
        (500, "false", 1),
        (429, "false", 1),
        (400, "", 1),
        (400, "true", 2),
        (404, "true", 2),
        (401, "true", 1),  # no key gets better by waiting
    ],
)
def test_the_server_may_overrule(tmp_path: Path, status: int, should: str, asked: int) -> None:
    headers = {"x-should-retry": should} if should else {}
    reply = (status, headers, json.dumps({"error": {"message": "no"}}))
    assert ask(tmp_path, reply, Policy(first_wait_s=0.001, most_wait_s=0.001))[1] == asked
