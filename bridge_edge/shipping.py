"""The verb export: find a student's dev items, rationales and history, call the package, put the result in place.

Everything the package is handed comes from the run's own files; a bare checkpoint takes its texts from --calibration.
Not covered: uploading.
"""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge_edge.data.card import Card
from bridge_edge.data.files import read_rows
from bridge_edge.data.samples import Sample, read_jsonl
from bridge_edge.deliver import held_out, run_of
from bridge_edge.errors import UserError
from bridge_edge.progress import say
from bridge_edge.provenance import facts
from bridge_edge.run import digest_tree, sha256_text

CALIBRATION = 256  # texts read: half for the importance matrix, some of the rest for the search
CHECKED, SEARCHED = 200, 1_000  # dev items at most; a search is decided by fractions of a point
RECORD = "export.json"


@dataclass(frozen=True)
class ExportOptions:
    """What the command line may ask of an export beyond format and place."""

    quant: str | None = None
    calibration: Path | None = None
    importance: bool = True
    tensors: tuple[str, ...] = ()
    minutes: float = 15.0
    max_drop: float = 0.5
    items: int | None = None
    block_size: int | None = None
    accuracy_level: int | None = None
    algorithm: str | None = None
    backend: str = "auto"
    optimum_python: Path | None = None


def export_to(
    source: Path, formats: Sequence[str], options: ExportOptions, out: Path | None, threads: int | None
) -> list[dict[str, Any]]:
    """Export `source` in each format; returns what the packages say of each, with its path."""
    if not source.exists():
        raise UserError(
            f"no model at {str(source)!r}", "name a run, a checkpoint folder, or leave it out for the latest run"
        )
    base = out or ((run_of(source) or source.parent) / "export")
    blocks = (options.block_size, options.accuracy_level, options.algorithm)
    if "onnx" not in formats and any(given is not None for given in blocks):
        raise UserError("block size, accuracy level and algorithm are for ONNX", "add --format onnx, or leave them out")
    _check_backend(formats, options)
    with _checkpoint(source) as whole:
        return [{**_export(whole, source, fmt, options, base, threads), "source": str(source)} for fmt in formats]


def _check_backend(formats: Sequence[str], options: ExportOptions) -> None:
    """Refuse a backend that would change nothing, and the lack of its environment, before any work."""
    if options.backend != "auto" and "onnx" not in formats:
        raise UserError("backends are for ONNX", "add --format onnx, or leave --backend out")
    if options.optimum_python is not None and options.backend != "optimum":
        raise UserError("--optimum-python is for another backend", "add --backend optimum, or leave it out")
    if options.backend == "optimum":
        from bridge_edge.export.optimum_env import find

        find(options.optimum_python)


@contextlib.contextmanager
def _checkpoint(source: Path) -> Iterator[Path]:
    """`source`, or where it is an adapter beside its base, both merged in a folder that goes again."""
    from bridge_edge.export.adapter import is_adapter, merge

    if not is_adapter(source):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="bridge-edge-") as work:
        say(f"merging the adapter {source} into its base model")
        yield merge(source, Path(work) / source.name)


def _export(
    source: Path, student: Path, fmt: str, options: ExportOptions, base: Path, threads: int | None
) -> dict[str, Any]:
    """Export `source`, which is `student` or was merged from it; the record keeps the digest of `student`."""
    from bridge_edge.export.api import export_student, resolve_quant
    from bridge_edge.export.checkpoint import count_parameters

    kind = resolve_quant(fmt, options.quant, count_parameters(source))
    wish = _wish(source, fmt, kind, options)
    folder = base / f"{fmt}-{kind.lower()}"
    items = options.items or (SEARCHED if kind == "auto" else CHECKED)
    by = wish.backend.name  # left out of the key where it is the usual one, so that older exports stay up to date
    digest = digest_tree(source)
    key = sha256_text(f"{digest} {items} {wish!r}" + f" {by}" * (by != "auto"))
    origin = {"student": digest if student == source else digest_tree(student)}
    if (folder / "parity.json").is_file() and _made_with(folder, key):
        say(f"{folder} is up to date")
        return _recorded(folder, json.loads((folder / RECORD).read_text(encoding="utf-8")) | origin)
    if folder.exists():
        raise UserError(f"{folder} exists already", "remove it, or choose another folder with --out")
    say(f"exporting {source} to {folder}")
    exported = export_student(source, folder, fmt, kind, _prompts(source, options.calibration, items), threads, wish)
    return _recorded(folder, {**exported.to_json(), "path": str(exported.path), "key": key, **origin})


