"""GGUF conversion against transformers: architectures, types, tokenizers, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from bridge_edge.export import gguf_writer
from bridge_edge.export.gguf_tokenizer import (
    LLAMA3,
    PROBES,
    TokenMismatch,
    adds_bos,
    pre_type,
    spec,
    strip_generation,
    verify_tokens,
)
from bridge_edge.export.gguf_writer import permute, write_gguf
from bridge_edge.export.imatrix import collect
from bridge_edge.export.quantize import NEEDS_IMPORTANCE, QUANTS, Mix, check_quant, default_quant, fallbacks, make_gguf
from bridge_edge.runtimes.gguf_runtime import GGUFRuntime
from bridge_edge.runtimes.torch_runtime import TorchRuntime
from tests import tiny

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("qwen2", {}),
    "qwen2 untied": ("qwen2", {"tie_word_embeddings": False}),
    "qwen3": ("qwen3", {}),
    "llama": ("llama", {}),
    "llama tied, with biases": ("llama", {"tie_word_embeddings": True, "attention_bias": True}),
    "llama 3 rope": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama linear rope": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
    ),
    "gemma3": ("gemma3", {}),
    "ernie": ("ernie", {}),
    "ernie untied": ("ernie", {"tie_word_embeddings": False}),
}


def difference(folder: Path, path: Path) -> float:
    """Largest difference of the log-probabilities between torch and llama.cpp over 120 tokens."""
    torch_model, gguf_model = TorchRuntime(folder, 1), GGUFRuntime(path, 1)
    ids = (torch_model.chat(tiny.PROMPTS[0]) + torch_model.encode("".join(tiny.TEXTS)))[:120]
    a, b = torch_model.logits(ids), gguf_model.logits(ids)
    gguf_model.close()
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("name", SHAPES)
def test_architectures_match_torch(name: str, tmp_path: Path) -> None:
    kind, changes = SHAPES[name]
    folder = tiny.checkpoint(tmp_path / "m", kind, **changes)
    make_gguf(folder, tmp_path / "m.gguf", "F32", "toy")
    assert difference(folder, tmp_path / "m.gguf") < 0.03


def test_wrong_rope_scaling_would_show(tmp_path: Path) -> None:
    """The comparison above can fail: the same weights with another RoPE differ by far more than its bound."""
    folder = tiny.checkpoint(tmp_path / "m", "llama", rope_parameters=LLAMA3_ROPE)
    make_gguf(folder, tmp_path / "m.gguf", "F32", "toy")
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    (folder / "config.json").write_text(json.dumps(config))
    assert difference(folder, tmp_path / "m.gguf") > 0.3


@pytest.mark.parametrize("quant", QUANTS)
def test_every_type_is_made_and_runs(quant: str, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "m", hidden=256, initializer_range=0.05)
    mix = Mix(collect(folder, [Sample(text) for text in tiny.TEXTS])) if quant in NEEDS_IMPORTANCE else Mix()
    header = make_gguf(folder, tmp_path / "m.gguf", quant, "toy", mix=mix)
    asked = int(re.sub(r"^[A-Z]+(\d+).*", r"\1", quant))
    assert asked <= header.bits_per_weight < asked + 2.6
    assert not list(tmp_path.glob("*.f32.gguf"))
    runtime = GGUFRuntime(tmp_path / "m.gguf", 1)
    ids = runtime.chat(tiny.PROMPTS[0])
    likeness = np.corrcoef(runtime.logits(ids).ravel(), TorchRuntime(folder, 1).logits(ids).ravel())[0, 1]
    assert likeness > {32: 0.9999, 16: 0.999, 8: 0.99, 6: 0.98, 5: 0.95, 4: 0.8, 3: 0.6, 2: 0.4}[asked]
    if asked >= 6:
        assert fallbacks(header, quant) == []


def test_fallbacks_are_reported(tmp_path: Path) -> None:
    """Rows of 64 weights do not divide into blocks of 256, so nothing becomes Q4_K."""
    folder = tiny.checkpoint(tmp_path / "m", hidden=64)
    header = make_gguf(folder, tmp_path / "m.gguf", "Q4_K_M", "toy")
    found = fallbacks(header, "Q4_K_M")
    assert len(found) == sum(len(t.shape) > 1 for t in header.tensors)
    assert any(item.startswith("token_embd.weight: ") for item in found)
    assert header.bits_per_weight > 5.5


@pytest.mark.parametrize("quant", ["F32", "F16", "BF16", "Q8_0"])
def test_tables_encoded_in_parts_are_the_same_bytes(
    quant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.checkpoint(tmp_path / "m", "llama")
    write_gguf(folder, tmp_path / "whole.gguf", quant, "m")
    monkeypatch.setattr(gguf_writer, "ROWS", 7)
    write_gguf(folder, tmp_path / "parts.gguf", quant, "m")
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "parts.gguf").read_bytes()


def test_defaults_and_names() -> None:
    assert default_quant(900_000) == "Q8_0"
    assert default_quant(494_000_000) == "Q4_K_M"
    assert check_quant("q4_k_m") == "Q4_K_M"
    with pytest.raises(UserError, match="did you mean 'Q4_K_M'"):
        check_quant("Q4_K_X_M")


def test_permute_is_the_interleaving_of_halves() -> None:
    """Two heads of four rows: rows 0 1 | 2 3 of each head become 0 2 1 3."""
    assert permute(np.arange(8), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert permute(np.arange(8).reshape(8, 1), 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("kind", "changes", "match"),
    [
        ("llama", {"model_type": "mistral"}, "model_type for GGUF 'mistral'"),
        ("llama", {"hidden_act": "relu"}, "relu"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "dynamic"),
        ("llama", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "a part of each head"),
        ("gemma3", {"query_pre_attn_scalar": 100}, "query_pre_attn_scalar"),
        ("gemma3", {"layer_types": ["full_attention"] * 6}, "layer_types"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "soft-capping"),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "sliding-window"),
        ("qwen2", {"vocab_size": 100}, "embeddings"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(
    kind: str, changes: dict[str, object], match: str, tmp_path: Path
) -> None:
    folder = tiny.checkpoint(tmp_path / "m", kind)
    edit_config(folder, **changes)
    with pytest.raises(UserError, match=match):
        make_gguf(folder, tmp_path / "m.gguf", "F16", "toy")


@pytest.mark.parametrize(("value", "match"), [(float("nan"), "not finite"), (1e6, "does not fit into F16")])
def test_weights_that_cannot_be_stored(value: float, match: str, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][3, 3] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=match):
        write_gguf(folder, tmp_path / "m.gguf", "F16", "toy")


def train(pre: pre_tokenizers.PreTokenizer, ignore_merges: bool = False) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=372,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*tiny.TEXTS, *PROBES], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        bos_token="<s>",
        chat_template="{{ bos_token }}{% for m in messages %}<|im_start|>{% generation %}{{ m['content'] }}"
        "{% endgeneration %}<|im_end|>{% endfor %}",
    )


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


PRE = {
    "gpt-2": (pre_tokenizers.ByteLevel(add_prefix_space=False), False),
    "smollm": (
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
        False,
    ),
    "llama-bpe": (split(LLAMA3), True),
    "dbrx": (split(LLAMA3), False),
}


@pytest.mark.parametrize("name", PRE)
def test_split_patterns_tokenize_alike(name: str, tmp_path: Path) -> None:
    pre, ignore = PRE[name]
    tokenizer = train(pre, ignore)
    folder = tiny.checkpoint(tmp_path / "m", "llama", tok=tokenizer)
    assert pre_type(spec(folder)) == name
    write_gguf(folder, tmp_path / "m.gguf", "F16", "toy")
    assert verify_tokens(tmp_path / "m.gguf", folder, tokenizer, ["more 1234 text"]) > len(PROBES)
    shipped, original = GGUFRuntime(tmp_path / "m.gguf", 1), TorchRuntime(folder, 1)
    assert shipped.header.metadata["tokenizer.ggml.add_bos_token"] is True
    assert "generation" not in shipped.header.metadata["tokenizer.chat_template"]
    ids = shipped.chat("hi there")
    assert ids == original.chat("hi there")
    assert ids.count(3) == 1  # the template's BOS, not doubled by the tokenizer's


def byte_fallback() -> PreTrainedTokenizerFast:
    """A tokenizer of SentencePiece kind as Gemma's: "▁" for blanks, unknown characters as bytes."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "▁")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<|im_start|>", "<|im_end|>"]
    trained.train_from_iterator(
        tiny.TEXTS, trainers.BpeTrainer(vocab_size=110, special_tokens=special, show_progress=False)
    )
    model = json.loads(trained.to_str())["model"]
    vocab = dict(model["vocab"])
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", bos_token="<bos>", unk_token="<unk>", pad_token="<pad>"
    )


