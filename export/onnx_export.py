"""Export a checkpoint to an ONNX folder for onnxruntime-genai (and for browsers that know its input names).

The builder of onnxruntime-genai is used as a library: its command line has no stable contract. It prints, keeps a
cache folder, copies search settings of the checkpoint into the result and may write any end token it finds first;
all of that is contained or set right here. Not covered: execution providers other than the CPU's.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from transformers import AutoConfig

from bridge_edge.data.card import Card
from bridge_edge.errors import UserError, unknown
from bridge_edge.runtimes.onnx_runtime import CONFIG, check_external, read_config
from bridge_edge.runtimes.torch_runtime import end_tokens, load_tokenizer

MODEL = "model.onnx"
# architecture -> what it is called in messages; others may work but were never compared with the original
ARCHITECTURES = ("Gemma3ForCausalLM", "LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
PRECISIONS = ("fp32", "int8", "int4")  # fp16 is left out: the graph the builder makes for it fails on a CPU
# k_quant picks scales by least squares: about a seventh less divergence than rounding, for 2 % more bytes
OPTIONS = {"int4": ("algo_config=k_quant",)}
# (below so many parameters, default)
DEFAULTS: tuple[tuple[float, str], ...] = ((50e6, "int8"), (float("inf"), "int4"))


def default_precision(parameters: int) -> str:
    return next(precision for limit, precision in DEFAULTS if parameters < limit)


def check_precision(precision: str) -> str:
    """The precision's canonical name, or a UserError with the choices."""
    name = precision.lower()
    if name not in PRECISIONS:
        raise unknown("ONNX precision", precision, PRECISIONS)
    return name


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Catch what the builder prints; its quantiser also reconfigures the root logger on import, which is undone."""
    root, quantiser = logging.getLogger(), logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer")
    handlers, level = list(root.handlers), root.level
    quantiser.setLevel(logging.CRITICAL)
    printed = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            np.errstate(
                divide="ignore", invalid="ignore"
            ),  # blocks of equal weights; the quantiser replaces the result
        ):
            yield printed
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _builder() -> ModuleType:
    try:
        return importlib.import_module("onnxruntime_genai.models.builder")
    except ImportError as error:
        raise UserError(f"the ONNX model builder needs {error.name!r}", "pip install onnx-ir") from None


def _check(folder: Path) -> None:
    """Refuse architectures that were never checked, and the width that the builder would mistake for the LM head."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    name = (config.architectures or [""])[0]
    if name not in ARCHITECTURES:
        raise unknown("architecture for ONNX", name, ARCHITECTURES)
    heads = config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    widths = {config.hidden_size, config.intermediate_size, heads * dim, config.num_key_value_heads * dim}
    if config.vocab_size in widths:
        raise UserError(
            f"vocab_size {config.vocab_size} equals the width of another layer, which the ONNX builder confuses",
            "pad the vocabulary by a few rows (model.resize_token_embeddings), or export to gguf",
        )


def _flatten_rope(config: Any) -> None:
    """Gemma 3 keeps RoPE settings by layer type; the builder reads the older, flat names."""
    rope = config.rope_parameters
    if isinstance(rope, dict) and "full_attention" in rope:
        config.rope_local_base_freq = rope["sliding_attention"]["rope_theta"]
        config.rope_theta = rope["full_attention"]["rope_theta"]
        config.rope_parameters = dict(rope["full_attention"])


def _build(folder: Path, out: Path, precision: str) -> None:
    with tempfile.TemporaryDirectory(prefix="bridge-edge-onnx-") as cache, _quiet() as printed:
        try:
            builder = _builder()
            # Files beside the checkpoint are all it needs: hf_token=false keeps it from reading credentials.
            wanted = ["hf_token=false", *OPTIONS.get(precision, ())]
            options = builder.parse_extra_options("", str(folder), str(out), precision, "cpu", cache, wanted)
            _flatten_rope(options["hf_details"]["hf_config"])
            builder.create_model("", str(folder), str(out), precision, "cpu", cache, **options)
        except UserError:
            raise
        except Exception as error:
            last = (printed.getvalue().strip().splitlines() or [""])[-1]
            raise UserError(
                f"the ONNX builder failed: {type(error).__name__}: {error} (it last printed {last[:120]!r})",
                "try another precision, or export to gguf",
            ) from error


