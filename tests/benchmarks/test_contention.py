from __future__ import annotations

import time

from bridge_edge.benchmarks.contention import Snapshot, contention, environment, snapshot, unsteady, watch


def at(seconds: float, busy: float, own: float, steal: float = 0.0, thermal: int = 0, throttled: int = 0) -> Snapshot:
    return Snapshot(seconds, 1.5, busy, steal, own, thermal, throttled)


QUIET = (at(0, 0, 0), at(1, 0.01, 0))


def test_own_work_is_not_contention() -> None:
    found = contention(QUIET, at(11, 10.02, 10.0), cores=2)
    assert found["reasons"] == []
    assert found["others_cpu_share"] < 0.01
    assert found["load1_before"] == 1.5  # recorded, and no reason


def test_each_disturbance_is_named() -> None:
    for after, word in [
        (at(11, 14.0, 10.0), "other processes took 20%"),
        (at(11, 10.0, 10.0, steal=2.0), "hypervisor took 10%"),
        (at(11, 10.0, 10.0, thermal=3), "throttled 3 times by heat"),
        (at(11, 10.0, 10.0, throttled=4), "throttled 4 times by the cgroup"),
        (at(11, 0.1, 10.0), "does not show"),
        (at(1.5, 0.5, 0.5), "too short"),
    ]:
        (reason,) = contention(QUIET, after, cores=2)["reasons"]
        assert word in reason
    (reason,) = contention((at(0, 0, 0), at(1, 1.0, 0)), at(11, 11.0, 10.0), cores=2)["reasons"]
    assert "50% busy before" in reason


def test_unsteady_speeds() -> None:
    assert unsteady([100.0, 101.0, 99.0, 100.0]) == []
    assert "varies" in unsteady([100.0, 60.0, 100.0])[0]
    assert unsteady([106.0, 105.0, 98.0, 97.0, 93.0, 92.0]) == ["decode slowed by 12% over the run (limit 10%)"]
    assert unsteady([5.0]) == ["fewer than two repetitions"]
    assert unsteady([]) == ["fewer than two repetitions"]


def test_real_counters_count_this_process() -> None:
    first, second = watch(0.05)
    assert second.at - first.at >= 0.05
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    third = snapshot()
    assert third.own - second.own >= 0.25
    assert third.busy >= second.busy


def test_environment_names_the_settings() -> None:
    found = environment(3)
    assert found["threads"] == 3
    assert found["versions"]["numpy"]
    assert found["usable_cores"] >= 1
    assert "OMP_WAIT_POLICY" in found["settings"]
