"""export_student from end to end: formats, defaults, verdicts, and a clean disk after failures."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from bridge_edge.data.card import Card
from bridge_edge.errors import UserError
from bridge_edge.export import api, parity, quantize
from bridge_edge.export.api import count_parameters, export_student
from bridge_edge.export.bounds import BOUNDS, Bound
from bridge_edge.export.parity import ParityError, compare, log_softmax
from bridge_edge.runtimes.load import load_runtime
from bridge_edge.runtimes.torch_runtime import TorchRuntime
from tests import tiny


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded student's shape, randomly initialised."""
    changes = {"num_hidden_layers": 3, "num_attention_heads": 8, "intermediate_size": 256, "initializer_range": 0.05}
    return tiny.checkpoint(tmp_path_factory.mktemp("student") / "m", "qwen2", 256, **changes)


@pytest.mark.parametrize(
    ("fmt", "quant", "most_kl", "bits"),
    [
        ("gguf", "F16", 1e-5, (16, 16.2)),
        ("gguf", "q8_0", 2e-3, (8.4, 8.8)),
        ("gguf", "Q4_K_M", 0.08, (4.5, 6)),
        ("onnx", "fp32", 1e-9, (32, 40)),
        ("onnx", "fp16", 1e-5, (16, 17)),
        ("onnx", "int8", 2e-3, (8, 10)),
        ("onnx", "int4", 0.12, (4, 8)),
    ],
)
def test_formats(
    student: Path, tmp_path: Path, fmt: str, quant: str, most_kl: float, bits: tuple[float, float]
) -> None:
    done = export_student(student, tmp_path / "out", fmt, quant, tiny.PROMPTS, 1)
    assert done.parity["passed"]
    assert 0 <= done.parity["mean_kl"] < most_kl
    assert done.parity["prompts"] == 3
    assert bits[0] < done.bits_per_weight < bits[1]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    report = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert report["parity"] == json.loads(json.dumps(done.parity))
    assert report["quant"] == done.quant
    runtime = load_runtime(done.path, 1)
    assert runtime.card is not None
    assert runtime.card.recipe == "toy"
    assert len(runtime.generate(tiny.PROMPTS, 4)) == 3
    if fmt == "gguf":
        assert done.path == tmp_path / "out" / f"toy-{done.quant}.gguf"
        assert done.bytes == done.path.stat().st_size


def test_defaults_depend_on_the_size(student: Path) -> None:
    assert api.resolve_quant("gguf", None, count_parameters(student)) == "Q8_0"
    assert api.resolve_quant("onnx", None, count_parameters(student)) == "int8"
    assert api.resolve_quant("gguf", None, 500_000_000) == "Q4_K_M"
    assert api.resolve_quant("onnx", None, 500_000_000) == "int4"
    assert set(quantize.QUANTS) | {"fp32", "fp16", "int8", "int4", "auto"} == set(BOUNDS)


def test_count_parameters(student: Path) -> None:
    """By hand: embeddings, and a layer's q, k, v, o, three MLP matrices, q/k/v biases and two norms."""
    layer = 256 * 256 * 2 + 2 * 256 * 64 + 3 * 256 * 256 + 256 + 64 + 64 + 2 * 256
    assert count_parameters(student) == tiny.VOCAB * 256 + 3 * layer + 256


@pytest.mark.parametrize(
    ("fmt", "quant", "match"),
    [("gguff", None, "export format"), ("gguf", "Q9", "GGUF type"), ("onnx", "fp8", "ONNX precision")],
)
def test_unknown_names(student: Path, tmp_path: Path, fmt: str, quant: str | None, match: str) -> None:
    with pytest.raises(UserError, match=match):
        export_student(student, tmp_path / "out", fmt, quant)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_result_is_not_overwritten(student: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="exists already"):
        export_student(student, tmp_path / "out", "gguf")
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"
    (tmp_path / "out" / "mine.txt").unlink()
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "left over").write_text("from a crash")
    export_student(student, tmp_path / "out", "gguf", None, tiny.PROMPTS, 1)
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["Modelfile", "README.md", "SHA256SUMS", "params", "parity.json", "template", "toy-Q8_0.gguf"]


