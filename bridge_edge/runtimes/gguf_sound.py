"""What llama.cpp asserts of a GGUF file, checked first: a native assertion ends the process, an error does not.

Counts of layers and experts, heads that fit their matrices, numbers that are finite, a vocabulary without doubles. The
rules on heads are those of the families that are exported here; of the others only what all share is checked. Not
covered: what a file computes, and assertions that nobody has met yet; for those `llama_native` says one line as the
process ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

MOST_LAYERS = MOST_EXPERTS = 512  # llama.cpp's arrays are as long
FAMILIES = {"qwen2", "qwen3", "llama", "gemma3", "ernie4_5"}
# matrix of the first layer -> the metadata keys of its count of heads and of their size, and which dimension they fill
HEADS = {
    "attn_q": ("head_count", "key_length", 1),
    "attn_k": ("head_count_kv", "key_length", 1),
    "attn_v": ("head_count_kv", "value_length", 1),
    "attn_output": ("head_count", "value_length", 0),
}
Bad = Callable[[str], Exception]


class Shaped(Protocol):
    """A tensor by name and shape, the innermost dimension first."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


def check_numbers(metadata: Mapping[str, Any], bad: Bad) -> None:
    """Metadata of the architecture: finite, and within what llama.cpp has room for."""
    arch = metadata.get("general.architecture")
    for key, value in metadata.items():
        if not key.startswith(f"{arch}.") or not isinstance(value, int | float):
            continue
        if not math.isfinite(value) or (key.endswith(("_epsilon", "freq_base")) and value < 0):
            raise bad(f"{key} is {value}")
    layers, experts = metadata.get(f"{arch}.block_count"), metadata.get(f"{arch}.expert_count", 0)
    if isinstance(layers, int) and not 0 < layers <= MOST_LAYERS:
        raise bad(f"it claims {layers} layers (1 to {MOST_LAYERS} are possible)")
    if isinstance(experts, int) and not 0 <= experts <= MOST_EXPERTS:
        raise bad(f"it claims {experts} experts (up to {MOST_EXPERTS} are possible)")


def check_heads(metadata: Mapping[str, Any], tensors: Sequence[Shaped], bad: Bad) -> None:
    """Attention heads fill the matrices of the first layer, and are rotated whole."""
    arch = metadata.get("general.architecture")
    if arch not in FAMILIES:
        return

    def told(key: str, default: Any) -> int:
        value = metadata.get(f"{arch}.{key}", default)
        if type(value) is not int or not 0 < value < 1 << 31:
            raise bad(f"{arch}.{key} is {value!r}")
        return value

    heads, width = told("attention.head_count", None), told("embedding_length", None)
    size = width // heads
    counts = {"head_count": heads, "head_count_kv": told("attention.head_count_kv", heads)}
    sizes = {part: told(f"attention.{part}", size) for part in ("key_length", "value_length")}
    turned = told("rope.dimension_count", sizes["key_length"])
    if sizes["key_length"] != sizes["value_length"] or turned != sizes["key_length"]:
        raise bad(f"its heads have {sizes['key_length']}, {sizes['value_length']} and {turned} numbers")
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    for part, (count, length, side) in HEADS.items():
        shape = shapes.get(f"blk.0.{part}.weight", ())
        if len(shape) == 2 and shape[side] != counts[count] * sizes[length]:
            raise bad(f"{part} of {list(shape)} does not hold {counts[count]} heads of {sizes[length]}")


def check_vocabulary(kind: Any, tokens: Sequence[bytes], bad: Bad) -> None:
    """No two tokens are one text (as C reads it, up to a NUL); SentencePiece has a token for every byte."""
    if kind in ("none", "no_vocab"):
        raise bad("it has no vocabulary")
    seen: set[bytes] = set()
    for token in tokens:
        text = token.split(b"\0", 1)[0]
        if text in seen:
            raise bad(f"two of its tokens are {text.decode('utf-8', 'replace')[:40]!r}")
        if text:
            seen.add(text)
    if kind == "llama":
        lacking = next((b for b in range(256) if b"<0x%02X>" % b not in seen and bytes([b]) not in seen), None)
        if lacking is not None:
            raise bad(f"its vocabulary has no token for the byte {lacking:#04x}")
