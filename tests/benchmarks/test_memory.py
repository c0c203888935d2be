from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bridge_edge.benchmarks import memory
from bridge_edge.errors import UserError
from tests import tiny
from tests.rule_runtime import RuleRuntime

MIB = 1 << 20


def test_kilobytes(tmp_path: Path) -> None:
    file = tmp_path / "status"
    file.write_text("Name:\tpython\nVmHWM:\t   2048 kB\nThreads:\t3\n", encoding="utf-8")
    assert memory.kilobytes(file) == {"VmHWM": 2 * MIB}
    assert memory.kilobytes(tmp_path / "none") == {}


def test_the_peak_remembers_what_was_freed() -> None:
    peak, now = memory.peak_rss(), psutil.Process().memory_info().rss
    block = b"x" * (peak - now + 64 * MIB)
    del block
    assert memory.peak_rss() >= peak + 32 * MIB


def test_use_reports_what_the_runtime_took(tmp_path: Path) -> None:
    made: list[RuleRuntime] = []

    def load(path: Path, threads: int | None) -> RuleRuntime:
        made.append(RuleRuntime(path))
        return made[-1]

    found = memory.use(load, tmp_path, ["a7", "b"], 20, None)
    assert (found["answers"], len(made[0].seen), made[0].closed) == (2, 2, True)
    assert found["peak_rss_bytes"] >= found["loaded_rss_bytes"] - MIB


def test_a_child_measures_a_real_artifact_without_the_parents_memory(tmp_path: Path) -> None:
    model = tiny.checkpoint(tmp_path / "model")
    ballast = b"x" * 768 * MIB  # larger than torch and the toy model together
    found = memory.measure(model, list(tiny.PROMPTS), 4, threads=1)
    assert memory.peak_rss() > 768 * MIB
    assert len(ballast) == 768 * MIB
    assert found["answers"] == len(tiny.PROMPTS)
    assert found["torch_imported"]
    assert found["interpreter_rss_bytes"] < found["peak_rss_bytes"] < 768 * MIB
    if found["peak_pss_bytes"] is not None:
        assert found["peak_pss_bytes"] <= found["peak_rss_bytes"]


def test_a_failure_in_the_child_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"measurement of .*nothing.* failed: .*no model"):
        memory.measure(tmp_path / "nothing", ["a"], 4)


def test_wrong_usage() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bridge_edge.benchmarks.memory"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "usage" in done.stderr


@pytest.mark.parametrize("text", ["[]", "{bad", '{"model_type": "nosuch"}'])
def test_a_damaged_checkpoint_is_one_clear_line(tmp_path: Path, text: str) -> None:
    """The libraries of a family are imported first, which took the error of transformers for the last line."""
    model = tiny.checkpoint(tmp_path / "model")
    (model / "config.json").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "bridge_edge.benchmarks.memory", str(model), "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith(f"cannot read {model / 'config.json'}: ")
    assert lines[-1].endswith("; save the checkpoint again")
    assert "Traceback" not in done.stderr
