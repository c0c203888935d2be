"""llama.cpp's quantiser, called with an importance matrix and types for single tensors.

Kept apart from the names of the types, so that F32, F16, BF16 and Q8_0 can be made where llama.cpp is not installed.
Not covered: quantising what is quantised already, splitting files.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType

from bridge_edge.errors import UserError, unknown
from bridge_edge.export.quantize import NATIVE, NEEDS_IMPORTANCE, Mix
from bridge_edge.runtimes.gguf_header import Header, read_header
from bridge_edge.runtimes.llama_native import last_error, native, start


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
    params.ftype = int(LlamaFileType.MOSTLY_Q8_0 if quant == "Q8_0" else NATIVE[quant][0])
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
