"""Was the machine quiet enough for the figures to be published?

A benchmark on a busy machine measures its neighbours: two OpenMP threads on a busy two-core machine have been seen at
an eighth of one thread's speed. So a run is watched: processor time taken by others before and during it and by the
hypervisor, and throttling by heat or by a cgroup's quota. The load average is recorded but decides nothing: it
remembers the caller's own training of a minute ago. Not covered: contention of memory bandwidth and
caches by neighbours on other cores' time (it shows up as noise).
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import psutil

import bridge_edge
from bridge_edge import host
from bridge_edge.benchmarks.sensors import Sensors, affinity

MAX_OTHERS, MAX_STEAL = 0.05, 0.02  # shares of all cores' time
MAX_NOISE, MAX_SLOWING = 0.10, 0.10  # of decode speed: sd over mean; last repetitions against the first
# Work that brief is noise, not contention: a share is read from clocks that tick every 10 ms.
SHORTEST_WATCH = 1.0
SHORTEST_PIECE = 0.5  # of one repetition: what ticks can feign then stays below the limits
MAX_CLOCK_DROP = 0.15
PACKAGES = ("torch", "transformers", "llama-cpp-python", "onnxruntime", "onnxruntime-genai", "numpy")
SENSORS = Sensors()
SETTINGS = (
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY",
    "MKL_NUM_THREADS",
)  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """Clocks and counters at one moment; times are seconds summed over all cores."""

    at: float
    load1: float
    busy: float
    steal: float | None
    own: float
    thermal: int | None
    throttled: int | None
    mhz: float | None = None
    celsius: float | None = None
    pressure: float | None = None
    limited: bool | None = None


Watched = tuple[Snapshot, Snapshot]  # before and after a piece of work


def snapshot(sensors: Sensors = SENSORS) -> Snapshot:
    """The counters now. `own` counts this process and its children that have ended."""
    own = psutil.Process().cpu_times()
    busy, steal = sensors.clocks()
    return Snapshot(
        at=time.perf_counter(),
        load1=sensors.load(),
        busy=busy,
        steal=steal,
        own=own.user + own.system + getattr(own, "children_user", 0.0) + getattr(own, "children_system", 0.0),
        thermal=sensors.thermal_throttles(),
        throttled=sensors.quota_throttles(),
        mhz=sensors.megahertz(),
        celsius=sensors.celsius(),
        pressure=sensors.pressure(),
        limited=sensors.firmware_limited(),
    )


def watch(seconds: float = SHORTEST_WATCH) -> Watched:
    """Two snapshots around a pause in which this process does nothing: what the others do before a run."""
    first = snapshot()
    time.sleep(seconds)
    return first, snapshot()


def contention(idle: Watched, after: Snapshot, cores: int | None = None) -> dict[str, Any]:
    """What the snapshots say about the pause before a run (`idle`) and about the run, which began as the pause ended;
    `reasons` are those not to publish, if any."""
    cores, before = cores or os.cpu_count() or 1, idle[1]
    spent, own = after.busy - before.busy, after.own - before.own
    found: dict[str, Any] = {
        "seconds": after.at - before.at,
        "load1_before": idle[0].load1,
        "load1_after": after.load1,
        "others_cpu_share_before": _others(*idle, cores),
        "others_cpu_share": _others(before, after, cores),
        "steal_share": _steal(before, after, cores),
        "thermal_throttles": _grown(before.thermal, after.thermal),
        "quota_throttles": _grown(before.throttled, after.throttled),
        "firmware_limited": after.limited,
        "waiting_share": _waiting(before, after),
        "mhz_before": idle[0].mhz,
        "mhz_after": after.mhz,
        "celsius_before": idle[0].celsius,
        "celsius_after": after.celsius,
        # Some sandboxes show a processor that never works; then the shares above mean nothing.
        "clocks_usable": own < 0.5 or spent > 0.5 * own,
    }
    return {**found, "reasons": _reasons(found)}


def disturbance(work: Watched, cores: int | None = None) -> list[str]:
    """Reasons to make one piece of work again. A piece too short for the kernel's clocks is judged by counts alone."""
    before, after = work
    cores = cores or os.cpu_count() or 1
    reasons = []
    if after.at - before.at >= SHORTEST_PIECE:
        others, steal = _others(before, after, cores), _steal(before, after, cores)
        if others > MAX_OTHERS:
            reasons.append(f"other processes took {others:.0%} of the processor (limit {MAX_OTHERS:.0%})")
        if (steal or 0) > MAX_STEAL:
            reasons.append(f"the hypervisor took {steal:.0%} of the processor (limit {MAX_STEAL:.0%})")
    for what, grown in (
        ("heat", _grown(before.thermal, after.thermal)),
        ("the cgroup's quota", _grown(before.throttled, after.throttled)),
    ):
        if grown:
            reasons.append(f"throttled {grown} times by {what}")
    if after.limited:
        reasons.append("the firmware held the clock down")
    return reasons


