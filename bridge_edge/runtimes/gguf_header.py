"""Read and check a GGUF header before native code sees the file.

Loaders of this format have written out of bounds when handed small hostile files, so every count, length and
offset is checked here against the size of the file, and in `gguf_sound` what llama.cpp would assert. The result also
serves the exporter: which tensor has which type, how many bits a weight takes. Not covered: split files, big-endian
files, and the values of the weights.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from bridge_edge.errors import UserError
from bridge_edge.runtimes.ggml_types import TYPES, BlockType
from bridge_edge.runtimes.gguf_sound import check_heads, check_numbers, check_vocabulary

MAGIC, VERSIONS = b"GGUF", (2, 3)
MAX_TENSORS, MAX_KEYS, MAX_NAME, MAX_DIMS, MAX_DEPTH = 100_000, 65_536, 65_535, 4, 2
STRING, ARRAY, BOOL = 8, 9, 7
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
# Our own keys: every end token, and the Unicode normal form that the tokenizer applies first.
EOS_KEY, NORMALIZER_KEY = "bridge_edge.eos_token_ids", "bridge_edge.normalizer"
TOKENS_KEY, VOCABULARY_KEY = "tokenizer.ggml.tokens", "tokenizer.ggml.model"
Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
FORMS: tuple[Form, ...] = get_args(Form)
SAMPLE = 64  # longest array whose values are kept; longer ones (vocabularies, merges) are only checked


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as the header describes it; `shape` is in GGUF order (the innermost dimension first)."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What the file says of itself. `lengths` holds the length of every array, also of those not kept."""

    metadata: dict[str, Any]
    lengths: dict[str, int]
    tensors: tuple[TensorInfo, ...]
    alignment: int = field(default=32)

    @property
    def bits_per_weight(self) -> float:
        return 8 * sum(t.bytes for t in self.tensors) / max(1, sum(t.elements for t in self.tensors))


