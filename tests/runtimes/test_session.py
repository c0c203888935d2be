"""Sessions against the runtimes' own logits: what was fed, rewound and fed again must not change the next token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge_edge.errors import UserError
from bridge_edge.export.onnx_export import make_onnx
from bridge_edge.runtimes.genai import PART
from bridge_edge.runtimes.load import load_runtime
from bridge_edge.runtimes.session import GGUFSession, ONNXSession, open_session, use_threads
from tests import tiny

IDS = [5, 9, 40, 77, 101, 33, 8, 60]


@pytest.fixture(scope="module")
def root(own_formats: Path) -> Path:
    tiny.checkpoint(own_formats / "window", "gemma3")
    return own_formats


def next_logits(session: Any) -> np.ndarray:
    """The logits that the last `feed` of a session computed, (V,)."""
    if isinstance(session, ONNXSession):
        return np.asarray(session.generator.get_logits(), dtype=np.float32).reshape(-1)
    assert isinstance(session, GGUFSession)
    import llama_cpp as native

    size = session.runtime.vocab_size
    return np.ctypeslib.as_array(native.llama_get_logits(session.runtime._context), shape=(size,)).copy()


@pytest.mark.parametrize("name", ["m.gguf", "onnx"])
def test_what_was_rewound_leaves_no_trace(root: Path, name: str) -> None:
    runtime = load_runtime(root / name, 1)
    wanted = runtime.logits(IDS)[-1]
    session = open_session(runtime, 32)
    session.feed(IDS[:5])
    session.feed([200, 201, 202, 203])
    session.rewind(5)
    session.feed(IDS[5:7])
    session.feed(IDS[7:])
    assert session.length == len(IDS)
    np.testing.assert_allclose(next_logits(session), wanted, atol=1e-3)
    runtime.close()


@pytest.mark.parametrize("amx", [True, False])
def test_weights_are_not_laid_out_for_amx(root: Path, amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from bridge_edge.runtimes import llama_native

    given: list[bool] = []

    def load(path: bytes, params: Any) -> None:
        given.append(bool(params.use_extra_bufts))

    info = f"CPU : AVX2 = 1 | AMX_INT8 = {int(amx)} | REPACK = 1 | ".encode()
    monkeypatch.setattr(llama_native.native, "llama_print_system_info", lambda: info)
    monkeypatch.setattr(llama_native.native, "llama_model_load_from_file", load)
    llama_native.multiplies_in_tiles.cache_clear()
    with pytest.raises(UserError, match="cannot load"):
        llama_native.load_model(root / "m.gguf")
    llama_native.multiplies_in_tiles.cache_clear()
    assert given == [not amx]


@pytest.mark.parametrize("name", ["torch", "window"])
def test_a_torch_cache_is_cut_or_filled_again(root: Path, name: str) -> None:
    runtime: Any = load_runtime(root / name, 1)
    ids = [1 + i % 90 for i in range(40)]  # beyond the toy's window of 16
    session: Any = open_session(runtime, 64)
    session.feed(ids)
    session.feed([200, 201])
    session.rewind(40)
    assert session.length == 40
    import torch

    with torch.no_grad():
        out = runtime.model(input_ids=torch.tensor([[7]]), past_key_values=session.cache, use_cache=True)
    np.testing.assert_allclose(out.logits[0, -1].numpy(), runtime.logits([*ids, 7])[-1], atol=1e-3)


@pytest.mark.parametrize("name", ["torch", "m.gguf", "onnx"])
def test_a_session_begins_anew_from_nothing(root: Path, name: str) -> None:
    runtime = load_runtime(root / name, 1)
    session = open_session(runtime, 16)
    session.feed(IDS)
    session.rewind(0)
    session.feed(IDS)
    assert session.length == len(IDS)
    runtime.close()


def test_a_session_larger_than_the_context_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match="context of 256"):
        open_session(load_runtime(root / "torch", 1), 257)


def test_torchs_threads_belong_to_the_process(root: Path) -> None:
    import torch

    runtime = load_runtime(root / "torch", 1)
    use_threads(runtime, 2)
    assert torch.get_num_threads() == 2
    use_threads(runtime, 1)
    assert torch.get_num_threads() == 1


def test_logits_are_the_callers_own(root: Path) -> None:
    """A step hands on llama.cpp's buffer, and what is given out must not change with the next call."""
    runtime = load_runtime(root / "m.gguf", 1)
    first = runtime.logits(IDS)
    kept = first.copy()
    runtime.logits(IDS[::-1])
    list(runtime.stream(IDS, 3))
    np.testing.assert_array_equal(first, kept)
    runtime.close()


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_a_long_onnx_prompt_goes_in_by_parts(tmp_path: Path, kind: str) -> None:
    """The logits of all of a prompt were computed at once: 600 MB for 1,000 tokens of a usual vocabulary."""
    folder = tiny.checkpoint(tmp_path / "m", kind)
    (tmp_path / "onnx").mkdir()
    make_onnx(folder, tmp_path / "onnx", "fp32")
    runtime: Any = load_runtime(tmp_path / "onnx", 1)
    original: Any = load_runtime(folder, 1)
    ids = [1 + i * 7 % 90 for i in range(PART + 80)]  # beyond the window of 16, too
    session: Any = open_session(runtime, len(ids))
    session.feed(ids)
    assert session.length == len(ids)
    assert session.generator.get_output("logits").shape[1] <= PART
    wanted = original.logits(ids)
    np.testing.assert_allclose(next_logits(session), wanted[-1], atol=1e-3)
    np.testing.assert_allclose(runtime.logits(ids), wanted, atol=1e-3)
    assert list(runtime.stream(ids, 8)) == list(original.stream(ids, 8))
