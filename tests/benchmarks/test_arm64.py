"""Greedy tokens under another Python: the comparison, and both sides run by this machine's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bridge_edge.benchmarks import arm64
from bridge_edge.errors import UserError


def test_the_first_token_that_differs_is_named() -> None:
    assert arm64.compared([[1, 2], [3]], [[1, 2], [3]]) == {"answers": 2, "equal": 2, "tokens": 3, "first": None}
    found = arm64.compared([[1], [4, 5], [6]], [[1], [4, 5, 7], [8]])
    assert found == {"answers": 3, "equal": 1, "tokens": 4, "first": {"item": 1, "token": 2}}


def test_what_the_other_side_lacks_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot run the model: .*tell me why"):
        arm64.greedy(["sh", "-c", "echo tell me why >&2; exit 3"], tmp_path, ["Is 7 odd?"], 4)
    with pytest.raises(UserError, match="cannot start '/no/such/python'"):
        arm64.greedy(["/no/such/python"], tmp_path, ["Is 7 odd?"], 4)


def test_the_modules_that_are_sent_suffice(tmp_path: Path) -> None:
    """It is the model that is missing in the end, not a module."""
    with pytest.raises(UserError, match=r"cannot run the model: .*genai_config\.json"):
        arm64.greedy([sys.executable], tmp_path, ["Is 7 odd?"], 4)
