"""GGUF types: which exist, which is the default for a size, and how to make them.

F32, F16, BF16 and Q8_0 are written directly; the K and I types by llama.cpp's own quantiser from an F32 file. Every
matrix whose type is not the asked one is reported: mixed recipes raise some, and rows that do not divide into
256 weights fall back, so the name of a type says less than the effective bits a weight. Not covered: importance
matrices and types below 3 bits, which need one.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp as native

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
}
QUANTS = (*DIRECT, *NATIVE)
# (below so many parameters, default): a tiny model is small in any type and loses most from a coarse one
DEFAULTS: tuple[tuple[float, str], ...] = ((50e6, "Q8_0"), (float("inf"), "Q4_K_M"))


def default_quant(parameters: int) -> str:
    return next(quant for limit, quant in DEFAULTS if parameters < limit)


def check_quant(quant: str) -> str:
    """The type's canonical name, or a UserError with the choices."""
    name = quant.upper()
    if name not in QUANTS:
        raise unknown("GGUF type", quant, QUANTS)
    return name


def fallbacks(header: Header, quant: str) -> list[str]:
    """Matrices that are not of the asked type, as "name: type"."""
    asked = quant if quant in DIRECT else NATIVE[quant][1]
    return [f"{t.name}: {t.type}" for t in header.tensors if len(t.shape) > 1 and t.type != asked]


def make_gguf(folder: Path, out: Path, quant: str, name: str, threads: int | None = None) -> Header:
    """Write `out` in any supported type and return its checked header."""
    if quant in DIRECT:
        write_gguf(folder, out, quant, name)
        return read_header(out)
    whole = out.with_suffix(".f32.gguf")
    try:
        write_gguf(folder, whole, "F32", name)
        _quantise(whole, out, quant, threads)
    finally:
        whole.unlink(missing_ok=True)
    return read_header(out)


def _quantise(source: Path, out: Path, quant: str, threads: int | None) -> None:
    start()
    last_error()
    params = native.llama_model_quantize_default_params()
    params.ftype = NATIVE[quant][0]
    params.nthread = threads or 1
    code = native.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params))
    if code != 0:
        raise UserError(f"llama.cpp cannot quantise to {quant}: {last_error() or code}", "choose another type, as Q8_0")
