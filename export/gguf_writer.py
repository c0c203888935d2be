"""Convert a checkpoint in hub layout (Qwen2, Qwen3, Llama, Gemma 3 text, ERNIE 4.5 dense) to GGUF.

Tensors are read and written one at a time, so a conversion needs the memory of one tensor. Matrices take the asked
type; norms and biases stay F32. What differs between architectures is a table. Not covered: mixture of experts,
sharded output, attention variants that llama.cpp computes otherwise (they are refused, never approximated).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import (
    GGML_QUANT_SIZES,
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFWriter,
    LlamaFileType,
    RopeScalingType,
    get_tensor_name_map,
    quants,
)
from safetensors import safe_open
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from bridge_edge.data.card import GGUF_KEY, Card
from bridge_edge.errors import UserError, unknown
from bridge_edge.export.gguf_tokenizer import write_tokenizer
from bridge_edge.runtimes.torch_runtime import end_tokens, load_tokenizer


@dataclass(frozen=True)
class Arch:
    """How an architecture differs: rotated halves (`permute` q and k) or not, norms stored as weight - 1, and so on."""

    arch: MODEL_ARCH
    permute: bool = False
    norm_offset: float = 0.0


ARCHS = {
    "qwen2": Arch(MODEL_ARCH.QWEN2),
    "qwen3": Arch(MODEL_ARCH.QWEN3),
    "llama": Arch(MODEL_ARCH.LLAMA, permute=True),
    "gemma3_text": Arch(MODEL_ARCH.GEMMA3, norm_offset=1.0),
    "ernie4_5": Arch(MODEL_ARCH.ERNIE4_5),  # rotates neighbours on the hub already
}
DIRECT = {
    "F32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "F16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "BF16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "Q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
ROWS = 8192  # rows of a matrix encoded at a time
GEMMA_PERIOD = 6  # llama.cpp fixes Gemma 3's pattern: five sliding layers, then one full


def load_config(folder: Path) -> tuple[Any, Arch]:
    """The model's config and architecture; refuses what llama.cpp would compute differently."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise UserError(f"cannot read {folder / 'config.json'}: {error}", "give a folder in hub layout") from None
    if config.model_type not in ARCHS:
        raise unknown("model_type for GGUF", config.model_type, ARCHS)
    _refuse(config)
    return config, ARCHS[config.model_type]


def _refuse(config: Any) -> None:
    kind = config.model_type
    if kind == "gemma3_text":
        pattern = ["full_attention" if i % GEMMA_PERIOD == 5 else "sliding_attention" for i in range(10_000)]
        if list(config.layer_types) != pattern[: config.num_hidden_layers]:
            raise UserError("this Gemma 3 has unusual layer_types", "GGUF needs five sliding layers, then one full")
        if config.query_pre_attn_scalar != config.head_dim:
            raise UserError(
                f"query_pre_attn_scalar is {config.query_pre_attn_scalar}, head_dim is {config.head_dim}",
                "GGUF needs them equal; export to onnx",
            )
        if config.final_logit_softcapping or config.attn_logit_softcapping:
            raise UserError("this Gemma 3 uses logit soft-capping", "export to onnx")
    elif "sliding_attention" in (getattr(config, "layer_types", None) or []):
        raise UserError(
            f"this {kind} uses sliding-window attention", "set use_sliding_window to false, or export to onnx"
        )
    act = getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", None)
    fixed = "gelu_pytorch_tanh" if kind == "gemma3_text" else "silu"  # llama.cpp's own, by family
    if act != fixed:
        raise UserError(f"a {kind} with the activation {act!r} cannot be exported to GGUF", f"supported: {fixed}")


def head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _add_rope(writer: GGUFWriter, config: Any) -> np.ndarray | None:
    """RoPE metadata; for Llama 3's scaling also the per-frequency factors, which are a tensor."""
    rope = config.rope_parameters
    if "full_attention" in rope:
        writer.add_rope_freq_base_swa(float(rope["sliding_attention"]["rope_theta"]))
        if rope["sliding_attention"]["rope_type"] != "default":
            raise UserError("scaled RoPE on sliding layers cannot be exported to GGUF", "export to onnx")
        rope = rope["full_attention"]
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise UserError("RoPE on a part of each head cannot be exported to GGUF", "export to onnx")
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return None
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        return None
    if kind == "llama3":
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        steps = torch.arange(0, head_dim(config), 2, dtype=torch.float32) / head_dim(config)
        return ((1.0 / rope["rope_theta"] ** steps) / scaled).numpy().astype(np.float32)
    raise UserError(f"RoPE scaling {kind!r} cannot be exported to GGUF", "supported: default, linear, llama3; or onnx")


