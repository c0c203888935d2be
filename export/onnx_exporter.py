"""ONNX graphs of families that the builder of onnxruntime-genai lacks, by `transformers.exporters`.

The graph that torch.export gives is brought into the form that the builder's has: inputs, outputs and free dimensions
under the names that onnxruntime-genai and transformers.js look for, constants as weights, the matrices in blocks where
eight or four bits are asked for (MatMulNBits, by onnxruntime's own quantiser, which rounds). Attention is not fused and
the cache grows by copying, which costs speed. onnxruntime-genai knows families by name and wants of all decoders the
same loop, so its config calls them `llama`. Not covered: sixteen bits, sliding windows, states that are more than keys
and values.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch
from onnx import helper, numpy_helper
from transformers import AutoModelForCausalLM, DynamicCache

from bridge_edge.errors import UserError, first_line
from bridge_edge.export.onnx_types import TYPES
from bridge_edge.export.wish import Blocks
from bridge_edge.runtimes.onnx_config import CONFIG

# architectures whose exports were compared with the original
FAMILIES = (
    "CodeGenForCausalLM",
    "Exaone4ForCausalLM",
    "GPT2LMHeadModel",
    "GPTNeoXForCausalLM",
    "HunYuanDenseV1ForCausalLM",
    "OPTForCausalLM",
    "Olmo2ForCausalLM",
    "OlmoForCausalLM",
    "PhiForCausalLM",
    "SmolLM3ForCausalLM",
    "StableLmForCausalLM",
)
BLOCK = 32  # weights that share a scale, where nothing else is asked for
PAST, ROWS, NEW = 5, 2, 3  # of the example: tokens before, sequences, tokens now; each another number
SHAPES = ("batch_size", "sequence_length", "past_sequence_length", "total_sequence_length")


def check_wish(precision: str, blocks: Blocks) -> None:
    """Refuse what only the builder makes."""
    if TYPES[precision].bits == 16:
        raise UserError(f"{precision} is not made of this family", "choose --quant fp32, int8 or int4, or gguf")
    if blocks.algorithm not in (None, "default"):
        raise UserError(
            f"the algorithm {blocks.algorithm!r} is not there for this family",
            "leave --algorithm out, or export to gguf",
        )


def build(folder: Path, out: Path, file: str, precision: str, blocks: Blocks) -> None:
    """Write the graph `out`/`file`, its weights beside it, and a `genai_config.json` to be settled."""
    check_wish(precision, blocks)
    model = _loaded(folder)
    write(_graph(model), model.config, out, file, precision, blocks)


def write(graph: onnx.ModelProto, config: Any, out: Path, file: str, precision: str, blocks: Blocks) -> None:
    """A graph in float32 with our names as the asked type, in files of the new folder `out`."""
    if TYPES[precision].bits < 16:
        graph = _in_blocks(graph, TYPES[precision].bits, blocks)
    out.mkdir(parents=True)
    onnx.save(
        graph,
        str(out / file),
        save_as_external_data=True,
        location=f"{file}.data",
        size_threshold=0,
        convert_attribute=False,
    )
    (out / CONFIG).write_text(json.dumps(_config(config, graph)), encoding="utf-8")


def _loaded(folder: Path) -> Any:
    """The model in float32; a UserError where weights are missing or of another shape (names may be older ones)."""
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:
        raise UserError(f"cannot load {folder}: {first_line(error)}", "save or copy the checkpoint again") from None
    model, found = loaded
    wrong = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
    if wrong:
        raise UserError(
            f"{folder} lacks the tensor {wrong[0]}, or has it in another shape",
            "copy all of the checkpoint's files, or save it again",
        )
    return model.eval()


def _graph(model: Any) -> onnx.ModelProto:
    """The model's graph over a cache, with our names for what goes in and out."""
    try:
        from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter
    except ImportError as error:
        raise UserError(f"this family's ONNX export needs {error.name!r}", "pip install onnxscript") from None
    cache = DynamicCache(config=model.config)
    if any(cache.is_sliding):
        raise UserError("a cache of sliding windows is not made of this family", "export to gguf")
    with torch.no_grad():
        model(torch.ones((ROWS, PAST), dtype=torch.long), past_key_values=cache)
    example: dict[str, Any] = {
        "input_ids": torch.ones((ROWS, NEW), dtype=torch.long),
        "attention_mask": torch.ones((ROWS, PAST + NEW), dtype=torch.long),
        "position_ids": torch.arange(PAST, PAST + NEW).repeat(ROWS, 1),
        "past_key_values": cache,
        "use_cache": True,
    }
    try:
        with torch.no_grad():
            program = OnnxExporter().export(model, example, OnnxConfig(dynamic=True)).program
            graph: onnx.ModelProto = onnx_ir.to_proto(program)
    except Exception as error:
        raise UserError(
            f"transformers' ONNX exporter failed: {type(error).__name__}: {first_line(error)}", "export to gguf"
        ) from error
    rename(graph.graph)
    return graph


