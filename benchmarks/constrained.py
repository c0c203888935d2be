"""Run a command under a device's cores and memory, on this machine; running out of memory is a result.

    python -m bridge_edge.benchmarks.constrained '{"cores": 4, "memory_bytes": 1000000000}' COMMAND ...

Cores are an affinity (as many of this process's as the device has, or all there are). Memory is a cgroup v2 beside this
process's own where that may be made, which limits what is resident; elsewhere RLIMIT_AS, which limits addresses and so
is stricter: mapped files and libraries count in full. Speed under such limits is still that of this machine's cores and
memory: it says whether a student fits and how it scales with threads, not how fast the device is. Hence the label
"constrained x86". Not covered: cgroup v1, a slower clock or memory bus, other instruction sets, Windows.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bridge_edge.errors import UserError

CGROUP, SELF = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
RESIDENT = (
    "MemoryError",
    "bad_alloc",
    "Cannot allocate memory",
    "out of memory",
    "failed to allocate",
    "can't allocate",
)
ADDRESSES = ("failed to map segment", "can't start new thread", "Resource temporarily unavailable")
SIGNS = RESIDENT + ADDRESSES
CRASHES = {-signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS}


@dataclass(frozen=True)
class Limits:
    """What a device has."""

    cores: int
    memory_bytes: int


def label() -> str:
    """Named after what the figures really come from."""
    machine = platform.machine().lower()
    return f"constrained {'x86' if machine in ('x86_64', 'amd64', 'i686') else machine or 'host'}"


def make_group(limits: Limits, root: Path = CGROUP, own: Path = SELF) -> Path | None:
    """A cgroup v2 with the memory limit, beside this process's own; None where that cannot be had."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    place = next((line[3:].strip("/") for line in lines if line.startswith("0::")), None)
    if place is None or not (root / "cgroup.controllers").is_file():
        return None
    mine = root / place
    group = (mine.parent if place else mine) / f"bridge-edge-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        return None
    try:
        _write(group / "memory.max", limits.memory_bytes)
        if (group / "memory.swap.max").exists():
            _write(group / "memory.swap.max", 0)
        if not (group / "cgroup.procs").exists():
            raise OSError("no processes can be put there")
    except OSError:  # the memory controller is not delegated
        remove_group(group)
        return None
    return group


def _write(path: Path, value: int) -> None:
    if not path.exists():
        raise OSError(f"no {path}")
    path.write_text(str(value), encoding="utf-8")


def remove_group(group: Path) -> None:
    """A cgroup is removed as a folder whose files are the kernel's."""
    try:
        group.rmdir()
    except OSError:
        return


def killed_for_memory(group: Path | None) -> int:
    """How many of a group's processes the kernel has killed for memory."""
    try:
        lines = (group / "memory.events").read_text(encoding="utf-8").splitlines() if group else []
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def run(command: Sequence[str], limits: Limits, timeout: float, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a command under the limits: exit code, output, and whether it ran out of memory. Never raises for that."""
    group = make_group(limits)
    asked = json.dumps({**asdict(limits), "group": str(group) if group else None})
    full = [sys.executable, "-m", "bridge_edge.benchmarks.constrained", asked, *command]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        try:
            done = subprocess.run(full, stdout=out, stderr=errors, timeout=timeout, env=env, check=False)
            code: int | None = done.returncode
        except subprocess.TimeoutExpired:
            code = None
        out.seek(0)
        errors.seek(0)
        said, output = errors.read(), out.read()
        kills = killed_for_memory(group)
        if group:
            remove_group(group)
    oom = kills > 0 or (code not in (0, None) and (code in CRASHES or any(s in said for s in SIGNS)))
    return {
        "label": label(),
        "cores": min(limits.cores, len(cores_here())),
        "cores_asked": limits.cores,
        "memory_bytes": limits.memory_bytes,
        "memory_limited_by": "cgroup v2" if group else "RLIMIT_AS",
        "exit_code": code,
        "timed_out": code is None,
        "oom": oom,
        "output": output,
        "said": (said.strip().splitlines() or [""])[-1][:300],
    }


def cores_here() -> list[int]:
    """The cores this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def confine(limits: Limits, group: Path | None) -> None:
    """Put this process under the limits; they hold for what it becomes and starts."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(cores_here()[: limits.cores]))
    if group is not None:
        (group / "cgroup.procs").write_text(str(os.getpid()), encoding="utf-8")
        return
    try:
        import resource
    except ImportError:
        raise UserError("this system cannot limit a process's memory", "run without --constrained") from None
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    cap = limits.memory_bytes if hard == resource.RLIM_INFINITY else min(limits.memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (cap, cap))


def main(arguments: Sequence[str]) -> int:
    """The child: confine itself, then become the command."""
    if len(arguments) < 2:
        print("usage: python -m bridge_edge.benchmarks.constrained '{\"cores\": N, ...}' COMMAND ...", file=sys.stderr)
        return 2
    asked = json.loads(arguments[0])
    group = asked.get("group")
    confine(Limits(asked["cores"], asked["memory_bytes"]), Path(group) if group else None)
    os.execvp(arguments[1], list(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