def test_a_failed_export_leaves_nothing(student: Path, tmp_path: Path) -> None:
    broken = tiny.checkpoint(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = float("inf")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="not finite"):
        export_student(broken, tmp_path / "out", "gguf", "Q4_K_M")
    assert [p.name for p in tmp_path.iterdir()] == ["broken"]
    with pytest.raises(UserError, match="not a checkpoint"):
        export_student(tmp_path / "nowhere", tmp_path / "out", "gguf")
    (broken / "model.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="cannot be read"):
        export_student(broken, tmp_path / "out", "gguf")


def test_too_different_is_rejected_and_kept(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the bound of a lossless type, a four-bit export must fail."""
    monkeypatch.setitem(parity.BOUNDS, "Q4_0", Bound(1e-6, 0.999))
    with pytest.raises(ParityError, match=r"differs too much.*mean KL"):
        export_student(student, tmp_path / "out", "gguf", "Q4_0", tiny.PROMPTS, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["out.rejected"]
    report = json.loads((tmp_path / "out.rejected" / "parity.json").read_text())
    assert report["parity"]["passed"] is False
    assert (tmp_path / "out.rejected" / "toy-Q4_0.gguf").exists()


def test_the_builders_lm_head_confusion_is_refused(tmp_path: Path) -> None:
    """A layer as wide as the vocabulary is exported wrong by the builder, without an error."""
    folder = tiny.checkpoint(tmp_path / "m", intermediate_size=tiny.VOCAB)
    with pytest.raises(UserError, match="vocab_size 384 equals"):
        export_student(folder, tmp_path / "out", "onnx", "fp32", tiny.PROMPTS, 1)
    assert export_student(folder, tmp_path / "out", "gguf", "F16", tiny.PROMPTS, 1).parity["passed"]


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gemma3", "ernie"])
def test_onnx_of_other_architectures(kind: str, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "m", kind)
    done = export_student(folder, tmp_path / "out", "onnx", "fp32", tiny.PROMPTS, 1)
    assert done.parity["max_abs_diff"] < 1e-4
    assert done.parity["greedy_equal"] == 1.0


def test_parity_notices_another_model(student: Path, tmp_path: Path) -> None:
    other = tiny.checkpoint(tmp_path / "other", "llama")
    result = compare(load_runtime(student, 1), load_runtime(other, 1), tiny.PROMPTS, 4)
    assert result.failures("Q3_K_M")
    assert result.top1 < 0.5


def test_parity_notices_logits_that_are_no_numbers(student: Path, tmp_path: Path) -> None:
    sound, broken = TorchRuntime(student, 1), TorchRuntime(student, 1)
    broken.model.model.norm.weight.data[3] = float("nan")
    result = compare(sound, broken, tiny.PROMPTS, 4)
    assert any("mean KL nan" in failure for failure in result.failures("Q2_K"))
    with pytest.raises(UserError, match="computes values that are not finite"):
        compare(broken, sound, tiny.PROMPTS, 4)


def test_parity_notices_another_template(student: Path, tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    other = tiny.checkpoint(tmp_path / "other", tok=tokenizer)
    with pytest.raises(ParityError, match="other tokens"):
        compare(load_runtime(student, 1), load_runtime(other, 1), tiny.PROMPTS, 4)


def test_parity_figures_by_hand() -> None:
    """One position, two tokens: p = (3/4, 1/4) against q = (1/2, 1/2)."""
    rows = parity._Rows([], [], [], [], [])
    parity._compare(np.log(np.array([[0.75, 0.25]])), np.log(np.array([[0.5, 0.5]])), rows)
    assert rows.kl[0] == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    assert rows.diff_max[0] == pytest.approx(np.log(2))
    assert rows.clear == [True]
    assert np.exp(log_softmax(np.array([[1.0, 1.0, 1.0, 1.0]]))) == pytest.approx(0.25)


def test_examples_of_the_card_serve_as_prompts(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "m")
    Card(recipe="my recipe/1", examples=("one", "two"), max_new_tokens=4).save(folder)
    done = export_student(folder, tmp_path / "out", "gguf", "F16", (), 1)
    assert done.parity["prompts"] == 2
    assert done.path.name == "my-recipe-1-F16.gguf"


@pytest.mark.parametrize(("fmt", "quant"), [("onnx", "int4"), ("onnx", "int8"), ("gguf", "Q4_K_M"), ("gguf", "Q8_0")])
def test_blocks_of_equal_weights_survive(fmt: str, quant: str, tmp_path: Path) -> None:
    """Unused vocabulary rows are often all zero, and a quantiser that divides by a block's range would make NaN."""
    folder = tiny.checkpoint(tmp_path / "m", hidden=256, initializer_range=0.05)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][340:] = 0.0
    weights["model.layers.0.mlp.up_proj.weight"][:8] = 0.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    done = export_student(folder, tmp_path / "out", fmt, quant, tiny.PROMPTS, 1)
    runtime = load_runtime(done.path, 1)
    rows = runtime.logits([5, 350, 6])
    assert np.isfinite(rows).all()
    assert np.abs(rows[:, 340:]).max() == 0.0
