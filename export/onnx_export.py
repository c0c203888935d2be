"""Export a checkpoint to one ONNX folder that three runtimes open.

`genai_config.json` is for onnxruntime-genai; `config.json`, the tokenizer and `onnx/model*.onnx` with its `.onnx_data`
are what transformers.js looks for; plain onnxruntime takes the same graph. One copy of the weights serves all three,
and what is checked through one is what the others load. The builder of onnxruntime-genai is used as a library: its
command line has no stable contract. It prints, keeps a cache folder, copies search settings of the checkpoint into the
result and may write any end token it finds first; all of that is contained or set right here. Not covered: quantised
caches, adapters (merge them first), providers other than the CPU's, which are not here to check.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from bridge_edge.data.card import Card
from bridge_edge.errors import UserError, unknown
from bridge_edge.export import checkpoint, onnx_exporter, onnx_optimum
from bridge_edge.export.onnx_graph import check_graph, move
from bridge_edge.export.onnx_kquant import small_parts
from bridge_edge.export.onnx_types import TYPES, builder_words, model_file
from bridge_edge.export.wish import Backend, Blocks
from bridge_edge.runtimes.onnx_check import check_external
from bridge_edge.runtimes.onnx_config import CONFIG, read_config
from bridge_edge.runtimes.torch_runtime import end_tokens, load_tokenizer

BUILT = "model.onnx"  # the builder's name for it
LOUD = ("onnxruntime.quantization.matmul_nbits_quantizer", "torch.onnx", "torch.export", "transformers", "onnxscript")
# architecture -> what it is called in messages; others may work but were never compared with the original
ARCHITECTURES = (
    "Ernie4_5ForCausalLM",
    "Gemma3ForCausalLM",
    "GraniteForCausalLM",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Phi3ForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)
# Keys of config.json that say where it came from or name code; no runtime of an ONNX folder needs them.
LEFT_OUT = ("_name_or_path", "auto_map", "quantization_config", "torch_dtype", "dtype")
NO_BLOCKS, USUAL = Blocks(), Backend()


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Catch what the builder and the exporter print; the quantiser also sets up the root logger on import, which is
    undone."""
    root, loud = logging.getLogger(), [logging.getLogger(name) for name in LOUD]
    handlers, level, levels = list(root.handlers), root.level, [logger.level for logger in loud]
    for logger in loud:
        logger.setLevel(logging.CRITICAL)
    printed = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            warnings.catch_warnings(),
            np.errstate(
                divide="ignore", invalid="ignore"
            ),  # blocks of equal weights; the quantiser replaces the result
        ):
            warnings.simplefilter("ignore")
            yield printed
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for logger, was in zip(loud, levels, strict=True):
            logger.setLevel(was)


def _builder() -> ModuleType:
    try:
        return importlib.import_module("onnxruntime_genai.models.builder")
    except ImportError as error:
        raise UserError(f"the ONNX model builder needs {error.name!r}", "pip install onnx-ir") from None


def backend(config: Any, asked: str) -> str:
    """Who makes this model's graph: builder, exporters or optimum. Refuses architectures that were never checked."""
    name = (config.architectures or [""])[0]
    if asked == "optimum":
        return asked  # it knows its own families
    made = {"builder": ARCHITECTURES, "exporters": onnx_exporter.FAMILIES}
    known = {"auto": (*ARCHITECTURES, *onnx_exporter.FAMILIES), **made}
    if asked not in known:
        raise unknown("ONNX backend", asked, (*known, "optimum"))
    if name not in known[asked]:
        raise unknown("architecture for ONNX" if asked == "auto" else f"architecture for {asked}", name, known[asked])
    if name in onnx_exporter.FAMILIES:
        return "exporters"
    _check_widths(config)
    return "builder"


def _check_widths(config: Any) -> None:
    """Refuse the width that the builder would mistake for the LM head."""
    heads, dim = config.num_attention_heads, _head_dim(config)
    widths = {config.hidden_size, config.intermediate_size, heads * dim, config.num_key_value_heads * dim}
    if config.vocab_size in widths:
        raise UserError(
            f"vocab_size {config.vocab_size} equals the width of another layer, which the ONNX builder confuses",
            "pad the vocabulary by a few rows (model.resize_token_embeddings), or export to gguf",
        )


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _flatten_rope(config: Any) -> None:
    """Gemma 3 keeps RoPE settings by layer type; the builder reads the older, flat names."""
    rope = config.rope_parameters
    if isinstance(rope, dict) and "full_attention" in rope:
        config.rope_local_base_freq = rope["sliding_attention"]["rope_theta"]
        config.rope_theta = rope["full_attention"]["rope_theta"]
        config.rope_parameters = dict(rope["full_attention"])


