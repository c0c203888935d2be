"""A LoRA adapter beside its base model becomes one checkpoint, which then exports as any other.

Runs save their students merged; this is for adapters from elsewhere. The sum is made here rather than by peft, whose
loader may import what an adapter's config names and unpickle its weights: W + B A times alpha / r, in float32, tensor
by tensor, stored in the base's own type. Not covered: DoRA, biases, whole trained modules, other kinds of adapters; all
are refused by name, never left out.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bridge_edge.errors import UserError, first_line

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
COPIED = (".json", ".jinja", ".model", ".txt", ".md")
# Settings that change the sum, and the values under which it is the plain one.
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "alpha_pattern": (None, {}),
    "trainable_token_indices": (None, []),
    "layer_replication": (None, []),
}
Pair = dict[str, torch.Tensor]


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def merge(folder: Path, out: Path) -> Path:
    """Write the base model of the adapter in `folder` with the adapter added to the new folder `out`."""
    config = _config(folder)
    base = _base(folder, config)
    pairs = _pairs(folder)
    scale = float(config["lora_alpha"])
    out.mkdir(parents=True)
    for place in (base, folder):  # a tokenizer that was saved with the adapter counts
        for file in place.iterdir():
            if file.is_file() and file.suffix in COPIED and file.name != CONFIG:
                shutil.copyfile(file, out / file.name)
    for file in sorted(base.glob("*.safetensors")):
        tensors = load_file(file)
        for name in [n for n in tensors if n in pairs]:
            tensors[name] = _added(name, tensors[name], pairs.pop(name), scale, bool(config.get("use_rslora")))
        save_file(tensors, out / file.name, metadata={"format": "pt"})
    if pairs:
        raise UserError(f"the base model {base} lacks {min(pairs)!r}, which the adapter changes", "name its own base")
    return out


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = dict(json.loads(path.read_text(encoding="utf-8")))
        if not math.isfinite(float(config["lora_alpha"])):
            raise ValueError(f"lora_alpha is {config['lora_alpha']}")
        base = config["base_model_name_or_path"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path} is not usable: {error!r}", "save the adapter again with save_pretrained") from None
    odd = [key for key, plain in PLAIN.items() if config.get(key, plain[0]) not in plain]
    if odd or not isinstance(base, str):
        key = odd[0] if odd else "base_model_name_or_path"
        raise UserError(
            f"{path} has {key} {config[key]!r}, which is not merged here", "merge it with peft's merge_and_unload"
        )
    return config


def _base(folder: Path, config: dict[str, Any]) -> Path:
    """The base model's folder: as named, or beside the adapter."""
    named = config["base_model_name_or_path"]
    for place in (Path(named), folder / named):
        if (place / "config.json").is_file():
            return place
    raise UserError(
        f"the adapter's base model {named!r} is no folder here",
        f"download it, and name its folder as base_model_name_or_path in {folder / CONFIG}",
    )


def _pairs(folder: Path) -> dict[str, Pair]:
    """The factors by the name of the weight that they change."""
    path = folder / WEIGHTS
    pairs: dict[str, Pair] = {}
    try:
        with safe_open(path, framework="pt") as handle:
            names = handle.keys()
            for name in names:
                module, mark, part = name.removeprefix(PREFIX).partition(".lora_")
                if not mark or part not in ("A.weight", "B.weight"):
                    raise UserError(
                        f"{path} holds {name!r}, which is no factor of a linear layer", "merge it with peft"
                    )
                pairs.setdefault(f"{module}.weight", {})[part[0]] = handle.get_tensor(name).float()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"cannot read {path}: {first_line(error)}", "save the adapter as safetensors") from None
    return pairs


def _added(name: str, weight: torch.Tensor, pair: Pair, alpha: float, root: bool) -> torch.Tensor:
    a, b = pair.get("A"), pair.get("B")
    if a is None or b is None or a.dim() != 2 or b.dim() != 2 or (len(b), a.shape[1]) != tuple(weight.shape):
        raise UserError(f"the adapter's factors of {name!r} do not fit the base model", "name its own base")
    if a.shape[0] != b.shape[1] or not len(a):
        raise UserError(f"the adapter's factors of {name!r} do not fit each other", "save the adapter again")
    rank = a.shape[0]
    scale = alpha / (math.sqrt(rank) if root else rank)
    return (weight.float() + scale * (b @ a)).to(weight.dtype)  # (out, in)
