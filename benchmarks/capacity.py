"""How much memory an artifact needs by context length, predicted from its shape, and the largest context under a cap.

Predicted peak = libraries (measured: what the process held before the model) + weights + KV cache + activations, or the
peak of loading where that is higher. The KV cache is 2 x layers x KV heads x head size x bytes an element for each
token that the runtime reserves; activations are the widest layer. llama.cpp's attention holds a mask of tokens by cache
and no scores; its vocabulary and its graph take what was measured on four models (`memory_grid.py`). An ONNX session
packs its weights anew (`onnx_weights.py`) and makes the logits of every token of a part of the prompt. transformers
maps a checkpoint in half precision beside the float32 that it makes of it. Not covered: sliding windows (predicted as
full attention), runtimes other than those of this package.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from bridge_edge.errors import UserError
from bridge_edge.runtimes.load import kind_of

F32, F16 = 4, 2
GGUF_BATCH, GGUF_FIRST = 512, 1024  # as in the GGUF runtime
GGUF_GRAPH, GGUF_LAYER, GGUF_TOKEN = 6 << 20, 1 << 17, 168  # bytes: of the graph, a layer, an entry of the vocabulary
ONNX_PART = 128  # tokens of a prompt at once, as in the ONNX runtime
ONNX_SESSION, ONNX_LAYER = 28_500_000, 68_000  # bytes: of code and graph, of a layer of it
TORCH_CODE = 25_000_000  # bytes that a first answer reads
MAX_PROBES = 8
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True)
class Shape:
    """What memory and decoding speed depend on."""

    kind: str
    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_size: int
    kv_bytes: int
    vocab: int
    context: int
    weight_bytes: int  # in memory
    streamed_bytes: int  # read for each token: without an embedding that is only looked up
    loading_bytes: int = 0  # of the weights, beyond what is kept, while they are loaded

    @property
    def kv_per_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_size * self.kv_bytes

    @property
    def parameters(self) -> int:
        """Of a gated transformer of this shape, its embedding counted once; norms and biases are left out."""
        attention = self.hidden * self.head_size * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.inner) + self.vocab * self.hidden

    def reserved(self, context: int) -> int:
        """Tokens for which the runtime reserves a cache when `context` are asked for."""
        if self.kind != "gguf":
            return context
        return min(self.context, max(GGUF_FIRST, 1 << (context - 1).bit_length()))

    def kv_cache(self, context: int) -> int:
        return self.kv_per_token * self.reserved(context)

    def activations(self, context: int) -> int:
        if self.kind == "gguf":
            rows = min(context, GGUF_BATCH)
            wide, mask = rows * (5 * self.hidden + 3 * self.inner) * F32, rows * self.reserved(context) * F16
            return wide + mask + self.vocab * GGUF_TOKEN + self.layers * GGUF_LAYER + GGUF_GRAPH
        if self.kind == "onnx":
            rows = min(context, ONNX_PART)
            return rows * (8 * self.inner + self.vocab) * F32 + self._session
        return (context * (4 * self.hidden + 3 * self.inner) + self.vocab) * F32 + self._session

    @property
    def _session(self) -> int:
        """Code that is read and structures that are made with the model, whatever its context."""
        return {"onnx": ONNX_SESSION + self.layers * ONNX_LAYER, "torch": TORCH_CODE}.get(self.kind, 0)

    def peak(self, libraries: int, context: int) -> int:
        """Bytes at the most, while it runs or while it is loaded."""
        running = self.kv_cache(context) + self.activations(context)
        return libraries + self.weight_bytes + max(running, self._session + self.loading_bytes)


def shape_of(path: Path) -> Shape:
    """The shape of a GGUF file, an ONNX folder or a checkpoint folder, from its headers alone."""
    kind, found = kind_of(path)
    return {"gguf": _gguf, "onnx": _onnx, "torch": _torch}[kind](found)


def _gguf(path: Path) -> Shape:
    from bridge_edge.runtimes.gguf_header import read_header

    header = read_header(path)
    metadata, arch = header.metadata, header.metadata.get("general.architecture", "")

    def value(name: str, default: int | None = None) -> int:
        got = metadata.get(f"{arch}.{name}", default)
        got = max(got) if isinstance(got, list) and got else got
        if not isinstance(got, int) or isinstance(got, bool) or got < 1:
            raise UserError(f"{path} does not say its {name}", "export it again")
        return got

    hidden, heads = value("embedding_length"), value("attention.head_count")
    total = sum(t.bytes for t in header.tensors)
    names = {t.name: t for t in header.tensors}
    looked_up = names["token_embd.weight"].bytes if "output.weight" in names and "token_embd.weight" in names else 0
    vocab = header.lengths.get("tokenizer.ggml.tokens", 0)
    return Shape(
        kind="gguf",
        layers=value("block_count"),
        hidden=hidden,
        inner=value("feed_forward_length", hidden),
        heads=heads,
        kv_heads=value("attention.head_count_kv", heads),
        head_size=value("attention.key_length", max(1, hidden // heads)),
        kv_bytes=F16,
        vocab=vocab,
        context=value("context_length"),
        weight_bytes=total,
        streamed_bytes=total - looked_up,
    )


def _onnx(path: Path) -> Shape:
    from bridge_edge.benchmarks.onnx_weights import read_weights
    from bridge_edge.runtimes.onnx_config import read_config

    model = read_config(path)["model"]
    decoder = model["decoder"]
    file = path / decoder["filename"]  # checked by `read_config` to lie in the folder
    found = read_weights(path, decoder["filename"])
    total = sum(p.stat().st_size for p in file.parent.iterdir() if p.name.startswith(file.name))
    return Shape(
        kind="onnx",
        layers=int(decoder["num_hidden_layers"]),
        hidden=int(decoder["hidden_size"]),
        inner=found.widest,
        heads=int(decoder["num_attention_heads"]),
        kv_heads=int(decoder["num_key_value_heads"]),
        head_size=int(decoder["head_size"]),
        kv_bytes=F16 if found.half_cache else F32,
        vocab=int(model["vocab_size"]),
        context=int(model["context_length"]),
        weight_bytes=found.held,
        streamed_bytes=total - found.looked_up,
        loading_bytes=found.passing,
    )


def _torch(path: Path) -> Shape:
    config = _json(path / "config.json")
    config = config.get("text_config") or config
    weights = _elements(path)

    def value(name: str) -> int:
        if not isinstance(found := config.get(name), int) or found < 1:
            raise UserError(f"{path / 'config.json'} says no {name}", "save the checkpoint again")
        return found

    hidden, heads = value("hidden_size"), value("num_attention_heads")
    total = sum(count for count, _ in weights.values())
    embedding = next((n for name, (n, _) in weights.items() if name.endswith("embed_tokens.weight")), 0)
    untied = any(name.endswith("lm_head.weight") for name in weights)
    return Shape(
        kind="torch",
        layers=value("num_hidden_layers"),
        hidden=hidden,
        inner=int(config.get("intermediate_size") or 4 * hidden),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_size=int(config.get("head_dim") or hidden // heads),
        kv_bytes=F32,
        vocab=value("vocab_size"),
        context=int(config.get("max_position_embeddings") or 1 << 30),
        weight_bytes=F32 * total,
        streamed_bytes=F32 * (total - (embedding if untied else 0)),
        loading_bytes=sum(size for count, size in weights.values() if size < F32 * count),  # mapped, to be widened
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"cannot read {path}", "save the checkpoint again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no object", "save the checkpoint again")
    return found


def _elements(path: Path) -> dict[str, tuple[int, int]]:
    """Elements and bytes of every tensor, from the headers of the safetensors files."""
    found: dict[str, tuple[int, int]] = {}
    for file in sorted(path.glob("*.safetensors")):
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8).ljust(8, b"\0"))
            if length > file.stat().st_size:
                raise UserError(f"{file} is cut short or no safetensors file", "save the checkpoint again")
            header = json.loads(opened.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                start, end = tensor["data_offsets"]
                found[name] = (prod(tensor["shape"]), end - start)
    return found


def compared(shape: Shape, measured: dict[str, Any], context: int) -> dict[str, Any]:
    """Predicted parts and peak beside the measured peak; the error is relative to what was measured."""
    libraries, peak = measured.get("imported_rss_bytes") or 0, measured["peak_rss_bytes"]
    predicted = shape.peak(libraries, context)
    return {
        "context": context,
        "libraries_bytes": libraries,
        "weight_bytes": shape.weight_bytes,
        "kv_cache_bytes": shape.kv_cache(context),
        "activation_bytes": shape.activations(context),
        "predicted_peak_bytes": predicted,
        "measured_peak_bytes": peak,
        "error": predicted / peak - 1,
    }


def bytes_of(text: str, option: str) -> int:
    """A size such as 512M, 2G or a plain number of bytes."""
    cleaned = text.strip().lower().removesuffix("b").removesuffix("i")
    unit = cleaned[-1:] if cleaned[-1:] in UNITS and cleaned[-1:] else ""
    try:
        value = float(cleaned.removesuffix(unit)) * UNITS[unit]
    except ValueError:
        value = 0
    if not 0 < value < 1 << 60:
        raise UserError(f"{option} is {text!r}", f"give a size such as {option} 512M or {option} 2G")
    return int(value)


def largest_context(
    probe: Callable[[int], int], cap: int, limit: int, step: int = 64, least: int = 64
) -> tuple[int | None, list[tuple[int, int]]]:
    """The largest multiple of `step` up to `limit` whose measured peak, `probe(context)`, is within `cap`, and all that
    was measured. None if not even `least` fits. Peaks must not fall with the context."""
    seen: list[tuple[int, int]] = []

    def fits(context: int) -> bool:
        seen.append((context, probe(context)))
        return seen[-1][1] <= cap

    if fits(limit):
        return limit, seen
    low, high = min(least, limit), limit
    if low == limit or not fits(low):
        return None, seen
    while high - low > step and len(seen) < MAX_PROBES:
        middle = (low + high) // 2 // step * step
        if middle <= low:
            break
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low, seen