def joined(start: Snapshot, pieces: Sequence[Watched]) -> Snapshot:
    """A snapshot as if the pieces, and nothing else, had followed on `start`."""

    def grown(name: str) -> Any:
        begin = getattr(start, name)
        steps = [(getattr(a, name), getattr(b, name)) for a, b in pieces]
        return None if begin is None or any(None in s for s in steps) else begin + sum(b - a for a, b in steps)

    last = pieces[-1][1] if pieces else start
    summed = {name: grown(name) for name in ("at", "busy", "steal", "own", "thermal", "throttled", "pressure")}
    return replace(last, **summed, limited=any(b.limited for _, b in pieces) if pieces else start.limited)


def clock_drop(pieces: Sequence[Watched]) -> str | None:
    """A reason not to publish if the clock at the end of some piece lay far below that at the end of another."""
    clocks = [after.mhz for _, after in pieces if after.mhz]
    if len(clocks) > 1 and min(clocks) < (1 - MAX_CLOCK_DROP) * max(clocks):
        return f"the clock fell from {max(clocks):.0f} to {min(clocks):.0f} MHz (limit {MAX_CLOCK_DROP:.0%})"
    return None


def _steal(start: Snapshot, end: Snapshot, cores: int) -> float | None:
    if start.steal is None or end.steal is None:
        return None
    return (end.steal - start.steal) / _capacity(start, end, cores)


def _capacity(start: Snapshot, end: Snapshot, cores: int) -> float:
    return max(end.at - start.at, 1e-9) * cores


def _others(start: Snapshot, end: Snapshot, cores: int) -> float:
    return max(0.0, (end.busy - start.busy) - (end.own - start.own)) / _capacity(start, end, cores)


def _waiting(start: Snapshot, end: Snapshot) -> float | None:
    """Share of the time in which some task, this run's own included, waited for a core."""
    if start.pressure is None or end.pressure is None:
        return None
    return (end.pressure - start.pressure) / max(end.at - start.at, 1e-9)


def _grown(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def _reasons(found: dict[str, Any]) -> list[str]:
    reasons = []
    if not found["clocks_usable"]:
        reasons.append("this system does not show how busy its processor is")
    if found["others_cpu_share_before"] > MAX_OTHERS:
        share = found["others_cpu_share_before"]
        reasons.append(f"the processor was {share:.0%} busy before the run (limit {MAX_OTHERS:.0%})")
    if found["seconds"] < SHORTEST_WATCH:
        reasons.append(f"too short to watch the machine: {found['seconds']:.2f} s (at least {SHORTEST_WATCH:g} s)")
    elif found["others_cpu_share"] > MAX_OTHERS:
        reasons.append(
            f"other processes took {found['others_cpu_share']:.0%} of the processor (limit {MAX_OTHERS:.0%})"
        )
    if (found["steal_share"] or 0) > MAX_STEAL:
        reasons.append(f"the hypervisor took {found['steal_share']:.0%} of the processor (limit {MAX_STEAL:.0%})")
    for key, what in (("thermal_throttles", "heat"), ("quota_throttles", "the cgroup's quota")):
        if found[key]:
            reasons.append(f"throttled {found[key]} times by {what}")
    if found["firmware_limited"]:
        reasons.append("the firmware held the clock down")
    return reasons


def unsteady(speeds: list[float]) -> list[str]:
    """Reasons not to publish that show in the decode speeds of the repetitions, in time order."""
    if len(speeds) < 2:
        return ["fewer than two repetitions"]
    reasons = []
    mean = sum(speeds) / len(speeds)
    noise = (sum((s - mean) ** 2 for s in speeds) / (len(speeds) - 1)) ** 0.5 / mean
    if noise > MAX_NOISE:
        reasons.append(f"decode speed varies by {noise:.0%} between repetitions (limit {MAX_NOISE:.0%})")
    third = max(1, len(speeds) // 3)
    slowing = 1 - (sum(speeds[-third:]) / third) / (sum(speeds[:third]) / third)
    if len(speeds) >= 3 and slowing > MAX_SLOWING:
        reasons.append(f"decode slowed by {slowing:.0%} over the run (limit {MAX_SLOWING:.0%})")
    return reasons


def environment(threads: int | None) -> dict[str, Any]:
    """What the figures depend on besides the model."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": host.cpu_model(),
        "cpu_features": host.cpu_features(),
        "cores": os.cpu_count(),
        "usable_cores": host.usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "threads": threads,
        "affinity": affinity(),
        "governor": SENSORS.governor(),
        "settings": {name: os.environ.get(name) for name in SETTINGS},
        "python": platform.python_version(),
        "versions": {"bridge-edge": bridge_edge.__version__, **versions},
    }
