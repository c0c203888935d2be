"""Tiny, randomly initialised checkpoints in hub layout, with a real byte-level BPE tokenizer.

The vocabulary size differs from every linear layer's output width on purpose: one exporter finds the LM head by
that width. Weights are scaled up so that logits differ enough for an argmax to mean something.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Ernie4_5Config,
    Gemma3TextConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from bridge_edge.data.card import Card
from bridge_edge.embedded.tokenizer import train_tokenizer

VOCAB = 384
TEXTS = (
    "The tenant pays 1200 dollars a month; the landlord keeps the deposit.",
    "def add(a, b):\n    return a + b\n",
    "Patient 42 takes 3 tablets of 250 mg, twice a day, for 10 days.",
    "Answer: yes\nAnswer: no\nThe interest on 5000 at 4 percent is 200.",
)
PROMPTS = ("Is the deposit kept?", "What is 3 times 250?", "Say yes or no: 7 > 5")


def tokenizer() -> PreTrainedTokenizerFast:
    """About 330 tokens: the byte alphabet, three special tokens and a few merges."""
    return train_tokenizer(TEXTS, 330)


def config(kind: str, hidden: int = 64, **changes: Any) -> Any:
    """A config of one architecture: "qwen2", "qwen3", "llama", "ernie" or "gemma3"."""
    shared = {
        "vocab_size": VOCAB,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.15,
    }
    if kind == "qwen2":
        return Qwen2Config(**{**shared, "tie_word_embeddings": True, **changes})
    if kind == "qwen3":
        return Qwen3Config(**{**shared, "head_dim": 32, "tie_word_embeddings": True, **changes})
    if kind == "llama":
        return LlamaConfig(**{**shared, "tie_word_embeddings": False, **changes})
    if kind == "ernie":
        return Ernie4_5Config(**{**shared, "head_dim": 32, "tie_word_embeddings": True, **changes})
    gemma = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16, "num_hidden_layers": 6}
    return Gemma3TextConfig(**{**shared, **gemma, **changes})


def randomise(model: torch.nn.Module) -> None:
    """Give norms and biases, which start as ones and zeros, values whose mishandling would show."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            base = 1.0 if name.endswith("norm.weight") and "gemma" not in type(model).__name__.lower() else 0.0
            parameter.data = base + 0.2 * torch.randn_like(parameter)


def checkpoint(folder: Path, kind: str = "qwen2", hidden: int = 64, tok: Any = None, **changes: Any) -> Path:
    """Write a checkpoint (weights, tokenizer, card) to `folder` and return it."""
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config(kind, hidden, **changes))
    randomise(model)
    model.eval().save_pretrained(folder)
    (tok or tokenizer()).save_pretrained(folder)
    Card(recipe="toy", prompt="{text}", answers=("yes", "no"), max_new_tokens=8).save(folder)
    return folder