class _Reader:
    """Bounded little-endian reads of a mapped file; anything past the end is a UserError that names the file."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.size, self.at = data, path, len(data), 0
        self.kept: list[bytes] = []

    def bad(self, problem: str) -> UserError:
        return UserError(f"{self.path} is not a usable GGUF file: {problem}", "export or copy it again")

    def skip(self, count: int) -> None:
        if count < 0 or count > self.size - self.at:
            raise self.bad(f"it ends inside its header ({self.size} bytes)")
        self.at += count

    def take(self, count: int) -> bytes:
        start = self.at
        self.skip(count)
        return self.data[start : self.at]

    def number(self, fmt: str) -> Any:
        return struct.unpack(fmt, self.take(struct.calcsize(fmt)))[0]

    def text(self, limit: int | None = None) -> str:
        length = self.number("<Q")
        if limit is not None and length > limit:
            raise self.bad(f"a name is {length} bytes long")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self.bad("a string is not UTF-8") from None

    def words(self, count: int) -> list[bytes]:
        """That many strings, as fast as Python can: a vocabulary has hundreds of thousands."""
        found = []
        data, at, size, length = self.data, self.at, self.size, struct.Struct("<Q").unpack_from
        for _ in range(count):
            start = at + 8
            at = start + length(data, at)[0] if start <= size else size + 1
            if at > size:
                raise self.bad(f"it ends inside its header ({size} bytes)")
            found.append(data[start:at])
        self.at = at
        return found

    def value(self, kind: int, depth: int = 0, keep: bool = False) -> tuple[Any, int | None]:
        """A metadata value, and its length where it is an array: numbers only up to SAMPLE entries, strings only in
        `kept`, where they are asked for."""
        if kind == STRING:
            return self.text(), None
        if kind in SCALARS:
            return self.number(SCALARS[kind]), None
        if kind != ARRAY or depth >= MAX_DEPTH:
            raise self.bad(f"unknown value type {kind}")
        inner, count = self.number("<I"), self.number("<Q")
        if inner in SCALARS:
            width = struct.calcsize(SCALARS[inner])
            if count > SAMPLE:
                self.skip(count * width)
                return None, count
            return [self.number(SCALARS[inner]) for _ in range(count)], count
        if count > self.size:
            raise self.bad(f"an array claims {count} entries")
        if inner == STRING:
            words = self.words(count)
            self.kept = words if keep else self.kept
            return None, count
        for _ in range(count):
            self.value(inner, depth + 1)
        return None, count


def _tensor(reader: _Reader) -> tuple[str, tuple[int, ...], BlockType, int]:
    name, dims = reader.text(MAX_NAME), reader.number("<I")
    if not 1 <= dims <= MAX_DIMS:
        raise reader.bad(f"tensor {name!r} has {dims} dimensions")
    shape = tuple(reader.number("<Q") for _ in range(dims))
    kind, offset = reader.number("<I"), reader.number("<Q")
    if kind not in TYPES:
        raise reader.bad(f"tensor {name!r} has the unknown type {kind}")
    return name, shape, TYPES[kind], offset


def _sized(reader: _Reader, raw: tuple[str, tuple[int, ...], BlockType, int], room: int) -> TensorInfo:
    """The tensor with its byte size, which must lie inside the `room` bytes of the data section."""
    name, shape, kind, offset = raw
    elements = math.prod(shape)
    if elements <= 0 or elements > 1 << 40 or shape[0] % kind.weights:
        raise reader.bad(f"tensor {name!r} of type {kind.name} has the shape {list(shape)}")
    count = elements // kind.weights * kind.bytes
    if offset > room or count > room - offset:
        raise reader.bad(f"tensor {name!r} lies outside the file, which is probably cut short")
    return TensorInfo(name, shape, kind.name, offset, count)


def read_header(path: Path) -> Header:
    """Parse and check the header of `path`; raises UserError where the file cannot be trusted."""
    size = path.stat().st_size
    if size < 24:
        raise UserError(f"{path} is not a usable GGUF file: it has {size} bytes", "export or copy it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(data, path)
        if reader.take(4) != MAGIC:
            raise reader.bad("it does not begin with the GGUF magic number")
        version = reader.number("<I")
        if version not in VERSIONS:
            raise reader.bad(f"version {version} is not supported (supported: 2, 3)")
        tensors, keys = reader.number("<Q"), reader.number("<Q")
        if not 0 < tensors <= MAX_TENSORS or keys > MAX_KEYS:
            raise reader.bad(f"it claims {tensors} tensors and {keys} metadata keys")
        metadata: dict[str, Any] = {}
        lengths: dict[str, int] = {}
        for _ in range(keys):
            key, kind = reader.text(MAX_NAME), reader.number("<I")
            if key in metadata:
                raise reader.bad(f"the key {key!r} occurs twice")
            metadata[key], length = reader.value(kind, keep=key == TOKENS_KEY)
            if length is not None:
                lengths[key] = length
        raw = [_tensor(reader) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1) or alignment > 1 << 20:
        raise reader.bad(f"the alignment {alignment!r} is not a small power of two")
    start = -(-reader.at // alignment) * alignment
    infos = tuple(_sized(reader, item, size - start) for item in raw)
    check_numbers(metadata, reader.bad)
    check_heads(metadata, infos, reader.bad)
    check_vocabulary(metadata.get(VOCABULARY_KEY), reader.kept, reader.bad)
    _distinct(reader, infos, alignment)
    return Header(metadata, lengths, infos, alignment)


def _distinct(reader: _Reader, infos: tuple[TensorInfo, ...], alignment: int) -> None:
    if len({t.name for t in infos}) != len(infos):
        raise reader.bad("two tensors have one name")
    end = 0
    for tensor in sorted(infos, key=lambda t: t.offset):
        if tensor.offset % alignment or tensor.offset < end:
            raise reader.bad(f"tensor {tensor.name!r} is misaligned or overlaps another")
        end = tensor.offset + tensor.bytes
