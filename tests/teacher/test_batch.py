"""The Batch API against a real server on loopback that counts its bill: results, partial ones, caps, and kill -9."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.budget import Caps, Ledger
from bridge_edge.errors import UserError
from bridge_edge.prices import Price
from bridge_edge.teacher.base import Request, TeacherError
from bridge_edge.teacher.batch_api import BatchTeacher, parse_lines
from bridge_edge.teacher.batch_run import ask_in_batches
from bridge_edge.teacher.batch_steps import Patience
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher
from bridge_edge.teacher.outcome import Outcome, Progress
from tests.teacher.batch_server import BatchServer, Hang, Result, good, serve_batches
from tests.teacher.loopback import chat

KEY = "sk-canary-0123456789abcdef"
PRICE = Price(Decimal("0.5"), 1)
QUICK = Patience(first_s=0.01, most_s=0.02, tries=4, grace_s=0.05)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", KEY)


def api(server: BatchServer, **more: Any) -> BatchTeacher:
    return BatchTeacher(Endpoint("toy", server.url, "TOY_KEY", 5.0, **more), PRICE)


def requests(n: int, max_tokens: int = 20) -> list[Request]:
    return [Request.of(f"item-{i}", f"Is {i} even?", max_tokens) for i in range(n)]


def go(server: BatchServer, folder: Path, n: int = 5, caps: Caps | None = None, **more: Any) -> Outcome:
    with Ledger(folder / "l.sqlite", caps or Caps(), PRICE) as ledger:
        return ask_in_batches(api(server, **more), ledger, requests(n), patience=QUICK)


def books(folder: Path) -> tuple[int, int, Counter[str]]:
    """Money counted, money that may turn out smaller, and the states of the rows."""
    with Ledger(folder / "l.sqlite", Caps(), PRICE) as ledger:
        ledger.verify()
        totals = ledger.totals()
        return totals.nano, totals.unsettled_nano, Counter(row["state"] for row in ledger.attempts())


def bill(server: BatchServer) -> int:
    return sum(PRICE.nano(prompt, completion) for _, prompt, completion in server.billed)


def test_a_batch_is_answered_once_at_the_batch_price(tmp_path: Path) -> None:
    seen: list[Progress] = []
    said: list[str] = []
    with serve_batches() as server:
        server.statuses = ["validating", "in_progress", "completed"]
        with Ledger(tmp_path / "l.sqlite", Caps(), PRICE) as ledger:
            outcome = ask_in_batches(api(server), ledger, requests(5), seen.append, said.append, patience=QUICK)
        again = go(server, tmp_path)
    assert {k: [r.text for r in v] for k, v in outcome.replies.items()} == {
        f"item-{i}": ["Fine.\nAnswer: yes"] for i in range(5)
    }
    assert (outcome.asked, outcome.left, outcome.stopped_by, outcome.failures) == (5, 0, None, [])
    assert again.replies == outcome.replies
    assert (again.asked, again.from_ledger) == (0, 5)
    assert len(server.batches) == len(server.files) == 1
    assert books(tmp_path) == (bill(server), 0, Counter({"settled": 5}))
    assert (seen[-1].done, seen[-1].total) == (5, 5)
    assert any("in_progress" in text for text in said)
    sent = [json.loads(line) for line in server.content["file-0"].splitlines()]
    assert sent[0]["body"] == {
        "model": "toy",
        "messages": [{"role": "user", "content": "Is 0 even?"}],
        "max_tokens": 20,
    }
    assert server.keys == {f"Bearer {KEY}"}


def test_an_answer_of_the_plain_api_is_not_bought_again_in_a_batch() -> None:
    endpoint = Endpoint("toy", "http://127.0.0.1:1/v1", "TOY_KEY")
    one = requests(1)[0]
    assert BatchTeacher(endpoint, PRICE).request_hash(one) == OpenAITeacher(endpoint, Price(1, 2)).request_hash(one)
    with pytest.raises(TeacherError, match="in batches only"):
        BatchTeacher(endpoint, PRICE).ask(one)


def test_partial_results_of_an_expired_batch_are_kept_and_the_rest_asked_again(tmp_path: Path) -> None:
    def behave(name: str, body: dict, number: int) -> Result:
        odd = int(body["messages"][0]["content"].split()[1]) % 2
        return "expired" if odd and number == 0 else good(name, body, number)

    with serve_batches(behave) as server:
        server.statuses = ["expired"]
        outcome = go(server, tmp_path, 6)
    assert len(outcome.replies) == 6
    assert len(server.batches) == 2
    assert len(server.content["file-1"].splitlines()) == 3
    assert books(tmp_path) == (bill(server), 0, Counter({"settled": 6, "released": 3}))


def test_what_always_expires_is_given_up_after_some_batches(tmp_path: Path) -> None:
    with serve_batches(lambda *_: "expired") as server:
        outcome = go(server, tmp_path, 2)
    assert len(server.batches) == QUICK.rounds
    assert {f.status for f in outcome.failures} == {"batch expired"}
    assert books(tmp_path)[:2] == (0, 0)


def test_a_cancelled_batch_gives_what_was_done(tmp_path: Path) -> None:
    def behave(name: str, body: dict, number: int) -> Result:
        return good(name, body, number) if "Is 0" in str(body) or number else "cancelled"

    with serve_batches(behave) as server:
        server.statuses = ["in_progress", "cancelling", "cancelled"]
        outcome = go(server, tmp_path, 3)
    assert len(outcome.replies) == 3
    assert books(tmp_path)[0] == bill(server)


def test_a_failed_batch_costs_nothing_and_says_why(tmp_path: Path) -> None:
    with serve_batches() as server:
        server.statuses = ["validating", "failed"]
        outcome = go(server, tmp_path, 3)
    assert outcome.stopped_by == "teacher"
    assert "line 1 is no JSON" in outcome.message
    assert books(tmp_path) == (0, 0, Counter({"released": 3}))


def test_lines_of_every_kind_become_rows(tmp_path: Path) -> None:
    answers: list[Result] = [
        good("", {}, 0),
        (400, '{"error": {"code": "content_filter", "message": "no"}}'),
        (400, '{"error": {"code": "context_length_exceeded", "message": "long"}}'),
        (200, chat("", usage=None)),
        "missing",
    ]

    def behave(name: str, body: dict, number: int) -> Result:
        return answers[int(body["messages"][0]["content"].split()[1])]

    with serve_batches(behave) as server:
        outcome = go(server, tmp_path, 5)
    assert list(outcome.replies) == ["item-0"]
    assert {f.item_id: f.status for f in outcome.failures} == {
        "item-1": "filtered",
        "item-2": "context overflow",
        "item-3": "empty",
        "item-4": "missing",
    }
    nano, unsettled, states = books(tmp_path)
    assert states == Counter({"settled": 2, "unknown": 2, "released": 1})  # missing stays counted
    assert nano > bill(server)
    assert unsettled > 0


def test_a_cap_holds_for_the_worst_case_and_what_is_left_over_buys_more(tmp_path: Path) -> None:
    with serve_batches() as server:
        bound = api(server).prompt_tokens(requests(1)[0])
        worst = PRICE.nano(bound, 20)
        caps = Caps(usd=Decimal(3 * worst) / 10**9)
        outcome = go(server, tmp_path, 9, caps)
        assert len(server.content["file-0"].splitlines()) == 3
        assert len(server.batches) > 1  # the first three cost less than was reserved
    assert bill(server) <= 3 * worst
    assert books(tmp_path)[0] == bill(server)
    assert outcome.stopped_by == "usd"
    assert len(outcome.replies) + outcome.left == 9
    assert len(outcome.replies) > 3


def test_a_refused_schema_is_asked_without_in_the_next_batch(tmp_path: Path) -> None:
    def behave(name: str, body: dict, number: int) -> Result:
        if "response_format" in body:
            return 400, '{"error": {"message": "response_format is not supported by this model"}}'
        return good(name, body, number)

    with serve_batches(behave) as server:
        outcome = go(server, tmp_path, 3, structured="auto", answers=("yes", "no"))
    assert len(outcome.replies) == 3
    assert len(server.batches) == 2
    assert books(tmp_path) == (bill(server), 0, Counter({"settled": 3, "released": 3}))


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
from test_batch import PRICE, QUICK, requests
from bridge_edge.teacher.batch_api import BatchTeacher
from bridge_edge.teacher.batch_run import ask_in_batches
from bridge_edge.teacher.openai_api import Endpoint

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
            [sys.executable, "-c", DRIVER, server.url, str(tmp_path), str(Path(__file__).parent)],
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
