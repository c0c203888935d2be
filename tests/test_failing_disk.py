"""Every system call by which the ledger writes fails once, with EIO and with ENOSPC: fsync, ftruncate and all.

A small library stands between the process and the system's own (LD_PRELOAD) and lets the n-th of these calls fail, for
n = 1, 2, 3 ... until a whole piece of work goes through. A failed fsync matters most: the kernel may drop what it could
not write, so an acknowledged answer must never rest on one. It needs a C compiler and Linux, else the test is skipped.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/types.h>
#include <unistd.h>
long fail_at = 0, calls = 0, fail_with = 0;   /* set from Python; fail_at 0: never */
static int fails(void) {
    if (__atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST) != fail_at) return 0;
    errno = (int)fail_with;
    return 1;
}
#define STAND_IN(type, name, parameters, arguments)                          \
    type name parameters {                                                   \
        static type (*real) parameters;                                      \
        if (!real) real = (type (*) parameters)dlsym(RTLD_NEXT, #name);      \
        return fails() ? (type)-1 : real arguments;                          \
    }
STAND_IN(ssize_t, pwrite, (int f, const void *b, size_t n, off_t o), (f, b, n, o))
STAND_IN(ssize_t, pwrite64, (int f, const void *b, size_t n, off64_t o), (f, b, n, o))
STAND_IN(int, fsync, (int f), (f))
STAND_IN(int, fdatasync, (int f), (f))
STAND_IN(int, ftruncate, (int f, off_t n), (f, n))
STAND_IN(int, ftruncate64, (int f, off64_t n), (f, n))
"""

DRIVER = """
import ctypes, json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_full_disk import PRICE, check, work
from bridge_edge.budget import Caps, Ledger
from bridge_edge.errors import UserError

shim = ctypes.CDLL(None)
fail_at, calls, fail_with = (ctypes.c_long.in_dll(shim, name) for name in ("fail_at", "calls", "fail_with"))
root, code = Path(sys.argv[1]), int(sys.argv[2])
errors, number = [], 0
while True:
    number += 1
    path, done = root / f"{number}.sqlite", {}
    calls.value, fail_with.value, fail_at.value = 0, code, number
    ledger = None
    try:
        ledger = Ledger(path, Caps(), PRICE)
        work(ledger, done)
        reached = calls.value
    except UserError as error:
        errors.append(str(error))
        reached = number
    fail_at.value = 0
    if ledger is not None:
        ledger.verify()  # the one that met the error goes on, too
        ledger.close()
    check(path, done)
    if reached < number:
        break
print(json.dumps({"tried": number - 1, "errors": errors}))
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    made = folder / "shim.so"
    words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(folder / "shim.c"), "-ldl"]
    subprocess.run(words, check=True, capture_output=True)
    return made


@pytest.mark.parametrize("name", ["EIO", "ENOSPC"])
def test_every_system_call_that_writes_may_fail(shim: Path, tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), str(getattr(errno, name)), str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=900, env={**os.environ, "LD_PRELOAD": str(shim)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["tried"] > 40  # so many calls there are
    assert len(found["errors"]) > found["tried"] * 0.9  # SQLite goes on without a few, such as a truncation
    assert all("ledger" in error and "run the same command again" in error for error in found["errors"])
