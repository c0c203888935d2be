from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bridge_edge.benchmarks import capacity
from bridge_edge.benchmarks.onnx_weights import read_weights
from bridge_edge.errors import UserError
from bridge_edge.export.onnx_export import make_onnx
from bridge_edge.export.quantize import make_gguf
from bridge_edge.runtimes.genai import PART
from bridge_edge.runtimes.onnx_config import read_config
from tests import tiny


@pytest.fixture(scope="module")
def root(own_formats: Path) -> Path:
    tiny.checkpoint(own_formats / "untied", "llama")
    make_gguf(own_formats / "untied", own_formats / "u.gguf", "F32", "toy")
    return own_formats


def test_three_formats_of_one_model_have_one_shape(root: Path) -> None:
    shapes = [capacity.shape_of(root / name) for name in ("torch", "m.gguf", "onnx")]
    for shape in shapes:
        assert (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.head_size) == (2, 64, 4, 2, 16)
        assert (shape.vocab, shape.context) == (tiny.VOCAB, 256)
        assert shape.inner == 128
        assert shape.streamed_bytes == pytest.approx(shapes[0].streamed_bytes, rel=0.1)
    assert [s.kv_per_token for s in shapes] == [2 * 2 * 2 * 16 * n for n in (4, 2, 4)]


@pytest.mark.parametrize(("name", "looked_up"), [("torch", 0), ("m.gguf", 0), ("untied", 1), ("u.gguf", 1)])
def test_only_an_untied_embedding_is_not_streamed(root: Path, name: str, looked_up: int) -> None:
    shape = capacity.shape_of(root / name)
    assert shape.weight_bytes - shape.streamed_bytes == looked_up * tiny.VOCAB * 64 * 4


def test_the_cache_is_what_the_runtime_really_reserves(root: Path) -> None:
    from bridge_edge.runtimes.gguf_runtime import GGUFRuntime
    from bridge_edge.runtimes.session import open_session

    runtime = GGUFRuntime(root / "m.gguf", 1)
    shape = capacity.shape_of(root / "m.gguf")
    for context in (1, 100, 256):
        open_session(runtime, context)
        assert shape.reserved(context) == runtime._size
    large = capacity.Shape(**{**shape.__dict__, "context": 8192})
    assert [large.reserved(n) for n in (10, 1025, 3000, 8192)] == [1024, 2048, 4096, 8192]


def test_parameters_follow_from_the_shape() -> None:
    qwen = capacity.Shape("gguf", 24, 896, 4864, 14, 2, 64, 2, 151936, 32768, 1, 1)
    assert qwen.parameters == pytest.approx(494e6, rel=0.01)


GGUF = (  # MiB at 256, 1,024, 2,048 and 4,096 tokens, by `memory_grid --only gguf`
    (capacity.Shape("gguf", 30, 576, 1536, 9, 3, 64, 2, 49152, 8192, 269215488, 1), (346, 354, 378, 425)),
    (capacity.Shape("gguf", 24, 896, 4864, 14, 2, 64, 2, 151936, 8192, 988208640, 1), (1049, 1069, 1082, 1108)),
)
INT4 = (  # by `memory_grid --only onnx`
    (capacity.Shape("onnx", 30, 576, 1536, 9, 3, 64, 4, 49152, 8192, 137602304, 1, 14155776), (463, 502, 548, 639)),
    (capacity.Shape("onnx", 32, 960, 2560, 15, 5, 64, 4, 49152, 8192, 348376832, 1, 23592960), (675, 741, 821, 985)),
    (capacity.Shape("onnx", 24, 896, 4864, 14, 2, 64, 4, 151936, 8192, 519572992, 1, 68067328), (869, 890, 913, 963)),
)


F32, BF16 = (  # checkpoints of the first shape at 256 and 1,024 tokens, by `bench --memory-cap 4G --context`
    (capacity.Shape("torch", 30, 576, 1536, 9, 3, 64, 4, 49152, 8192, 538_060_032, 1, passing), peaks)
    for passing, peaks in ((0, (932, 986)), (269_030_016, (1156, 1155)))
)


@pytest.mark.parametrize(("shape", "peaks"), [*GGUF, *INT4, F32, BF16])
def test_the_peak_is_foretold_within_two_percent(shape: capacity.Shape, peaks: tuple[int, ...]) -> None:
    libraries = {"gguf": 43_790_000, "onnx": 274_500_000, "torch": 389_600_000}[shape.kind]
    for context, peak in zip((256, 1024, 2048, 4096), peaks, strict=False):
        assert shape.peak(libraries, context) / (1 << 20) == pytest.approx(peak, rel=0.02)


