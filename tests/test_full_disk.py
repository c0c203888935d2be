"""A disk that refuses each write of the ledger in turn: one clear error, and the ledger opens again, consistent.

Refused by the system in two real ways: a limit on the size of files (the write fails, which SQLite reports as it does
EIO), and a file system of a few pages (ENOSPC; it needs the right to mount one, the test is skipped otherwise). Every
transaction makes the log longer, so a limit that grows step by step hits each write once.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from bridge_edge.budget import Caps, Ledger, Price, Usage
from bridge_edge.errors import UserError

PRICE = Price(1, 2)
FRAME = 4096 + 24  # one page in SQLite's write-ahead log


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` (Python ignores the signal, so the write just fails)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def work(ledger: Ledger, done: dict[str, str]) -> None:
    """Every kind of write; `done` gets what was acknowledged."""
    for number in range(3):
        paid, lost, free = (f"{kind}{number}" for kind in ("paid", "lost", "free"))
        held = ledger.reserve(paid, "a", 10, 5)
        done[paid] = "reserved"
        answer = ledger.settle(held, Usage(10, 5), "x" * 3000)
        done[paid] = "settled"
        held = ledger.reserve(lost, "b", 10, 5)
        done[lost] = "reserved"
        ledger.fail(held, "timeout")
        done[lost] = "unknown"
        ledger.resolve(held.id, Usage(10, 2))
        done[lost] = "settled"
        ledger.adopt(type(answer)(free, "c", "ok", "text", 10, 5, "stop", "m"), "c", "cache: x")
        done[free] = "settled"


def check(path: Path, done: dict[str, str]) -> None:
    """What was acknowledged is there; the sums hold; the work can go on."""
    with Ledger(path, Caps(), PRICE) as ledger:
        ledger.verify()
        rows = {row["request_hash"]: row for row in ledger.attempts()}
        order = ["reserved", "unknown", "settled"]
        for key, state in done.items():
            assert order.index(rows[key]["state"]) >= order.index(state)
        assert len(rows) <= len(done) + 1  # at most the one that was not acknowledged
        assert ledger.totals().nano == sum(row["nano"] for row in rows.values())
        ledger.settle(ledger.reserve("after", "z", 10, 5), Usage(10, 5), "text")
        ledger.verify()


def refusal(act: Callable[[], None]) -> UserError | None:
    try:
        act()
    except UserError as error:
        return error
    return None


def test_every_write_of_a_ledger_may_fail(tmp_path: Path) -> None:
    refused: list[UserError] = []
    for step in range(60):
        path = tmp_path / f"{step}.sqlite"
        done: dict[str, str] = {}
        ledger = Ledger(path, Caps(), PRICE)
        with files_up_to(40_000 + step * 3 * FRAME // 2):  # the main file and the index of the log fit
            error = refusal(partial(work, ledger, done))
        if error is not None:
            refused.append(error)
            ledger.verify()  # the one that met the error goes on, too
        ledger.close()
        check(path, done)
    assert 10 < len(refused) < 60  # the last limits were wide enough for all
    assert {"disk I/O error" in error.message for error in refused} == {True}
    assert {"run the same command again" in error.hint for error in refused} == {True}


def begin(path: Path) -> None:
    Ledger(path, Caps(), PRICE).close()


def test_every_write_of_a_new_ledger_may_fail(tmp_path: Path) -> None:
    refused: list[UserError] = []
    for step in range(24):
        path = tmp_path / f"{step}.sqlite"
        with files_up_to(step * 4096 // 2):
            error = refusal(partial(begin, path))
        refused += [error] if error else []
        check(path, {})
    assert 3 < len(refused) < 24
    assert {str(tmp_path) in error.message for error in refused} == {True}


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("mounting a file system is not permitted here")
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_at_any_moment(tiny_disk: Path) -> None:
    refused: list[UserError] = []
    path, ballast = tiny_disk / "l.sqlite", tiny_disk / "ballast"
    for step in range(50):
        done: dict[str, str] = {}
        ledger = Ledger(path, Caps(), PRICE)
        disk = os.statvfs(tiny_disk)
        ballast.write_bytes(b"x" * max(0, disk.f_bavail * disk.f_bsize - step * 3 * 4096))
        error = refusal(partial(work, ledger, done))
        refused += [error] if error else []
        ballast.unlink()
        ledger.close()
        check(path, done)
        for file in tiny_disk.iterdir():
            file.unlink()
    assert 5 < len(refused) < 50
    assert {"free some disk space" in e.hint or "check the disk (space" in e.hint for e in refused} == {True}
