"""What runs on a machine that was reached: it reads a job, benches the artifacts beside it and prints one JSON line.

    PYTHONPATH=runner.zip python3 -m bridge_edge.benchmarks.runner job.json

Sent by `reached.py` together with the modules that it needs. Its own imports are those of every Python, so that it can
say what the machine lacks: the line then holds "error" and a hint in the place of "reports".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

OLDEST = (3, 11)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """The reports of a job, which names its artifacts from here, and those that failed beside others."""
    from bridge_edge.benchmarks.bench import bench_many
    from bridge_edge.benchmarks.options import BenchOptions
    from bridge_edge.data.samples import Sample
    from bridge_edge.errors import Failures

    options: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in job["options"].items()}
    samples, failures = [Sample(**sample) for sample in job["samples"]], Failures()
    paths = [Path(name) for name in job["artifacts"]]
    reports = bench_many(paths, samples, BenchOptions(**options), failures=failures)
    failures.end(reports)
    failed = [{"artifact": name, **said(error)} for name, error in failures.found.items()]
    return {"reports": reports, "failed": failed}


def said(error: Exception) -> dict[str, str]:
    """An error in words; a machine may lack a package."""
    if isinstance(error, ImportError):
        hint = f"install it there: python3 -m pip install {error.name} (llama_cpp: llama-cpp-python)"
        return {"error": f"its Python lacks {error.name}", "hint": hint}
    what = getattr(error, "message", str(error)) or type(error).__name__
    return {"error": what, "hint": getattr(error, "hint", "")}


def answer(file: Path) -> dict[str, Any]:
    """The result of the job in `file`, or what went wrong in words."""
    if sys.version_info < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        return {
            "error": f"its Python is {sys.version.split()[0]}",
            "hint": f"name one from {wanted} on",
        }
    try:
        from bridge_edge.waiting import wait_briefly

        wait_briefly()
        return run(json.loads(file.read_text(encoding="utf-8")))
    except Exception as error:
        return said(error)


if __name__ == "__main__":
    print(json.dumps(answer(Path(sys.argv[1]))))