@functools.cache
def _register_ops() -> None:
    """Tell onnx.checker of the runtime's one operator that lives in the default domain without being standard."""
    formal, types = onnx.defs.OpSchema.FormalParameter, ("T", ["tensor(float)", "tensor(float16)"], "")
    integer, real = onnx.defs.OpSchema.AttrType.INT, onnx.defs.OpSchema.AttrType.FLOAT
    attribute = onnx.defs.OpSchema.Attribute
    onnx.defs.register_schema(
        onnx.defs.OpSchema(
            "SimplifiedLayerNormalization",
            "",
            1,
            inputs=[formal("X", "T"), formal("scale", "T")],
            outputs=[formal("Y", "T")],
            type_constraints=[types],
            attributes=[
                attribute("axis", integer, required=False),
                attribute("epsilon", real, required=False),
                attribute("stash_type", integer, required=False),
            ],
        )
    )


def check_graph(path: Path) -> None:
    """onnx.checker on the model and its external data."""
    _register_ops()
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise UserError(f"the exported graph is not valid ONNX: {error}", "export to gguf") from None


def _settle_config(folder: Path, out: Path) -> None:
    """Greedy by default, every end token of the checkpoint, no settings of its generation_config."""
    config = json.loads((out / CONFIG).read_text(encoding="utf-8"))
    hub: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    tokenizer = load_tokenizer(folder)
    model = config["model"]
    model["eos_token_id"] = sorted(end_tokens(folder, hub, tokenizer))
    if tokenizer.pad_token_id is not None:
        model["pad_token_id"] = tokenizer.pad_token_id
    config["search"].update(do_sample=False, num_beams=1, repetition_penalty=1.0, temperature=1.0, top_k=1, top_p=1.0)
    dim = getattr(hub, "head_dim", None) or hub.hidden_size // hub.num_attention_heads
    wanted = {
        "head_size": dim,
        "hidden_size": hub.hidden_size,
        "num_attention_heads": hub.num_attention_heads,
        "num_key_value_heads": hub.num_key_value_heads,
        "num_hidden_layers": hub.num_hidden_layers,
    }
    wrong = {key: model["decoder"][key] for key, value in wanted.items() if model["decoder"][key] != value}
    if wrong or model["vocab_size"] != hub.vocab_size:
        raise UserError(f"the ONNX builder wrote another shape than the checkpoint's: {wrong}", "export to gguf")
    (out / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def quantised_ops(out: Path) -> dict[str, int]:
    """How many nodes of each operator the graph has."""
    graph = onnx.load(out / MODEL, load_external_data=False).graph
    counts: dict[str, int] = {}
    for node in graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def fallbacks(out: Path, precision: str) -> list[str]:
    """Matrix products that stayed unquantised in an int4 or int8 export, by node name."""
    if not precision.startswith("int"):
        return []
    graph = onnx.load(out / MODEL, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    bits = int(precision[3:])
    found = []
    for node in graph.node:
        if node.op_type == "MatMul" and any(i in weights for i in node.input):
            found.append(f"{node.name}: MatMul")
        if node.op_type in ("MatMulNBits", "GatherBlockQuantized"):
            given = next((a.i for a in node.attribute if a.name == "bits"), 4)
            if given != bits:
                found.append(f"{node.name}: {node.op_type} of {given} bits")
        if node.op_type == "Gather" and node.input[0] in weights:
            found.append(f"{node.name}: Gather")
    return found


def weight_bytes(out: Path) -> int:
    """Bytes of the graph and its external data."""
    return sum((out / name).stat().st_size for name in [MODEL, *check_external(out, MODEL)])


def make_onnx(folder: Path, out: Path, precision: str) -> None:
    """Write the ONNX folder `out` (graph, data, tokenizer, genai_config.json, card), checked by onnx.checker."""
    _check(folder)
    _build(folder, out, precision)
    _settle_config(folder, out)
    read_config(out)
    check_external(out, MODEL)
    check_graph(out / MODEL)
    # The chat template must also be inside tokenizer_config.json: browsers read no other file.
    load_tokenizer(folder).save_pretrained(out, save_jinja_files=False)
    (out / "chat_template.jinja").unlink(missing_ok=True)
    card = Card.load(folder)
    if card:
        card.save(out)
