"""Memory and load time of an artifact, measured in a fresh process that loads it and answers a few prompts.

    echo '{"prompts": ["..."], "max_new_tokens": 64}' | python -m bridge_edge.benchmarks.memory PATH [THREADS]

Why a fresh process: the caller usually has torch and training data in memory, which an edge device does not. Peak RSS
counts mapped weight files as far as they were touched; PSS shares pages out among the processes that map them; the
anonymous part is what the kernel cannot drop. The kernel keeps no high-water mark of PSS, so the parent samples it
while the child works. The first load is cold: the kernel is asked to drop the artifact's files from its cache, and
`cold_read_bytes` shows whether it did (0: it had not, or the system does not count). With "context" in the request the
child also fills a KV cache of that many tokens. Its last line is one JSON object. Not covered: GPU memory; PSS and cold
loads outside Linux (None).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from bridge_edge.errors import UserError
from bridge_edge.runtimes.base import Runtime

Load = Callable[[Path, int | None], Runtime]
STATUS, ROLLUP, IO = (Path(f"/proc/self/{name}") for name in ("status", "smaps_rollup", "io"))
SAMPLE_S = 0.05


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


def drop_cache(path: Path) -> bool:
    """Ask the kernel to forget its copies of an artifact's files; whether it could be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)  # pages that are not on the disk yet would stay
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
    return True


def read_bytes() -> int | None:
    """Bytes that this process has made the system fetch from its disks."""
    try:
        lines = IO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(s.split()[1]) for s in lines if s.startswith("read_bytes:")), None)


def use(
    load: Load,
    path: Path,
    prompts: Sequence[str],
    max_new_tokens: int,
    threads: int | None,
    prepare: Callable[[], object] | None = None,
    context: int | None = None,
) -> dict[str, Any]:
    """Load, answer, fill a context, and report what it took; meant for a process that has done nothing else.

    `prepare` imports the runtime, so that libraries can be told from the model in time and memory."""
    base, start = kilobytes(STATUS).get("VmRSS"), time.perf_counter()
    if prepare:
        prepare()
    imported, import_s, dropped, before = kilobytes(STATUS).get("VmRSS"), time.perf_counter() - start, False, None
    if path.exists():
        dropped, before = drop_cache(path), read_bytes()
    runtime, load_s = _loaded(load, path, threads)
    fetched = None if before is None else (read_bytes() or 0) - before
    loaded = kilobytes(STATUS).get("VmRSS")
    took, largest = _answered(runtime, prompts, max_new_tokens, context)
    report = {
        "interpreter_rss_bytes": base,
        "imported_rss_bytes": imported,
        "loaded_rss_bytes": loaded,
        "peak_rss_bytes": peak_rss(),
        "peak_pss_bytes": largest.get("Pss"),
        "anonymous_bytes": largest.get("Pss_Anon"),
        "file_bytes": largest.get("Pss_File"),
        "import_s": import_s,
        "load_s": import_s + load_s,
        "cold_load_s": load_s if dropped else None,
        "cold_read_bytes": fetched,
        "first_answer_s": took[0] if took else None,
        "answers": len(took),
        "context": context,
        "torch_imported": "torch" in sys.modules,
    }
    runtime.close()
    runtime, report["warm_load_s"] = _loaded(load, path, threads)
    runtime.close()
    return report


def _answered(
    runtime: Runtime, prompts: Sequence[str], max_new_tokens: int, context: int | None
) -> tuple[list[float], dict[str, int]]:
    """The seconds of each answer, and the shares of memory at the moment when they were most."""
    shares, took = [kilobytes(ROLLUP)], []
    for prompt in prompts:
        start = time.perf_counter()
        runtime.generate([prompt], max_new_tokens)
        took.append(time.perf_counter() - start)
        shares.append(kilobytes(ROLLUP))
    if context is not None:
        _fill(runtime, context)
        shares.append(kilobytes(ROLLUP))
    return took, max(shares, key=lambda share: share.get("Pss", 0))


def _loaded(load: Load, path: Path, threads: int | None) -> tuple[Runtime, float]:
    start = time.perf_counter()
    runtime = load(path, threads)
    return runtime, time.perf_counter() - start


