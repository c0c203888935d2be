"""The project's own speed, as ratios that other machines and later commits can be held against.

    python -m bridge_edge.benchmarks.suite                     # against the ratios committed in suite.json
    python -m bridge_edge.benchmarks.suite --against COMMIT    # this tree against another commit, in turns
    python -m bridge_edge.benchmarks.suite --write             # commit these ratios

Each part does the same work in our way and in a plain one, side by side in one process on one thread: training against
`transformers.Trainer`, annotation against `model.generate`, selection against numpy that reads the whole pool at each
pick, export against casting and writing the same tensors, decoding of a GGUF against torch. A ratio is our work a
processor second to the plain way's, so that most of what a busy or a faster machine changes falls out; not all: on busy
caches selection and decoding lose less than their plain ways, which read more memory, and their ratios doubled. Compare
`suite.json` on a quiet machine. The bounds are the extremes of n rounds, between which the median lies with probability
1 - 2^(1 - n), 97 % for six, whatever the distribution.

`--against` checks the other commit out beside this one and measures both in fresh processes, A B B A and so on; these
benchmarks measure it, with the embedded models of this tree, so it must still have the functions that they call. Not
covered: a recipe whose items have changed, GPUs, several threads, the teacher's API (`stress --requests`), memory.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import click

import bridge_edge
from bridge_edge.benchmarks.throughput import alternate, annotation, task_samples, training
from bridge_edge.cli import quiet_environment
from bridge_edge.errors import UserError, first_line
from bridge_edge.plain import grid

MODELS = Path("embedded", "models")
BASELINE = Path(__file__).with_name("suite.json")
ITEMS, ANNOTATED = 40, 24
POOL, WIDTH, BUDGET = 20_000, 128, 200
DECODED = 32
SHAPE = {"vocab_size": 8_192, "hidden_size": 512, "intermediate_size": 1_536, "num_hidden_layers": 4,
         "num_attention_heads": 8, "num_key_value_heads": 2, "tie_word_embeddings": True}  # fmt: skip
EXPORT = """
import time
from safetensors.torch import load_file
from bridge_edge.benchmarks.throughput import alternate
from bridge_edge.export.gguf_writer import write_gguf
source, scratch = Path(a[0]), Path(a[1])
def ours():
    write_gguf(source, scratch / "ours.gguf", "F16", "suite")
    return 1
def plain():
    with (scratch / "plain.bin").open("wb") as file:
        for tensor in load_file(source / "model.safetensors").values():
            file.write(tensor.half().numpy().tobytes())
    return 1
print(json.dumps(alternate(ours, plain, int(a[2]), time.process_time)))
"""  # a child's, since this package imports nothing of export
Ratios = dict[str, list[float]]


def of_training(rounds: int) -> dict[str, Any]:
    return training(*task_samples("legal", ITEMS), rounds, "auto", "muon", time.process_time)


def of_annotation(rounds: int) -> dict[str, Any]:
    return annotation(*task_samples("legal", ANNOTATED), rounds, time.process_time)


def of_selection(rounds: int) -> dict[str, Any]:
    import numpy as np

    from bridge_edge.benchmarks.selection import make_pool, plain_greedy
    from bridge_edge.select.greedy import greedy
    from bridge_edge.select.strategies import percentile_ranks

    difficulty, vectors = make_pool(POOL, WIDTH, 16, 0)
    ranks = percentile_ranks(difficulty).astype(np.float32)
    first, allowed = int(np.argmax(ranks)), np.ones(POOL, dtype=bool)
    return alternate(
        lambda: len(greedy(ranks, vectors, BUDGET, 0.5, allowed, first)),
        lambda: len(plain_greedy(ranks, vectors, BUDGET, 0.5, first)),
        rounds,
        time.process_time,
    )


def of_export(rounds: int) -> dict[str, Any]:
    from bridge_edge.benchmarks.conversion import make_checkpoint, measure

    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "checkpoint"
        make_checkpoint(source, SHAPE)
        found: dict[str, Any] = json.loads(measure(EXPORT, [str(source), scratch, str(rounds)])["last"])
    return found


def of_decode(rounds: int) -> dict[str, Any]:
    from bridge_edge.benchmarks import conversion, field
    from bridge_edge.benchmarks.reference import WORDS
    from bridge_edge.runtimes.load import load_runtime
    from bridge_edge.train.models import locate

    test = field.Test("tg", DECODED, 0)
    with tempfile.TemporaryDirectory() as scratch:
        source, file = Path(locate("embedded:student")), Path(scratch) / "student.gguf"
        conversion.measure(conversion.GGUF, [str(source), str(file)])
        sides = [load_runtime(path, 1) for path in (file, source)]
        works = [lambda side=side: _decoded(side, test, side.encode(WORDS)) for side in sides]
        found = alternate(works[0], works[1], rounds, time.process_time)
        for side in sides:
            side.close()
    return found


def _decoded(runtime: Any, test: Any, ids: Sequence[int]) -> int:
    from bridge_edge.benchmarks import field

    field.repetition(runtime, [test], ids)
    return int(test.tokens)


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "training": of_training,
    "annotation": of_annotation,
    "selection": of_selection,
    "export": of_export,
    "decode": of_decode,
}


def measured(names: Sequence[str], rounds: int) -> Ratios:
    """The ratios of each part, ours to the plain way's, round by round."""
    import torch

    torch.set_num_threads(1)
    found: Ratios = {}
    for name in names:
        found[name] = PARTS[name](rounds)["ratios"]
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def bounds(ratios: Sequence[float]) -> dict[str, float]:
    return {"ratio": round(median(ratios), 4), "low": min(ratios), "high": max(ratios), "rounds": len(ratios)}