@pytest.mark.parametrize(("precision", "tied", "bits"), [("int4", True, 4), ("int8", False, 8), ("fp32", True, 32)])
def test_what_a_session_holds_of_an_onnx_graph(tmp_path: Path, precision: str, tied: bool, bits: int) -> None:
    """By the sizes of the matrices alone: packed once, a tied embedding twice, scales thrice, one of those mapped."""
    folder = tiny.checkpoint(tmp_path / "m", "qwen2", tie_word_embeddings=tied)
    (tmp_path / "onnx").mkdir()
    make_onnx(folder, tmp_path / "onnx", precision)
    name = read_config(tmp_path / "onnx")["model"]["decoder"]["filename"]
    found = read_weights(tmp_path / "onnx", name)
    table = tiny.VOCAB * 64
    layers = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    data = (layers + (2 if tied else 1) * table) * bits // 8
    floats = 0 if bits == 32 else 3 * layers // 32 + (3 + tied) * table // 32
    small = found.held - data - 4 * floats
    assert 0 < small < 50_000, "norms, biases, angles"
    assert found.passing == table * bits // 8
    assert found.looked_up == (0 if tied else 4 * table)
    assert (found.widest, found.half_cache) == (128, False)
    (tmp_path / "onnx" / f"{name}_data").write_bytes(b"short")
    with pytest.raises(UserError, match="which has 5"):
        capacity.shape_of(tmp_path / "onnx")


def test_half_precision_is_mapped_beside_what_is_made_of_it(root: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(root / "torch", tmp_path / "half")
    whole, half = root / "torch" / "model.safetensors", tmp_path / "half" / "model.safetensors"
    save_file({name: t.half() for name, t in load_file(whole).items()}, half)
    full, halved = capacity.shape_of(root / "torch"), capacity.shape_of(tmp_path / "half")
    assert (full.loading_bytes, halved.loading_bytes) == (0, full.weight_bytes // 2)
    assert halved.weight_bytes == full.weight_bytes


def test_peaks_grow_with_the_context_and_loading_may_be_the_peak(root: Path) -> None:
    torch_shape, onnx_shape = (capacity.shape_of(root / name) for name in ("torch", "onnx"))
    assert torch_shape.peak(1000, 200) > torch_shape.peak(1000, 100) > 1000 + torch_shape.weight_bytes
    grown = onnx_shape.activations(2) - onnx_shape.activations(1)
    assert grown >= 4 * tiny.VOCAB, "the logits of every token"
    heavy = capacity.Shape(**{**onnx_shape.__dict__, "loading_bytes": 1 << 30})
    assert heavy.peak(0, 1) > (1 << 30) + onnx_shape.weight_bytes, "while the session is made"
    assert onnx_shape.activations(200) == onnx_shape.activations(PART), "a prompt goes in by parts"
    found = capacity.compared(torch_shape, {"imported_rss_bytes": 10, "peak_rss_bytes": 1 << 20}, 64)
    assert found["predicted_peak_bytes"] == torch_shape.peak(10, 64)
    assert found["error"] == pytest.approx(torch_shape.peak(10, 64) / (1 << 20) - 1)


def test_sizes_as_people_write_them() -> None:
    sizes = [capacity.bytes_of(text, "--memory-cap") for text in ("512M", "2GiB", "1.5k", "77", "3 mb")]
    assert sizes == [512 << 20, 2 << 30, 1536, 77, 3 << 20]
    for text in ("", "many", "-1M", "M", "nan", "inf"):
        with pytest.raises(UserError, match="--memory-cap"):
            capacity.bytes_of(text, "--memory-cap")


@pytest.mark.parametrize(("cap", "wanted"), [(5000, 4096), (4096, 4096), (3000, 2944), (1100, 1088), (164, 64)])
def test_the_largest_context_by_bisection(cap: int, wanted: int) -> None:
    asked: list[int] = []

    def probe(context: int) -> int:
        asked.append(context)
        return context

    found, seen = capacity.largest_context(probe, cap, 4096)
    assert seen == [(n, n) for n in asked]
    assert found is not None
    assert found <= cap
    assert len(asked) <= capacity.MAX_PROBES
    slow = max(n for n in range(64, 4097, 64) if n <= cap)
    assert slow == wanted or cap == 164
    assert slow - found <= 4096 >> (capacity.MAX_PROBES - 3)  # as near as so few probes can come


def test_a_model_that_is_too_large_for_the_cap() -> None:
    assert capacity.largest_context(lambda n: 1 << 30, 1 << 20, 1024) == (None, [(1024, 1 << 30), (64, 1 << 30)])


def test_a_damaged_checkpoint_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="holds no object"):
        capacity.shape_of(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "odd"}', encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json says no hidden_size; save the checkpoint again"):
        capacity.shape_of(tmp_path)
