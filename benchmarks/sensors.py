"""What the kernel tells of the machine's state: clocks, load, pressure, frequency, heat and throttling.

Every reading comes from two roots, /proc and /sys, so that a test can hand in a tree of its own; what a system does not
show is None and decides nothing. Not covered: performance counters, GPUs; outside Linux only psutil's clocks and load.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from bridge_edge import host

PI_THROTTLED = "devices/platform/soc/soc:firmware/get_throttled"  # Raspberry Pi: undervoltage, capped, throttled
PI_NOW = 0b1111  # the bits that hold at this moment; the others remember


@dataclass(frozen=True)
class Sensors:
    """Readings from a /proc and a /sys."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")

    def clocks(self) -> tuple[float, float | None]:
        """Seconds, summed over all cores, in which the processor worked, and in which the hypervisor kept it away."""
        text = host.read(self.proc / "stat")
        line = next((s for s in (text or "").splitlines() if s.startswith("cpu ")), None)
        if line is None:
            cpu = psutil.cpu_times()
            guests = getattr(cpu, "guest", 0.0) + getattr(cpu, "guest_nice", 0.0)  # counted within user time
            idle = cpu.idle + getattr(cpu, "iowait", 0.0)
            steal = getattr(cpu, "steal", None)
            return sum(cpu) - guests - idle - (steal or 0.0), steal
        ticks = [int(word) for word in line.split()[1:]]
        second = os.sysconf("SC_CLK_TCK")
        user, nice, system, _idle, _wait, irq, soft, steal_ticks = (*ticks, *[0] * 8)[:8]
        return (user + nice + system + irq + soft) / second, steal_ticks / second if len(ticks) > 7 else None

    def load(self) -> float:
        text = host.read(self.proc / "loadavg")
        return float(text.split()[0]) if text else psutil.getloadavg()[0]

    def pressure(self) -> float | None:
        """Seconds so far in which some task waited for a core."""
        for line in (host.read(self.proc / "pressure/cpu") or "").splitlines():
            if line.startswith("some "):
                return int(line.rpartition("total=")[2]) / 1e6
        return None

    def megahertz(self) -> float | None:
        """The fastest core's clock now: of several, only the ones at work run at speed."""
        found = [host.number(p) for p in self.sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")]
        known = [n / 1000 for n in found if n]
        if known:
            return max(known)
        lines = (host.read(self.proc / "cpuinfo") or "").splitlines()
        values = [float(s.partition(":")[2]) for s in lines if s.startswith("cpu MHz")]
        return max(values) if values else None

    def governor(self) -> str | None:
        return host.read(self.sys / "devices/system/cpu/cpu0/cpufreq/scaling_governor")

    def celsius(self) -> float | None:
        """The hottest thermal zone."""
        found = [host.number(p) for p in self.sys.glob("class/thermal/thermal_zone*/temp")]
        known = [n / 1000 for n in found if n is not None and n > 0]
        return max(known) if known else None

    def thermal_throttles(self) -> int | None:
        return host.thermal_throttles(self.sys / "devices/system/cpu")

    def quota_throttles(self) -> int | None:
        return host.cpu_throttled(self.sys / "fs/cgroup")

    def firmware_limited(self) -> bool | None:
        """Whether a Raspberry Pi's firmware holds the clock down at this moment."""
        text = host.read(self.sys / PI_THROTTLED)
        try:
            return bool(int(text, 16) & PI_NOW) if text else None
        except ValueError:
            return None


def affinity() -> list[int] | None:
    """The logical cores that this process may run on, where the system has such a notion."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
