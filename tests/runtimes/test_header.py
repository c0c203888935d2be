"""The GGUF header check, on a real file damaged in one place at a time."""

import struct
from pathlib import Path

import pytest
from gguf import GGML_QUANT_SIZES

from bridge_edge.errors import UserError
from bridge_edge.export.gguf_writer import write_gguf
from bridge_edge.runtimes.ggml_types import TYPES
from bridge_edge.runtimes.gguf_header import read_header
from bridge_edge.runtimes.load import load_runtime
from tests import tiny


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("header")
    write_gguf(tiny.checkpoint(folder / "student"), folder / "student.gguf", "F16", "toy")
    return (folder / "student.gguf").read_bytes()


def put(data: bytes, at: int, fmt: str, value: int) -> bytes:
    return data[:at] + struct.pack(fmt, value) + data[at + struct.calcsize(fmt) :]


def after_name(data: bytes, name: bytes) -> int:
    return data.index(name) + len(name)


def test_a_good_header_is_read(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(good)
    header = read_header(path)
    assert header.metadata["general.architecture"] == "qwen2"
    assert header.lengths["tokenizer.ggml.tokens"] == tiny.VOCAB
    table = {t.name: t for t in header.tensors}
    assert table["token_embd.weight"].shape == (64, tiny.VOCAB)
    assert table["token_embd.weight"].type == "F16"
    assert table["blk.0.attn_q.bias"].type == "F32"
    assert 16 < header.bits_per_weight < 17


def test_the_table_of_types_is_that_of_the_package_gguf() -> None:
    assert {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()} == TYPES


DAMAGE = {
    "magic": lambda d: b"GGML" + d[4:],
    "version": lambda d: put(d, 4, "<I", 77),
    "no tensors": lambda d: put(d, 8, "<Q", 0),
    "tensor count": lambda d: put(d, 8, "<Q", 1 << 60),
    "key count": lambda d: put(d, 16, "<Q", 1 << 60),
    "key length": lambda d: put(d, 24, "<Q", 1 << 62),
    "value type": lambda d: put(d, after_name(d, b"general.architecture"), "<I", 99),
    "string length": lambda d: put(d, after_name(d, b"general.architecture") + 4, "<Q", 1 << 63),
    "array length": lambda d: put(d, after_name(d, b"tokenizer.ggml.tokens") + 8, "<Q", 1 << 61),
    "array type": lambda d: put(d, after_name(d, b"tokenizer.ggml.tokens") + 4, "<I", 42),
    "dimensions": lambda d: put(d, after_name(d, b"token_embd.weight"), "<I", 9),
    "huge shape": lambda d: put(d, after_name(d, b"token_embd.weight") + 4, "<Q", 1 << 62),
    "zero shape": lambda d: put(d, after_name(d, b"token_embd.weight") + 4, "<Q", 0),
    "tensor type": lambda d: put(d, after_name(d, b"token_embd.weight") + 20, "<I", 250),
    "offset outside": lambda d: put(d, after_name(d, b"token_embd.weight") + 24, "<Q", 1 << 40),
    "offset wraps": lambda d: put(d, after_name(d, b"token_embd.weight") + 24, "<Q", (1 << 64) - 32),
    "overlap": lambda d: put(d, after_name(d, b"blk.0.ffn_up.weight") + 24, "<Q", 0),
    "cut short": lambda d: d[: len(d) // 2],
    "only a magic": lambda d: d[:4],
    "empty": lambda d: b"",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_refused_before_native_code(good: bytes, tmp_path: Path, what: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(DAMAGE[what](good))
    assert path.read_bytes() != good
    with pytest.raises(UserError, match=r"bad\.gguf"):
        load_runtime(path)


def test_every_truncation_of_the_header_is_a_user_error(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    for size in range(0, 12_000, 397):
        path.write_bytes(good[:size])
        with pytest.raises(UserError):
            read_header(path)
