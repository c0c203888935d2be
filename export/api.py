"""Export a student: convert, quantise, verify, and only then put the result in place.

    exported = export_student(Path("student"), Path("out"), "gguf", "Q4_K_M", prompts)

Everything is written to `<out>.partial` and renamed at the end. A result that is not close enough to the original
is kept as `<out>.rejected` for inspection and reported as a ParityError.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import AutoConfig

from bridge_edge.data.card import Card
from bridge_edge.errors import UserError, unknown
from bridge_edge.export.parity import DEFAULT_PROMPTS, MAX_NEW_TOKENS, ParityError, compare
from bridge_edge.runtimes.load import load_runtime
from bridge_edge.runtimes.torch_runtime import load_tokenizer

FORMATS = ("gguf", "onnx")
REPORT = "parity.json"


@dataclass(frozen=True)
class Exported:
    """What was made. `path` is what a runtime opens; `fallbacks` lists tensors that are not of the asked type."""

    path: Path
    fmt: str
    quant: str
    bytes: int
    bits_per_weight: float
    fallbacks: list[str] = field(default_factory=list)
    parity: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": self.path.name}


def count_parameters(folder: Path) -> int:
    """Weights stored in a checkpoint, a tied head counted once."""
    files = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not files:
        raise UserError(f"{folder} is not a checkpoint", "give a folder with config.json and *.safetensors")
    tied = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).tie_word_embeddings
    total = 0
    for file in files:
        try:
            with safe_open(file, framework="pt") as handle:
                names = [n for n in handle.keys() if not (tied and n == "lm_head.weight")]  # noqa: SIM118
                total += sum(math.prod(handle.get_slice(n).get_shape()) for n in names)
        except Exception as error:
            raise UserError(f"{file} cannot be read: {error}", "save or copy the checkpoint again") from None
    return total


def resolve_quant(fmt: str, quant: str | None, parameters: int) -> str:
    """The canonical type name: the asked one, or the default for this format and size."""
    if fmt not in FORMATS:
        raise unknown("export format", fmt, FORMATS)
    if fmt == "gguf":
        from bridge_edge.export import quantize

        return quantize.check_quant(quant) if quant else quantize.default_quant(parameters)
    from bridge_edge.export import onnx_export

    return onnx_export.check_precision(quant) if quant else onnx_export.default_precision(parameters)


def export_student(
    model_dir: Path,
    out_dir: Path,
    fmt: str,
    quant: str | None = None,
    prompts: Sequence[str] = (),
    threads: int | None = None,
) -> Exported:
    """Export the checkpoint in `model_dir` to the new folder `out_dir`, verified against the original.

    `prompts` are user messages of the task for the parity check; without them the card's examples or a few
    general ones are used.
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
        made = (_gguf if fmt == "gguf" else _onnx)(model_dir, partial, quant, prompts, parameters, threads)
        parity = _parity(model_dir, made, prompts, threads)
        done = Exported(**{**asdict(made), "parity": parity})
        text = json.dumps(done.to_json(), indent=2, sort_keys=True)
        (partial / REPORT).write_text(text + "\n", encoding="utf-8")
        if not parity["passed"]:
            raise _rejected(partial, out_dir, done)
        partial.replace(out_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Exported(**{**asdict(done), "path": out_dir / made.path.name if fmt == "gguf" else out_dir})


def _gguf(
    folder: Path, partial: Path, quant: str, prompts: Sequence[str], _parameters: int, threads: int | None
) -> Exported:
    from bridge_edge.export.gguf_tokenizer import verify_tokens
    from bridge_edge.export.quantize import fallbacks, make_gguf

    card = Card.load(folder)
    name = re.sub(r"[^\w.-]+", "-", card.recipe if card else folder.resolve().name).strip("-.") or "student"
    path = partial / f"{name}-{quant}.gguf"
    header = make_gguf(folder, path, quant, name, threads)
    verify_tokens(path, folder, load_tokenizer(folder), prompts)
    return Exported(path, "gguf", quant, path.stat().st_size, header.bits_per_weight, fallbacks(header, quant))


def _onnx(
    folder: Path, partial: Path, quant: str, _prompts: Sequence[str], parameters: int, _threads: int | None
) -> Exported:
    from bridge_edge.export.onnx_export import fallbacks, make_onnx, weight_bytes

    make_onnx(folder, partial, quant)
    size = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file())
    return Exported(partial, "onnx", quant, size, 8 * weight_bytes(partial) / parameters, fallbacks(partial, quant))


def _parity(folder: Path, made: Exported, prompts: Sequence[str], threads: int | None) -> dict[str, Any]:
    """Load both models and compare; a mismatch of token ids is an error, not a figure."""
    card = Card.load(folder)
    texts = list(prompts) or (list(card.examples) if card else []) or list(DEFAULT_PROMPTS)
    new = min(card.max_new_tokens, MAX_NEW_TOKENS) if card else MAX_NEW_TOKENS
    original = load_runtime(folder, threads)
    shipped = load_runtime(made.path, threads)
    try:
        return compare(original, shipped, texts, new).report(made.quant)
    finally:
        shipped.close()
        original.close()


def _rejected(partial: Path, out_dir: Path, done: Exported) -> ParityError:
    """Keep the failed export beside its target and say what was wrong with it."""
    place = out_dir.with_name(out_dir.name + ".rejected")
    shutil.rmtree(place, ignore_errors=True)
    partial.replace(place)
    parity = done.parity
    figures = ", ".join(f"{key} {parity[key]:.4g} (bound {bound:g})" for key, bound in parity["bounds"].items())
    return ParityError(
        f"the {done.quant} export differs too much from the original: {figures}",
        f"choose a finer type; the export was kept in {place}",
    )