def _add_shape(writer: GGUFWriter, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_rope_dimension_count(head_dim(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "gemma3_text":
        writer.add_sliding_window(config.sliding_window)


def target_names(config: Any) -> Callable[[str], str | None]:
    """llama.cpp's name of a checkpoint's tensor, or None where it has no place."""
    table = get_tensor_name_map(ARCHS[config.model_type].arch, config.num_hidden_layers)
    return lambda source: table.get_name(source, try_suffixes=(".weight", ".bias"))


def _sources(folder: Path, tied: bool) -> Iterator[tuple[str, Any]]:
    """(name, open file) of every tensor, in a fixed order."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} has no safetensors", "save the model with save_pretrained")
    for file in files:
        with safe_open(file, framework="pt") as handle:
            for name in sorted(handle.keys()):
                if not (tied and name == "lm_head.weight"):
                    yield name, handle


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Interleave the rotary halves of q or k rows (weights or biases): llama.cpp rotates neighbours, the hub halves."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `permute`."""
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(weight.shape))


def _prepare(name: str, data: np.ndarray, config: Any, arch: Arch) -> np.ndarray:
    """The tensor as llama.cpp expects it, still in float32."""
    if arch.permute and (".q_proj." in name or ".k_proj." in name):
        return permute(data, config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads)
    if arch.norm_offset and name.endswith("norm.weight"):
        return data + np.float32(arch.norm_offset)
    return data


def restore(name: str, data: np.ndarray, config: Any, arch: Arch) -> np.ndarray:
    """The inverse of `_prepare`: a tensor of a file, decoded, as the checkpoint has it."""
    if arch.permute and (".q_proj." in name or ".k_proj." in name):
        return unpermute(data, config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads)
    if arch.norm_offset and name.endswith("norm.weight"):
        return data - np.float32(arch.norm_offset)
    return data


def storage(name: str, shape: tuple[int, ...], asked: GGMLQuantizationType) -> GGMLQuantizationType:
    """The type a tensor is stored in: F32 for vectors; F16 where rows do not divide into the asked type's blocks."""
    if len(shape) == 1:
        return GGMLQuantizationType.F32
    return asked if shape[-1] % GGML_QUANT_SIZES[asked][0] == 0 else GGMLQuantizationType.F16


def _encode(name: str, data: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    most = max(float(data.max()), -float(data.min()), key=lambda value: (np.isnan(value), value))  # NaN first
    if not np.isfinite(most):
        raise UserError(f"tensor {name!r} holds values that are not finite", "the training diverged; train again")
    if kind == GGMLQuantizationType.F16 and most > float(np.finfo(np.float16).max):
        raise UserError(f"tensor {name!r} does not fit into F16", "choose quant=BF16 or F32")
    return quants.quantize(np.ascontiguousarray(data, dtype=np.float32), kind)


def _stored(name: str, tensor: torch.Tensor, config: Any, arch: Arch, kind: GGMLQuantizationType) -> np.ndarray:
    """A tensor as it lies in the file. A long table is encoded in parts: in float32 it would be most of the peak."""
    moved = arch.permute and (".q_proj." in name or ".k_proj." in name)
    step = ROWS if tensor.dim() > 1 and not moved else len(tensor)
    out: np.ndarray | None = None
    for start in range(0, len(tensor), step):
        rows = tensor[start : start + step].to(torch.float32).numpy()
        part = _encode(name, _prepare(name, rows, config, arch), kind)
        if len(part) == len(tensor):
            return part
        if out is None:
            out = np.empty((len(tensor), *part.shape[1:]), part.dtype)
        out[start : start + step] = part
    if out is None:
        raise UserError(f"tensor {name!r} is empty", "save the checkpoint again")
    return out


def _add_metadata(writer: GGUFWriter, folder: Path, config: Any, name: str, quant: str) -> np.ndarray | None:
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(int(DIRECT[quant][1]))
    writer.add_quantization_version(2)
    _add_shape(writer, config)
    factors = _add_rope(writer, config)
    tokenizer = load_tokenizer(folder)
    write_tokenizer(writer, folder, tokenizer, config.vocab_size, sorted(end_tokens(folder, config, tokenizer)))
    card = Card.load(folder)
    if card:
        writer.add_string(GGUF_KEY, card.dumps())
    return factors


def write_gguf(folder: Path, out: Path, quant: str, name: str) -> None:
    """Write the checkpoint in `folder` to `out` as F32, F16, BF16 or Q8_0."""
    if quant not in DIRECT:
        raise unknown("direct GGUF type", quant, DIRECT)
    config, arch = load_config(folder)
    asked = DIRECT[quant][0]
    names = target_names(config)
    writer = GGUFWriter(out, MODEL_ARCH_NAMES[arch.arch])
    try:
        factors = _add_metadata(writer, folder, config, name, quant)
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
        tied = bool(config.tie_word_embeddings)
        for source, handle in _sources(folder, tied):
            target = names(source)
            if target is None:
                raise UserError(f"tensor {source!r} has no place in a {config.model_type} GGUF", "export to onnx")
            shape = tuple(handle.get_slice(source).get_shape())
            kind = storage(target, shape, asked)
            block, width = GGML_QUANT_SIZES[kind]
            size = int(np.prod(shape)) // block * width
            writer.add_tensor_info(target, shape, np.dtype(np.float32), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for source, handle in _sources(folder, tied):
            tensor = handle.get_tensor(source)
            kind = storage(source, tuple(tensor.shape), asked)
            writer.write_tensor_data(_stored(source, tensor, config, arch, kind))
    finally:
        writer.close()