def _fill(runtime: Runtime, context: int) -> None:
    """A prompt that leaves room for one token, and that token: the most that `context` tokens can take."""
    from bridge_edge.runtimes.session import open_session

    usual = [i for i in range(min(runtime.vocab_size, 256)) if i not in runtime.eos_ids]
    session = open_session(runtime, context)
    ids = [usual[i % len(usual)] for i in range(context)]
    if context > 1:
        session.feed(ids[:-1])
    session.feed(ids[-1:])


def measure(
    path: Path,
    prompts: Sequence[str],
    max_new_tokens: int,
    threads: int | None = None,
    timeout: float = 600.0,
    context: int | None = None,
) -> dict[str, Any]:
    """Run this module in a child process, sample it meanwhile, and return its report."""
    command = [sys.executable, "-m", "bridge_edge.benchmarks.memory", str(path), *([str(threads)] if threads else [])]
    asked = json.dumps({"prompts": list(prompts), "max_new_tokens": max_new_tokens, "context": context})
    hint = f"run it alone to see why: {' '.join(command[1:])}"
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=errors, text=True)
        assert child.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError), child.stdin:
                child.stdin.write(asked)
            pss, samples = sampled(child, timeout)
        except subprocess.TimeoutExpired:
            raise UserError(f"the memory measurement of {str(path)!r} took more than {timeout:g} s", hint) from None
        finally:
            child.kill()
            child.wait()
        out.seek(0)
        errors.seek(0)
        if child.returncode:
            said = (errors.read().strip().splitlines() or [f"exit code {child.returncode}"])[-1]
            raise UserError(f"the memory measurement of {str(path)!r} failed: {said}", hint)
        report: dict[str, Any] = json.loads(out.read().strip().splitlines()[-1])
    known = [n for n in (pss, report["peak_pss_bytes"]) if n is not None]
    return {**report, "peak_pss_bytes": max(known, default=None), "samples": samples}


def libraries(kind: str, path: Path) -> None:
    """Import what running a model takes; transformers imports a family's code only when a model of it is asked for."""
    from bridge_edge.runtimes import load  # here, so that measuring imports no runtime itself

    load.runtime_class(kind)
    if kind == "torch":
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

        with contextlib.suppress(Exception):  # what is wrong with a checkpoint, loading it says better
            MODEL_FOR_CAUSAL_LM_MAPPING[type(AutoConfig.from_pretrained(path, local_files_only=True))]


def sampled(child: subprocess.Popen[str], timeout: float) -> tuple[int | None, int]:
    """The largest PSS seen of a child until it ends, and how often it was looked at."""
    file, end, largest, samples = Path(f"/proc/{child.pid}/smaps_rollup"), time.monotonic() + timeout, None, 0
    while child.poll() is None:
        if time.monotonic() > end:
            raise subprocess.TimeoutExpired(child.args, timeout)
        pss = kilobytes(file).get("Pss")
        if pss is not None:
            largest, samples = max(pss, largest or 0), samples + 1
        time.sleep(SAMPLE_S)
    return largest, samples


def main(arguments: Sequence[str]) -> int:
    """The child: a path, perhaps threads; prompts as JSON on standard input (none at a terminal)."""
    if len(arguments) not in (1, 2) or (len(arguments) == 2 and not arguments[1].isdigit()):
        print("usage: python -m bridge_edge.benchmarks.memory PATH [THREADS] < prompts.json", file=sys.stderr)
        return 2
    text = "" if sys.stdin.isatty() else sys.stdin.read()
    asked: dict[str, Any] = json.loads(text) if text.strip() else {"prompts": ["Hello."], "max_new_tokens": 16}
    from bridge_edge.runtimes import load

    threads = int(arguments[1]) if len(arguments) == 2 else None
    try:
        kind, path = load.kind_of(Path(arguments[0]))
        prompts, new, context = asked["prompts"], asked["max_new_tokens"], asked.get("context")
        report = use(load.load_runtime, path, prompts, new, threads, lambda: libraries(kind, path), context)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
