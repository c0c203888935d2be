"""How threads wait is set before anything computes, and a user's own choice stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bridge_edge.waiting import SPINS

SEEN = "import os, bridge_edge.cli as cli; cli.quiet_environment(); print(*map(os.environ.get, {names}))"
NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, f"PASSIVE {SPINS}"),
        ({"GOMP_SPINCOUNT": "7"}, "PASSIVE 7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"),
    ],
)
def test_threads_look_briefly_and_then_sleep_unless_the_user_says_otherwise(
    chosen: dict[str, str], expected: str
) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    code = SEEN.format(names=NAMES)
    done = subprocess.run([sys.executable, "-c", code], env={**clean, **chosen}, capture_output=True, text=True)
    assert done.stdout.strip() == expected, done.stderr


def test_make_leaves_the_policy_to_the_command_line() -> None:
    """An export there is taken for a user's own choice, and had `make demo` decode at a tenth of the speed."""
    makefile = Path(__file__).parents[1] / "Makefile"
    assert not set(NAMES) & set(re.findall(r"\w+", makefile.read_text(encoding="utf-8")))
