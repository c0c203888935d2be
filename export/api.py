"""Export a student: convert, quantise, verify, and only then put the result in place.

    exported = export_student(Path("student"), Path("out"), "gguf", "Q4_K_M", prompts)

Everything is written to `<out>.partial` and renamed at the end, with a model card and checksums beside the file. A
result that is not close enough to the original is kept as `<out>.rejected` for inspection, with the reason, and
reported as a ParityError.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bridge_edge.data.card import Card
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError, unknown
from bridge_edge.export.checkpoint import check_finite, check_weights, count_parameters, read_config
from bridge_edge.export.journal import journal_path
from bridge_edge.export.layout import write_layout
from bridge_edge.export.parity import DEFAULT_PROMPTS, MAX_NEW_TOKENS, ParityError, compare
from bridge_edge.export.wish import NOTHING, Wish
from bridge_edge.runtimes.base import MissingRuntime, Runtime
from bridge_edge.runtimes.load import load_runtime
from bridge_edge.runtimes.torch_runtime import load_tokenizer

FORMATS = ("gguf", "onnx")
REPORT = "parity.json"
UNSCORED = 3_200  # new tokens over all prompts where none is scored: 16 each for two hundred
Prompts = Sequence[str | Sample]


@dataclass(frozen=True)
class Exported:
    """What was made. `path` is what a runtime opens; `fallbacks` lists tensors that are not of the asked type,
    `importance` counts the tensors that had an importance matrix, `search` tells how a mixture was found, `backend` who
    made an ONNX graph."""

    path: Path
    fmt: str
    quant: str
    bytes: int
    bits_per_weight: float
    fallbacks: list[str] = field(default_factory=list)
    parity: dict[str, Any] = field(default_factory=dict)
    importance: int = 0
    search: dict[str, Any] | None = None
    backend: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": self.path.name}


def resolve_quant(fmt: str, quant: str | None, parameters: int) -> str:
    """The canonical type name: the asked one, or the default for this format and size."""
    if fmt not in FORMATS:
        raise unknown("export format", fmt, FORMATS)
    if fmt == "gguf":
        from bridge_edge.export import quantize

        return quantize.check_quant(quant) if quant else quantize.default_quant(parameters)
    from bridge_edge.export import onnx_types

    return onnx_types.check_precision(quant) if quant else onnx_types.default_precision(parameters)


def export_student(
    model_dir: Path,
    out_dir: Path,
    fmt: str,
    quant: str | None = None,
    prompts: Prompts = (),
    threads: int | None = None,
    wish: Wish = NOTHING,
) -> Exported:
    """Export the checkpoint in `model_dir` to the new folder `out_dir`, verified against the original.

    `prompts` are user messages of the task for the parity check, or samples, whose answers are then scored too;
    without them the card's examples or a few general ones are used.
    """
    model_dir, out_dir = Path(model_dir), Path(out_dir)
    parameters = count_parameters(model_dir)
    quant = resolve_quant(fmt, quant, parameters)
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise UserError(f"{out_dir} exists already", "remove it or choose another folder")
    partial = out_dir.with_name(out_dir.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if fmt == "gguf":
            made = _gguf(model_dir, partial, quant, prompts, threads, wish)
        else:
            made = _onnx(model_dir, partial, quant, parameters, wish)
        parity = _parity(model_dir, made, prompts, threads)
        done = Exported(**{**asdict(made), "parity": parity})
        text = json.dumps(done.to_json(), indent=2, sort_keys=True)
        (partial / REPORT).write_text(text + "\n", encoding="utf-8")
        if not parity["passed"]:
            raise _rejected(partial, out_dir, done)
        write_layout(partial, model_dir, done.to_json(), wish.facts)
        partial.replace(out_dir)
        journal_path(out_dir).unlink(missing_ok=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Exported(**{**asdict(done), "path": out_dir / made.path.name if fmt == "gguf" else out_dir})


def _gguf(folder: Path, partial: Path, quant: str, prompts: Prompts, threads: int | None, wish: Wish) -> Exported:
    from bridge_edge.export import quantize
    from bridge_edge.export.gguf_writer import load_config
    from bridge_edge.export.imatrix import collect

    load_config(folder)  # refuses what llama.cpp would compute otherwise, before anything is read
    check_weights(folder)
    card = Card.load(folder)
    name = re.sub(r"[^\w.-]+", "-", card.recipe if card else folder.resolve().name).strip("-.") or "student"
    if quant not in quantize.DIRECT or wish.types:
        quantize.native_quantiser(quant)
    path = partial / f"{name}-{quant}.gguf"
    searched: dict[str, Any] | None = None
    if quant == quantize.AUTO:
        from bridge_edge.export.auto import make_auto

        header, used, searched = make_auto(
            folder, path, name, [p for p in prompts if isinstance(p, Sample)], threads, wish
        )
    else:
        weighs = wish.calibration and quant in quantize.NATIVE
        mix = quantize.Mix(collect(folder, wish.calibration, threads) if weighs else {}, wish.types)
        header, used = quantize.make_gguf(folder, path, quant, name, threads, mix), len(mix.importance)
    size, bits, other = path.stat().st_size, header.bits_per_weight, quantize.fallbacks(header, quant)
    return Exported(path, "gguf", quant, size, bits, other, importance=used, search=searched)


def _onnx(folder: Path, partial: Path, quant: str, parameters: int, wish: Wish) -> Exported:
    from bridge_edge.export.onnx_export import backend, make_onnx
    from bridge_edge.export.onnx_graph import fallbacks, weight_bytes
    from bridge_edge.export.onnx_types import TYPES

    check_finite(folder)
    graph = make_onnx(folder, partial, quant, wish.blocks, wish.backend)
    size = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file())
    bits = 8 * weight_bytes(partial, graph.relative_to(partial).as_posix()) / parameters
    by = backend(read_config(folder), wish.backend.name)
    return Exported(partial, "onnx", quant, size, bits, fallbacks(graph, TYPES[quant].bits), backend=by)


def _parity(folder: Path, made: Exported, prompts: Prompts, threads: int | None) -> dict[str, Any]:
    """Load both models and compare; a mismatch of token ids is an error, not a figure."""
    card = Card.load(folder)
    texts = list(prompts) or (list(card.examples) if card else []) or list(DEFAULT_PROMPTS)
    # A completion must be whole to be scored; without answers its beginning tells as much, the more so of many.
    scored = all(isinstance(t, Sample) and t.answer is not None for t in texts)
    most = MAX_NEW_TOKENS if card is None else card.max_new_tokens
    new = most if scored else min(most, MAX_NEW_TOKENS, max(8, UNSCORED // len(texts)))
    shipped, through = _shipped(folder, made, [t.prompt if isinstance(t, Sample) else t for t in texts], threads)
    original = load_runtime(folder, threads)
    try:
        return {"through": through, **compare(original, shipped, texts, new).report(made.quant)}
    finally:
        shipped.close()
        original.close()


def _shipped(folder: Path, made: Exported, texts: list[str], threads: int | None) -> tuple[Runtime, str]:
    """The export in the runtime that it is for, its tokenizer checked, and that runtime's name. A GGUF file without
    llama.cpp is read back into torch."""
    if made.fmt != "gguf":
        return load_runtime(made.path, threads), "onnxruntime-genai"
    from bridge_edge.export.gguf_tokenizer import verify_tokens

    try:
        verify_tokens(made.path, folder, load_tokenizer(folder), texts)
    except MissingRuntime:
        from bridge_edge.export.readback import THROUGH, ReadBack

        return ReadBack(folder, made.path, threads), THROUGH
    return load_runtime(made.path, threads), "llama.cpp"


def _rejected(partial: Path, out_dir: Path, done: Exported) -> ParityError:
    """Keep the failed export beside its target and say what was wrong with it."""
    place = out_dir.with_name(out_dir.name + ".rejected")
    reason = f"the {done.quant} export differs too much from the original: {'; '.join(done.parity['failures'])}"
    (partial / "REJECTED.txt").write_text(reason + "\n", encoding="utf-8")
    shutil.rmtree(place, ignore_errors=True)
    partial.replace(place)
    return ParityError(reason, f"choose a finer type; the export was kept in {place}")
