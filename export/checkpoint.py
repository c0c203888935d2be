"""Look at a checkpoint before work is spent on it: is it whole, and of the shape that its config says?

transformers fills a missing tensor with random numbers and a warning, so a truncated copy would export without a word.
Not covered: values that are finite but wrong; parity tells those.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from bridge_edge.errors import UserError, first_line, in_one_line

Shape = tuple[int, ...]
MOST_LAYERS, MOST_NAME = 10_000, 300


def read_config(folder: Path) -> Any:
    """The checkpoint's config; raises UserError where it cannot be read."""
    path = folder / "config.json"
    if not path.is_file() or not list(folder.glob("*.safetensors")):
        raise UserError(f"{folder} is not a checkpoint", "give a folder with config.json and *.safetensors")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        layers, room = raw.get("num_hidden_layers", 1), raw.get("max_position_embeddings", 1)
        quantised = raw.get("quantization_config")
    except UserError:
        raise
    except (ValueError, AttributeError, RecursionError):
        raise UserError(f"cannot read {path}: it is no JSON object", "copy it again from the source") from None
    # Before transformers makes a list with an entry for each of a billion layers.
    if type(layers) is not int or not 0 < layers <= MOST_LAYERS:
        raise UserError(
            f"config.json of {folder} asks for {layers!r} layers", f"a number up to {MOST_LAYERS} is needed"
        )
    if type(room) is int and not 0 < room < 1 << 31:
        raise UserError(f"{path} has max_position_embeddings {room}", "a number from 1 to 2147483647 is needed")
    if quantised is not None:
        kind = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise UserError(f"the weights in {folder} are quantised already ({kind!r})", "give the model in full precision")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise UserError(f"cannot read {path}: {in_one_line(error)}", "give a folder in hub layout") from None


def _no_number(word: str) -> float:
    """For NaN and Infinity, which Python reads and JSON does not have."""
    raise UserError(f"config.json holds {word}", "restore it from the source")


def count_parameters(folder: Path) -> int:
    """Weights stored in a checkpoint, a tied head counted once."""
    tied = read_config(folder).tie_word_embeddings
    return sum(math.prod(shape) for name, shape in stored(folder).items() if not (tied and name == "lm_head.weight"))


def stored(folder: Path) -> dict[str, Shape]:
    """Shapes of all tensors of a checkpoint by name; a name in two files is an error."""
    found: dict[str, Shape] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as handle:
                names = handle.keys()
                shapes = {name: tuple(handle.get_slice(name).get_shape()) for name in names}
        except Exception as error:
            raise UserError(f"{file} cannot be read: {error}", "save or copy the checkpoint again") from None
        long = [name for name in shapes if len(name) > MOST_NAME]
        if long:
            raise UserError(f"{file} has a tensor name of {len(long[0])} characters", "give a model in hub layout")
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
        raise UserError(
            f"{folder / 'config.json'} describes no model: {first_line(error)}", "restore it from the source"
        ) from None
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    return shapes


def check_weights(folder: Path) -> None:
    """Every tensor that the config asks for is there, in its shape; raises UserError naming the first that is not."""
    config = read_config(folder)
    have = stored(folder)
    layers = getattr(config, "num_hidden_layers", 0)
    if layers > len(have):  # before a model of thousands of layers is begun
        raise UserError(
            f"config.json asks for {layers} layers, {folder} has {len(have)} tensors",
            "config.json and the weights are of different models",
        )
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


def check_finite(folder: Path) -> None:
    """No weight is NaN or infinite; for exporters that would round such a block to something without a word."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as handle:
            names = handle.keys()
            for name in names:
                tensor = handle.get_tensor(name)
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    raise UserError(
                        f"tensor {name!r} holds values that are not finite", "the training diverged; train again"
                    )
