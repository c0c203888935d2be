"""ONNX graphs by optimum-onnx, from its own environment, through the same hands as those of `transformers.exporters`.

Another version of transformers makes the graph there, from a config in older names, and what it misread would be lost
among the errors of four-bit weights. So its graph, still in float32, is first held against the checkpoint in torch
here; then it gets the names, the blocks and the config that every graph has. It is made in a temporary folder and read
as untrusted. Not covered: sixteen bits; optimum's graph optimisations (O1 to O4), whose operators only onnxruntime has.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from bridge_edge.errors import UserError, first_line, unknown
from bridge_edge.export import onnx_exporter, optimum_env
from bridge_edge.export.optimum_config import older
from bridge_edge.export.wish import Blocks
from bridge_edge.runtimes.load import load_runtime
from bridge_edge.runtimes.onnx_check import check_external

# architectures whose exports were compared with the original
FAMILIES = (
    "CodeGenForCausalLM",
    "GPT2LMHeadModel",
    "GPTNeoXForCausalLM",
    "Gemma3ForCausalLM",
    "GraniteForCausalLM",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "OPTForCausalLM",
    "Olmo2ForCausalLM",
    "OlmoForCausalLM",
    "Phi3ForCausalLM",
    "PhiForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "SmolLM3ForCausalLM",
    "StableLmForCausalLM",
)
MADE = "model.onnx"  # optimum's name for it
READ = 256  # tokens on which the graph is held against the checkpoint
CLOSE = 1e-3  # largest difference that float32 may make, as a part of the range of logits


def make_graph(folder: Path, hub: Any, precision: str, blocks: Blocks, python: Path | None) -> onnx.ModelProto:
    """The graph in float32 with our names for what goes in and out, for `onnx_exporter.write`."""
    name = (hub.architectures or [""])[0]
    if name not in FAMILIES:
        raise unknown("architecture for --backend optimum", name, FAMILIES)
    onnx_exporter.check_wish(precision, blocks)
    found = optimum_env.find(python)
    with tempfile.TemporaryDirectory(prefix="bridge-edge-optimum-") as temporary:
        config, made = Path(temporary) / "config", Path(temporary) / "made"
        config.mkdir()
        (config / "config.json").write_text(json.dumps(older(hub.to_dict())), encoding="utf-8")
        optimum_env.export(found, folder, config, made)
        check_external(made, MADE)
        _check_same(made / MADE, folder, hub)
        graph = onnx.load(made / MADE)
    onnx_exporter.rename(graph.graph)
    return graph


def _check_same(path: Path, folder: Path, hub: Any) -> None:
    """Refuse a graph that computes something else than the checkpoint does in torch."""
    count = min(READ, int(hub.max_position_embeddings))
    ids = np.random.default_rng(0).integers(0, hub.vocab_size, count).tolist()
    original = load_runtime(folder, None)
    try:
        wanted = original.logits(ids)  # (T, V)
    finally:
        original.close()
    got = _logits(path, ids)
    off, span = float(np.abs(got - wanted).max()), float(wanted.max() - wanted.min())
    if not off <= CLOSE * span:  # also catches NaN
        raise UserError(
            f"optimum-onnx's graph computes something else than the checkpoint: logits differ by up to {off:.3g}",
            "leave --backend out, and report this",
        )


def _logits(path: Path, ids: list[int]) -> np.ndarray:
    """Of the graph at `path` for one sequence with nothing before it, (T, V)."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        row = np.array([ids], dtype=np.int64)
        given = {"input_ids": row, "attention_mask": np.ones_like(row), "position_ids": np.arange(len(ids))[None]}
        feed: dict[str, np.ndarray] = {}
        for value in session.get_inputs():
            if value.name in given:
                feed[value.name] = given[value.name]
            else:
                _, heads, _, size = value.shape
                feed[value.name] = np.zeros((1, heads, 0, size), dtype=np.float32)
        logits: np.ndarray = session.run(["logits"], feed)[0][0]
    except Exception as error:
        raise UserError(
            f"optimum-onnx's graph cannot be run: {type(error).__name__}: {first_line(error)}", "leave --backend out"
        ) from None
    return logits