def _recorded(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    (folder / RECORD).write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
    return record


def _made_with(folder: Path, key: str) -> bool:
    record = folder / RECORD
    return record.is_file() and json.loads(record.read_text(encoding="utf-8")).get("key") == key


def _prompts(source: Path, file: Path | None, items: int) -> list[str | Sample]:
    """Dev items of the run; outside a run the prompts of the calibration file, or the card's examples and general
    ones."""
    from bridge_edge.export.questions import general

    dev = held_out(source, "dev") or (calibration_file(source, file) if file else [])
    if dev:
        return list(dev[:items])
    card = Card.load(source)
    asked: list[str | Sample] = [*(card.examples if card else ()), *general(items)]
    return asked[:items]


def _wish(source: Path, fmt: str, quant: str, options: ExportOptions) -> Any:
    """The options as the export package takes them."""
    from bridge_edge.export.wish import Backend, Blocks, Goal, Wish

    if fmt != "gguf":
        blocks = Blocks(options.block_size, options.accuracy_level, options.algorithm)
        backend = Backend(options.backend, options.optimum_python)
        return Wish(facts=facts(source), blocks=blocks, backend=backend)
    from bridge_edge.export.quantize import AUTO, parse_types

    texts = calibration(source, options.calibration) if options.importance else []
    goal = Goal(options.minutes, options.max_drop) if quant == AUTO else Goal()
    return Wish(tuple(texts), parse_types(options.tensors), goal, facts(source))


def calibration(source: Path, file: Path | None) -> list[Sample]:
    """Texts of the task with rationales: the named file, or what the run taught its student; none outside a run."""
    if file is not None:
        return calibration_file(source, file)[:CALIBRATION]
    folder = run_of(source)
    for name in ("annotate/annotations.jsonl", "teach/taught.jsonl"):
        if folder and (folder / name).is_file():
            samples = [s for s in read_jsonl(folder / name) if s.rationale]
            if samples:
                return random.Random(0).sample(samples, min(CALIBRATION, len(samples)))
    return []


def calibration_file(source: Path, file: Path) -> list[Sample]:
    """Rows with `prompt` (or the columns of the student's card), and `rationale` and `answer` where there are any."""
    card = Card.load(source) or Card("task")
    return [
        Sample(
            str(row["prompt"]) if "prompt" in row else card.render(row),
            str(row["answer"]) if row.get("answer") is not None else None,
            str(row["rationale"]) if row.get("rationale") is not None else None,
        )
        for row in read_rows(file)
    ]


def export_text(results: Sequence[dict[str, Any]]) -> str:
    """The exports for people."""
    lines = []
    for r in results:
        parity = r["parity"]
        shown = ", ".join(f"{k} {parity[k]:.3g}" for k in ("mean_kl", "top1", "greedy_equal"))
        lines.append(
            f"{r['path']}\n  {r['fmt']} {r['quant']}: {r['bytes'] / 2**20:.2f} MiB, "
            f"{r['bits_per_weight']:.2f} bits per weight; parity: {shown}"
        )
        if parity.get("accuracy"):
            a = parity["accuracy"]
            change, high, low = (0.0 - 100 * x for x in (a["difference"], *a["ci95"]))  # a loss is a fall
            lines.append(
                f"  accuracy on {a['n']} dev items {a['accuracy_b']:.1%}, before {a['accuracy_a']:.1%}: "
                f"{change:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})"
            )
        if parity.get("through", "").startswith("torch"):
            lines.append(f"  checked through {parity['through']}")
        if r["fallbacks"]:
            lines.append(f"  {len(r['fallbacks'])} tensors in another type, e.g. {r['fallbacks'][0]}")
        if r.get("search"):
            from bridge_edge.export.front import table

            lines.append(table(r["search"]))
            if not r["search"]["met"]:
                goal = r["search"]["goal"]["max_drop"]
                lines.append(f"  nothing was within {goal:g} points; the file nearest to the original was taken")
    return "\n".join([*lines, "Next: bridge-edge bench"])


def assistant_gguf(folder: Path, out: Path) -> None:
    """The assistant of a run as GGUF F16, for its annotation in llama.cpp; nothing is shipped of it."""
    from bridge_edge.export.quantize import make_gguf

    partial = out.with_suffix(".partial")
    make_gguf(folder, partial, "F16", "assistant")
    partial.replace(out)