def verdict(now: dict[str, float], before: dict[str, float] | None) -> str:
    """What two intervals say of each other."""
    if before is None:
        return "new"
    if now["high"] < before["low"]:
        return "SLOWER"
    return "faster" if now["low"] > before["high"] else "as before"


@contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """A folder from which Python imports another commit's package, with these benchmarks in the place of its own, and
    these embedded models: other weights say longer or shorter answers, which is other work."""
    root = BASELINE.resolve().parents[1]
    with tempfile.TemporaryDirectory() as scratch:
        place, tree = Path(scratch) / "commit", Path(scratch) / "tree"
        try:
            git(root, "worktree", "add", "--detach", str(place), commit)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", "") or first_line(error)
            raise UserError(
                f"cannot check out {commit!r}: {said.strip().splitlines()[-1]}", "name a commit of this repository"
            ) from None
        try:
            parts = {p.name: p for p in (*(place / "bridge_edge").iterdir(), place / "export", place / "recipes")}
            link({**parts, "benchmarks": root / "benchmarks"}, tree / "bridge_edge", MODELS.parts[0])
            models = {p.name: p for p in (place / "bridge_edge" / MODELS.parts[0]).iterdir()}
            link({**models, MODELS.name: root / "bridge_edge" / MODELS}, tree / "bridge_edge" / MODELS.parts[0])
            yield tree
        finally:
            git(root, "worktree", "remove", "--force", str(place))


def link(targets: dict[str, Path], folder: Path, but: str = "") -> None:
    """A folder of links by these names."""
    folder.mkdir(parents=True)
    for name, target in targets.items():
        if name != but:
            (folder / name).symlink_to(target)


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True, text=True)


def in_child(tree: Path | None, names: Sequence[str]) -> Ratios:
    """One round of the parts in a fresh process that imports from a tree, or from where this one does."""
    command = [sys.executable, "-m", "bridge_edge.benchmarks.suite", "--child", *(f"--part={name}" for name in names)]
    env = {**os.environ, **({"PYTHONPATH": str(tree)} if tree else {})}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, cwd=tree)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"the suite failed on {'the other commit' if tree else 'this tree'}: {said}",
                        "measure the parts that it has with --part")  # fmt: skip
    found = json.loads(done.stdout.strip().splitlines()[-1])
    if tree and Path(found["code"]) != tree / "bridge_edge":
        raise UserError(f"{found['code']} was measured and not {tree}", "run it from an editable install")
    ratios: Ratios = found["ratios"]
    return ratios


def against(commit: str, names: Sequence[str], rounds: int) -> list[list[str]]:
    """Rows of a table: both sides' ratios, and their quotient, round by round in alternating order."""
    seen: dict[bool, Ratios] = {True: {}, False: {}}
    with tree_of(commit) as tree:
        for number in range(rounds):
            for here in (True, False) if number % 2 == 0 else (False, True):
                for name, (ratio,) in in_child(None if here else tree, names).items():
                    seen[here].setdefault(name, []).append(ratio)
    rows = []
    for name in names:
        quotients = bounds([a / b for a, b in zip(seen[True][name], seen[False][name], strict=True)])
        both = [_cell(bounds(seen[here][name])) for here in (True, False)]
        rows.append([name, *both, _cell(quotients), verdict(quotients, bounds([1.0]))])
    return rows


def _cell(found: dict[str, float] | None) -> str:
    return f"{found['ratio']:.3g} ({found['low']:.3g} to {found['high']:.3g})" if found else "-"


@click.command()
@click.option("--against", "commit", default="", metavar="COMMIT", help="Measure this commit too, in turns.")
@click.option("--rounds", type=click.IntRange(2, 100), default=6, show_default=True)
@click.option("--part", "names", type=click.Choice(list(PARTS)), multiple=True, default=list(PARTS))
@click.option("--write", is_flag=True, help="Make these ratios the committed ones.")
@click.option("--child", is_flag=True, hidden=True)
def main(commit: str, rounds: int, names: tuple[str, ...], write: bool, child: bool) -> None:
    """Print a table and one JSON line."""
    if child:
        code = str(Path(bridge_edge.__file__).parent)
        print(json.dumps({"code": code, "ratios": measured(names, 1)}))
        return
    sure = 1 - math.pow(2, 1 - rounds)
    if commit:
        try:
            rows = against(commit, names, rounds)
        except UserError as error:
            raise click.UsageError(str(error)) from None
        print(grid(["part", "this tree", commit, f"quotient ({sure:.0%})", ""], rows, right=(1, 2, 3)))
        print(json.dumps({"against": commit, "rounds": rounds, "rows": rows}))
        return
    known = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.is_file() else {}
    found = {name: bounds(ratios) for name, ratios in measured(names, rounds).items()}
    rows = [[n, _cell(now), _cell(known.get(n)), verdict(now, known.get(n))] for n, now in found.items()]
    print(grid(["part", f"ratio ({sure:.0%})", "committed", ""], rows, right=(1, 2)))
    if write:
        BASELINE.write_text(json.dumps({**known, **found}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(json.dumps({"parts": found, "committed": known}))


if __name__ == "__main__":
    quiet_environment()
    main()