def test_byte_fallback_tokenizer(tmp_path: Path) -> None:
    tokenizer = byte_fallback()
    folder = tiny.checkpoint(tmp_path / "m", "gemma3", tok=tokenizer, eos_token_id=1)
    write_gguf(folder, tmp_path / "m.gguf", "F16", "toy")
    assert verify_tokens(tmp_path / "m.gguf", folder, tokenizer, tiny.TEXTS) > len(PROBES)
    shipped = GGUFRuntime(tmp_path / "m.gguf", 1)
    assert shipped.decode(shipped.encode("The tenant 😀 pays")) == "The tenant 😀 pays"
    assert shipped.eos_ids == {1}


def test_added_tokens_that_are_not_special(tmp_path: Path) -> None:
    """Such tokens are matched in text, as special ones are, but shown when decoded."""
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<think>", "</think>"])
    folder = tiny.checkpoint(tmp_path / "m", tok=tokenizer)
    write_gguf(folder, tmp_path / "m.gguf", "F16", "toy")
    verify_tokens(tmp_path / "m.gguf", folder, tokenizer, ["a <think> b</think>c", "<think><|im_end|></think>"])
    shipped = GGUFRuntime(tmp_path / "m.gguf", 1)
    ids = shipped.encode("<think>yes</think><|im_end|>")
    assert ids == tokenizer("<think>yes</think><|im_end|>", add_special_tokens=False)["input_ids"]
    assert shipped.decode(ids) == "<think>yes</think>"


