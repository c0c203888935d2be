"""The GGUF header check, on a real file damaged in one place at a time."""

import math
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from gguf import GGML_QUANT_SIZES

from bridge_edge.errors import UserError
from bridge_edge.export.gguf_writer import write_gguf
from bridge_edge.runtimes.ggml_types import TYPES
from bridge_edge.runtimes.gguf_header import read_header
from bridge_edge.runtimes.gguf_sound import check_numbers, check_vocabulary
from bridge_edge.runtimes.load import load_runtime
from tests import tiny


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("header")
    write_gguf(tiny.checkpoint(folder / "student"), folder / "student.gguf", "F16", "toy")
    return (folder / "student.gguf").read_bytes()


def put(data: bytes, at: int, fmt: str, value: float) -> bytes:
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
    # What follows ended the process by an assertion of llama.cpp's.
    "no layers": lambda d: put(d, after_name(d, b"qwen2.block_count") + 4, "<I", 0),
    "layers beyond counting": lambda d: put(d, after_name(d, b"qwen2.block_count") + 4, "<I", 1 << 31),
    "no heads": lambda d: put(d, after_name(d, b"attention.head_count") + 4, "<I", 0),
    "fewer heads": lambda d: put(d, after_name(d, b"attention.head_count") + 4, "<I", 1),
    "fewer key heads": lambda d: put(d, after_name(d, b"attention.head_count_kv") + 4, "<I", 1),
    "keys of no length": lambda d: put(d, after_name(d, b"attention.key_length") + 4, "<I", 0),
    "keys longer than values": lambda d: put(d, after_name(d, b"attention.key_length") + 4, "<I", 32),
    "half a rotation": lambda d: put(d, after_name(d, b"rope.dimension_count") + 4, "<I", 3),
    "a norm of NaN": lambda d: put(d, after_name(d, b"rms_epsilon") + 4, "<f", math.nan),
    "a negative norm": lambda d: put(d, after_name(d, b"rms_epsilon") + 4, "<f", -1.0),
    "an endless rotation": lambda d: put(d, after_name(d, b"rope.freq_base") + 4, "<f", math.inf),
    "a token twice": lambda d: d.replace(b"\x01\0\0\0\0\0\0\0q", b"\x01\0\0\0\0\0\0\0r", 1),
    "a vocabulary of no kind": lambda d: d.replace(b"\x04\0\0\0\0\0\0\0gpt2", b"\x04\0\0\0\0\0\0\0none", 1),
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


def test_numbers_of_other_families_are_checked_too() -> None:
    told = {"general.architecture": "far", "far.block_count": 4, "far.expert_count": 8, "far.head_count": [1, 2]}
    check_numbers(told, ValueError)
    with pytest.raises(ValueError, match="claims 2147483648 experts"):
        check_numbers({**told, "far.expert_count": 1 << 31}, ValueError)
    with pytest.raises(ValueError, match=r"far\.scale is nan"):
        check_numbers({**told, "far.scale": math.nan}, ValueError)


def test_what_a_vocabulary_must_have() -> None:
    whole = [b"<0x%02X>" % i for i in range(256)]
    check_vocabulary("llama", [b"", b"", *whole], ValueError)  # llama.cpp names empty tokens itself
    check_vocabulary("llama", [*whole[:10], b"\n", *whole[11:]], ValueError)  # a byte may stand there as it is
    check_vocabulary("gpt2", [b"a"], ValueError)
    for kind, tokens, match in (
        ("llama", whole[:-1], "no token for the byte 0xff"),
        ("gpt2", [b"a", b"b", b"a"], "two of its tokens are 'a'"),
        ("gpt2", [b"a", b"a\0b"], "two of its tokens are 'a'"),
        ("none", [b"a"], "no vocabulary"),
    ):
        with pytest.raises(ValueError, match=match):
            check_vocabulary(kind, tokens, ValueError)


def test_an_assertion_in_native_code_is_one_line() -> None:
    """In a process of its own, which it ends."""
    code = (
        "from bridge_edge.runtimes.llama_native import native, start; start(); "
        "native.llama_cpp._lib.ggml_abort(b'file.c', 7, b'told')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "bridge-edge: llama.cpp gave up: file.c:7: told; check the file or export it again"
    ]