def rename(graph: onnx.GraphProto) -> None:
    """`past_key_values.3.key`, `present.3.key` and the free dimensions' usual names; shapes within are left out."""
    names = {}
    for value in (*graph.input, *graph.output):
        if found := re.fullmatch(r"(input|output)\.past_key_values\.layers\.(\d+)\.(key|value)s", value.name):
            side = "past_key_values" if found[1] == "input" else "present"
            names[value.name] = f"{side}.{found[2]}.{found[3]}"
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
        dims = value.type.tensor_type.shape.dim
        batch, now, before, all_ = SHAPES
        wanted: tuple[str, ...] = (batch, all_ if value.name == "attention_mask" else now)
        if "." in value.name:
            wanted = (batch, "", before if value.name.startswith("past") else all_)
        for dim, name in zip(dims, wanted, strict=False):
            if name:
                dim.dim_param = name
        for dim in dims:  # a number may come as the name of a free dimension
            if dim.dim_param.isdigit():
                dim.dim_value = int(dim.dim_param)


def _in_blocks(graph: onnx.ModelProto, bits: int, blocks: Blocks) -> onnx.ModelProto:
    """The graph with its matrices, and for four bits its table of tokens, in blocks."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    _fold(graph.graph)
    kinds = ("MatMul", "Gather") if bits == 4 else ("MatMul",)  # its lookups know four bits only
    other = [n.name for n in graph.graph.node if n.op_type == "Gather" and n.input[1] != "input_ids"]
    config = DefaultWeightOnlyQuantConfig(
        block_size=blocks.size or BLOCK,
        is_symmetric=False,
        accuracy_level=4 if blocks.accuracy is None else blocks.accuracy,
        bits=bits,
        op_types_to_quantize=kinds,
    )
    quantiser = MatMulNBitsQuantizer(graph, bits=bits, nodes_to_exclude=other, algo_config=config)
    quantiser.process()
    made: onnx.ModelProto = quantiser.model.model
    return made


def _fold(graph: onnx.GraphProto) -> None:
    """Bring products with weights into the one form that the quantiser takes, MatMul with a constant: weights that the
    graph turns at each call are turned (a tied LM head becomes a matrix of its own), Gemm becomes MatMul and Add."""
    weights = {tensor.name: tensor for tensor in graph.initializer}

    def turn(name: str, new: str, order: list[int] | None) -> None:
        turned = np.ascontiguousarray(numpy_helper.to_array(weights[name]).transpose(order))
        graph.initializer.append(numpy_helper.from_array(turned, new))

    for at, node in reversed(list(enumerate(graph.node))):
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Transpose" and node.input[0] in weights:
            turn(node.input[0], node.output[0], given.get("perm"))
            graph.node.remove(node)
        elif node.op_type == "Gemm" and node.input[1] in weights and len(node.input) == 3:
            if given.get("transA") or given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0:
                continue
            left, right, bias = node.input
            if given.get("transB"):
                right = f"{node.name}.turned"
                turn(node.input[1], right, [1, 0])
            product = f"{node.name}.product"
            graph.node.remove(node)
            graph.node.insert(at, helper.make_node("MatMul", [left, right], [product], name=node.name))
            added = helper.make_node("Add", [product, bias], list(node.output), name=f"{node.name}.bias")
            graph.node.insert(at + 1, added)
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _config(config: Any, graph: onnx.ModelProto) -> dict[str, Any]:
    """What the builder would write: the shape, and what goes in and out."""
    heads = config.num_attention_heads
    known = {value.name for value in graph.graph.input}
    inputs = {name: name for name in ("input_ids", "attention_mask", "position_ids") if name in known}
    decoder = {
        "session_options": {"provider_options": []},
        "head_size": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "hidden_size": config.hidden_size,
        "num_attention_heads": heads,
        "num_key_value_heads": getattr(config, "num_key_value_heads", None) or heads,
        "num_hidden_layers": config.num_hidden_layers,
        "inputs": inputs | {f"past_{part}_names": f"past_key_values.%d.{part}" for part in ("key", "value")},
        "outputs": {"logits": "logits"} | {f"present_{part}_names": f"present.%d.{part}" for part in ("key", "value")},
    }
    model = {"type": "llama", "vocab_size": config.vocab_size, "context_length": config.max_position_embeddings}
    ends = {"bos_token_id": config.bos_token_id or 0, "eos_token_id": config.eos_token_id or 0, "pad_token_id": 0}
    search = {"max_length": config.max_position_embeddings, "past_present_share_buffer": False}
    return {"model": {**model, **ends, "decoder": decoder}, "search": search}
