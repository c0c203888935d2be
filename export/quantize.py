"""GGUF types: which exist, which is the default for a size, and how to make them.

F32, F16, BF16 and Q8_0 are written directly; the K and I types by llama.cpp's own quantiser from an F32 file, with an
importance matrix and a type for single tensors where they are given. Every matrix whose type is not the asked one is
reported: mixed recipes raise some, and rows that do not divide into 256 weights fall back, so the name of a type says
less than the effective bits a weight. Not covered: types below two and a half bits, which ruin a small model.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llama_cpp as native
import numpy as np
from gguf import GGMLQuantizationType

from bridge_edge.errors import UserError, unknown
from bridge_edge.export.gguf_writer import DIRECT, write_gguf
from bridge_edge.runtimes.gguf_header import Header, read_header
from bridge_edge.runtimes.llama_native import last_error, start

# name -> (llama.cpp file type, the tensor type it asks for)
NATIVE = {
    "Q6_K": (native.LLAMA_FTYPE_MOSTLY_Q6_K, "Q6_K"),
    "Q5_K_M": (native.LLAMA_FTYPE_MOSTLY_Q5_K_M, "Q5_K"),
    "Q5_K_S": (native.LLAMA_FTYPE_MOSTLY_Q5_K_S, "Q5_K"),
    "Q5_0": (native.LLAMA_FTYPE_MOSTLY_Q5_0, "Q5_0"),
    "Q4_K_M": (native.LLAMA_FTYPE_MOSTLY_Q4_K_M, "Q4_K"),
    "Q4_K_S": (native.LLAMA_FTYPE_MOSTLY_Q4_K_S, "Q4_K"),
    "Q4_0": (native.LLAMA_FTYPE_MOSTLY_Q4_0, "Q4_0"),
    "IQ4_XS": (native.LLAMA_FTYPE_MOSTLY_IQ4_XS, "IQ4_XS"),
    "IQ4_NL": (native.LLAMA_FTYPE_MOSTLY_IQ4_NL, "IQ4_NL"),
    "Q3_K_M": (native.LLAMA_FTYPE_MOSTLY_Q3_K_M, "Q3_K"),
    "IQ3_S": (native.LLAMA_FTYPE_MOSTLY_IQ3_S, "IQ3_S"),
    "IQ3_XXS": (native.LLAMA_FTYPE_MOSTLY_IQ3_XXS, "IQ3_XXS"),
    "Q2_K": (native.LLAMA_FTYPE_MOSTLY_Q2_K, "Q2_K"),
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
    whole = out.with_suffix(".f32.gguf")
    try:
        write_gguf(folder, whole, "F32", name)
        return requantise(whole, out, quant, threads, mix)
    finally:
        whole.unlink(missing_ok=True)


def requantise(whole: Path, out: Path, quant: str, threads: int | None, mix: Mix) -> Header:
    """Quantise the F32 file `whole` to `out` with llama.cpp; a failure leaves no file."""
    if quant in NEEDS_IMPORTANCE and not mix.importance:
        raise UserError(
            f"{quant} needs an importance matrix", "export from a run, or add --calibration FILE; or choose Q3_K_M"
        )
    header = read_header(whole)
    start()
    last_error()
    params = native.llama_model_quantize_default_params()
    params.ftype = native.LLAMA_FTYPE_MOSTLY_Q8_0 if quant == "Q8_0" else NATIVE[quant][0]
    params.nthread = threads or 1
    keep = [_importance(params, mix.importance, header), _types(params, mix.types, header)]
    code = native.llama_model_quantize(str(whole).encode(), str(out).encode(), ctypes.byref(params))
    del keep  # the native side read from these arrays until here
    if code != 0:
        out.unlink(missing_ok=True)
        raise UserError(f"llama.cpp cannot quantise to {quant}: {last_error() or code}", "choose another type, as Q8_0")
    return read_header(out)


def _importance(params: Any, importance: Mapping[str, np.ndarray], header: Header) -> Any:
    """Hand the matrices over; the native side takes `size` floats from each pointer and stops at an empty name."""
    if not importance:
        return None
    columns = {t.name: t.shape[0] for t in header.tensors if len(t.shape) > 1}
    given = [(name, np.ascontiguousarray(v, np.float32)) for name, v in importance.items() if name in columns]
    for name, values in given:
        if values.shape != (columns[name],):
            raise UserError(
                f"the importance of {name!r} has shape {values.shape}, the tensor {columns[name]} columns",
                "make the importance matrix from the same checkpoint",
            )
    entries = (native.llama_model_imatrix_data * (len(given) + 1))()  # the last one stays zero and ends the list
    for entry, (name, values) in zip(entries, given, strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    params.imatrix = ctypes.cast(entries, ctypes.POINTER(native.llama_model_imatrix_data))
    return entries, given


def _types(params: Any, types: Mapping[str, str], header: Header) -> Any:
    """Hand the types over as regular expressions that match whole names."""
    if not types:
        return None
    names = [t.name for t in header.tensors]
    entries = (native.llama_model_tensor_override * (len(types) + 1))()
    for entry, (pattern, kind) in zip(entries, types.items(), strict=False):
        # The native side speaks ECMAScript, so only what both dialects read alike goes in.
        expression = "^" + pattern.replace(".", r"\.").replace("*", ".*") + "$"
        if re.search(r"[^\w.*]", pattern) or not any(re.search(expression, name) for name in names):
            raise unknown("tensor", pattern, [n for n in names if n.endswith(".weight")][:40])
        entry.pattern = expression.encode()
        entry.type = int(GGMLQuantizationType[kind])
    params.tt_overrides = ctypes.cast(entries, ctypes.POINTER(native.llama_model_tensor_override))
    return entries
