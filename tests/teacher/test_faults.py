"""Every way in which a server goes wrong, through the teach stage: a row each, the cap holds, no key anywhere."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import traceback
from contextlib import closing
from pathlib import Path

import pytest

from bridge_edge.apprenticeship import LEDGER, teach
from bridge_edge.budget import Ledger
from bridge_edge.data.pool import load_task
from bridge_edge.data.samples import write_jsonl
from bridge_edge.errors import UserError
from bridge_edge.phases import Context
from bridge_edge.prices import Price
from bridge_edge.recipe_io import load_recipe
from bridge_edge.teacher.outcome import Policy
from tests.legal import LEGAL
from tests.teacher.loopback import HALF, RESET, Scripted, Server, chat, serve

KEY = "sk-canary-fedcba9876543210"
ITEMS, CAP = 4, 0.01  # the cap holds some worst cases (about 0.0016 each), not all that could be tried
GOOD = chat(f"Said {KEY}.\nAnswer: Yes", 300, 8)
NO = json.dumps({"error": {"message": f"bad key {KEY}", "code": "x"}})


FAULTS: dict[str, tuple[Scripted, str, str]] = {  # what is sent, and the state and status of the first row
    "good": ((200, {}, GOOD), "settled", "ok"),
    "reset after billing": ((RESET, {}, GOOD), "unknown", "connection"),
    "reset": ((RESET, {}, ""), "unknown", "connection"),
    "late": ((200, {}, GOOD), "unknown", "timeout"),
    "half a body": ((HALF, {}, GOOD), "unknown", "connection"),
    "malformed": ((200, {}, GOOD[:-7] + "}"), "settled", "malformed"),
    "html": ((200, {"Content-Type": "text/html"}, f"<html>{KEY}</html>"), "settled", "malformed"),
    "no usage": ((200, {}, chat(f"{KEY}\nAnswer: Yes", usage=None)), "settled", "ok"),
    "absurd usage": ((200, {}, chat(f"{KEY}\nAnswer: Yes", -5, 10**15)), "settled", "ok"),
    "huge usage": ((200, {}, chat(f"{KEY}\nAnswer: Yes", 10**30, 10**30)), "settled", "ok"),
    "filtered": ((200, {}, chat(f"{KEY}", 300, 8, finish_reason="content_filter")), "settled", "filtered"),
    "400": ((400, {}, NO), "released", "http 400"),
    "401": ((401, {"x-request-id": KEY}, NO), "released", "not authorised"),
    "403": ((403, {}, NO), "released", "http 403"),
    "408": ((408, {}, NO), "unknown", "http 408"),
    "429": ((429, {"retry-after-ms": "1"}, NO), "released", "http 429"),
    "429, long": ((429, {"retry-after": "3601"}, NO), "released", "http 429"),
    "500": ((500, {}, NO), "unknown", "http 500"),
    "redirect": ((302, {"Location": f"http://127.0.0.1:9/{KEY}"}, ""), "released", "http 302"),
}


def run(folder: Path, server: Server, timeout: float) -> list[str]:
    """The teach stage over four items; returns all texts that a user could see of how it ended."""
    words = [*LEGAL, "teacher=openai", f"teacher.base_url={server.url}", "teacher.model=toy"]
    words += [
        "teacher.api_key_env=TOY_KEY",
        f"teacher.timeout={timeout}",
        "teacher.price.prompt=1",
        "teacher.price.completion=2",
    ]
    recipe = load_recipe([*words, f"budget.queries={ITEMS}", f"budget.usd={CAP}", "teacher.structured=off"])
    samples = load_task("legal").generate(ITEMS, 1)
    for name in ("data", "select", "out"):
        (folder / name).mkdir()
    write_jsonl(folder / "data" / "pool.jsonl", samples)
    (folder / "select" / "selected.json").write_text(json.dumps([{"id": sample.id} for sample in samples]))
    try:
        return [repr(teach(Context(recipe, folder, concurrency=2), folder / "out"))]
    except UserError as error:
        return [str(error), "".join(traceback.format_exception(error))]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_a_row_and_the_key_is_nowhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    scripted, state, status = FAULTS[name]
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TOY_KEY", KEY)
    monkeypatch.setenv("BRIDGE_EDGE_HOME", str(tmp_path / "home"))
    quick = Policy(retries=2, first_wait_s=0.01, most_wait_s=0.02)
    monkeypatch.setattr("bridge_edge.teacher.ask.Policy", lambda: quick)
    (tmp_path / "run").mkdir()
    with serve(lambda number, body: scripted) as server:
        server.delay = 1.0 if name == "late" else 0.0
        texts = run(tmp_path / "run", server, 0.5 if name == "late" else 30)
        sent = len(server.bodies)
    with closing(Ledger(tmp_path / "run" / LEDGER, price=Price(1, 2))) as ledger:
        ledger.verify()
        rows, counted = list(ledger.attempts()), ledger.totals().nano
    rows = [row for row in rows if row["status"] != "not sent"]  # reserved ahead and called back
    assert len(rows) == sent > 0  # an attempt, a row
    assert (rows[0]["state"], rows[0]["status"]) == (state, status)
    assert all(row["finished"] for row in rows)
    billed = sum(Price(1, 2).nano(*used) for used in server.billed) if "usage" not in name else 0
    assert billed <= counted <= CAP * 1e9
    output = capfd.readouterr()
    texts += [output.out, output.err, caplog.text]
    assert KEY not in "".join(texts)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_the_command_line_shows_no_key_whatever_the_server_says(tmp_path: Path) -> None:
    """The real command with tracebacks and the libraries' debug logs switched on, through several failures."""
    replies: list[Scripted] = [
        (500, {"x-request-id": KEY}, NO),
        (200, {}, f"<html>{KEY}</html>"),
        (RESET, {}, GOOD),
        (401, {"x-request-id": KEY, "WWW-Authenticate": KEY}, NO),
    ]
    words = [*LEGAL, "teacher=openai", "teacher.model=toy", "teacher.api_key_env=TOY_KEY", "ta.epochs=1"]
    words += ["data.pool=20", "data.dev=2", "data.test=2", "budget.queries=6"]
    words += ["teacher.price.prompt=1", "teacher.price.completion=2"]
    environment = {**os.environ, "TOY_KEY": KEY, "OPENAI_LOG": "debug", "BRIDGE_EDGE_HOME": str(tmp_path / "home")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    with serve(lambda number, body: replies[min(number, len(replies) - 1)]) as server:
        command = [sys.executable, "-m", "bridge_edge.cli", "--debug", "distill", *words]
        command += [f"teacher.base_url={server.url}", "--concurrency", "1"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert len(server.bodies) == len(replies)
    assert done.returncode == 2, done.stderr
    assert "check the key in the environment variable TOY_KEY" in done.stderr
    assert KEY not in done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"manifest.json", "ledger.sqlite", "answers.sqlite"} <= {path.name for path in files}
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
