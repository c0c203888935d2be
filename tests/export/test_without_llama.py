"""Export where llama.cpp is not installed: what is written directly still is, and the rest says what to install."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from bridge_edge.data.samples import Sample
from bridge_edge.export.api import export_student
from bridge_edge.export.readback import ReadBack
from bridge_edge.export.wish import Wish
from bridge_edge.runtimes.base import MissingRuntime
from bridge_edge.runtimes.load import load_runtime
from bridge_edge.runtimes.torch_runtime import TorchRuntime
from tests import tiny


@pytest.fixture
def without_llama(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if llama-cpp-python were not there, for whatever is imported from now on."""
    for name in ("runtimes.llama_native", "runtimes.gguf_runtime", "export.llama_quantiser", "export.auto"):
        monkeypatch.delitem(sys.modules, f"bridge_edge.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "llama_cpp", None)


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gemma3"])
@pytest.mark.parametrize("quant", ["F16", "Q8_0"])
@pytest.mark.usefixtures("without_llama")
def test_direct_types_are_made_and_checked_in_torch(kind: str, quant: str, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "m", kind)
    done = export_student(folder, tmp_path / "out", "gguf", quant, tiny.PROMPTS, 1)
    assert done.parity["through"].startswith("torch, with the weights of the file")
    assert 0 < done.parity["mean_kl"] < {"F16": 1e-4, "Q8_0": 0.01}[quant]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "its tokenizer was not checked" in card
    assert "the runtime of the check above" not in card
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["parity"]["through"] == done.parity["through"]


@pytest.mark.parametrize(("quant", "types"), [("Q4_K_M", {}), ("auto", {}), ("Q8_0", {"token_embd.weight": "Q6_K"})])
@pytest.mark.usefixtures("without_llama")
def test_other_types_name_the_command(quant: str, types: dict[str, str], tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "m")
    with pytest.raises(MissingRuntime, match=f"{quant} is made by llama.cpp's quantiser") as caught:
        export_student(folder, tmp_path / "out", "gguf", quant, [Sample("a?", "yes")], 1, Wish(types=types))
    assert caught.value.hint.startswith("pip install")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.usefixtures("without_llama")
def test_a_gguf_file_cannot_be_opened_without_it(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(MissingRuntime, match=r"llama.cpp is not at hand.*pip install"):
        load_runtime(tmp_path / "m.gguf")


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_read_back_weights_are_the_files(kind: str, tmp_path: Path) -> None:
    """A change of one number in the file, in a row that is moved there or in a norm that is stored plus one, shows."""
    folder = tiny.checkpoint(tmp_path / "m", kind)
    path = export_student(folder, tmp_path / "out", "gguf", "F32", tiny.PROMPTS, 1).path
    original = TorchRuntime(folder, 1)
    ids = original.chat(tiny.PROMPTS[0])
    assert np.abs(ReadBack(folder, path, 1).logits(ids) - original.logits(ids)).max() < 1e-4
    for name in ("blk.1.attn_q.weight", "blk.0.attn_norm.weight"):
        reader = GGUFReader(path, "r+")
        data = next(t for t in reader.tensors if t.name == name).data
        before = data.copy()
        data[0] += 1
        reader.data.flush()
        assert np.abs(ReadBack(folder, path, 1).logits(ids) - original.logits(ids)).max() > 1e-3, name
        data[:] = before
        reader.data.flush()