def test_an_unknown_split_pattern_is_refused(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "m", tok=train(split(r"\w+|\W")))
    with pytest.raises(UserError, match="split pattern"):
        write_gguf(folder, tmp_path / "m.gguf", "F16", "toy")


def test_a_wrong_pre_type_is_noticed(tmp_path: Path) -> None:
    """A file that claims another splitting (three digits at once) fails the probe corpus, naming the text."""
    tokenizer = train(split(LLAMA3), True)
    folder = tiny.checkpoint(tmp_path / "m", tok=tokenizer)
    write_gguf(folder, tmp_path / "m.gguf", "F16", "toy")
    data = (tmp_path / "m.gguf").read_bytes()
    name = b"tokenizer.ggml.pre" + bytes([8, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0])
    assert name + b"llama-bpe" in data
    (tmp_path / "m.gguf").write_bytes(data.replace(name + b"llama-bpe", name + b"starcoder"))
    with pytest.raises(TokenMismatch, match=r"llama\.cpp tokenizes"):
        verify_tokens(tmp_path / "m.gguf", folder, tokenizer, ["12345 67890 rock'n'roll"])


def test_strip_generation_and_bos() -> None:
    assert strip_generation("a{% generation %}b{%- endgeneration -%}c{% if x %}") == "abc{% if x %}"
    assert adds_bos(train(split(LLAMA3))) is True
    assert adds_bos(tiny.tokenizer()) is False


def test_norms_of_gemma_are_stored_plus_one(tmp_path: Path) -> None:
    """Set one norm by hand and find it in the file, one larger."""
    folder = tiny.checkpoint(tmp_path / "m", "gemma3")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.arange(64, dtype=torch.float32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_gguf(folder, tmp_path / "m.gguf", "F16", "toy")
    wanted = (np.arange(64, dtype=np.float32) + 1).tobytes()
    assert wanted in (tmp_path / "m.gguf").read_bytes()