def _build(folder: Path, out: Path, precision: str, words: list[str]) -> None:
    provider = TYPES[precision].provider
    with tempfile.TemporaryDirectory(prefix="bridge-edge-onnx-") as cache, _quiet() as printed, small_parts():
        try:
            builder = _builder()
            options = builder.parse_extra_options("", str(folder), str(out), precision, provider, cache, words)
            _flatten_rope(options["hf_details"]["hf_config"])
            builder.create_model("", str(folder), str(out), precision, provider, cache, **options)
        except UserError:
            raise
        except Exception as error:
            last = (printed.getvalue().strip().splitlines() or [""])[-1]
            raise UserError(
                f"the ONNX builder failed: {type(error).__name__}: {error} (it last printed {last[:120]!r})",
                "try another precision, or export to gguf",
            ) from error


def _settle_config(folder: Path, hub: Any, built: Path, out: Path, file: str) -> None:
    """genai_config.json: greedy, the CPU, every end token of the checkpoint, nothing of its generation_config."""
    config = json.loads((built / CONFIG).read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(folder)
    model = config["model"]
    model["decoder"].update(filename=file)
    model["decoder"]["session_options"]["provider_options"] = []
    model["eos_token_id"] = sorted(end_tokens(folder, hub, tokenizer))
    if tokenizer.pad_token_id is not None:
        model["pad_token_id"] = tokenizer.pad_token_id
    config["search"].update(do_sample=False, num_beams=1, repetition_penalty=1.0, temperature=1.0, top_k=1, top_p=1.0)
    wanted = {
        "head_size": _head_dim(hub),
        "hidden_size": hub.hidden_size,
        "num_attention_heads": hub.num_attention_heads,
        "num_key_value_heads": getattr(hub, "num_key_value_heads", None) or hub.num_attention_heads,
        "num_hidden_layers": hub.num_hidden_layers,
    }
    wrong = {key: model["decoder"][key] for key, value in wanted.items() if model["decoder"][key] != value}
    if wrong or model["vocab_size"] != hub.vocab_size:
        raise UserError(f"the ONNX builder wrote another shape than the checkpoint's: {wrong}", "export to gguf")
    _write(out / CONFIG, config)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _browser_config(folder: Path, out: Path, precision: str, file: str, parts: int) -> None:
    """config.json and generation_config.json as transformers.js reads them: which file, in how many parts, the ends."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    ends = json.loads((out / CONFIG).read_text(encoding="utf-8"))["model"]["eos_token_id"]
    kept = {key: value for key, value in config.items() if key not in LEFT_OUT}
    told: dict[str, Any] = {"dtype": TYPES[precision].dtype}
    if parts:
        told["use_external_data_format"] = {Path(file).name: parts}
    _write(out / "config.json", {**kept, "eos_token_id": ends, "transformers.js_config": told})
    tokenizer = load_tokenizer(folder)
    generation = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    _write(
        out / "generation_config.json",
        {"do_sample": False, "eos_token_id": ends, **{k: v for k, v in generation.items() if v is not None}},
    )


def make_onnx(folder: Path, out: Path, precision: str, blocks: Blocks = NO_BLOCKS, by: Backend = USUAL) -> Path:
    """Write the ONNX folder `out`, checked by onnx.checker; the path of its graph."""
    hub: Any = checkpoint.read_config(folder)
    words = builder_words(precision, blocks, checkpoint.count_parameters(folder))
    file = model_file(precision)
    built = out / "built"
    try:
        maker = backend(hub, by.name)
        if maker == "builder":
            checkpoint.check_weights(folder)
            _build(folder, built, precision, words)
        elif maker == "optimum":
            graph = onnx_optimum.make_graph(folder, hub, precision, blocks, by.python)  # not quiet: it takes a while
            with _quiet():
                onnx_exporter.write(graph, hub, built, BUILT, precision, blocks)
        else:
            with _quiet():
                onnx_exporter.build(folder, built, BUILT, precision, blocks)
        parts = move(built / BUILT, out / file, {"kv_cache_dim": _head_dim(hub)}, hub.tie_word_embeddings)
        _settle_config(folder, hub, built, out, file)
    finally:
        shutil.rmtree(built, ignore_errors=True)
    _browser_config(folder, out, precision, file, len(parts))
    read_config(out)
    check_external(out, file)
    check_graph(out / file)
    # The chat template must also be inside tokenizer_config.json: browsers read no other file.
    load_tokenizer(folder).save_pretrained(out, save_jinja_files=False)
    card = Card.load(folder)
    if card:
        card.save(out)
    return out / file
