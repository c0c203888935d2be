"""What the verb report does: read the runs, predict for other devices, write one HTML page.

One run's page lies in its folder; several runs make one page of comparison. `distill` writes a run's page at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bridge_edge.errors import UserError, first_line
from bridge_edge.progress import say
from bridge_edge.run import latest, write_atomic

PAGE, COMPARISON = "report.html", "comparison.html"


def write_report(runs: Sequence[Path], runs_dir: Path, out: Path | None = None) -> Path:
    """Write the page of the named runs (default: the latest finished one) and return its path."""
    from bridge_edge.benchmarks.html import several, single
    from bridge_edge.benchmarks.html.facts import read_facts
    from bridge_edge.benchmarks.html.page import render

    folders = list({path.resolve(): path for path in runs}.values()) or [latest(runs_dir).path]
    found = [read_facts(folder) for folder in folders]
    if len(found) == 1:
        facts = replace(found[0], predictions=predictions(found[0].exports))
        page, path = single.page_of(facts), out or folders[0] / PAGE
    else:
        page, path = several.page_of(found), out or runs_dir / COMPARISON
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"cannot write to {str(path)!r}", "name a file in a folder that exists, e.g. --out report.html")
    write_atomic(path, render(page))
    return path


def keep_report(run: Path, changed: bool) -> Path | None:
    """The page of a run, made anew if the run has changed or has none; None, with a warning, where it cannot be made:
    what the run has trained and said must not end in an error about its page."""
    page = run / PAGE
    if page.is_file() and not changed:
        return page
    try:
        return write_report([run], run.parent)
    except Exception as error:
        say(f"  warning: no report ({first_line(error)}); `bridge-edge report {run}` tries again")
        return None


def predictions(exports: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every device of the table with every export whose files are still there."""
    from bridge_edge.benchmarks import capacity
    from bridge_edge.benchmarks.devices import table
    from bridge_edge.benchmarks.predict import predict

    paths = [Path(found["path"]) for found in exports]
    shapes = [(path, capacity.shape_of(path)) for path in paths if path.exists()]
    return [
        {"artifact": str(path), **predict(shape, shape.parameters, device)}
        for device in table()[0].values()
        for path, shape in shapes
    ]
