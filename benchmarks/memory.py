"""Memory of an artifact, measured in a fresh process that loads it and answers a few prompts.

    echo '{"prompts": ["..."], "max_new_tokens": 64}' | python -m bridge_edge.benchmarks.memory PATH [THREADS]

Why a fresh process: the caller usually has torch and training data in memory, which an edge device does not. Peak RSS
counts mapped weight files as far as they were touched; PSS shares pages out among the processes that map them; the
anonymous part is what the kernel cannot drop. The peak of PSS is the largest of the values read between answers,
since the kernel keeps no high-water mark of it. The child's last line is one JSON object. Not covered: GPU memory;
PSS outside Linux (None).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from bridge_edge.errors import UserError
from bridge_edge.runtimes.base import Runtime

Load = Callable[[Path, int | None], Runtime]
STATUS, ROLLUP = Path("/proc/self/status"), Path("/proc/self/smaps_rollup")


def kilobytes(path: Path) -> dict[str, int]:
    """The "Name: N kB" lines of a /proc file, in bytes; {} where the system has no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if rest.strip().endswith(" kB"):
            found[name] = int(rest.split()[0]) * 1024
    return found


def peak_rss() -> int:
    """High-water mark of this process's resident memory, in bytes."""
    # Not ru_maxrss on Linux: it survives exec, so a child of a large process would inherit its parent's peak.
    peak = kilobytes(STATUS).get("VmHWM")
    if peak is not None:
        return peak
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def use(load: Load, path: Path, prompts: Sequence[str], max_new_tokens: int, threads: int | None) -> dict[str, Any]:
    """Load, answer, and report what it took; meant for a process that has done nothing else."""
    base = kilobytes(STATUS).get("VmRSS")
    start = time.perf_counter()
    runtime = load(path, threads)
    load_s = time.perf_counter() - start
    loaded, shares, took = kilobytes(STATUS).get("VmRSS"), [kilobytes(ROLLUP)], []
    for prompt in prompts:
        start = time.perf_counter()
        runtime.generate([prompt], max_new_tokens)
        took.append(time.perf_counter() - start)
        shares.append(kilobytes(ROLLUP))
    largest = max(shares, key=lambda share: share.get("Pss", 0))
    report = {
        "interpreter_rss_bytes": base,
        "loaded_rss_bytes": loaded,
        "peak_rss_bytes": peak_rss(),
        "peak_pss_bytes": largest.get("Pss"),
        "anonymous_bytes": largest.get("Pss_Anon"),
        "file_bytes": largest.get("Pss_File"),
        "load_s": load_s,
        "first_answer_s": took[0] if took else None,
        "answers": len(took),
        "torch_imported": "torch" in sys.modules,
    }
    runtime.close()
    return report


def measure(
    path: Path, prompts: Sequence[str], max_new_tokens: int, threads: int | None = None, timeout: float = 600.0
) -> dict[str, Any]:
    """Run this module in a child process and return its report."""
    command = [sys.executable, "-m", "bridge_edge.benchmarks.memory", str(path), *([str(threads)] if threads else [])]
    asked = json.dumps({"prompts": list(prompts), "max_new_tokens": max_new_tokens})
    hint = f"run it alone to see why: {' '.join(command[1:])}"
    try:
        done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"the memory measurement of {str(path)!r} took more than {timeout:g} s", hint) from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"the memory measurement of {str(path)!r} failed: {said}", hint)
    report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return report


def main(arguments: Sequence[str]) -> int:
    """The child: a path, perhaps threads; prompts as JSON on standard input (none at a terminal)."""
    if len(arguments) not in (1, 2) or (len(arguments) == 2 and not arguments[1].isdigit()):
        print("usage: python -m bridge_edge.benchmarks.memory PATH [THREADS] < prompts.json", file=sys.stderr)
        return 2
    text = "" if sys.stdin.isatty() else sys.stdin.read()
    asked: dict[str, Any] = json.loads(text) if text.strip() else {"prompts": ["Hello."], "max_new_tokens": 16}
    from bridge_edge.runtimes.load import load_runtime  # here, so that measuring imports no runtime itself

    threads = int(arguments[1]) if len(arguments) == 2 else None
    try:
        report = use(load_runtime, Path(arguments[0]), asked["prompts"], asked["max_new_tokens"], threads)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
