from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.benchmarks import contention, report
from bridge_edge.benchmarks.bench import BenchOptions, bench
from bridge_edge.benchmarks.contention import Snapshot
from bridge_edge.benchmarks.guard import Guard
from bridge_edge.benchmarks.sensors import Sensors
from bridge_edge.data.samples import Sample
from tests.rule_runtime import RuleRuntime

START = Snapshot(at=0, load1=0.5, busy=0, steal=0, own=0, thermal=0, throttled=0, mhz=2000, celsius=50, pressure=0)
QUIET = (replace(START, at=-1), START)


def script(*pieces: dict[str, float]) -> list[Snapshot]:
    """Snapshots before and after each piece: ten seconds of ten seconds' own work, and the changes named."""
    seen, now = [], START
    for piece in pieces:
        seen.append(now)
        now = replace(now, at=now.at + 10, busy=now.busy + 10, own=now.own + 10)
        changes: dict[str, Any] = {k: (v if k == "mhz" else getattr(now, k) + v) for k, v in piece.items()}
        now = replace(now, **changes)
        seen.append(now)
    return seen


def guard(retries: int, *pieces: dict[str, float], idle: contention.Watched = QUIET) -> Guard:
    looks = iter(script(*pieces))
    return Guard(retries, look=lambda: next(looks), watch=lambda: idle)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


def test_a_disturbed_piece_is_made_again_and_its_time_does_not_count() -> None:
    watched = guard(2, {}, {"busy": 8}, {})
    results = iter([1, 2, 3])
    assert [watched.run("a", lambda: next(results)), watched.run("b", lambda: next(results))] == [1, 3]
    found = watched.report()
    assert found["repeated"] == [{"work": "b", "reasons": ["other processes took 40% of the processor (limit 5%)"]}]
    assert found["reasons"] == found["disturbed"] == []
    assert (found["others_cpu_share"], found["seconds"]) == (0.0, 20)  # two pieces, not three
    assert len(found["during"]) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"busy": 8.0}, "other processes took"),
        ({"steal": 4.0}, "hypervisor took"),
        ({"thermal": 3}, "throttled 3 times by heat"),
        ({"throttled": 2}, "throttled 2 times by the cgroup's quota"),
    ],
)
def test_what_stays_disturbed_is_not_publishable(change: dict[str, float], reason: str) -> None:
    watched = guard(1, change, change)
    watched.run("a", lambda: None)
    found = watched.report()
    assert len(found["repeated"]) == 1
    assert any(reason in r for r in found["reasons"])


def test_one_disturbed_piece_of_many_is_still_a_reason() -> None:
    watched = guard(0, {"busy": 1.2}, *[{}] * 9)
    for _ in range(10):
        watched.run("a", lambda: None)
    found = watched.report()
    assert found["others_cpu_share"] < 0.05
    assert found["reasons"] == [
        "1 of 10 pieces stayed disturbed (a: other processes took 6% of the processor (limit 5%))"
    ]


def test_a_clock_that_falls_is_a_reason() -> None:
    watched = guard(0, {"mhz": 2000}, {"mhz": 1500})
    for _ in range(2):
        watched.run("a", lambda: None)
    assert watched.report()["reasons"] == ["the clock fell from 2000 to 1500 MHz (limit 15%)"]


def test_on_a_machine_that_was_busy_before_nothing_is_made_again() -> None:
    busy = (replace(START, at=-1, busy=-1), START)
    watched = guard(5, {"busy": 8}, idle=busy)
    watched.run("a", lambda: None)
    found = watched.report()
    assert found["repeated"] == []
    assert found["others_cpu_share_before"] == 0.5


def test_waiting_ends_when_the_machine_is_quiet() -> None:
    busy = (replace(START, at=-1, busy=-1), START)
    watches = iter([busy, busy, QUIET])
    looks = iter(script({}))
    watched = Guard(0, wait_s=60, look=lambda: next(looks), watch=lambda: next(watches))
    assert not watched.busy_before
    assert watched.idle == QUIET


def test_warm_up_is_neither_watched_nor_repeated() -> None:
    watched = guard(3, {"busy": 8}, {})
    watched.run("warm-up", lambda: None, record=False)
    watched.run("a", lambda: None)
    assert len(watched.kept) == 1


def tree(root: Path, **files: str) -> Sensors:
    """A /proc and a /sys of our own; "__" in a name stands for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return Sensors(root / "proc", root / "sys")


def test_sensors_read_a_tree(tmp_path: Path) -> None:
    cpu = "sys__devices__system__cpu__cpu"
    sensors = tree(
        tmp_path,
        proc__stat="cpu  100 10 50 900 7 3 2 40 30 0\ncpu0 1 1 1 1",
        proc__loadavg="1.25 0.9 0.8 1/99 4242",
        proc__pressure__cpu="some avg10=1 avg60=1 avg300=1 total=2500000\nfull avg10=0 total=0",
        **{
            cpu + "0__cpufreq__scaling_cur_freq": "1500000",
            cpu + "1__cpufreq__scaling_cur_freq": "2400000",
            cpu + "0__cpufreq__scaling_governor": "ondemand",
            cpu + "0__thermal_throttle__package_throttle_count": "4",
            "sys__class__thermal__thermal_zone0__temp": "61500",
            "sys__class__thermal__thermal_zone1__temp": "48000",
            "sys__fs__cgroup__cpu.stat": "usage_usec 5\nnr_throttled 6",
            "sys__devices__platform__soc__soc:firmware__get_throttled": "50004",
        },
    )
    tick = os.sysconf("SC_CLK_TCK")
    assert sensors.clocks() == (165 / tick, 40 / tick)  # guests' 30 ticks are within user time
    found = contention.snapshot(sensors)
    assert (found.load1, found.pressure, found.mhz, found.celsius) == (1.25, 2.5, 2400.0, 61.5)
    assert (found.thermal, found.throttled, found.limited) == (4, 6, True)
    assert sensors.governor() == "ondemand"


def test_sensors_of_a_system_that_shows_nothing(tmp_path: Path) -> None:
    sensors = Sensors(tmp_path / "proc", tmp_path / "sys")
    found = contention.snapshot(sensors)
    assert found.busy >= 0
    assert (found.mhz, found.celsius, found.pressure, found.thermal, found.limited) == (None,) * 5
    # A Pi whose firmware remembers a throttle of long ago (the upper bits) is not throttled now.
    pi = tree(tmp_path, **{"sys__devices__platform__soc__soc:firmware__get_throttled": "50000"})
    assert pi.firmware_limited() is False


def test_a_report_says_what_was_made_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    options = BenchOptions(threads=1, repetitions=2, warmup=0, prefill=(), memory=False, rest_s=0, retries=1)
    found = bench(tmp_path / "a", [Sample("is 7 odd?", "yes")], options, lambda path, threads: RuleRuntime(path))
    assert {"affinity", "governor"} <= set(found["environment"])
    assert "OMP_WAIT_POLICY" in found["environment"]["settings"]
    found["contention"]["repeated"] = [{"work": "rule a", "reasons": ["a neighbour"]}]
    assert "made again: rule a (a neighbour)" in report.table([found])
