"""Families that the ONNX builder lacks, and some that it has: what is exported computes what transformers does."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from bridge_edge.data.card import Card
from bridge_edge.errors import UserError
from bridge_edge.export import onnx_exporter
from bridge_edge.export.api import export_student
from bridge_edge.export.onnx_export import make_onnx
from bridge_edge.export.onnx_graph import fallbacks
from bridge_edge.export.onnx_types import model_file
from bridge_edge.export.wish import Blocks
from bridge_edge.runtimes.load import load_runtime
from tests import tiny

USUAL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256}
GROUPED = {**USUAL, "intermediate_size": 128, "num_key_value_heads": 2}
OLDER = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}
EXPORTER: dict[str, dict[str, Any]] = {
    "codegen": {**OLDER, "rotary_dim": 8},
    "exaone4": {**GROUPED, "sliding_window": None, "layer_types": ["full_attention"] * 2},
    "gpt2": OLDER,
    "gpt_neox": {**USUAL, "intermediate_size": 128},
    "hunyuan_v1_dense": {**GROUPED, "head_dim": 16},
    "olmo": {**GROUPED, "num_key_value_heads": 4, "clip_qkv": 0.5},
    "olmo2": GROUPED,
    "opt": {**USUAL, "ffn_dim": 128, "word_embed_proj_dim": 64},
    "phi": {**GROUPED, "partial_rotary_factor": 0.5},
    "smollm3": {**GROUPED, "no_rope_layers": [1, 0]},  # the builder turns the positions of all layers
    "stablelm": GROUPED,
}
BUILDER: dict[str, dict[str, Any]] = {
    "granite": {**GROUPED, "embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22,
                "attention_multiplier": 0.1},
    "mistral": {**GROUPED, "sliding_window": None},
    "phi3": {**GROUPED, "original_max_position_embeddings": 256, "sliding_window": None},
}  # fmt: skip
IDS = [1 + i * 7 % 90 for i in range(150)]  # in two parts


def checkpoint(folder: Path, kind: str, **changes: Any) -> Path:
    torch.manual_seed(5)
    tokenizer = tiny.tokenizer()
    shape = {**EXPORTER, **BUILDER}[kind] | changes
    ends = {"bos_token_id": 1, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    model: Any = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, vocab_size=tiny.VOCAB, initializer_range=0.15, **ends, **shape)
    )
    tiny.randomise(model)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Card(recipe="toy", prompt="{text}", answers=("yes", "no"), max_new_tokens=8).save(folder)
    return folder


def made(place: Path, kind: str, precision: str = "fp32", blocks: Blocks | None = None, **changes: Any) -> Path:
    folder, out = checkpoint(place / "m", kind, **changes), place / "out"
    out.mkdir()
    make_onnx(folder, out, precision, blocks or Blocks())
    return out


def test_every_family_is_compared() -> None:
    assert {MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind] for kind in EXPORTER} == set(onnx_exporter.FAMILIES)


@pytest.mark.parametrize("kind", [*EXPORTER, *BUILDER])
def test_the_graph_is_the_model(kind: str, tmp_path: Path) -> None:
    out = made(tmp_path, kind)
    ours, wanted = load_runtime(out, 1), load_runtime(tmp_path / "m", 1)
    np.testing.assert_allclose(ours.logits(IDS), wanted.logits(IDS), atol=2e-4)
    for prompt in tiny.PROMPTS:
        ids = wanted.chat(prompt)
        assert ours.chat(prompt) == ids
        assert list(ours.stream(ids, 12)) == list(wanted.stream(ids, 12))


@pytest.mark.parametrize(("kind", "bits"), [("gpt_neox", 4), ("gpt2", 4), ("opt", 8)])
def test_all_its_products_come_in_blocks(kind: str, bits: int, tmp_path: Path) -> None:
    """Biased layers come as Gemm, a tied head as a table that is turned at each call: neither is left as it was."""
    precision = f"int{bits}"
    out = made(tmp_path, kind, precision, Blocks(size=16))
    graph = onnx.load(out / model_file(precision), load_external_data=False).graph
    products = [node for node in graph.node if node.op_type == "MatMulNBits"]
    layers = {"gpt_neox": 4, "gpt2": 4, "opt": 6}[kind]
    assert len(products) == 2 * layers + 1
    assert {a.i for node in products for a in node.attribute if a.name == "block_size"} == {16}
    assert not [node for node in graph.node if node.op_type == "Gemm"]
    left = fallbacks(out / model_file(precision), bits)
    assert not [name for name in left if "MatMul" in name]
    ours, wanted = load_runtime(out, 1), load_runtime(tmp_path / "m", 1)
    got, right = ours.logits(IDS), wanted.logits(IDS)
    assert 0.97 < float(np.corrcoef(got.ravel(), right.ravel())[0, 1]) < 1


def test_it_goes_through_the_whole_export(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", "gpt_neox")
    exported = export_student(folder, tmp_path / "out", "onnx", "fp32", tiny.PROMPTS, 1)
    assert exported.parity["greedy_equal"] == 1
    config = json.loads((exported.path / "config.json").read_text())
    assert (config["model_type"], config["transformers.js_config"]["dtype"]) == ("gpt_neox", "fp32")
    graph = onnx.load(exported.path / model_file("fp32"), load_external_data=False).graph
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input}
    assert shapes == {
        "input_ids": ["batch_size", "sequence_length"],
        "attention_mask": ["batch_size", "total_sequence_length"],
        "position_ids": ["batch_size", "sequence_length"],
        **{f"past_key_values.{layer}.{part}": ["batch_size", 4, "past_sequence_length", 16]
           for layer in (0, 1) for part in ("key", "value")},
    }  # fmt: skip
    assert {v.name for v in graph.output} == {"logits"} | {
        f"present.{layer}.{part}" for layer in (0, 1) for part in ("key", "value")
    }


@pytest.mark.parametrize(
    ("precision", "blocks", "said"),
    [
        ("fp16", Blocks(), "fp16 is not made of this family"),
        ("int4", Blocks(algorithm="k_quant"), "the algorithm 'k_quant' is not there for this family"),
    ],
)
def test_what_only_the_builder_makes_is_refused(precision: str, blocks: Blocks, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        made(tmp_path, "gpt2", precision, blocks)
    assert not list((tmp_path / "out").iterdir())


def test_sliding_windows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sliding windows"):
        made(tmp_path, "exaone4", sliding_window=16, layer_types=["sliding_attention", "full_attention"])


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("transformers.exporters")
    monkeypatch.setitem(sys.modules, "transformers.exporters.exporter_onnx", None)
    with pytest.raises(UserError, match="needs"):
        made(tmp_path, "gpt2")
