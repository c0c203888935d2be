"""Loading and saving models: embedded bases, hub models and folders, with or without LoRA.

Weights are read from safetensors only, and code that a model repository carries is never run.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from bridge_edge.data.card import Card
from bridge_edge.errors import UserError, first_line, unknown
from bridge_edge.recipe_models import LoraSpec, ModelSpec
from bridge_edge.train.attention import use_fast_attention

EMBEDDED = "embedded:"
transformers_logging.disable_progress_bar()  # loading a small model is no work worth a bar


def locate(model: str) -> str:
    """Folder of an embedded base, or the given hub id or path."""
    if not model.startswith(EMBEDDED):
        return model
    base = Path(str(resources.files("bridge_edge.embedded"))) / "models"
    name = model.removeprefix(EMBEDDED)
    names = sorted(p.name for p in base.iterdir() if p.is_dir())
    if name not in names:
        raise unknown("embedded model", model, [EMBEDDED + n for n in names])
    return str(base / name)


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; a missing one or a missing chat template is a UserError."""
    where = locate(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where)
    except Exception as error:  # the library raises many kinds, of which none is for users
        raise UserError(f"cannot load the tokenizer of {model!r}: {first_line(error)}", _reach(model)) from error
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {model!r} has no chat template", "choose an instruct model, or add chat_template.jinja"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(model: str, device: str = "cpu") -> PreTrainedModel:
    """The weights of a model in float32, ready to train; the fast CPU attention is switched on where it fits."""
    where = locate(model)
    try:
        loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, use_safetensors=True)
    except Exception as error:  # the library raises many kinds, of which none is for users
        raise UserError(f"cannot load the model {model!r}: {first_line(error)}", _reach(model)) from error
    torch.nn.Module.to(loaded, torch.device(device))  # the library's own `to` hides its signature
    use_fast_attention(loaded)
    return loaded


def _reach(model: str) -> str:
    if Path(model).exists():
        return "the folder needs config.json, tokenizer.json and *.safetensors"
    return "check the name, or run `bridge-edge doctor` to see whether the hub can be reached"


def attach_lora(model: PreTrainedModel, spec: LoraSpec) -> PreTrainedModel:
    """Wrap `model` in trainable low-rank adapters (https://arxiv.org/abs/2106.09685, through peft)."""
    from peft import LoraConfig, get_peft_model

    targets = spec.targets if isinstance(spec.targets, str) else list(spec.targets)
    config = LoraConfig(
        r=spec.r, lora_alpha=spec.alpha, lora_dropout=spec.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    wrapped: Any = get_peft_model(model, config)  # a wrapper, which hands all on to the model
    found: PreTrainedModel = wrapped
    return found


def prepare(path: str, spec: ModelSpec, device: str = "cpu") -> PreTrainedModel:
    """Load the model at `path` and attach the adapters that `spec` asks for."""
    model = load_model(path, device)
    return attach_lora(model, spec.lora) if spec.lora else model


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, card: Card | None) -> None:
    """Write weights (adapters merged), tokenizer and card in hub layout."""
    wrapped: Any = model
    merged = wrapped.merge_and_unload() if hasattr(model, "merge_and_unload") else wrapped
    merged.config._attn_implementation = "sdpa"  # the saved folder must load anywhere
    folder.mkdir(parents=True, exist_ok=True)
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if card:
        card.save(folder)


def same_tokenizer(one: PreTrainedTokenizerBase, two: PreTrainedTokenizerBase) -> str:
    """'' if two tokenizers map text to the same ids, else what differs first.

    Asked before any money is spent: losses over the vocabulary need the same ids on both sides.
    """
    left, right = one.get_vocab(), two.get_vocab()
    if left != right:
        differing = sorted(set(left.items()) ^ set(right.items()), key=lambda kv: kv[1])[0]
        return f"{len(left)} against {len(right)} tokens, first difference {differing[0]!r} (id {differing[1]})"
    probe = "The 2 parties' claims: $75,000 + 1.5 %.\n\n  naïve Ünïcode 中文 <|im_end|>"
    if one(probe)["input_ids"] != two(probe)["input_ids"]:
        return "the same vocabulary, but different merges or splitting"
    return ""


def parameters(folder: Path) -> int:
    """Number of parameters in the safetensors of a folder, read from the headers alone."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, entry in header.items():
            if name != "__metadata__":
                size = 1
                for dim in entry["shape"]:
                    size *= dim
                total += size
    return total
