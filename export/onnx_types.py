"""ONNX types: which exist, which is the default for a size, and what the builder of onnxruntime-genai is told for each.

The integer types keep weights in blocks with a scale each (MatMulNBits); `Blocks` chooses how. Not covered: AWQ and
GPTQ, which the builder reads from checkpoints that others have quantised but does not compute, and types for devices
that are not here to check them.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge_edge.errors import UserError, unknown
from bridge_edge.export.wish import Blocks

BLOCK_SIZES = (16, 32, 64, 128, 256)
ACCURACY_LEVELS = {1: "fp32", 2: "fp16", 3: "bf16", 4: "int8"}  # what activations may be rounded to
# The builder's algorithms, those that keep some layers at eight bits only for int4.
ALGORITHMS = ("default", "rtn", "k_quant")
MIXED = ("rtn_last", "k_quant_last", "k_quant_mixed")


@dataclass(frozen=True)
class Type:
    """`bits` of a weight, the `provider` that the builder is told and further `words` for it, the name that
    transformers.js has for the type, the ending that it expects of the file, and the usual algorithm."""

    bits: int
    provider: str
    dtype: str
    suffix: str
    algorithm: str = "default"
    words: tuple[str, ...] = ()


# fp16: for the CPU the builder writes an unfused graph; the one for WebGPU runs on every provider, once the norms of
# queries and keys stay outside of the attention operator.
# int4: k_quant picks scales by least squares, a seventh less divergence than rounding for 2 % more bytes and six times
# the work; from LARGE parameters on rounding is the usual one.
TYPES = {
    "fp32": Type(32, "cpu", "fp32", ""),
    "fp16": Type(16, "webgpu", "fp16", "_fp16", words=("fuse_qk_norm_gqa=false",)),
    "int8": Type(8, "cpu", "int8", "_int8"),
    "int4": Type(4, "cpu", "q4", "_q4", "k_quant"),
}
PRECISIONS = tuple(TYPES)
LARGE = 100e6
# (below so many parameters, default)
DEFAULTS: tuple[tuple[float, str], ...] = ((50e6, "int8"), (float("inf"), "int4"))


def default_precision(parameters: int) -> str:
    return next(precision for limit, precision in DEFAULTS if parameters < limit)


def check_precision(precision: str) -> str:
    """The precision's canonical name, or a UserError with the choices."""
    name = precision.lower()
    if name not in PRECISIONS:
        raise unknown("ONNX precision", precision, PRECISIONS)
    return name


def model_file(precision: str) -> str:
    """Path of the graph in an export, as transformers.js looks for it."""
    return f"onnx/model{TYPES[precision].suffix}.onnx"


def check_blocks(precision: str, blocks: Blocks) -> None:
    """Refuse what the builder does not know, or would take without a word and not do."""
    bits = TYPES[precision].bits
    if bits > 8 and blocks != Blocks():
        raise UserError(
            f"{precision} has no blocks, levels or algorithms", "choose --quant int4 or int8, or leave them out"
        )
    if blocks.size is not None and blocks.size not in BLOCK_SIZES:
        raise unknown("block size", str(blocks.size), [str(size) for size in BLOCK_SIZES])
    if blocks.accuracy is not None and blocks.accuracy not in ACCURACY_LEVELS:
        raise unknown("accuracy level", str(blocks.accuracy), [f"{k} ({v})" for k, v in ACCURACY_LEVELS.items()])
    choices = ALGORITHMS if bits == 8 else (*ALGORITHMS, *MIXED)
    if blocks.algorithm is not None and blocks.algorithm not in choices:
        raise unknown(f"algorithm for {precision}", blocks.algorithm, choices)


def usual_algorithm(precision: str, parameters: int) -> str:
    """The algorithm where none is asked for."""
    return TYPES[precision].algorithm if parameters < LARGE else "default"


def builder_words(precision: str, blocks: Blocks, parameters: int) -> list[str]:
    """KEY=VALUE options for the builder. Files beside the checkpoint are all that it needs: hf_token=false keeps it
    from reading credentials."""
    check_blocks(precision, blocks)
    words = ["hf_token=false", "windowed_kv_cache=false", *TYPES[precision].words]
    if TYPES[precision].bits > 8:
        return words
    words.append(f"algo_config={blocks.algorithm or usual_algorithm(precision, parameters)}")
    if blocks.size is not None:
        words.append(f"block_size={blocks.size}")
    if blocks.accuracy is not None:
        words.append(f"accuracy_level={blocks.accuracy}")
    return words
