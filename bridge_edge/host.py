"""Facts about the machine: processor, usable cores, memory, as this process may use them.

Why not os.cpu_count() and the machine's total: in a container both name what the host has, and thread counts and
memory plans made from them fail. Read on Linux from /proc, /sys and both versions of cgroups; elsewhere through
psutil and sysctl, where a fact that cannot be had is None. Not covered: limits of outer cgroups hidden from the
process, Windows job objects.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import psutil

CPUINFO, CGROUP = Path("/proc/cpuinfo"), Path("/sys/fs/cgroup")
# Kernel flag -> the name people know it by. Arm lists its flags under "Features".
FEATURES = {
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avx512f": "avx512",
    "avx512_bf16": "avx512_bf16",
    "avx512_vnni": "vnni",
    "avx_vnni": "avx_vnni",
    "amx_int8": "amx",
    "asimd": "neon",
    "neon": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
}
NO_LIMIT = 1 << 60  # cgroup v1 writes "none" as a number near 2**63


def cpu_model(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name, or the architecture where the system gives no name."""
    fields = _cpuinfo(cpuinfo)
    for key in ("model name", "Hardware", "Model"):
        if fields.get(key):
            return fields[key]
    return _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()


def cpu_features(cpuinfo: Path = CPUINFO) -> list[str]:
    """Which of the instruction sets that matter to inference the processor has."""
    fields = _cpuinfo(cpuinfo)
    flags = f"{fields.get('flags', '')} {fields.get('Features', '')}".split()
    found = {FEATURES[flag] for flag in flags if flag in FEATURES}
    if not flags and platform.machine() in ("arm64", "aarch64"):
        found.add("neon")  # part of the 64-bit Arm architecture
    return [name for name in dict.fromkeys(FEATURES.values()) if name in found]


def _cpuinfo(path: Path) -> dict[str, str]:
    """Fields of the first processor, and those that stand once at the end on Arm boards."""
    fields: dict[str, str] = {}
    text = read(path)
    for line in text.splitlines() if text else []:
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return fields


def _sysctl(name: str) -> str:
    if platform.system() != "Darwin":
        return ""
    done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False)
    return done.stdout.strip()


def read(path: Path) -> str | None:
    """The text of a small file of the system, or None."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def number(path: Path) -> int | None:
    """The whole number that such a file holds, or None."""
    text = read(path)
    return int(text) if text and text.lstrip("-").isdigit() else None


def affinity() -> int:
    """Logical cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: Path = CGROUP) -> float | None:
    """Cores' worth of time that the cgroup allows, or None without a limit."""
    both = read(root / "cpu.max")
    if both:
        quota, _, period = both.partition(" ")
        return None if quota == "max" else int(quota) / int(period or 100_000)
    quota_us, period_us = number(root / "cpu/cpu.cfs_quota_us"), number(root / "cpu/cpu.cfs_period_us")
    return quota_us / period_us if quota_us and quota_us > 0 and period_us else None


def usable_cores(root: Path = CGROUP) -> int:
    """Whole cores that are really usable: affinity and quota together, at least one."""
    quota = cpu_quota(root)
    return max(1, min(affinity(), int(quota) if quota is not None else affinity()))


def memory_limit(root: Path = CGROUP) -> int | None:
    """Bytes that the cgroup allows, or None without a limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        value = number(root / name)
        if value is not None:
            return value if value < NO_LIMIT else None
    return None


def memory_available(root: Path = CGROUP) -> int:
    """Bytes this process could still take: what is free on the machine, and under the cgroup's limit."""
    free = psutil.virtual_memory().available
    limit = memory_limit(root)
    used = number(root / "memory.current") or number(root / "memory/memory.usage_in_bytes") or 0
    return free if limit is None else max(0, min(free, limit - used))


def cpu_throttled(root: Path = CGROUP) -> int | None:
    """How often the cgroup's quota has stopped this group so far."""
    for name in ("cpu.stat", "cpu/cpu.stat"):
        for line in (read(root / name) or "").splitlines():
            if line.startswith("nr_throttled "):
                return int(line.split()[1])
    return None


def thermal_throttles(root: Path = Path("/sys/devices/system/cpu")) -> int | None:
    """Sum of the processor's own thermal throttling counts, where the kernel has them."""
    counts = [number(p) for p in root.glob("cpu[0-9]*/thermal_throttle/package_throttle_count")]
    known = [c for c in counts if c is not None]
    return sum(known) if known else None
