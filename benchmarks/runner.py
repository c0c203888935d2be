"""What runs on a machine that was reached: it reads a job, benches the artifacts beside it and prints one JSON line.

    PYTHONPATH=runner.zip python3 -m bridge_edge.benchmarks.runner job.json

Sent by `reached.py` together with the modules that it needs. Its own imports are those of every Python, so that it can
say what the machine lacks: the line then holds "error" and a hint in the place of "reports".
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

OLDEST = (3, 11)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """The reports of a job, which names its artifacts from here; a machine may lack a package for it."""
    from bridge_edge.benchmarks.bench import bench_many
    from bridge_edge.benchmarks.options import BenchOptions
    from bridge_edge.data.samples import Sample

    options: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in job["options"].items()}
    samples = [Sample(**sample) for sample in job["samples"]]
    return {"reports": bench_many([Path(name) for name in job["artifacts"]], samples, BenchOptions(**options))}


def answer(file: Path) -> dict[str, Any]:
    """The result of the job in `file`, or what went wrong in words."""
    if sys.version_info < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        return {
            "error": f"its Python is {sys.version.split()[0]}",
            "hint": f"name one from {wanted} on",
        }
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return run(json.loads(file.read_text(encoding="utf-8")))
    except ImportError as error:
        hint = f"install it there: python3 -m pip install {error.name} (llama_cpp: llama-cpp-python)"
        return {"error": f"its Python lacks {error.name}", "hint": hint}
    except Exception as error:
        said = getattr(error, "message", str(error)) or type(error).__name__
        return {"error": said, "hint": getattr(error, "hint", "")}


if __name__ == "__main__":
    print(json.dumps(answer(Path(sys.argv[1]))))
