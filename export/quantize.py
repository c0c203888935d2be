"""GGUF types: which exist, which is the default for a size, and how to make them.

F32, F16, BF16 and Q8_0 are written directly; the K and I types by llama.cpp's own quantiser from an F32 file, with an
importance matrix and a type for single tensors where they are given. Every matrix whose type is not the asked one is
reported: mixed recipes raise some, and rows that do not divide into 256 weights fall back, so the name of a type says
less than the effective bits a weight. Not covered: types below two and a half bits, which ruin a small model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gguf import LlamaFileType

from bridge_edge.errors import UserError, unknown
from bridge_edge.export.gguf_writer import DIRECT, write_gguf
from bridge_edge.runtimes.base import MissingRuntime
from bridge_edge.runtimes.gguf_header import Header, read_header

# name -> (llama.cpp file type, the tensor type it asks for)
NATIVE = {
    "Q6_K": (LlamaFileType.MOSTLY_Q6_K, "Q6_K"),
    "Q5_K_M": (LlamaFileType.MOSTLY_Q5_K_M, "Q5_K"),
    "Q5_K_S": (LlamaFileType.MOSTLY_Q5_K_S, "Q5_K"),
    "Q5_0": (LlamaFileType.MOSTLY_Q5_0, "Q5_0"),
    "Q4_K_M": (LlamaFileType.MOSTLY_Q4_K_M, "Q4_K"),
    "Q4_K_S": (LlamaFileType.MOSTLY_Q4_K_S, "Q4_K"),
    "Q4_0": (LlamaFileType.MOSTLY_Q4_0, "Q4_0"),
    "IQ4_XS": (LlamaFileType.MOSTLY_IQ4_XS, "IQ4_XS"),
    "IQ4_NL": (LlamaFileType.MOSTLY_IQ4_NL, "IQ4_NL"),
    "Q3_K_M": (LlamaFileType.MOSTLY_Q3_K_M, "Q3_K"),
    "IQ3_S": (LlamaFileType.MOSTLY_IQ3_S, "IQ3_S"),
    "IQ3_XXS": (LlamaFileType.MOSTLY_IQ3_XXS, "IQ3_XXS"),
    "Q2_K": (LlamaFileType.MOSTLY_Q2_K, "Q2_K"),
}
QUANTS = (*DIRECT, *NATIVE)
AUTO = "auto"
NEEDS_IMPORTANCE = {"IQ3_XXS"}
# Types that single tensors may take, by llama.cpp's name, coarse to fine.
TENSOR_TYPES = (
    "IQ2_S", "Q2_K", "IQ3_XXS", "IQ3_S", "Q3_K", "IQ4_XS", "IQ4_NL", "Q4_0", "Q4_1", "Q4_K",
    "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0", "F16", "BF16", "F32",
)  # fmt: skip
IMPORTANT_TENSOR_TYPES = {"IQ2_S", "IQ3_XXS"}  # llama.cpp refuses these without an importance matrix
# (below so many parameters, default): a tiny model is small in any type and loses most from a coarse one
DEFAULTS: tuple[tuple[float, str], ...] = ((50e6, "Q8_0"), (float("inf"), "Q4_K_M"))


@dataclass(frozen=True)
class Mix:
    """What refines a type: the importance matrix (tensor name -> columns) and types for tensors by name or pattern,
    a `*` standing for anything. The first pattern that fits a tensor decides."""

    importance: Mapping[str, np.ndarray] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)


PLAIN = Mix()


def default_quant(parameters: int) -> str:
    return next(quant for limit, quant in DEFAULTS if parameters < limit)


def check_quant(quant: str) -> str:
    """The type's canonical name, or a UserError with the choices."""
    name = AUTO if quant.lower() == AUTO else quant.upper()
    if name not in (*QUANTS, AUTO):
        raise unknown("GGUF type", quant, (*QUANTS, AUTO))
    return name


def parse_types(words: tuple[str, ...]) -> dict[str, str]:
    """PATTERN=TYPE words, as `blk.*.ffn_down.weight=Q6_K`, checked."""
    found = {}
    for word in words:
        pattern, sign, name = word.partition("=")
        if not (pattern and sign):
            raise UserError(f"tensor type {word!r} is not PATTERN=TYPE", "for example blk.*.ffn_down.weight=Q6_K")
        if name.upper() not in TENSOR_TYPES:
            raise unknown("tensor type", name, TENSOR_TYPES)
        found[pattern] = name.upper()
    return found


def fallbacks(header: Header, quant: str) -> list[str]:
    """Matrices that are not of the asked type, as "name: type"; a searched mixture has none."""
    if quant == AUTO:
        return []
    asked = quant if quant in DIRECT else NATIVE[quant][1]
    return [f"{t.name}: {t.type}" for t in header.tensors if len(t.shape) > 1 and t.type != asked]


def make_gguf(folder: Path, out: Path, quant: str, name: str, threads: int | None = None, mix: Mix = PLAIN) -> Header:
    """Write `out` in any supported type and return its checked header."""
    if quant in DIRECT and not (mix.types and quant == "Q8_0"):
        if mix.types:
            raise UserError(f"{quant} takes no tensor types", f"choose one of {', '.join(('Q8_0', *NATIVE))}")
        write_gguf(folder, out, quant, name)
        return read_header(out)
    requantise = native_quantiser(quant)
    whole = out.with_suffix(".f32.gguf")
    try:
        write_gguf(folder, whole, "F32", name)
        return requantise(whole, out, quant, threads, mix)
    finally:
        whole.unlink(missing_ok=True)


def native_quantiser(quant: str) -> Callable[[Path, Path, str, int | None, Mix], Header]:
    """llama.cpp's quantiser; where it is not installed, an error that says what to do without it."""
    try:
        from bridge_edge.export.llama_quantiser import requantise
    except MissingRuntime as error:
        raise MissingRuntime(
            f"{quant} is made by llama.cpp's quantiser; {error.message}", f"{error.hint}, or choose Q8_0 or F16"
        ) from None
    return requantise
