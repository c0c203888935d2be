from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.benchmarks import constrained
from bridge_edge.benchmarks.constrained import Limits, make_group

MIB = 1 << 20


@pytest.fixture
def no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Address limits everywhere, also where the tests may make cgroups."""
    monkeypatch.setattr(constrained, "make_group", lambda limits: None)


@pytest.mark.usefixtures("no_group")
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_a_command_runs_on_the_devices_cores() -> None:
    code = "import os; print(len(os.sched_getaffinity(0)))"
    found = constrained.run([sys.executable, "-c", code], Limits(1, 4096 * MIB), 60)
    assert (found["exit_code"], found["output"].strip(), found["oom"]) == (0, "1", False)
    assert (found["cores"], found["cores_asked"], found["memory_limited_by"]) == (1, 1, "RLIMIT_AS")
    assert found["label"].startswith("constrained ")
    many = constrained.run([sys.executable, "-c", code], Limits(512, 4096 * MIB), 60)
    assert int(many["output"]) == many["cores"] == len(os.sched_getaffinity(0))


@pytest.mark.usefixtures("no_group")
@pytest.mark.skipif(sys.platform != "linux", reason="address limits bind on Linux")
def test_running_out_of_memory_is_a_result() -> None:
    code = "x = bytearray(1 << 30); print('never')"
    found = constrained.run([sys.executable, "-c", code], Limits(1, 512 * MIB), 60)
    assert (found["oom"], found["output"]) == (True, "")
    assert "MemoryError" in found["said"]
    small = constrained.run([sys.executable, "-c", "x = bytearray(1 << 20)"], Limits(1, 512 * MIB), 60)
    assert (small["oom"], small["exit_code"]) == (False, 0)


@pytest.mark.usefixtures("no_group")
def test_another_failure_is_not_taken_for_it() -> None:
    found = constrained.run([sys.executable, "-c", "raise SystemExit('no such model')"], Limits(1, 4096 * MIB), 60)
    assert (found["oom"], found["exit_code"], found["said"]) == (False, 1, "no such model")


@pytest.mark.usefixtures("no_group")
def test_a_command_that_takes_too_long() -> None:
    found = constrained.run([sys.executable, "-c", "import time; time.sleep(60)"], Limits(1, 4096 * MIB), 1.0)
    assert (found["timed_out"], found["exit_code"]) == (True, None)


def kernel(root: Path, monkeypatch: pytest.MonkeyPatch, *controllers: str) -> None:
    """A cgroup file system whose new folders come with the kernel's files."""
    (root / "user").mkdir(parents=True)
    (root / "cgroup.controllers").write_text("cpu memory", encoding="utf-8")
    real = Path.mkdir

    def mkdir(path: Path, *args: Any, **options: Any) -> None:
        real(path, *args, **options)
        for name in ("cgroup.procs", *controllers):
            (path / name).write_text("", encoding="utf-8")

    monkeypatch.setattr(Path, "mkdir", mkdir)


def test_a_group_is_made_beside_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, own = tmp_path / "cg", tmp_path / "self"
    own.write_text("0::/user/shell\n", encoding="utf-8")
    kernel(root, monkeypatch, "memory.max", "memory.swap.max", "memory.events")
    group = make_group(Limits(2, 300 * MIB), root, own)
    assert group is not None
    assert group.parent == root / "user"
    assert (group / "memory.max").read_text() == str(300 * MIB)
    assert (group / "memory.swap.max").read_text() == "0"
    assert constrained.killed_for_memory(group) == 0
    (group / "memory.events").write_text("low 0\noom 2\noom_kill 1\n", encoding="utf-8")
    assert constrained.killed_for_memory(group) == 1


@pytest.mark.parametrize("lines", ["4:memory:/a\n", "0::/user/shell\n"])
def test_without_a_delegated_memory_controller_there_is_no_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str
) -> None:
    root, own = tmp_path / "cg", tmp_path / "self"
    own.write_text(lines, encoding="utf-8")
    kernel(root, monkeypatch)  # folders without memory.max
    assert make_group(Limits(1, MIB), root, own) is None
    assert make_group(Limits(1, MIB), tmp_path / "none", own) is None
    assert make_group(Limits(1, MIB), root, tmp_path / "none") is None


def test_the_label_names_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for machine, wanted in (("x86_64", "constrained x86"), ("aarch64", "constrained aarch64")):
        monkeypatch.setattr(constrained.platform, "machine", lambda machine=machine: machine)
        assert constrained.label() == wanted
