"""Look at a checkpoint before work is spent on it: is it whole, and of the shape that its config says?

transformers fills a missing tensor with random numbers and a warning, so a truncated copy would export without a word.
Not covered: the values of the weights, which are checked while they are written.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from bridge_edge.errors import UserError

Shape = tuple[int, ...]


def count_parameters(folder: Path) -> int:
    """Weights stored in a checkpoint, a tied head counted once."""
    files = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not files:
        raise UserError(f"{folder} is not a checkpoint", "give a folder with config.json and *.safetensors")
    tied = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).tie_word_embeddings
    total = 0
    for file in files:
        try:
            with safe_open(file, framework="pt") as handle:
                names = [n for n in handle.keys() if not (tied and n == "lm_head.weight")]  # noqa: SIM118
                total += sum(math.prod(handle.get_slice(n).get_shape()) for n in names)
        except Exception as error:
            raise UserError(f"{file} cannot be read: {error}", "save or copy the checkpoint again") from None
    return total


def stored(folder: Path) -> dict[str, Shape]:
    """Shapes of all tensors of a checkpoint by name; a name in two files is an error."""
    found: dict[str, Shape] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as handle:
                shapes = {n: tuple(handle.get_slice(n).get_shape()) for n in handle.keys()}  # noqa: SIM118
        except Exception as error:
            raise UserError(f"{file} cannot be read: {error}", "save or copy the checkpoint again") from None
        twice = sorted(set(found) & set(shapes))
        if twice:
            raise UserError(f"tensor {twice[0]!r} lies in two files of {folder}", "remove the stale one")
        found.update(shapes)
    return found


def expected(config: Any, folder: Path) -> dict[str, Shape]:
    """Shapes that the config asks for, from a model without memory."""
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder / 'config.json'} describes no model: {first}", "restore it from the source") from None
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    return shapes


def check_weights(folder: Path) -> None:
    """Every tensor that the config asks for is there, in its shape; raises UserError naming the first that is not."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise UserError(f"cannot read {folder / 'config.json'}: {error}", "give a folder in hub layout") from None
    have = stored(folder)
    for name, shape in expected(config, folder).items():
        if name not in have:
            raise UserError(
                f"{folder} lacks the tensor {name!r}", "copy all of the checkpoint's files, or save it again"
            )
        if have[name] != shape:
            raise UserError(
                f"tensor {name!r} has the shape {list(have[name])}; config.json asks for {list(shape)}",
                "config.json and the weights are of different models",
            )
