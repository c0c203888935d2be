"""What a packed Python app costs a device: bytes of the app and of what it needs, and the time to its first token.

    python -m bridge_edge.benchmarks.packed runs/legal-1/pack/python-gguf-q8_0 --starts 5

Each start is a process of its own, from the interpreter's first instruction to the first character of the reply, with
the packages of this environment but none of those that train. Processor time stands beside it, as the clock also counts
what else this machine does. Not covered: a cold disk; other machines.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from bridge_edge.errors import UserError
from bridge_edge.pack.python import QUESTION, command
from bridge_edge.plain import grid


def installed(needs: list[str]) -> dict[str, int]:
    """Bytes on disk of each package that the app names."""
    sizes = {}
    for name in (line.partition("==")[0] for line in needs):
        files = (Path(str(file.locate())) for file in metadata.distribution(name).files or ())
        sizes[name] = sum(file.stat().st_size for file in files if file.is_file())
    return sizes


def start(app: Path, question: str) -> dict[str, float]:
    """One start: seconds to the first character, and the processor time of the whole reply."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen(
        command(app, "--threads", "1", question), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as p:
        assert p.stdout is not None
        assert p.stderr is not None
        first = p.stdout.read(1)
        seconds = time.perf_counter() - begun
        p.stdout.read()
        said = p.stderr.read().decode("utf-8", "replace").strip()
    if p.returncode or not first:
        raise UserError(f"{app} does not answer: {said}", "pack it again")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"first_token_s": seconds, "cpu_s": cpu}


def figures(app: Path, starts: int, question: str) -> dict[str, Any]:
    needs = (app / "requirements.txt").read_text(encoding="utf-8").splitlines()
    sizes = installed(needs)
    start(app, question)  # reads the disk
    found = [start(app, question) for _ in range(starts)]
    timed = {key: round(statistics.median(one[key] for one in found), 3) for key in found[0]}
    own = sum(p.stat().st_size for p in app.rglob("*") if p.is_file())
    needed = {f"{name}_mb": round(size / 1e6, 1) for name, size in sizes.items()}
    best = round(min(one["first_token_s"] for one in found), 3)
    total = round((own + sum(sizes.values())) / 1e6, 1)
    return {"app_mb": round(own / 1e6, 2), **needed, "all_mb": total, **timed, "first_token_best_s": best}


@click.command()
@click.argument("app", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--starts", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--question", default=QUESTION)
def main(app: Path, starts: int, question: str) -> None:
    """Print sizes and the median start of a packed app, and one JSON line."""
    found = figures(app, starts, question)
    click.echo(grid(["what", "value"], [[name, str(value)] for name, value in found.items()]))
    click.echo(json.dumps({"app": app.name, "starts": starts, **found}))


if __name__ == "__main__":
    main()
