"""What bench has measured, kept in the folder of the run that was measured, so that its report can show it.

One entry a place (this machine, a device's limits, a machine reached); measuring there again replaces it whole, since
figures of several sessions are not side by side. Models outside a run are not kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge_edge.deliver import run_of
from bridge_edge.run import write_atomic

FILE = "bench.json"
HARNESS = "lm_eval.json"  # results of lm-evaluation-harness, by the tasks that were asked for
HERE = "this machine"


def keep(place: str, reports: Sequence[dict[str, Any]], name: str = FILE) -> None:
    """Store reports of a place, each in the run that its artifact lies in, in its file of that name."""
    runs: dict[Path, list[dict[str, Any]]] = {}
    for report in reports:
        folder = run_of(Path(report["artifact"]["path"]))
        if folder is not None:
            runs.setdefault(folder, []).append(report)
    for folder, found in runs.items():
        file = folder / name
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none yet, or one that nothing can be read from
            known = {}
        entry = {"measured": time.time(), "reports": found}
        write_atomic(file, json.dumps({**known, place: entry}, indent=1, default=str) + "\n")
