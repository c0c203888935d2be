"""Batches whose replies, records or processes are lost: nothing is submitted or paid twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bridge_edge.errors import UserError
from bridge_edge.teacher.batch_api import parse_lines
from tests.teacher.batch_server import Hang, serve_batches
from tests.teacher.batching import PRICE, bill, books, go
from tests.teacher.toys import KEY


@pytest.mark.parametrize("keeps", [True, False])
def test_a_lost_reply_to_a_creation_does_not_make_two(tmp_path: Path, keeps: bool) -> None:
    lost = [3]

    def after(method: str, path: str) -> None:
        if (method, path) == ("POST", "/batches") and lost[0]:
            lost[0] = 0
            raise Hang

    with serve_batches() as server:
        server.after, server.keeps_metadata = after, keeps
        outcome = go(server, tmp_path)
    assert len(outcome.replies) == 5
    assert len(server.batches) == 1
    assert books(tmp_path)[0] == bill(server)


def test_a_busy_service_is_tried_again_and_a_refusal_is_not(tmp_path: Path) -> None:
    with serve_batches() as server:
        server.refuse = [(429, '{"error": {"message": "slow"}}'), (503, "{}")]
        assert len(go(server, tmp_path).replies) == 5
        assert len(server.batches) == 1
        server.refuse = [(400, '{"error": {"message": "no such endpoint"}}')]
        (tmp_path / "b").mkdir()
        outcome = go(server, tmp_path / "b")
        assert outcome.stopped_by == "teacher"
        assert books(tmp_path / "b") == (0, 0, Counter({"released": 5}))
        assert len(go(server, tmp_path / "b").replies) == 5  # the next run may ask again


def test_a_batch_that_the_service_forgot_stays_counted(tmp_path: Path) -> None:
    def before(method: str, path: str) -> None:
        if path == "/batches/batch-0":
            server.batches.pop("batch-0", None)

    with serve_batches() as server:
        server.before = before
        outcome = go(server, tmp_path, 2)
    assert {f.status for f in outcome.failures} == {"missing"}
    assert books(tmp_path)[2] == Counter({"unknown": 2})
    assert books(tmp_path)[0] >= bill(server)


def test_a_damaged_record_stops_before_anything_is_bought(tmp_path: Path) -> None:
    (tmp_path / "batches").mkdir()
    (tmp_path / "batches" / "x.json").write_text("{broken")
    with serve_batches() as server, pytest.raises(UserError, match=r"x\.json of a batch is damaged"):
        go(server, tmp_path)
    assert not server.batches


def test_broken_lines_are_left_out() -> None:
    assert parse_lines('{"custom_id": "a"}\n{broken\n\n[1]\n{"custom_id": "\u2028"}') == [
        {"custom_id": "a"},
        {"custom_id": "\u2028"},
    ]


DRIVER = """
import json, os, signal, sys
from decimal import Decimal
from pathlib import Path

url, root = sys.argv[1], Path(sys.argv[2])
sys.path.insert(0, sys.argv[3])
import openai
from bridge_edge.budget import Caps, Ledger
from bridge_edge.teacher import batch_record, batch_run
from bridge_edge.teacher.batch_api import BatchTeacher
from bridge_edge.teacher.batch_run import ask_in_batches
from bridge_edge.teacher.openai_api import Endpoint
from tests.teacher.asking import requests
from tests.teacher.batching import PRICE, QUICK

batch_run.TOGETHER = 2  # so that a kill may come when some are reserved and some are not

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def run(folder, point):
    # Every durable step and every entry in the ledger is a point to die at, before and after it.
    count = 0
    def around(owner, name):
        real = getattr(owner, name)
        def step(*args, **more):
            nonlocal count
            count += 1
            if count == point:
                die()
            found = real(*args, **more)
            count += 1
            if count == point:
                die()
            return found
        setattr(owner, name, step)
    around(batch_record, "write_atomic")
    for owner, names in ((Ledger, ("reserve_all", "settle", "fail")), (BatchTeacher, ("upload", "create", "download"))):
        for name in names:
            around(owner, name)
    os.environ["TOY_KEY"] = "sk-canary-0123456789abcdef"
    with Ledger(folder / "l.sqlite", Caps(), PRICE) as ledger:
        outcome = ask_in_batches(BatchTeacher(Endpoint(f"toy-{folder.name}", url, "TOY_KEY", 5.0), PRICE), ledger,
                                 requests(3), patience=QUICK)
    return len(outcome.replies)

point, results = 0, {}
while True:
    point += 1
    folder = root / str(point)
    folder.mkdir()
    for stop in (point, 0):
        child = os.fork()
        if not child:
            os._exit(run(folder, stop))
        status = os.waitpid(child, 0)[1]
        if stop == point:
            killed = os.WIFSIGNALED(status)
        results[point] = os.waitstatus_to_exitcode(status)
    if not killed:
        break
print(json.dumps(results))
"""


def test_killed_at_every_step_nothing_is_submitted_or_paid_twice(tmp_path: Path) -> None:
    with serve_batches() as server:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, server.url, str(tmp_path), str(Path(__file__).parents[2])],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "TOY_KEY": KEY},
        )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout)
    assert len(results) > 20  # so many places to die at
    assert set(results.values()) == {3}
    made: Counter[str] = Counter()
    for batch in server.batches.values():
        made[json.loads(server.content[batch["input_file_id"]].splitlines()[0])["body"]["model"]] += 1
    assert set(made.values()) == {1}
    assert len(made) == len(results)
    assert max(Counter(name for name, _, _ in server.billed).values()) == 1
    for point in results:
        nano, unsettled, states = books(tmp_path / point)
        assert (nano, unsettled) == (3 * PRICE.nano(40, 8), 0), point
        assert states["settled"] == 3
        text = "".join(p.read_bytes().decode("utf-8", "replace") for p in (tmp_path / point).rglob("*") if p.is_file())
        assert KEY not in text
